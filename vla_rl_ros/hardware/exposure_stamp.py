# SPDX-License-Identifier: Apache-2.0
"""When was this frame exposed? RealSense timing facts in, one stamp in system time out.

Three clocks meet in a frame: the camera's own (metadata, microseconds), the camera's clock mapped
to the host's by the SDK ("global time"), and the host's at arrival. The best available wins, and
the choice is reported so that diagnostics can show it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

# The stamps of one device come from a 32 bit microsecond counter, which wraps every 71 minutes.
_COUNTER_WRAP_US = 1 << 32
_MAX_OFFSET_US = 1_000_000
_MAX_AHEAD_NS = 2_000_000
_MAX_AGE_NS = 1_000_000_000
_PLAYBACK_GAP_NS = 200_000_000


class ClockDomain(enum.Enum):
    """The clock in which the SDK gives the time of a frame."""

    GLOBAL = "global_time"
    """Begin of readout by the camera's clock, mapped to system time."""
    SYSTEM = "system_time"
    """Arrival in the SDK in system time; the driver delivers no metadata."""
    HARDWARE = "hardware_clock"
    """The camera's own clock, of unknown offset."""


class StampSource(enum.Enum):
    """How a stamp was found, best first."""

    MID_EXPOSURE = "mid_exposure"
    """Measured by the camera: readout minus the camera's own offset to mid-exposure."""
    HALF_EXPOSURE = "readout_minus_half_exposure"
    """Readout by the camera's clock minus half of the reported exposure time."""
    HALF_PERIOD = "readout_minus_half_period"
    """Readout by the camera's clock; no exposure time reported."""
    HOST = "host_minus_half_period"
    """Arrival in the SDK; late by the transfer, some 10 ms at VGA."""
    ARRIVAL = "arrival_minus_half_period"
    """Arrival in this process; the SDK's time was missing or unbelievable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameTiming:
    """Everything a frame says about its time.

    Attributes:
        arrival_ns: System time at which this process got the frame.
        timestamp_ns: The SDK's time of the frame, in the clock of `domain`.
        domain: Clock of `timestamp_ns`.
        period_ns: Nominal time between frames.
        readout_us: Begin of readout by the camera's counter, None when not reported.
        mid_exposure_us: Middle of the exposure by the same counter, None when not reported.
        exposure_us: Duration of the exposure, None when not reported.
    """

    arrival_ns: int
    timestamp_ns: int
    domain: ClockDomain
    period_ns: int
    readout_us: int | None = None
    mid_exposure_us: int | None = None
    exposure_us: int | None = None


def live_stamp(timing: FrameTiming) -> tuple[int, StampSource]:
    """Time of exposure of a frame that has just come from a camera.

    A time ahead of the arrival, or more than a second before it, is not believed: the SDK's clock
    mapping needs some frames to settle, and system time may be stepped.

    Returns:
        System time in nanoseconds, and how it was found.
    """
    if timing.domain is not ClockDomain.HARDWARE:
        offset_ns, source = _before_timestamp(timing)
        stamp_ns = timing.timestamp_ns - offset_ns
        if -_MAX_AHEAD_NS <= timing.arrival_ns - stamp_ns <= _MAX_AGE_NS:
            return min(stamp_ns, timing.arrival_ns), source
    return timing.arrival_ns - timing.period_ns // 2, StampSource.ARRIVAL


def _before_timestamp(timing: FrameTiming) -> tuple[int, StampSource]:
    """How long before the SDK's time the middle of the exposure was."""
    half_period_ns = timing.period_ns // 2
    if timing.domain is ClockDomain.SYSTEM:
        return half_period_ns, StampSource.HOST
    if timing.readout_us is not None and timing.mid_exposure_us is not None:
        offset_us = (timing.readout_us - timing.mid_exposure_us) % _COUNTER_WRAP_US
        if offset_us <= _MAX_OFFSET_US:
            return offset_us * 1_000, StampSource.MID_EXPOSURE
    if timing.exposure_us is not None:
        # No exposure is longer than the frame; this also bounds a wrong unit.
        return min(timing.exposure_us * 500, half_period_ns), StampSource.HALF_EXPOSURE
    return half_period_ns, StampSource.HALF_PERIOD


class PlaybackClock:
    """Moves the stamps of a recording into the present, keeping the time between frames."""

    def __init__(self) -> None:
        """Start without an anchor; the first frame sets it."""
        self._shift_ns: int | None = None
        self._last_recorded_ns = 0

    def stamp(self, timing: FrameTiming) -> tuple[int, StampSource]:
        """Present time of a recorded frame.

        The shift is set by the first frame, and again after a gap or when the recording starts
        over. No stamp is ever later than its arrival, so stamps do not run backwards.

        Returns:
            System time in nanoseconds, and how the recorded time was found.
        """
        offset_ns, source = _before_timestamp(timing)
        recorded_ns = timing.timestamp_ns - offset_ns
        is_forward = recorded_ns >= self._last_recorded_ns
        self._last_recorded_ns = recorded_ns
        if self._shift_ns is not None and is_forward:
            stamp_ns = recorded_ns + self._shift_ns
            if 0 <= timing.arrival_ns - stamp_ns <= _PLAYBACK_GAP_NS:
                return stamp_ns, source
        self._shift_ns = timing.arrival_ns - recorded_ns
        return timing.arrival_ns, source
