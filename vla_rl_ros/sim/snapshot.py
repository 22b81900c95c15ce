# SPDX-License-Identifier: Apache-2.0
"""The simulator's state in a memory-mapped file: one writer, any number of readers, no locks.

The simulation thread writes every millisecond and must never wait; readers (cameras,
ground truth) live in other processes and may die at any point. A sequence number that is odd
while a write is under way tells readers to try again, and a checksum over the payload catches what
a processor with weak memory ordering could let through.
"""

from __future__ import annotations

import contextlib
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vla_rl_ros.core.errors import DeviceError
from vla_rl_ros.core.types import FloatArray

if TYPE_CHECKING:
    import mujoco

SNAPSHOT_NAME = "state.bin"
MODEL_NAME = "model.mjb"
_MAGIC = 0x764C_4153_696D_0001
_HEADER = np.dtype(
    [
        ("magic", "<u8"),
        ("num_qpos", "<u4"),
        ("num_mocap", "<u4"),
        ("num_equality", "<u4"),
        ("checksum", "<u4"),
        ("sequence", "<u8"),
    ]
)
_MAX_TRIES = 5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Snapshot:
    """One consistent state of the scene.

    Attributes:
        stamp_ns: Wall time at which it was taken.
        sim_time_s: Simulated time.
        qpos: All joint positions, shape (nq,).
        mocap_pos_m: Positions of mocap bodies, shape (nmocap, 3).
        mocap_quat_wxyz: Their orientations in MuJoCo's order, shape (nmocap, 4).
        is_equality_active: Shape (neq,).
    """

    stamp_ns: int
    sim_time_s: float
    qpos: FloatArray
    mocap_pos_m: FloatArray
    mocap_quat_wxyz: FloatArray
    is_equality_active: NDArray[np.bool_]

    def apply(self, data: mujoco.MjData) -> None:
        """Copy into the state of a model of the same scene; kinematics are up to the caller."""
        data.time = self.sim_time_s
        data.qpos[:] = self.qpos
        data.mocap_pos[:] = self.mocap_pos_m
        data.mocap_quat[:] = self.mocap_quat_wxyz
        data.eq_active[:] = self.is_equality_active


def _payload_dtype(num_qpos: int, num_mocap: int, num_equality: int) -> np.dtype[np.void]:
    return np.dtype(
        [
            ("stamp_ns", "<i8"),
            ("sim_time_s", "<f8"),
            ("qpos", "<f8", (num_qpos,)),
            ("mocap_pos", "<f8", (num_mocap, 3)),
            ("mocap_quat", "<f8", (num_mocap, 4)),
            ("eq_active", "u1", (num_equality,)),
        ]
    )


class SnapshotWriter:
    """Owns the file; used from the simulation thread only."""

    def __init__(self, path: Path, model: mujoco.MjModel) -> None:
        """Create the file under a temporary name and rename it, so that readers find it whole.

        Args:
            path: Of the file; an old one is replaced.
            model: Scene whose states will be written.
        """
        self._path = path
        payload = _payload_dtype(model.nq, model.nmocap, model.neq)
        half_made = path.with_suffix(".new")
        half_made.write_bytes(bytes(_HEADER.itemsize + payload.itemsize))
        memory = np.memmap(half_made, dtype=np.uint8, mode="r+")
        self._header = memory[: _HEADER.itemsize].view(_HEADER)
        self._bytes = memory[_HEADER.itemsize :]
        # Composed here and copied at once: the window in which readers have to retry is short.
        self._draft = np.zeros(payload.itemsize, dtype=np.uint8)
        record = self._draft.view(payload)
        self._fields = {name: record[name] for name in payload.names or ()}
        self._header["num_qpos"], self._header["num_mocap"] = model.nq, model.nmocap
        self._header["num_equality"], self._header["magic"] = model.neq, _MAGIC
        self._sequence = self._header["sequence"]
        self._checksum = self._header["checksum"]
        half_made.replace(path)

    def write(self, data: mujoco.MjData, stamp_ns: int | None = None) -> None:
        """Publish the state of this moment.

        Args:
            data: To copy from.
            stamp_ns: Wall time, now if None.
        """
        fields = self._fields
        fields["stamp_ns"][0] = time.time_ns() if stamp_ns is None else stamp_ns
        fields["sim_time_s"][0] = data.time
        fields["qpos"][0] = data.qpos
        fields["mocap_pos"][0] = data.mocap_pos
        fields["mocap_quat"][0] = data.mocap_quat
        fields["eq_active"][0] = data.eq_active
        checksum = zlib.crc32(self._draft.data)
        self._sequence[0] += 1
        self._checksum[0] = checksum
        self._bytes[:] = self._draft
        self._sequence[0] += 1

    def close(self) -> None:
        """Remove the file; readers that still map it see no further change."""
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()


class SnapshotReader:
    """Reads the newest state; never blocks the writer and never waits for it."""

    def __init__(self, path: Path) -> None:
        """Map the file.

        Raises:
            DeviceError: If there is no such file or it is not a snapshot.
        """
        try:
            self._inode = path.stat().st_ino
            memory = np.memmap(path, dtype=np.uint8, mode="r")
        except (OSError, ValueError) as error:
            raise DeviceError(f"no simulator state at {path}: is it running?") from error
        if memory.size < _HEADER.itemsize:
            raise DeviceError(f"{path} is too short for a simulator state")
        header = memory[: _HEADER.itemsize].view(_HEADER)
        if header["magic"][0] != _MAGIC:
            raise DeviceError(f"{path} is not a simulator state of this version")
        self._path = path
        self._sequence, self._checksum = header["sequence"], header["checksum"]
        names = ("num_qpos", "num_mocap", "num_equality")
        self._sizes = tuple(int(header[name][0]) for name in names)
        self._dtype = _payload_dtype(*self._sizes)
        self._bytes = memory[_HEADER.itemsize :]

    @property
    def is_replaced(self) -> bool:
        """Whether another simulator has put its own file in place, or removed this one."""
        try:
            return self._path.stat().st_ino != self._inode
        except OSError:
            return True

    def fits(self, model: mujoco.MjModel) -> bool:
        """Whether the states are of a scene with as many joints and bodies as `model`."""
        return self._sizes == (model.nq, model.nmocap, model.neq)

    def read(self) -> Snapshot | None:
        """The newest state, None before the first one or when every try met a running write."""
        for _ in range(_MAX_TRIES):
            before = int(self._sequence[0])
            if before == 0:
                return None
            copy = self._bytes.tobytes()
            checksum = int(self._checksum[0])
            is_torn = before % 2 == 1 or int(self._sequence[0]) != before
            if not is_torn and zlib.crc32(copy) == checksum:
                return self._unpack(copy)
        return None

    def _unpack(self, payload: bytes) -> Snapshot:
        record = np.frombuffer(payload, dtype=self._dtype)[0]
        return Snapshot(
            stamp_ns=int(record["stamp_ns"]),
            sim_time_s=float(record["sim_time_s"]),
            qpos=record["qpos"],
            mocap_pos_m=record["mocap_pos"],
            mocap_quat_wxyz=record["mocap_quat"],
            is_equality_active=record["eq_active"].astype(bool),
        )
