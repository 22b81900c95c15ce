# SPDX-License-Identifier: Apache-2.0
"""From recordings and from the simulator to a label set, through the command."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from unit.bag_samples import KEEP, NS_PER_S, START_NS, STORE, cdr, channels, header, pose

from vla_rl_ros.core.episode import Outcome
from vla_rl_ros.core.errors import BagError, ConfigError
from vla_rl_ros.core.spec import ACTION_CHANNELS
from vla_rl_ros.core.teleop_config import BUTTONS
from vla_rl_ros.data.bag_writer import BagWriter
from vla_rl_ros.data.label_frames import read_frames
from vla_rl_ros.data.label_set import LabelSet
from vla_rl_ros.data.metadata import BagTopic, qos_text
from vla_rl_ros.data.schemas import message_schema
from vla_rl_ros.learning.classifier_episodes import POLICY, EpisodeMaker, episodes
from vla_rl_ros.learning.classifier_staging import STAGED
from vla_rl_ros.sim.tasks import Task
from vla_rl_ros.tools.cli import main

CAMERAS = ("wrist", "front")
TOPICS = {
    "/camera/wrist/image": "sensor_msgs/msg/Image",
    "/camera/front/image": "sensor_msgs/msg/Image",
    "/arm/tcp_pose": "geometry_msgs/msg/PoseStamped",
    "/gripper/state": "sensor_msgs/msg/JointState",
    "/sim/success": "sensor_msgs/msg/JointState",
    "/episode/state": "diagnostic_msgs/msg/DiagnosticArray",
    "/teleop/joy": "sensor_msgs/msg/Joy",
    "/action/executed": "sensor_msgs/msg/JointState",
}
PX, FRAMES, FRAME_NS = 16, 90, 33_333_333
END_FRAME, TRUE_FRAME = 70, 60


def image(stamp_ns: int, shade: int) -> bytes:
    made = STORE.types["sensor_msgs/msg/Image"](
        header=header(stamp_ns), height=PX, width=PX, encoding="rgb8", is_bigendian=0, step=3 * PX,
        data=np.full(3 * PX * PX, shade, np.uint8),
    )  # fmt: skip
    return cdr(made)


def episode_state(stamp_ns: int, phase: str, outcome: str) -> bytes:
    types = STORE.types
    pair = types["diagnostic_msgs/msg/KeyValue"]
    values = [pair(key="phase", value=phase), pair(key="outcome", value=outcome)]
    status = types["diagnostic_msgs/msg/DiagnosticStatus"](
        level=0, name="episode", message="", hardware_id="", values=values
    )
    made = types["diagnostic_msgs/msg/DiagnosticArray"](header=header(stamp_ns), status=[status])
    return cdr(made)


def executed(number: int) -> dict[str, float]:
    """A tick of a frame: the more to the left the later, and somebody's base beside it."""
    values = {f"executed.{name}": 0.0 for name in ACTION_CHANNELS}
    return values | {"executed.tcp.dy_m": 1e-4 * number, "base.tcp.dy_m": 9.0}


def joy(stamp_ns: int, pressed: str) -> bytes:
    buttons = np.array([int(name == pressed) for name in BUTTONS], np.int32)
    made = STORE.types["sensor_msgs/msg/Joy"](
        header=header(stamp_ns), axes=np.zeros(6, np.float32), buttons=buttons
    )
    return cdr(made)


def record(
    directory: Path,
    *,
    outcome: str = "success",
    task: str = "lift",
    mark: str = "",
    marked=(40, 41),
    start: int = 0,
    name: str = "",
    has_truth: bool = True,
    stale: bool = False,
    poses: int = FRAMES,
    images: int = FRAMES,
) -> Path:
    topics = [
        BagTopic(name=n, type=k, schema=message_schema(k), qos=qos_text(depth=10))
        for n, k in TOPICS.items()
        if has_truth or n != "/sim/success"
    ]
    names = [topic.name for topic in topics]
    told = {"id": name or directory.name, "task": task, "outcome": outcome}
    writer = BagWriter(directory, topics, {"episode": told}, KEEP)

    def write(name: str, stamp_ns: int, raw: bytes) -> None:
        writer.write(names.index(name), stamp_ns + 1000, stamp_ns, raw, 1)

    if stale:
        ready_ns = START_NS - 5_000_000
        write("/episode/state", ready_ns, episode_state(ready_ns, "ready", ""))
        for camera in CAMERAS:
            at = names.index(f"/camera/{camera}/image")
            taken_ns = ready_ns - 20_000_000
            writer.write(at, ready_ns + 2000, taken_ns, image(taken_ns, 250), 1)
    for number in range(FRAMES):
        now_ns = START_NS + number * FRAME_NS
        if number < images:
            late_ns = now_ns + 9_000_000
            write("/camera/wrist/image", now_ns, image(now_ns, number))
            write("/camera/front/image", late_ns, image(late_ns, 100 + number))
        if number < poses:
            write("/arm/tcp_pose", now_ns, pose(now_ns, 0.01 * number))
            width = {"gripper.width_m": 0.001 * number}
            write("/gripper/state", now_ns, channels(now_ns, width))
        if start <= number <= END_FRAME and number % 3 == 1:
            write("/action/executed", now_ns, channels(now_ns, executed(number)))
        decided = float(number >= TRUE_FRAME and outcome == "success")
        success = {"success.probability": decided, "success.decided": decided}
        if has_truth:
            write("/sim/success", now_ns, channels(now_ns, success))
        is_over = number >= END_FRAME
        phase = "ended" if is_over else "running" if number >= start else "ready"
        said = episode_state(now_ns, phase, outcome if is_over else "")
        write("/episode/state", now_ns, said)
        pressed = mark if number in marked else ""
        write("/teleop/joy", now_ns, joy(now_ns, pressed))
    return writer.finish()


def test_a_frame_from_before_ready_shows_another_scene_and_is_left_out(tmp_path):
    seen = read_frames(record(tmp_path / "one", stale=True), CAMERAS)
    assert seen.stamps_ns[0] == START_NS
    assert all(250 not in stack for stack in seen.images.values())


def test_frames_of_all_cameras_come_at_a_steady_rate_with_what_is_known(tmp_path):
    seen = read_frames(record(tmp_path / "one", mark="success"), CAMERAS, buttons=BUTTONS)
    assert (seen.episode, seen.task, seen.outcome) == ("one", "lift", Outcome.SUCCESS)
    assert len(seen) == FRAMES // 3
    assert seen.end_ns == START_NS + END_FRAME * FRAME_NS
    numbers = seen.images["wrist"][:, 0, 0, 0].astype(int)
    np.testing.assert_array_equal(np.diff(numbers), 3)
    np.testing.assert_array_equal(seen.images["front"][:, 0, 0, 0], 100 + numbers)
    np.testing.assert_allclose(seen.states[:, 0], 0.01 * numbers, atol=1e-6)
    np.testing.assert_allclose(seen.states[:, 3], 0.001 * numbers, atol=1e-6)
    np.testing.assert_array_equal(seen.truth, numbers >= TRUE_FRAME)
    # Held down over two messages it was pressed once.
    assert [(m.name, m.stamp_ns) for m in seen.marks] == [("success", START_NS + 40 * FRAME_NS)]


@pytest.mark.parametrize(
    ("marked", "start", "found"),
    [
        ((0, 1, 2), 0, []),  # down since before the bag
        ((0, 1, 40), 0, [40]),
        ((10, 50), 20, [50]),  # of the reset before, and of the episode
    ],
)
def test_only_a_press_while_the_episode_runs_is_a_word_on_it(tmp_path, marked, start, found):
    path = record(tmp_path / "one", mark="success", marked=marked, start=start)
    seen = read_frames(path, CAMERAS, buttons=BUTTONS)
    assert [(mark.stamp_ns - START_NS) // FRAME_NS for mark in seen.marks] == found


@pytest.mark.parametrize("poses", [0, 40])
def test_a_state_is_unknown_where_no_sample_is_near(tmp_path, poses):
    seen = read_frames(record(tmp_path / "one", poses=poses), CAMERAS)
    numbers = seen.images["wrist"][:, 0, 0, 0].astype(int)
    # The last sample still counts 0.1 s later.
    is_known = numbers < poses + 3 if poses else np.zeros(len(numbers), bool)
    np.testing.assert_array_equal(np.isfinite(seen.states).all(1), is_known)
    np.testing.assert_array_equal(np.isnan(seen.states).all(1), ~is_known)


@pytest.mark.parametrize("name", ["../../x", "/x", "a/b", ".."])
def test_a_name_that_leads_out_of_the_set_is_refused(tmp_path, name):
    path = record(tmp_path / "one", name=name)
    with pytest.raises(BagError, match="is no name for an episode"):
        read_frames(path, CAMERAS)


def test_a_bag_without_a_camera_is_refused_by_name(tmp_path):
    path = record(tmp_path / "one")
    with pytest.raises(BagError, match="no images of side; it has /camera/wrist/image"):
        read_frames(path, ("wrist", "side"))


def run(capsys, *words: object) -> dict:
    assert main([str(word) for word in words]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_a_bag_that_is_not_there_is_named(tmp_path, capsys):
    words = ["label", str(tmp_path / "bgas"), "--out", str(tmp_path / "out")]
    assert main(words) == 1
    assert "bgas: there is no such file or folder" in capsys.readouterr().err


def test_the_command_labels_bags_and_goes_on_with_new_ones(tmp_path, capsys):
    bags, out = tmp_path / "bags", tmp_path / "labels"
    record(bags / "one")
    record(bags / "two", outcome="timeout")
    record(bags / "other", task="peg")
    options = ["label", bags, "--task", "lift", "--out", out, "--positives", 3, "--negatives", 4]
    found = run(capsys, *options)
    assert (found["episodes"], found["success"], found["failure"]) == (2, 3, 8)
    assert found["by"] == {"outcome": 11}
    record(bags / "three")
    assert run(capsys, *options)["episodes"] == 3
    labels = LabelSet(out)
    last = [word for word in labels.words if word.episode == "one"][-1]
    assert last.label == "success"
    assert (last.stamp_ns - START_NS) / NS_PER_S > END_FRAME * FRAME_NS / NS_PER_S - 0.21
    assert main(["label", str(bags), "--out", str(tmp_path / "mixed")]) == 1
    assert "choose with --task" in capsys.readouterr().err


def test_truth_of_the_simulator_labels_what_was_recorded_with_it(tmp_path, capsys):
    record(tmp_path / "bags/one")
    run(capsys, "label", tmp_path / "bags", "--from-truth", "--out", tmp_path / "labels")
    words = LabelSet(tmp_path / "labels").words
    first = min(word.stamp_ns for word in words if word.label == "success")
    assert abs((first - START_NS) / FRAME_NS - TRUE_FRAME) < 20
    assert {word.who for word in words} == {"truth"}


def test_bad_bags_are_named_left_out_and_counted(tmp_path, capsys):
    bags, out = tmp_path / "bags", tmp_path / "labels"
    record(bags / "a_without_truth", has_truth=False)
    record(bags / "b_good")
    (bags / "c_damaged").mkdir()
    (bags / "c_damaged/c.mcap").write_bytes(b"no bag")
    whole = next(record(bags / "d_overwritten").glob("*.mcap"))
    raw = bytearray(whole.read_bytes())
    raw[200:-200] = bytes(len(raw) - 400)
    whole.write_bytes(raw)
    assert main(["label", str(bags), "--from-truth", "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out.splitlines()[-1])["left_out"] == 3
    assert LabelSet(out).episodes == {"b_good"}
    for name in ("a_without_truth", "c_damaged", "d_overwritten"):
        assert any("left out" in line and name in line for line in said.err.splitlines())


def test_bags_that_give_no_episode_are_an_error_that_says_so(tmp_path, capsys):
    bags, out = tmp_path / "bags", tmp_path / "labels"
    record(bags / "one", has_truth=False)
    assert main(["label", str(bags), "--task", "pge", "--out", str(out)]) == 1
    assert "no bag gave an episode of 'pge': name other bags" in capsys.readouterr().err
    assert not out.exists()
    assert main(["label", str(bags), "--from-truth", "--out", str(out)]) == 1
    assert "no bag gave an episode; 1 left out, see above" in capsys.readouterr().err


def test_without_bags_there_must_be_a_set_to_look_through(tmp_path, capsys):
    assert main(["label", "--out", str(tmp_path / "labels")]) == 1
    assert "labels is no label set yet: name bags" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--labels", "--held-out"])
def test_a_training_without_labels_names_the_option_before_anything_slow(
    tmp_path, capsys, monkeypatch, option
):
    LabelSet(tmp_path / "labels", "lift", CAMERAS)
    # Whoever imports it now, fails.
    monkeypatch.setitem(sys.modules, "vla_rl_ros.learning.classifier_training", None)
    given = {"--labels": tmp_path / "labels", "--out": tmp_path / "out", option: tmp_path / "no"}
    words = [str(word) for pair in given.items() for word in pair]
    assert main(["train", "classifier", *words]) == 1
    said = capsys.readouterr().err
    assert f"{option} {tmp_path}/no is no label set: make one with 'vla-rl-ros label" in said


@pytest.fixture(scope="module")
def makers():
    made = {task: EpisodeMaker(task, None) for task in STAGED}
    yield made
    for maker in made.values():
        maker.close()


@pytest.mark.parametrize(
    ("task", "kind"),
    [(task, kind) for task, kinds in STAGED.items() for kind in kinds if kind != "wrong_task"],
)
def test_a_staged_failure_fails_and_is_the_same_again(makers, task, kind):
    first = makers[task].play(kind, 5)
    assert first.outcome is Outcome.TIMEOUT
    assert not first.truth.any()
    again = makers[task].play(kind, 5)
    np.testing.assert_array_equal(first.states, again.states)
    np.testing.assert_array_equal(first.images["wrist"][-1], again.images["wrist"][-1])


def test_a_watcher_ends_an_episode(makers):
    seen = []

    def watch(images, state):
        seen.append((images["front"].shape, state.shape))
        return len(seen) == 5

    assert len(makers[Task.PEG].play("on_the_rim", 1, watch)) == 5
    assert seen[0] == ((128, 128, 3), (4,))


def test_a_variant_has_other_episodes_of_other_names(makers):
    maker = EpisodeMaker(Task.PEG, None, "peg_friction_tight")
    slid = maker.play("on_the_rim", 5)
    here = {seed for _, seed in episodes(maker, 40, 50, 0)}
    maker.close()
    assert not here & {seed for _, seed in episodes(makers[Task.PEG], 40, 50, 0)}
    assert "peg_friction_tight" in slid.episode
    assert not slid.truth.any()
    # Pressed on, the hand goes on down where only friction holds the peg.
    assert slid.states[-1, 2] < 0.085


def test_no_staged_episode_has_the_layout_of_a_policy_episode(makers):
    played = list(episodes(makers[Task.PEG], 40, 50, 7))
    own = {seed for kind, seed in played if kind == POLICY}
    staged = {seed for kind, seed in played if kind != POLICY}
    assert (len(own), len(staged)) == (40, 50)
    assert not own & staged


def test_unknown_kinds_and_missing_policies_are_refused(makers):
    with pytest.raises(ConfigError, match="'rim' is no kind of episode of peg"):
        makers[Task.PEG].play("rim", 0)
    with pytest.raises(ConfigError, match="need a policy"):
        makers[Task.PEG].play(POLICY, 0)
