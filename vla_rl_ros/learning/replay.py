# SPDX-License-Identifier: Apache-2.0
"""Experience to learn from: rows on disk, transitions by index, batches by chance.

A transition can be drawn as soon as its episode has ended or the next one has begun, because its
Monte-Carlo return is known only then. Called by the training loops and the learner.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vla_rl_ros.core.errors import ReplayError
from vla_rl_ros.learning.batch import GRASP_KEY
from vla_rl_ros.learning.row_log import RowLog
from vla_rl_ros.learning.rows import CONTEXT, Row, RowArray, RowLayout
from vla_rl_ros.learning.transitions import Transitions, is_closed, segments, tabulate

_SUMS = ("reward", "discount", "mc_return", "is_demo", GRASP_KEY)


class Replay:
    """One buffer of experience.

    Attributes:
        layout: Of its rows.
    """

    def __init__(
        self,
        directory: Path,
        layout: RowLayout,
        *,
        n_step: int,
        gamma: float,
        truncation_value: float = 0.0,
        takeover_ends: bool = False,
        timeout_ends: bool = False,
        window: int | None = None,
        sync: bool = False,
        skip_damaged: bool = False,
    ) -> None:
        """Open or create.

        Args:
            directory: Of the files; one process at a time may use it.
            layout: Of the rows.
            n_step: Ticks of reward before the bootstrap.
            gamma: Discount per tick.
            truncation_value: See `transitions.tabulate`.
            takeover_ends: Likewise.
            timeout_ends: Likewise.
            window: Draw only from the latest transitions; None for all. Nothing is erased.
            sync: See `RowLog`.
            skip_damaged: See `RowLog`.

        Raises:
            ReplayError: Damaged, or in use by another process.
            ConfigError: The rows there have another layout.
        """
        self.layout = layout
        self._n_step, self._gamma = n_step, gamma
        self._truncation_value = truncation_value
        self._takeover_ends, self._timeout_ends = takeover_ends, timeout_ends
        self._window = window
        self._log = RowLog(directory, layout, sync=sync, skip_damaged=skip_damaged)
        self._tabulate_all()

    @property
    def num_rows(self) -> int:
        """Rows stored, closing rows included."""
        return self._log.count

    @property
    def rows(self) -> RowArray:
        """All rows, mapped read-only."""
        return self._log.rows

    def __len__(self) -> int:
        """Transitions that can be drawn."""
        return self._size if self._window is None else min(self._size, self._window)

    def append(self, rows: RowArray | Sequence[Row]) -> int:
        """Store rows; safe against a kill when this returns.

        Returns:
            Number of rows stored so far.

        Raises:
            ReplayError: A row does not fit the layout, or the disk refused.
        """
        packed = rows if isinstance(rows, np.ndarray) else self.layout.pack(rows)
        count = self._log.append(packed)
        self._tabulate_from(self._open_row)
        return count

    def sample(self, size: int, rng: np.random.Generator) -> Transitions:
        """Draw transitions with replacement, all equally probable.

        Args:
            size: How many.
            rng: Equal states give equal samples.

        Raises:
            ReplayError: There is none yet.
        """
        return self.gather(self._draw(size, rng))

    def gather(self, numbers: npt.NDArray[np.int64]) -> Transitions:
        """Transitions by number in the order of recording; for tests and evaluation in full.

        Args:
            numbers: Shape (n,).

        Returns:
            Arrays under the keys of a batch; vectors are columns of one packed array.
        """
        batch = PackedBatch(self.layout, len(numbers))
        self._fill(batch, numbers, 0)
        return batch.columns(self.layout)

    def fill(self, batch: PackedBatch, size: int, rng: np.random.Generator, first: int) -> None:
        """Draw like `sample`, into rows `first` to ``first + size`` of a batch."""
        self._fill(batch, self._draw(size, rng), first)

    def _fill(self, batch: PackedBatch, numbers: npt.NDArray[np.int64], first: int) -> None:
        """Copy transitions into a batch, from its row `first` on."""
        floats = self._log.rows.view(np.float32).reshape(self.num_rows, -1)
        part = slice(first, first + len(numbers))
        # Whole rows at once: two runs through memory instead of five. Indices are valid by
        # construction; "clip" only saves numpy a buffer.
        for table, out in ((self._row, batch.here), (self._next_row, batch.there)):
            np.take(floats, table[numbers], axis=0, out=out[part], mode="clip")
        np.take(self._sums, numbers, axis=0, out=batch.sums[part], mode="clip")

    def _draw(self, size: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        if not len(self):
            raise ReplayError(f"{self._log.directory}: no finished episode to sample from")
        return rng.integers(self._size - len(self), self._size, size)

    def rewind(self, num_rows: int) -> None:
        """Forget rows from `num_rows` on; see `RowLog.rewind`."""
        self._log.rewind(num_rows)
        self._tabulate_all()

    def close(self) -> None:
        """Release the files; idempotent."""
        self._log.close()

    def _tabulate_all(self) -> None:
        self._size = self._open_row = 0
        self._row = np.empty(0, np.int64)
        self._next_row = np.empty(0, np.int64)
        self._sums = np.empty((0, len(_SUMS)), np.float32)
        for block in self._log.damaged:
            self._tabulate(self._open_row, block.first)
            self._open_row = block.first + block.count
        self._tabulate_from(self._open_row)

    def _tabulate_from(self, first: int) -> None:
        """Add the transitions of all runs from a row on; a last one may still have to grow."""
        rows = self._log.rows[first:]
        if not len(rows):
            return
        start, stop = segments(rows)[-1]
        self._open_row = first + (stop if is_closed(rows[-1]) else start)
        self._tabulate(first, self._open_row)

    def _tabulate(self, first: int, last: int) -> None:
        rows = self._log.rows[first:last]
        table = tabulate(
            rows,
            self.layout,
            self._n_step,
            self._gamma,
            truncation_value=self._truncation_value,
            takeover_ends=self._takeover_ends,
            timeout_ends=self._timeout_ends,
        )
        chosen = (rows["flags"][table.row] & CONTEXT) == 0
        count = int(chosen.sum())
        self._grow(self._size + count)
        new = slice(self._size, self._size + count)
        self._row[new] = first + table.row[chosen]
        self._next_row[new] = first + table.next_row[chosen]
        for index, name in enumerate(_SUMS):
            self._sums[new, index] = getattr(table, name)[chosen]
        self._size += count

    def _grow(self, size: int) -> None:
        """Make room by doubling."""
        if size <= len(self._row):
            return
        spare = max(size, 2 * len(self._row), 1024) - len(self._row)
        self._row = np.pad(self._row, (0, spare))
        self._next_row = np.pad(self._next_row, (0, spare))
        self._sums = np.pad(self._sums, ((0, spare), (0, 0)))


class PackedBatch:
    """Memory of a batch: whole rows, and the sums."""

    def __init__(self, layout: RowLayout, size: int) -> None:
        width = layout.dtype.itemsize // 4
        self.here = np.empty((size, width), np.float32)
        self.there = np.empty((size, width), np.float32)
        self.sums = np.empty((size, len(_SUMS)), np.float32)

    def columns(self, layout: RowLayout) -> Transitions:
        """What is in it, under the keys of a batch."""
        obs = slice(0, layout.obs_dim)
        base = slice(obs.stop, obs.stop + layout.action_dim)
        executed = slice(base.stop, base.stop + layout.action_dim)
        result = {
            "obs": self.here[:, obs],
            "base": self.here[:, base],
            "action": self.here[:, executed],
            "next_obs": self.there[:, obs],
            "next_base": self.there[:, base],
        }
        result.update({name: self.sums[:, index] for index, name in enumerate(_SUMS)})
        if GRASP_KEY not in layout.reward_terms:
            del result[GRASP_KEY]
        return result


class SymmetricSampler:
    """Batches of which a fixed part comes from the offline buffer (RLPD, arXiv 2302.02948)."""

    def __init__(self, online: Replay, offline: Replay, offline_part: float) -> None:
        """Mix two buffers.

        Args:
            online: Everything the robot did in this run.
            offline: Demonstrations, human corrections, successes of the base.
            offline_part: Part of each batch from `offline`, in [0, 1].
        """
        self.online, self.offline = online, offline
        self._offline_part = offline_part

    def __len__(self) -> int:
        """Transitions that can be drawn."""
        return len(self.online) + (len(self.offline) if self._offline_part > 0.0 else 0)

    def sample(self, size: int, rng: np.random.Generator) -> Transitions:
        """Draw a batch, offline rows first; a buffer that is still empty leaves it to the other.

        Raises:
            ReplayError: Both are empty.
        """
        wanted = round(size * self._offline_part)
        num_offline = 0 if not len(self.offline) else wanted if len(self.online) else size
        if self._offline_part == 0.0:
            num_offline = 0
        batch = PackedBatch(self.online.layout, size)
        if num_offline > 0:
            self.offline.fill(batch, num_offline, rng, 0)
        if num_offline < size:
            self.online.fill(batch, size - num_offline, rng, num_offline)
        return batch.columns(self.online.layout)
