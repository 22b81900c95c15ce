# SPDX-License-Identifier: Apache-2.0
"""Takes the way of an image to the arm apart: model, waiting for the clock, and the rest.

Pure bookkeeping on stamps of one host, in nanoseconds of system time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from vla_rl_ros.ros.latency_events import Frame, Played

NS_PER_MS = 1e6
_MAX_AGE_NS = 1_000_000_000


OVERHEAD_PARTS = ("camera_ms", "tick_ms", "observe_ms", "answer_ms", "target_ms")


@dataclass(frozen=True, slots=True, kw_only=True)
class Inference:
    """One inference, as `tools/timed_policy.py` writes it.

    Attributes:
        stamp_ns: Stamp of the observation, which is that of a control tick.
        enter_ns: When the model began.
        exit_ns: When it had answered.
        model_ms: What the model itself took.
        images: Checksum of the image it looked at, by camera.
    """

    stamp_ns: int
    enter_ns: int
    exit_ns: int
    model_ms: float
    images: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """One chunk's way from the exposure of its older image to the arm's target.

    `total_ms` is the sum of all others; the overhead leaves out `wait_ms` and `model_ms`.

    Attributes:
        total_ms: Exposure to target.
        camera_ms: Exposure to the delivery of the image: device, resize, encoding, transport.
        tick_ms: From the tick of the observation, or the image if it came later, to the gate's
            report of that tick: lateness of the tick, actor, transport, gate.
        observe_ms: From that report to the begin of the inference: transport, observation, thread.
        answer_ms: End of the inference to the delivery of the chunk.
        target_ms: From the tick that first plays the chunk, or the chunk if it came later, to the
            target: lateness of the tick, actor, transport, gate.
        wait_ms: Image waiting for the next tick, and chunk waiting for the next tick: the price of
            a clock, whatever the code.
        model_ms: Between begin and end of the inference.
    """

    total_ms: float
    camera_ms: float
    tick_ms: float
    observe_ms: float
    answer_ms: float
    target_ms: float
    wait_ms: float
    model_ms: float

    @property
    def overhead_ms(self) -> float:
        """Everything but the model and the waiting."""
        return float(sum(getattr(self, part) for part in OVERHEAD_PARTS))


def used_frame(frames: Iterable[Frame], fingerprint: int, before_ns: int) -> Frame | None:
    """The frame with these pixels that was looked at: a scene at rest repeats itself.

    Args:
        frames: Frames of one camera.
        fingerprint: Checksum of the image that was looked at.
        before_ns: When it was.

    Returns:
        The newest of the last second that had been delivered; else the first one that had been
        exposed, which came to the policy a little earlier than to whoever noted it.
    """
    recent = [
        frame
        for frame in frames
        if frame.fingerprint == fingerprint and 0 <= before_ns - frame.stamp_ns < _MAX_AGE_NS
    ]
    delivered = [frame for frame in recent if frame.received_ns <= before_ns]
    if delivered:
        return delivered[-1]
    return replace(recent[0], received_ns=before_ns) if recent else None


def chain_of(
    inference: Inference,
    frames: Mapping[str, Sequence[Frame]],
    reported_ns: int,
    chunk_received_ns: int,
    played: Played,
) -> Chain | None:
    """Take one chunk's way apart.

    Args:
        inference: Its inference.
        frames: Frames by camera.
        reported_ns: When the gate reported the tick of the observation.
        chunk_received_ns: When the middleware delivered the chunk on this host.
        played: The first tick that played it.

    Returns:
        None when one of its images was not seen on the way.
    """
    used = []
    for camera, fingerprint in inference.images.items():
        frame = used_frame(frames.get(camera, ()), fingerprint, inference.enter_ns)
        if frame is None:
            return None
        used.append(frame)
    if not used:
        return None
    oldest = min(used, key=lambda frame: frame.stamp_ns)
    asked_ns = max(inference.stamp_ns, oldest.received_ns)
    # A first chunk is asked for out of turn, before or without a report.
    told_ns = min(max(reported_ns, asked_ns), inference.enter_ns)
    taken_ns = max(played.tick_ns, chunk_received_ns)
    wait_ns = asked_ns - oldest.received_ns + taken_ns - chunk_received_ns
    return Chain(
        total_ms=(played.sent_ns - oldest.stamp_ns) / NS_PER_MS,
        camera_ms=(oldest.received_ns - oldest.stamp_ns) / NS_PER_MS,
        tick_ms=(told_ns - asked_ns) / NS_PER_MS,
        observe_ms=(inference.enter_ns - told_ns) / NS_PER_MS,
        answer_ms=(chunk_received_ns - inference.exit_ns) / NS_PER_MS,
        target_ms=(played.sent_ns - taken_ns) / NS_PER_MS,
        wait_ms=wait_ns / NS_PER_MS,
        model_ms=(inference.exit_ns - inference.enter_ns) / NS_PER_MS,
    )
