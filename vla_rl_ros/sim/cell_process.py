# SPDX-License-Identifier: Apache-2.0
"""The simulated cell as a process: physics behind Franka's protocol, no ROS.

``python -m vla_rl_ros.sim.cell_process --variant default --host 127.0.0.1 --run-dir DIR`` prints
``ready HOST`` once a client may connect, and runs until SIGINT, SIGTERM or a ``shutdown`` request.
In DIR it keeps the scene's socket, the compiled model and the state that cameras render from.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import mujoco

from vla_rl_ros.core.errors import DeviceError, VlaRlError
from vla_rl_ros.sim.fci_server import ROBOT_PORT, FciServer
from vla_rl_ros.sim.fci_simulator import FciSimulator
from vla_rl_ros.sim.fci_target import PERIOD_S
from vla_rl_ros.sim.pacing import Pacer
from vla_rl_ros.sim.scene import HOME_Q_RAD, add_scene, finish_model
from vla_rl_ros.sim.scene_channel import SOCKET_NAME, SceneServer
from vla_rl_ros.sim.scene_service import SceneService
from vla_rl_ros.sim.snapshot import MODEL_NAME, SNAPSHOT_NAME, SnapshotWriter
from vla_rl_ros.sim.variants import SceneConfig, variant

LOG = logging.getLogger(__name__)

# Age of a camera's picture when it is taken: 0.5 ms on average, for 2 % of a core.
_SNAPSHOT_EVERY_STEPS = 1
# A step waits this long for the command that answers the last state. On a loaded machine the
# client then makes the simulation late instead of losing control of the arm, and faster than real
# time there is one command per state whatever the speed of the machine.
_PATIENCE_S = 0.002
_PATIENCE_UNPACED_S = 0.01
_SWITCH_INTERVAL_S = 0.0005
_NICENESS = -10


class Cell:
    """Physics, control box, scene channel and snapshot in one thread."""

    def __init__(
        self, config: SceneConfig, host: str, run_dir: Path, factor: float | None
    ) -> None:
        """Compile the scene, bind the ports and start listening.

        Args:
            config: Variant of the scene.
            host: Loopback address of the control box.
            run_dir: For socket, model and state; must exist.
            factor: Simulated over wall time, None for as fast as possible.

        Raises:
            DeviceError: If the ports are taken or the directory is missing.
        """
        if not run_dir.is_dir():
            raise DeviceError(f"run directory {run_dir} does not exist")
        self._is_stopping = False
        is_paced = factor is not None and factor <= 1.0
        self._patience_s = _PATIENCE_S if is_paced else _PATIENCE_UNPACED_S
        self._sim = FciSimulator()
        self._sim.init()
        robot = self._sim.add_robot(initial_q=HOME_Q_RAD)
        add_scene(self._sim, config)
        self._server = FciServer(robot, host)
        try:
            self._server.init()
        except OSError as error:
            raise DeviceError(
                f"ports {ROBOT_PORT} and {ROBOT_PORT + 1} of {host} are taken: "
                "stop the other simulator, or choose another --host, e.g. 127.0.0.2"
            ) from error
        self._sim.start()
        ids = finish_model(self._sim.model, config)
        self._pacer = Pacer(PERIOD_S, factor)
        service = SceneService(
            self._sim.model, self._sim.data, ids, config, self._server, self._pacer, run_dir,
            self.stop,
        )  # fmt: skip
        self._service = service
        self._model_path = run_dir / MODEL_NAME
        half_made = self._model_path.with_suffix(".new")
        mujoco.mj_saveModel(self._sim.model, str(half_made), None)
        half_made.replace(self._model_path)
        self._snapshot = SnapshotWriter(run_dir / SNAPSHOT_NAME, self._sim.model)
        self._channel = SceneServer(run_dir / SOCKET_NAME, service.handlers)

    def stop(self) -> None:
        """End `run` after the present step."""
        self._is_stopping = True

    def run(self) -> None:
        """Step until `stop` is called."""
        server, sim, pacer, data = self._server, self._sim, self._pacer, self._sim.data
        channel, after_step = self._channel, self._service.after_step
        step = 0
        pacer.restart()
        while not self._is_stopping:
            server.process_commands()
            sim.step()
            server.send_state()
            after_step()
            channel.run_pending()
            if step % _SNAPSHOT_EVERY_STEPS == 0:
                self._snapshot.write(data)
            step += 1
            pacer.wait()
            server.wait_for_command(self._patience_s)

    def close(self) -> None:
        """Close every socket and remove what the run directory holds."""
        self._channel.close()
        self._server.cleanup()
        self._snapshot.close()
        self._model_path.unlink(missing_ok=True)
        self._sim.cleanup()


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m vla_rl_ros.sim.cell_process",
        description="Simulated Franka cell: the arm speaks Franka's protocol, no ROS.",
    )
    parser.add_argument("--variant", default="default", help="named variant of the scene")
    parser.add_argument("--host", default="127.0.0.1", help="loopback address to listen on")
    parser.add_argument("--rate", type=float, default=1.0, help="simulated over wall time")
    parser.add_argument("--free", action="store_true", help="as fast as possible")
    parser.add_argument(
        "--run-dir",
        type=Path,
        default=os.environ.get("VLA_RL_RUN_DIR"),
        help="directory for socket, model and state (default: $VLA_RL_RUN_DIR)",
    )
    options = parser.parse_args(arguments)
    if options.run_dir is None:
        parser.error("--run-dir or $VLA_RL_RUN_DIR is required")
    if options.rate <= 0.0:
        parser.error("--rate must be positive")
    return options


def _take_cpu_seriously() -> None:
    """Give the physics the standing that a control box, with its own processor, has anyway."""
    if hasattr(os, "sched_setscheduler"):
        # Never real-time: started by a thread that franky made SCHED_FIFO it would inherit that.
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    try:
        os.setpriority(os.PRIO_PROCESS, 0, _NICENESS)
    except PermissionError:
        LOG.info("no right to raise the priority, running at the normal one")
    sys.setswitchinterval(_SWITCH_INTERVAL_S)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cell; returns the exit code."""
    options = _parse(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    # franky_sim logs every command and answer at INFO, from the simulation thread.
    logging.getLogger("franky_sim").setLevel(logging.WARNING)
    _take_cpu_seriously()
    try:
        factor = None if options.free else options.rate
        cell = Cell(variant(options.variant), options.host, options.run_dir, factor)
    except VlaRlError as error:
        LOG.error("%s", error)  # noqa: TRY400, the sentence is for the user, not the traceback
        return 1

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        cell.stop()

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    # What lives now lives for ever: full collections over it would cost whole steps.
    gc.collect()
    gc.freeze()
    sys.stdout.write(f"ready {options.host}\n")
    sys.stdout.flush()
    try:
        cell.run()
    finally:
        cell.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
