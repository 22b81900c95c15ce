# SPDX-License-Identifier: Apache-2.0
"""Pure robot maths: numpy and scipy only, time is always an argument."""
