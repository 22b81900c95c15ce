# SPDX-License-Identifier: Apache-2.0
"""`human/ledger`: human time as named channels, its keeper, the file that outlives the keeper."""

from __future__ import annotations

import json
import os
from pathlib import Path

from sensor_msgs.msg import JointState

from vla_rl_ros.core.human_ledger import DriveCount, HumanLedger, HumanTime, Work
from vla_rl_ros.core.intervention import ExecutedAction
from vla_rl_ros.ros.channels import decode_channels, encode_channels
from vla_rl_ros.ros.processes import RUN_DIR_VARIABLE
from vla_rl_ros.ros.steps import Clock

FILE_NAME = "human_ledger.json"
LEASE_S = 15.0
"""Who labels says so again within this time; who does not was killed, and labels no more."""
_TIMES = ("intervening_s", "resetting_s", "labelling_s", "waiting_s")
_NUMBERS = ("num_resets", "num_rolling")
_SPANS = ("session", "episode", "rolling")
_COUNTS = ("ticks", "human_ticks", "interventions")
LEDGER_CHANNELS = (
    *(f"human.{name}" for name in _TIMES),
    "human.total_s",
    *(f"human.{name}" for name in _NUMBERS),
    *(f"{span}.{count}" for span in _SPANS for count in _COUNTS),
    *(f"{span}.intervention_rate" for span in _SPANS),
    "episode.epoch",
)


def encode_human_time(time: HumanTime, stamp_ns: int) -> JointState:
    """What people gave until now."""
    spans = {span: getattr(time, span) for span in _SPANS}
    return encode_channels(
        {
            **{f"human.{name}": getattr(time, name) for name in _TIMES},
            "human.total_s": time.total_s,
            **{f"human.{name}": float(getattr(time, name)) for name in _NUMBERS},
            **{
                f"{span}.{count}": float(getattr(drive, count))
                for span, drive in spans.items()
                for count in _COUNTS
            },
            **{f"{span}.intervention_rate": drive.rate for span, drive in spans.items()},
            "episode.epoch": float(time.epoch),
        },
        stamp_ns,
    )


def decode_human_time(message: JointState) -> HumanTime:
    """Inverse of `encode_human_time`; what follows from the rest is not read.

    Raises:
        InvalidCommandError: As `channels.decode_channels`.
    """
    channels = decode_channels(message, LEDGER_CHANNELS)

    def span(name: str) -> DriveCount:
        counts = {count: int(channels[f"{name}.{count}"]) for count in _COUNTS}
        return DriveCount(**counts)

    return HumanTime(
        epoch=int(channels["episode.epoch"]),
        intervening_s=channels["human.intervening_s"],
        resetting_s=channels["human.resetting_s"],
        labelling_s=channels["human.labelling_s"],
        waiting_s=channels["human.waiting_s"],
        num_resets=int(channels["human.num_resets"]),
        num_rolling=int(channels["human.num_rolling"]),
        session=span("session"),
        episode=span("episode"),
        rolling=span("rolling"),
    )


def human_record(message: JointState) -> dict[str, str]:
    """Every channel of a valid message as text, for the metadata of a bag."""
    return {
        name: f"{value:.10g}" for name, value in zip(message.name, message.position, strict=True)
    }


class LedgerFile:
    """The ledger in the run directory of the launcher, as `autorun.AutorunLedger`.

    Without a launcher there is none, and nobody who starts a supervisor again.
    """

    def __init__(self, run_dir: str | None = None) -> None:
        """Find it.

        Args:
            run_dir: Directory of the launcher, from the environment when None.
        """
        folder = os.environ.get(RUN_DIR_VARIABLE, "") if run_dir is None else run_dir
        self._path = Path(folder) / FILE_NAME if folder else None

    def load(self, ledger: HumanLedger) -> str:
        """Go on where an earlier supervisor of this launch stopped.

        Returns:
            Why what it left is of no use, empty otherwise.
        """
        if self._path is None:
            return ""
        try:
            ledger.restore(json.loads(self._path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return ""
        except OSError as error:
            return f"{self._path} cannot be read ({error}); counting from zero"
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return f"{self._path} is not a ledger ({error!r}); counting from zero"
        return ""

    def save(self, ledger: HumanLedger) -> str:
        """Write it down, whole or not at all.

        Returns:
            Why it is not written, empty otherwise: a full disk ends no episode.
        """
        if self._path is None:
            return ""
        half_done = self._path.with_suffix(".new")
        try:
            half_done.write_text(json.dumps(ledger.to_record()), encoding="utf-8")
            half_done.replace(self._path)
        except OSError as error:
            return f"human time is not written down ({error}); a successor would count less"
        return ""


class HumanTimeKeeper:
    """The ledger of a supervisor: by its clock, on disk, and what of it is news."""

    def __init__(self, control_period_s: float, window: int, clock: Clock) -> None:
        """Go on where a predecessor in this launch stopped.

        Args:
            control_period_s: What a tick is worth.
            window: Episodes that the rolling rate looks back on.
            clock: Monotonic time.
        """
        self._ledger = HumanLedger(control_period_s, window)
        self._clock = clock
        self._file = LedgerFile()
        self._is_due = False
        self._heard_s: float | None = None
        self.problem = self._file.load(self._ledger)
        """Why what the predecessor left is of no use, or why the last `save` failed; or empty."""

    def count(self, row: ExecutedAction) -> None:
        """Count an executed tick; repeated ones are passed over."""
        self._is_due |= self._ledger.tick(row.epoch, row.stamp_ns, row.source)

    def mark(self, work: Work, *, is_begun: bool) -> None:
        """Somebody begins to work, or is done; who labels begins again and again."""
        now_s = self._expire()
        (self._ledger.begin if is_begun else self._ledger.end)(work, now_s)
        if work is Work.LABELLING:
            self._heard_s = now_s if is_begun else None
        self._is_due = True

    def take_due(self) -> bool:
        """Whether anything happened since this was asked."""
        is_due, self._is_due = self._is_due, False
        return is_due

    def now(self) -> HumanTime:
        """What has come together until now."""
        return self._ledger.time(self._expire())

    @property
    def epoch(self) -> int:
        """Of the newest tick; of older epochs none is counted."""
        return self._ledger.epoch

    def _expire(self) -> float:
        """End the labelling of who was killed, when he was heard last; returns the time."""
        now_s = self._clock()
        if self._heard_s is not None and now_s - self._heard_s > LEASE_S:
            self._ledger.end(Work.LABELLING, self._heard_s + LEASE_S)
            self._heard_s = None
        return now_s

    def save(self) -> None:
        """Write it down for a successor; `problem` says whether that failed."""
        self.problem = self._file.save(self._ledger)
