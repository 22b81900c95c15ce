# SPDX-License-Identifier: Apache-2.0
"""Eyes that learn from successful episodes where the hand goes next."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from unit.eyes_samples import EPISODES, PX, SETTINGS, TICKS, dots, shown
from unit.pi0_checkpoints import ENVIRONMENT, observation

from vla_rl_ros.core.errors import ConfigError, InvalidCommandError, LearningError
from vla_rl_ros.learning.eyes_net import ACTION_COLUMNS, FEATURE_DIM, SCALES_M
from vla_rl_ros.learning.eyes_trainer import EyesSettings, EyesTrainer, check_begun
from vla_rl_ros.learning.eyes_training import held_out_of, train
from vla_rl_ros.learning.training_loop import learn
from vla_rl_ros.policies import goal_eyes
from vla_rl_ros.policies.cpu_model import MODEL_NAME
from vla_rl_ros.policies.goal_eyes import (
    CHECKPOINT_NAME,
    MANIFEST_NAME,
    GoalEyes,
    read_manifest,
    write_manifest,
)
from vla_rl_ros.policies.protocol import PolicySettings, featured, make_policy

FEW = EyesSettings(steps=2, image_px=PX, batch=4)


@pytest.fixture(scope="module")
def eyes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("eyes")
    return out, train(out, dots(), SETTINGS)


def held_out(out: Path) -> np.ndarray:
    frames, held = dots(), read_manifest(out).training["held_out"]
    return np.isin(np.array(frames.names)[frames.episodes], held)


def test_the_numbers_are_those_of_the_written_file_on_held_out_episodes(eyes):
    out, figures = eyes
    frames, is_held, seeing = dots(), held_out(out), GoalEyes(out)
    assert (figures["held_out_episodes"], is_held.sum()) == (1, TICKS)
    looked = [seeing.look({"front": image}) for image in frames.images["front"][is_held]]
    wrong_mm = 1e3 * (SCALES_M[0] * np.array(looked)[:, :3] - frames.ways_m[is_held])
    guessed_mm = 1e3 * (frames.ways_m[~is_held].mean(0) - frames.ways_m[is_held])
    far_mm = 1e3 * np.linalg.norm(frames.ways_m[is_held][:, :2], axis=1)
    expected = {}
    for word, parts_mm in (("error", wrong_mm), ("guess", guessed_mm)):
        in_plane_mm = np.linalg.norm(parts_mm[:, :2], axis=1)
        expected[f"{word}_xy_mm"] = in_plane_mm.mean()
        expected[f"{word}_z_mm"] = np.abs(parts_mm[:, 2]).mean()
        expected[f"close_{word}_xy_mm"] = in_plane_mm[far_mm < 40.0].mean()
    moves, seen = frames.actions[:, :3], np.array(looked)[:, ACTION_COLUMNS][:, :3]
    expected["action_error_mm"] = 20.0 * np.abs(seen - moves[is_held]).mean()
    expected["action_guess_mm"] = 20.0 * np.abs(moves[~is_held].mean(0) - moves[is_held]).mean()
    assert {name: figures[name] for name in expected} == pytest.approx(expected, abs=0.02)
    assert figures["action_error_mm"] < 0.5 * figures["action_guess_mm"]
    assert figures["frames_with_action"] == len(frames)
    assert figures["error_xy_mm"] < 0.4 * figures["guess_xy_mm"]


def test_no_mean_is_made_of_no_close_frames(tmp_path):
    frames = dots()
    far = dataclasses.replace(frames, ways_m=frames.ways_m + np.float32([0.2, 0.0, 0.0]))
    figures = train(tmp_path, far, FEW)
    assert figures["close_error_xy_mm"] is None
    assert figures["close_guess_xy_mm"] is None


def test_frames_without_an_action_teach_the_way_and_nothing_else(tmp_path):
    frames, rows = dots(), np.arange(EPISODES * TICKS)
    unknown = dataclasses.replace(frames, actions=np.full_like(frames.actions, np.nan))
    figures = train(tmp_path, unknown, FEW)
    assert figures["action_error_mm"] is figures["action_guess_mm"] is None
    assert figures["frames_with_action"] == 0
    # Nobody taught them, so they tell nothing.
    image = frames.images["front"][0]
    assert not GoalEyes(tmp_path).look({"front": image})[ACTION_COLUMNS].any()
    blind = EyesTrainer(FEW, unknown, rows)
    without = EyesTrainer(dataclasses.replace(FEW, action_weight=0.0), frames, rows)
    assert [blind.step() for _ in range(2)] == [without.step() for _ in range(2)]
    # One number that is unknown takes nothing from the others.
    actions = frames.actions.copy()
    actions[:, 6] = np.nan
    partly = EyesTrainer(FEW, dataclasses.replace(frames, actions=actions), rows)
    assert np.isfinite(partly.step())
    assert partly.net.action.bias.grad is not None
    assert partly.net.action.bias.grad[:3].abs().min() > 0.0
    assert partly.net.action.bias.grad[6] == 0.0


def test_nothing_is_learned_from_held_out_episodes(eyes, tmp_path):
    frames, is_held = dots(), held_out(eyes[0])
    versions = []
    for name, rows in (("same", None), ("held", is_held), ("learned", ~is_held)):
        ways_m, actions = frames.ways_m.copy(), frames.actions.copy()
        if rows is not None:
            ways_m[rows] += 0.05
            actions[rows] *= -1.0
        changed = dataclasses.replace(frames, ways_m=ways_m, actions=actions)
        figures = train(tmp_path / name, changed, FEW)
        versions.append(figures["version"])
    assert versions[0] == versions[1] != versions[2]


def test_the_same_episodes_are_held_out_in_whatever_order_they_come(tmp_path):
    first = [f"e{n}" for n in range(20)]
    found = [held_out_of(tuple(names), FEW) for names in (first, first[::-1])]
    assert found[0] == found[1]
    assert len(found[0]) == 2
    others = [held_out_of(tuple(first), EyesSettings(seed=seed)) for seed in range(4)]
    assert len({tuple(names) for names in others}) > 1


def test_what_was_exported_tells_the_way_at_every_scale_and_what_would_be_done(eyes):
    seeing = GoalEyes(eyes[0])
    frames = dots()
    features = np.array([seeing.look({"front": image}) for image in frames.images["front"][:40]])
    assert features.shape == (40, FEATURE_DIM)
    actions, told = frames.actions[:40], features[:, ACTION_COLUMNS]
    assert np.abs(told - actions)[:, :6].mean() < 0.05
    assert (np.sign(told[:, 6]) == actions[:, 6]).mean() > 0.9
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
    assert second.trained_s == first.trained_s > 0.0
    assert found + [second.step() for _ in range(3)] == expected


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_is_saved_after_its_step(tmp_path, signum):
    frames, rows, path = dots(), np.arange(EPISODES * TICKS), tmp_path / "t.pt"
    before = signal.getsignal(signum)

    class Stopped(EyesTrainer):
        def step(self) -> float:
            if self.step_number == 2:
                os.kill(os.getpid(), signum)
            return super().step()

    with pytest.raises(KeyboardInterrupt):
        learn(Stopped(SETTINGS, frames, rows), path, "frames", 10, lambda step, loss: None)
    assert signal.getsignal(signum) is before
    again = EyesTrainer(SETTINGS, frames, rows)
    again.load(path, "frames")
    assert again.step_number == 3


def test_a_run_does_not_go_on_with_other_episodes_or_settings(eyes):
    with pytest.raises(ConfigError, match="begun with other episodes"):
        train(eyes[0], dots(50), SETTINGS)
    path, other = eyes[0] / CHECKPOINT_NAME, dataclasses.replace(SETTINGS, batch=8)
    check_begun(path, SETTINGS)
    with pytest.raises(ConfigError, match="begun with batch=32"):
        check_begun(path, other)
    with pytest.raises(ConfigError, match="image_px=40 is no multiple of 16"):
        EyesSettings(image_px=40)


def test_a_finished_run_that_is_repeated_tells_the_same(tmp_path):
    short = dataclasses.replace(SETTINGS, steps=8)
    first, again = (train(tmp_path, dots(), short) for _ in range(2))
    assert first == again
    assert first["train_s"] > 0.0


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    ways_m = np.full_like(dots().ways_m, np.nan)
    with pytest.raises(LearningError, match="loss of step 1 is nan"):
        train(tmp_path, dataclasses.replace(dots(), ways_m=ways_m), FEW)
    assert not (tmp_path / MANIFEST_NAME).exists()


def test_a_residual_sees_through_them_whatever_the_policy_is(eyes):
    env = dict(cameras=("front",), control_period_s=0.1)
    settings = PolicySettings(eyes=str(eyes[0]), device="cpu")
    policy = make_policy("still", settings, type(ENVIRONMENT)(**env))
    seen = featured(policy)
    assert seen is not None
    assert policy.cameras == ("front",)
    before = observation()
    with pytest.raises(InvalidCommandError, match=r"settings\.eyes"):
        policy.infer(dataclasses.replace(before, images={}), None)
    image = dots().images["front"][0]
    policy.infer(dataclasses.replace(before, images={"front": image}), None)
    np.testing.assert_array_equal(seen.features(), GoalEyes(eyes[0]).look({"front": image}))


def test_they_look_at_larger_images_as_they_learned_from_them(tmp_path):
    frames = dots(size=(48, 64))
    train(tmp_path, frames, FEW)
    seeing, image = GoalEyes(tmp_path), shown(size=(48, 64)).images["front"][0]
    # What was learned from is the resized image: looked at as it is, it has to be square.
    square = tmp_path / "square"
    square.mkdir()
    (square / MODEL_NAME).write_bytes((tmp_path / MODEL_NAME).read_bytes())
    manifest = dataclasses.replace(read_manifest(tmp_path), image_sizes={"front": (PX, PX)})
    write_manifest(manifest, square)
    expected = GoalEyes(square).look({"front": frames.images["front"][0]})
    np.testing.assert_array_equal(seeing.look({"front": image}), expected)
    # The same shape in more pixels is the same picture, another shape is not.
    seeing.look({"front": image.repeat(2, 0).repeat(2, 1)})
    with pytest.raises(InvalidCommandError, match="'front' gives 64x64, the eyes learned from"):
        seeing.look({"front": np.zeros((64, 64, 3), np.uint8)})


def test_an_image_that_cannot_be_reduced_is_named_by_its_camera(eyes):
    with pytest.raises(InvalidCommandError, match="camera 'front' gives 40x40"):
        GoalEyes(eyes[0]).look({"front": np.zeros((40, 40, 3), np.uint8)})


def test_eyes_that_see_otherwise_are_told_apart(eyes, tmp_path, monkeypatch):
    train(tmp_path, dots(), FEW)
    hashes = {GoalEyes(tmp_path).tower_hash, GoalEyes(eyes[0]).tower_hash}
    answer = SimpleNamespace(name="features", shape=["batch", FEATURE_DIM])
    session = SimpleNamespace(get_outputs=lambda: [answer])
    monkeypatch.setattr(goal_eyes, "open_model", lambda *given: session)
    manifest = read_manifest(tmp_path)
    both = {"front": (PX, PX), "wrist": (PX, PX)}
    for changes in (
        {"resize": "pad"},
        {"image_px": 64},
        {"cameras": ("front", "wrist"), "image_sizes": both},
        {"cameras": ("wrist", "front"), "image_sizes": both},
    ):
        write_manifest(dataclasses.replace(manifest, **changes), tmp_path)
        hashes.add(GoalEyes(tmp_path).tower_hash)
    assert len(hashes) == 6


def without(word: str, replacement: str):
    def damage(directory: Path) -> None:
        path = directory / MANIFEST_NAME
        path.write_text(path.read_text().replace(word, replacement))

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / MODEL_NAME).write_bytes(b"?"), "is not the file that"),
        (lambda d: (d / MODEL_NAME).unlink(), "cannot be read"),
        (lambda d: (d / MANIFEST_NAME).write_text("{"), f"{MANIFEST_NAME} is not JSON"),
        (lambda d: (d / MANIFEST_NAME).unlink(), "that 'vla-rl-ros train eyes' wrote"),
        (without('"front"', '"other"'), "has inputs"),
        (without(f'dim": {FEATURE_DIM}', 'dim": 7'), "answers"),
        (without('"bags"', '"dreams"'), "is not one of bags, simulator"),
        (without('"image_sizes"', '"sizes"'), "'sizes' is unknown"),
        (without(f"      {PX},\n", ""), "wanted is .height, width"),
    ],
)
def test_damaged_eyes_are_refused_by_name(eyes, tmp_path, damage, message):
    for name in (MODEL_NAME, MANIFEST_NAME):
        (tmp_path / name).write_bytes((eyes[0] / name).read_bytes())
    damage(tmp_path)
    with pytest.raises(ConfigError, match=message):
        GoalEyes(tmp_path)


def test_the_manifest_tells_how_they_came_about(eyes):
    training = json.loads((eyes[0] / MANIFEST_NAME).read_text())["training"]
    assert training["data"] == dots().digest
    assert training["settings"] == dataclasses.asdict(SETTINGS)
    assert "eyes" not in training
