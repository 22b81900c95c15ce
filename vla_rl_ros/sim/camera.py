# SPDX-License-Identifier: Apache-2.0
"""A simulated camera: renders the newest state of the scene in the process that asks for frames.

It has its own copy of the model and takes states from the simulator's snapshot file, so rendering
never delays the physics and a dead simulator looks like a camera that stalls. When another
simulator takes over the run directory, model and state are loaded anew.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from vla_rl_ros.core.errors import DeviceError
from vla_rl_ros.core.types import Image
from vla_rl_ros.hardware.protocols import CameraIntrinsics
from vla_rl_ros.sim.snapshot import MODEL_NAME, SNAPSHOT_NAME, Snapshot, SnapshotReader

_T = TypeVar("_T")

_POLL_S = 0.002
_OPEN_TIMEOUT_S = 20.0
# Anti-aliasing costs 40 % of a small image and two thirds of a large one, which needs it less.
_MAX_SMOOTHED_PX = 256


def _import_mujoco() -> Any:  # noqa: ANN401, mujoco ships no types
    # Both are read when the libraries are loaded. Without a display only EGL renders, and one
    # thread keeps the software rasteriser off the cores that physics and control need.
    os.environ.setdefault("MUJOCO_GL", "egl")
    os.environ.setdefault("LP_NUM_THREADS", "1")
    import mujoco

    return mujoco


class SimCamera:
    """`hardware.protocols.Camera` on the simulated scene.

    An OpenGL context belongs to one thread, so all rendering happens in a thread of the camera's
    own; `open`, `read` and `close` may come from different ones.
    """

    def __init__(
        self,
        name: str,
        width: int,
        height: int,
        run_dir: Path,
        *,
        rate_hz: float = 30.0,
        has_depth: bool = False,
        open_timeout_s: float = _OPEN_TIMEOUT_S,
    ) -> None:
        """Describe the camera; nothing is loaded before `open`.

        Args:
            name: Camera in the scene, ``wrist`` or ``front``.
            width: Image width in pixels.
            height: Image height in pixels.
            run_dir: Run directory of the simulator.
            rate_hz: Frames per second of wall time.
            has_depth: Whether to render depth as well.
            open_timeout_s: How long `open` waits for the simulator.
        """
        self._name, self._width, self._height = name, width, height
        self._run_dir = run_dir
        self._period_s = 1.0 / rate_hz
        self._has_depth = has_depth
        self._open_timeout_s = open_timeout_s
        self._mujoco: Any = None
        self._model: Any = None
        self._data: Any = None
        self._renderer: Any = None
        self._executor: ThreadPoolExecutor | None = None
        self._reader: SnapshotReader | None = None
        self._last_stamp_ns = 0
        self._next_frame_s = 0.0

    def open(self) -> None:
        """Wait for the simulator and load its model.

        Raises:
            DeviceError: If no simulator appears, or it has no such camera.
        """
        self.close()
        self._mujoco = _import_mujoco()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=f"render-{self._name}")
        try:
            self._wait_for_simulator()
            # The context takes a third of a second; the first frame should not.
            self._in_render_thread(self._ensure_renderer)
        except Exception:
            self.close()
            raise
        self._next_frame_s = time.monotonic()

    def _wait_for_simulator(self) -> None:
        deadline_s = time.monotonic() + self._open_timeout_s
        while not self._try_load():
            if time.monotonic() > deadline_s:
                raise DeviceError(
                    f"no simulator in {self._run_dir} after {self._open_timeout_s:g} s: "
                    "is the sim_fci process running?"
                )
            time.sleep(_POLL_S)

    def _try_load(self) -> bool:
        mujoco = self._mujoco
        path = self._run_dir / MODEL_NAME
        if not path.exists():
            return False
        try:
            reader = SnapshotReader(self._run_dir / SNAPSHOT_NAME)
            model = mujoco.MjModel.from_binary_path(str(path))
        except (DeviceError, ValueError):
            # The simulator is just coming up or going down.
            return False
        if not reader.fits(model):
            # The state is still that of a predecessor.
            return False
        if mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, self._name) < 0:
            known = ", ".join(model.camera(i).name for i in range(model.ncam))
            raise DeviceError(f"the scene has no camera '{self._name}', only: {known}")
        # The offscreen buffer is cleared and resolved as a whole: not larger than the image.
        model.vis.global_.offwidth, model.vis.global_.offheight = self._width, self._height
        if max(self._width, self._height) > _MAX_SMOOTHED_PX:
            model.vis.quality.offsamples = 0
        self._in_render_thread(self._free_renderer)
        self._reader, self._model, self._data = reader, model, mujoco.MjData(model)
        return True

    def _in_render_thread(self, function: Callable[..., _T], *args: object) -> _T:
        if self._executor is None:
            raise DeviceError("the camera is not open")
        return self._executor.submit(function, *args).result()

    def close(self) -> None:
        """Forget the simulator; idempotent."""
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.submit(self._free_renderer).result()
            executor.shutdown()
        self._reader = self._model = self._data = None

    def _free_renderer(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
        self._renderer = None

    @property
    def intrinsics(self) -> CameraIntrinsics:
        """Pinhole intrinsics; pixel centres have whole coordinates.

        Raises:
            DeviceError: Before `open`.
        """
        if self._model is None:
            raise DeviceError("the camera is not open")
        fovy_rad = math.radians(float(self._model.camera(self._name).fovy[0]))
        focal_px = 0.5 * self._height / math.tan(0.5 * fovy_rad)
        return CameraIntrinsics(
            width=self._width,
            height=self._height,
            fx=focal_px,
            fy=focal_px,
            cx=0.5 * (self._width - 1),
            cy=0.5 * (self._height - 1),
        )

    def read(self, timeout_s: float) -> Image | None:
        """Wait for the next frame time and render the newest state.

        Args:
            timeout_s: How long to wait for a state that was not rendered yet.

        Returns:
            The image, stamped when its state was taken; None if the simulator does not step.

        Raises:
            DeviceError: Before `open`, or when the run directory is gone.
        """
        if self._reader is None:
            raise DeviceError("the camera is not open")
        deadline_s = time.monotonic() + timeout_s
        self._wait_for_frame_time(deadline_s)
        while True:
            snapshot = self._newest()
            if snapshot is not None:
                return self._in_render_thread(self._render, snapshot)
            if time.monotonic() >= deadline_s:
                return None
            time.sleep(_POLL_S)

    def _wait_for_frame_time(self, deadline_s: float) -> None:
        now_s = time.monotonic()
        wake_s = min(self._next_frame_s, deadline_s)
        if wake_s > now_s:
            time.sleep(wake_s - now_s)
        # The schedule is absolute; frames that could not be served are dropped, not caught up.
        late_s = max(0.0, now_s - self._next_frame_s)
        self._next_frame_s += self._period_s * (1.0 + late_s // self._period_s)

    def _newest(self) -> Snapshot | None:
        assert self._reader is not None
        snapshot = self._reader.read()
        if snapshot is not None and snapshot.stamp_ns > self._last_stamp_ns:
            self._last_stamp_ns = snapshot.stamp_ns
            return snapshot
        if not self._run_dir.is_dir():
            raise DeviceError(f"run directory {self._run_dir} is gone: the simulator was stopped")
        if self._reader.is_replaced:
            self._try_load()
        return None

    def _render(self, snapshot: Snapshot) -> Image:
        mujoco = self._mujoco
        renderer = self._ensure_renderer()
        snapshot.apply(self._data)
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_camlight(self._model, self._data)
        renderer.update_scene(self._data, self._name)
        rgb = np.array(renderer.render(), dtype=np.uint8)
        depth_m: NDArray[np.float32] | None = None
        if self._has_depth:
            renderer.enable_depth_rendering()
            depth_m = np.array(renderer.render(), dtype=np.float32)
            renderer.disable_depth_rendering()
        return Image(stamp_ns=snapshot.stamp_ns, rgb=rgb, depth_m=depth_m)

    def _ensure_renderer(self) -> Any:  # noqa: ANN401, mujoco ships no types
        if self._renderer is None:
            mujoco = self._mujoco
            self._renderer = mujoco.Renderer(self._model, self._height, self._width)
            flags = self._renderer.scene.flags
            flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
            flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        return self._renderer
