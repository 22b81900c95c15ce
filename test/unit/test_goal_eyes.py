# SPDX-License-Identifier: Apache-2.0
"""Eyes that learn from successful episodes how far their end is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from unit.pi0_checkpoints import ENVIRONMENT, observation
from unit.test_label_bags import CAMERAS, END_FRAME, FRAME_NS, START_NS, record

from vla_rl_ros.core.episode import Outcome
from vla_rl_ros.core.errors import ConfigError, InvalidCommandError
from vla_rl_ros.data.label_frames import EpisodeFrames, read_frames
from vla_rl_ros.learning.eyes_data import GoalFrames, collected, from_recordings, simulated
from vla_rl_ros.learning.eyes_net import FEATURE_DIM, SCALES_M
from vla_rl_ros.learning.eyes_trainer import EyesSettings, EyesTrainer
from vla_rl_ros.learning.eyes_training import train
from vla_rl_ros.policies.goal_eyes import MANIFEST_NAME, MODEL_NAME, GoalEyes
from vla_rl_ros.policies.protocol import PolicySettings, featured, make_policy
from vla_rl_ros.sim.tasks import Task
from vla_rl_ros.tools.cli import main

PX, EPISODES, TICKS = 32, 12, 20
SETTINGS = EyesSettings(steps=150, image_px=PX, batch=32)


def dots(shift_m: float = 0.0) -> GoalFrames:
    """A bright square that lies where the hand has to go: 1 px is 2.5 mm."""
    rng = np.random.default_rng(3)
    count = EPISODES * TICKS
    at = rng.integers(4, PX - 4, (count, 2))
    image = np.full((count, PX, PX, 3), 40, np.uint8)
    for row, (x, y) in enumerate(at):
        image[row, y - 2 : y + 3, x - 2 : x + 3] = 230
    ways_m = np.zeros((count, 3), np.float32)
    ways_m[:, :2] = 0.0025 * (at - PX / 2) + shift_m
    return GoalFrames(
        images={"front": image}, ways_m=ways_m, episodes=np.repeat(np.arange(EPISODES), TICKS)
    )


@pytest.fixture(scope="module")
def eyes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("eyes")
    return out, train(out, dots(), SETTINGS, task="lift")


def test_they_see_on_held_out_episodes_where_to_go(eyes):
    figures = eyes[1]
    assert figures["error_mm"] < 0.4 * figures["guess_of_mean_mm"]
    assert figures["held_out_episodes"] == 1


def test_what_was_exported_tells_the_way_at_every_scale(eyes):
    seeing = GoalEyes(eyes[0])
    frames = dots()
    features = np.array([seeing.look({"front": image}) for image in frames.images["front"][:40]])
    assert features.shape == (40, FEATURE_DIM)
    coarse_m = SCALES_M[0] * features[:, :3]
    errors_m = np.linalg.norm((coarse_m - frames.ways_m[:40])[:, :2], axis=1)
    assert errors_m.mean() < 0.01
    for number, scale_m in enumerate(SCALES_M):
        expected = np.clip(coarse_m / scale_m, -3.0, 3.0)
        np.testing.assert_allclose(features[:, 3 * number : 3 * number + 3], expected, atol=1e-4)


def test_a_stopped_run_goes_on_as_if_it_had_not_been(tmp_path):
    frames, rows = dots(), np.arange(EPISODES * TICKS)
    whole, first = (EyesTrainer(SETTINGS, frames, rows) for _ in range(2))
    expected = [whole.step() for _ in range(6)]
    found = [first.step() for _ in range(3)]
    first.save(tmp_path / "t.pt", "frames")
    second = EyesTrainer(SETTINGS, frames, rows)
    second.load(tmp_path / "t.pt", "frames")
    assert found + [second.step() for _ in range(3)] == expected


def test_a_run_does_not_go_on_with_other_episodes(eyes):
    with pytest.raises(ConfigError, match="begun with other episodes"):
        train(eyes[0], dots(0.01), SETTINGS, task="lift")


def test_a_residual_sees_through_them_whatever_the_policy_is(eyes, tmp_path):
    env = dict(cameras=("front",), control_period_s=0.1)
    settings = PolicySettings(eyes=str(eyes[0]), device="cpu")
    policy = make_policy("still", settings, type(ENVIRONMENT)(**env))
    seen = featured(policy)
    assert seen is not None
    assert policy.cameras == ("front",)
    shown = observation()
    with pytest.raises(InvalidCommandError, match=r"settings\.eyes"):
        policy.infer(type(shown)(**{**_fields(shown), "images": {}}), None)
    image = dots().images["front"][0]
    policy.infer(type(shown)(**{**_fields(shown), "images": {"front": image}}), None)
    np.testing.assert_array_equal(seen.features(), GoalEyes(eyes[0]).look({"front": image}))


def _fields(shown) -> dict:
    return {name: getattr(shown, name) for name in shown.__dataclass_fields__}


def test_eyes_that_see_otherwise_are_told_apart(eyes, tmp_path):
    other = tmp_path / "other"
    train(other, dots(0.01), EyesSettings(steps=2, image_px=PX), task="lift")
    assert GoalEyes(other).tower_hash != GoalEyes(eyes[0]).tower_hash


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / MODEL_NAME).write_bytes(b"?"), "is not the file that"),
        (lambda d: (d / MODEL_NAME).unlink(), "cannot be read"),
        (lambda d: (d / MANIFEST_NAME).write_text("{"), MANIFEST_NAME),
        (
            lambda d: (d / MANIFEST_NAME).write_text(
                (d / MANIFEST_NAME).read_text().replace('"front"', '"other"')
            ),
            "has inputs",
        ),
        (
            lambda d: (d / MANIFEST_NAME).write_text(
                (d / MANIFEST_NAME).read_text().replace(f'dim": {FEATURE_DIM}', 'dim": 7')
            ),
            "answers",
        ),
    ],
)
def test_damaged_eyes_are_refused_by_name(eyes, tmp_path, damage, message):
    for name in (MODEL_NAME, MANIFEST_NAME):
        (tmp_path / name).write_bytes((eyes[0] / name).read_bytes())
    damage(tmp_path)
    with pytest.raises(ConfigError, match=message):
        GoalEyes(tmp_path)


def test_only_successes_teach_and_only_up_to_their_end(tmp_path):
    def read(name: str, **what) -> EpisodeFrames:
        return read_frames(record(tmp_path / name, **what), CAMERAS)

    good, bad = read("good", start=12), read("bad", outcome="failure")
    assert bad.outcome is Outcome.FAILURE
    found = list(from_recordings([bad, good]))
    assert len(found) == 1
    images, ways_m = found[0]
    stamps_ns = good.stamps_ns[
        (good.stamps_ns >= START_NS + 12 * FRAME_NS)
        & (good.stamps_ns <= START_NS + END_FRAME * FRAME_NS)
    ]
    assert len(images["wrist"]) == len(ways_m) == len(stamps_ns)
    # The hand moves 1 cm per frame along x.
    left = (stamps_ns[-1] - stamps_ns) / FRAME_NS
    np.testing.assert_allclose(ways_m[:, 0], 0.01 * left, atol=1e-5)


def test_of_too_many_frames_every_so_many_are_kept():
    stack = np.zeros((10, 4, 4, 3), np.uint8)
    episodes = [({"front": stack}, np.full((10, 3), n, np.float32)) for n in range(3)]
    frames = collected(episodes, ("front",), 12)
    assert len(frames) == 12
    assert set(frames.episodes) == {0, 1, 2}
    with pytest.raises(ConfigError, match="no successful episode"):
        collected([], ("front",), 12)


def test_demonstrations_are_made_to_measure_and_the_same_each_time():
    first, second = (list(simulated(Task.PEG, "peg_friction_tight", 2, 5)) for _ in range(2))
    for (images, ways_m), (again, ways_again_m) in zip(first, second, strict=True):
        assert images["wrist"].shape[1:] == (128, 128, 3)
        assert abs(ways_m[-1]).max() == 0.0
        np.testing.assert_array_equal(ways_m, ways_again_m)
        np.testing.assert_array_equal(images["front"], again["front"])


def test_the_command_reads_bags(tmp_path, capsys):
    for number in range(6):
        record(tmp_path / "bags" / f"one{number}")
    record(tmp_path / "bags" / "button", task="button")
    words = ["train", "eyes", str(tmp_path / "bags"), "--out", str(tmp_path / "out")]
    few = ["--steps", "2", "--set", "eyes.image_px=32", "eyes.batch=4"]
    assert main([*words, *few]) == 1
    assert "choose by --task" in capsys.readouterr().err
    assert main([*words, *few, "--task", "lift"]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (figures["task"], figures["episodes"], figures["steps"]) == ("lift", 6, 2)
    assert GoalEyes(tmp_path / "out").feature_dim == FEATURE_DIM


@pytest.mark.parametrize("words", [[], ["bag", "--simulate", "lift"]])
def test_the_command_wants_one_source(tmp_path, capsys, words):
    assert main(["train", "eyes", *words, "--out", str(tmp_path)]) == 1
    assert "give bags, or --simulate" in capsys.readouterr().err
