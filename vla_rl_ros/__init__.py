# SPDX-License-Identifier: Apache-2.0
"""Robot runtime for vision-language-action policies plus reinforcement learning on a Franka arm."""

__version__ = "0.1.0"
