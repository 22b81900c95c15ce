# SPDX-License-Identifier: Apache-2.0
"""Gradient steps: base policies, later the residual actor and the classifier."""
