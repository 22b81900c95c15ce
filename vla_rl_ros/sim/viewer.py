# SPDX-License-Identifier: Apache-2.0
"""A window on the simulated cell, in a process of its own: it reads the mapped state and no more.

Closing the window ends the process and nothing else.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from vla_rl_ros.core.errors import DeviceError
from vla_rl_ros.sim.snapshot import MODEL_NAME, SNAPSHOT_NAME, SnapshotReader

FRAME_S = 1.0 / 30.0


def show(run_dir: Path) -> None:
    """Show the scene until the window is closed.

    Args:
        run_dir: Where the simulator keeps model and state.

    Raises:
        DeviceError: No simulator runs there.
    """
    import mujoco.viewer

    reader = SnapshotReader(run_dir / SNAPSHOT_NAME)
    model = mujoco.MjModel.from_binary_path(str(run_dir / MODEL_NAME))
    data = mujoco.MjData(model)
    with mujoco.viewer.launch_passive(
        model, data, show_left_ui=False, show_right_ui=False
    ) as window:
        window.cam.lookat[:] = (0.4, 0.0, 0.2)
        window.cam.distance, window.cam.azimuth, window.cam.elevation = 1.7, 140.0, -25.0
        while window.is_running() and not reader.is_replaced:
            snapshot = reader.read()
            if snapshot is not None:
                with window.lock():
                    snapshot.apply(data)
                    mujoco.mj_forward(model, data)
                window.sync()
            time.sleep(FRAME_S)


def main() -> int:
    """Run the window; returns the exit code."""

    def end(_signum: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    try:
        show(Path(os.environ["VLA_RL_RUN_DIR"]))
    except KeyboardInterrupt:
        return 0
    except DeviceError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
