# SPDX-License-Identifier: Apache-2.0
"""Rendering without a display, chosen before mujoco is imported; so nothing is imported here."""

from __future__ import annotations

import os


def use_offscreen_rendering() -> None:
    """Choose a renderer that needs no display, on one thread, unless the environment says.

    Call it before the first import of mujoco; processes started afterwards inherit it.
    """
    os.environ.setdefault("MUJOCO_GL", "egl")
    os.environ.setdefault("LP_NUM_THREADS", "1")
