# SPDX-License-Identifier: Apache-2.0
"""Robot runtime for vision-language-action policies and reinforcement learning on a Franka."""

__version__ = "0.1.0"
