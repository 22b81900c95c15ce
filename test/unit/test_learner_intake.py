# SPDX-License-Identifier: Apache-2.0
"""What a learner hears: the past first, then everything in the order of its stamps."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy")
from vla_rl_ros.ros.channels import from_stamp, to_stamp
from vla_rl_ros.ros.learner_intake import SessionIntake

BEGIN_NS = 1_000
TICK_NS = 100_000_000
SECOND_NS = 10 * TICK_NS


class World:
    def __init__(self, begin_ns: int = BEGIN_NS) -> None:
        self.now_s, self.is_connected = 0.0, True
        self.arrived: list[tuple[str, object]] = []
        self.intake = SessionIntake(
            self.drain,
            lambda: self.is_connected,
            level=("seen", "done"),
            now_s=lambda: self.now_s,
            begin_ns=begin_ns,
        )

    def put(self, stamp_ns: int, topic: str = "t") -> None:
        message = SimpleNamespace(header=SimpleNamespace(stamp=to_stamp(stamp_ns)))
        self.arrived.append((topic, message))

    def drain(self) -> list[tuple[str, object]]:
        found, self.arrived = self.arrived, []
        return found

    def after(self, passed_s: float) -> list[int]:
        self.now_s += passed_s
        return [from_stamp(message.header.stamp) for _, message in self.intake.take()]


def test_nothing_is_handed_on_before_the_past_has_come() -> None:
    world = World()
    world.put(BEGIN_NS + 5)
    for stamp_ns in (30, 10, 20):
        world.put(stamp_ns)
        assert world.after(1.5) == []
    assert world.after(1.0) == []
    assert world.intake.is_catching_up
    assert world.after(1.5) == [10, 20, 30, BEGIN_NS + 5]
    assert not world.intake.is_catching_up


def test_a_publisher_that_was_not_found_yet_is_waited_for() -> None:
    world = World()
    world.is_connected = False
    world.put(10)
    assert world.after(100.0) == []
    world.is_connected = True
    assert world.after(1.0) == []
    world.put(5)
    assert world.after(0.5) == []
    assert world.after(2.5) == [5, 10]


@pytest.mark.parametrize("behind_s", [0, 3600])
def test_the_past_ends_although_the_publishers_clock_lies_behind(behind_s: int) -> None:
    world = World(begin_ns=(5000 + behind_s) * SECOND_NS)
    world.is_connected = False
    assert world.after(100.0) == []
    world.is_connected = True
    taken = []
    for number in range(300):
        for topic in ("seen", "done"):
            world.put((5100 * SECOND_NS) + number * TICK_NS, topic)
        taken += world.after(0.1)
    assert not world.intake.is_catching_up
    assert world.intake.behind_s == pytest.approx(behind_s, abs=0.11)
    assert len(taken) > 2 * 290
    assert taken == sorted(taken)


def test_messages_of_the_present_are_held_back_for_those_they_overtook() -> None:
    world = World()
    world.after(5.0)
    world.put(BEGIN_NS + 30)
    assert world.after(0.1) == []
    world.put(BEGIN_NS + 10)
    world.put(BEGIN_NS + 40)
    # The one that came later is older: it goes first although it has just come.
    assert world.after(0.31) == [BEGIN_NS + 10, BEGIN_NS + 30]
    assert world.after(0.31) == [BEGIN_NS + 40]


def test_an_end_waits_for_the_ticks_before_it_on_every_topic() -> None:
    world = World()
    world.after(5.0)
    ticks = [number * TICK_NS for number in range(1, 6)]
    for stamp_ns in ticks:
        world.put(stamp_ns, "done")
    world.put(ticks[0], "seen")
    world.put(ticks[-1] + 1, "end")
    assert world.after(0.1) == []
    assert world.after(3.0) == [ticks[0], ticks[0]]
    for stamp_ns in ticks[1:]:
        world.put(stamp_ns, "seen")
    assert world.after(0.1) == [stamp for stamp in ticks[1:] for _ in range(2)] + [ticks[-1] + 1]


def test_who_stops_gets_what_is_held_back_but_for_a_past_that_is_still_coming() -> None:
    world = World()
    world.put(10)
    assert world.after(1.0) == []
    assert world.intake.rest() == []
    assert world.after(2.5) == [10]
    world.put(2 * TICK_NS, "end")
    for topic in ("seen", "done"):
        world.put(TICK_NS, topic)
    assert world.after(0.1) == []
    stamps = [message.header.stamp.nanosec for _, message in world.intake.rest()]
    assert stamps == [TICK_NS, TICK_NS, 2 * TICK_NS]
    assert world.intake.rest() == []


def test_who_stops_gets_no_end_before_the_ticks_of_a_topic_that_lags() -> None:
    world = World()
    world.after(5.0)
    ticks = [number * TICK_NS for number in range(1, 6)]
    for stamp_ns in ticks:
        world.put(stamp_ns, "seen")
    for stamp_ns in ticks[:3]:
        world.put(stamp_ns, "done")
    world.put(ticks[-1] + 1, "end")
    assert world.after(0.1) == []
    stamps = [message.header.stamp.nanosec for _, message in world.intake.rest()]
    assert stamps == [stamp for stamp in ticks[:3] for _ in range(2)]
    # One tick less is how an episode ends: the last one is seen and not executed.
    world.put(ticks[3], "done")
    assert world.after(0.0) == []
    stamps = [message.header.stamp.nanosec for _, message in world.intake.rest()]
    assert stamps == [ticks[3], ticks[3], ticks[4], ticks[4] + 1]


def test_what_was_sent_before_the_stop_is_held_back_until_all_of_it_had_its_time() -> None:
    world = World()
    world.after(5.0)
    asked_s = world.now_s
    assert world.intake.holds_back(asked_s)
    world.put(TICK_NS)
    world.after(0.0)
    world.now_s += 0.31
    assert world.intake.holds_back(asked_s)
    # What was sent afterwards does not prolong it.
    world.put(2 * TICK_NS)
    assert world.after(0.0) == [TICK_NS]
    assert not world.intake.holds_back(asked_s)


def test_a_tick_that_nobody_saw_is_not_waited_for_for_ever() -> None:
    world = World()
    world.after(5.0)
    world.put(5 * TICK_NS, "done")
    world.put(5 * TICK_NS + 1, "end")
    assert world.after(1.0) == []
    assert world.after(8.0) == []
    assert world.after(2.0) == [5 * TICK_NS, 5 * TICK_NS + 1]


def test_the_last_tick_of_an_episode_may_come_late_on_one_topic() -> None:
    world = World()
    assert world.after(3.0) == []
    for stamp_ns in (TICK_NS, 2 * TICK_NS):
        world.put(stamp_ns, "seen")
    world.put(TICK_NS, "done")
    end_ns = 2 * TICK_NS + 5
    world.put(end_ns, "outcome")
    assert world.after(0.1) == []
    assert world.after(1.0) == [TICK_NS, TICK_NS]
    world.put(2 * TICK_NS, "done")
    assert world.after(0.1) == [2 * TICK_NS, 2 * TICK_NS, end_ns]


def test_a_last_tick_that_was_never_executed_is_not_waited_for_long() -> None:
    world = World()
    assert world.after(3.0) == []
    for stamp_ns in (TICK_NS, 2 * TICK_NS):
        world.put(stamp_ns, "seen")
    world.put(TICK_NS, "done")
    world.put(2 * TICK_NS + 5, "outcome")
    assert world.after(0.1) == []
    assert world.after(1.0) == [TICK_NS, TICK_NS]
    assert world.after(1.5) == [2 * TICK_NS, 2 * TICK_NS + 5]
