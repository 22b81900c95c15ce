# SPDX-License-Identifier: Apache-2.0
"""VLA back ends behind one Protocol."""
