# SPDX-License-Identifier: Apache-2.0
"""What a latency measurement notes of messages; plain values, without ROS."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One image on its way.

    Attributes:
        stamp_ns: Stamp of the exposure.
        received_ns: When the middleware delivered it on this host.
        fingerprint: Checksum of its pixels.
    """

    stamp_ns: int
    received_ns: int
    fingerprint: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """The first tick that played a chunk.

    Attributes:
        tick_ns: Stamp of the tick.
        sent_ns: When the gate had sent the arm's new target and reported the tick.
    """

    tick_ns: int
    sent_ns: int
