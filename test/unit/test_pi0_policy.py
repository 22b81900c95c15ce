# SPDX-License-Identifier: Apache-2.0
"""The `pi0` back end from observation to SI actions."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from unit.pi0_checkpoints import (
    CAMERAS,
    ENVIRONMENT,
    MEAN,
    NANO_HORIZON,
    STD,
    STOCK_HORIZON,
    change_json,
    observation,
    promise,
    settings,
    write_nano,
    write_stock,
)

from vla_rl_ros.core.errors import InvalidCommandError
from vla_rl_ros.core.intervention import Anchor
from vla_rl_ros.core.prefix import Conditioning, Prefix
from vla_rl_ros.policies.pi0.policy import CheckpointPolicy
from vla_rl_ros.policies.protocol import make_policy

LOCK, GUIDE = Conditioning.LOCK, Conditioning.GUIDE


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        "stock": write_stock(tmp_path_factory.mktemp("stock")),
        "nano": write_nano(tmp_path_factory.mktemp("nano")),
    }


@pytest.fixture(scope="module")
def policies(directories: dict[str, Path]) -> dict[str, CheckpointPolicy]:
    """Shared by tests to which the state of the noise does not matter."""
    return {kind: _policy(directory) for kind, directory in directories.items()}


@pytest.fixture(params=["stock", "nano"])
def policy(
    request: pytest.FixtureRequest, policies: dict[str, CheckpointPolicy]
) -> CheckpointPolicy:
    return policies[request.param]


def _policy(directory: Path, **changes: object) -> CheckpointPolicy:
    policy = make_policy("pi0", settings(directory, **changes), ENVIRONMENT)
    assert isinstance(policy, CheckpointPolicy)
    return policy


def test_it_says_what_it_needs(policies: dict[str, CheckpointPolicy]) -> None:
    stock, nano = policies["stock"], policies["nano"]
    assert (stock.horizon, nano.horizon) == (STOCK_HORIZON, NANO_HORIZON)
    assert (stock.anchor, nano.anchor) == (Anchor.LAST_TARGET, Anchor.MEASURED)
    assert (stock.max_locked, nano.max_locked) == (STOCK_HORIZON, 8)
    for policy in (stock, nano):
        assert policy.cameras == CAMERAS
        assert not policy.needs_objects
        assert policy.conditionings == frozenset(Conditioning)


def test_answers_are_finite_si_chunks(policy: CheckpointPolicy) -> None:
    for prefix in (
        None,
        promise(LOCK, num_locked=3),
        promise(GUIDE, num_locked=2, num_rows=6),
        promise(Conditioning.NONE, num_locked=2),
    ):
        chunk = policy.infer(observation(), prefix)
        assert chunk.shape == (policy.horizon, 7)
        assert np.isfinite(chunk).all()
        assert ((chunk[:, 6] >= 0.0) & (chunk[:, 6] <= 1.0)).all()


def test_the_same_seed_gives_the_same_chunks_and_another_one_others(
    directories: dict[str, Path],
) -> None:
    one, other, third = (_policy(directories["stock"], seed=seed) for seed in (5, 5, 6))
    first = [one.infer(observation(i), None) for i in range(3)]
    second = [other.infer(observation(i), None) for i in range(3)]
    np.testing.assert_array_equal(first, second)
    assert not np.allclose(third.infer(observation(), None), first[0])


def test_noise_belongs_to_the_tick_and_to_the_episode(policy: CheckpointPolicy) -> None:
    seen = observation()
    later = dataclasses.replace(seen, stamp_ns=seen.stamp_ns + 100_000_000)
    first, again, next_tick = (policy.infer(o, None) for o in (seen, seen, later))
    policy.reset()
    other_episode = policy.infer(later, None)

    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(again, next_tick)
    assert not np.array_equal(next_tick, other_episode)


def test_noise_goes_on_over_resets(policy: CheckpointPolicy) -> None:
    before = policy.sample(observation()).noise
    policy.reset()
    assert not np.array_equal(policy.sample(observation()).noise, before)


def test_given_noise_decides_the_answer(policy: CheckpointPolicy) -> None:
    sample = policy.sample(observation(), num_samples=3)
    assert sample.actions.shape == (3, policy.horizon, 7)
    again = policy.sample(observation(), noise=sample.noise)
    np.testing.assert_array_equal(again.actions, sample.actions)
    single = policy.sample(observation(), noise=sample.noise[1:2])
    np.testing.assert_allclose(single.actions[0], sample.actions[1], atol=1e-5)
    with pytest.raises(InvalidCommandError, match="noise"):
        policy.sample(observation(), noise=sample.noise[:, 1:])


@pytest.mark.parametrize("part", ["images", "instruction", "state"])
def test_everything_it_sees_counts(policy: CheckpointPolicy, part: str) -> None:
    seen = observation()
    changed = {
        "images": {"images": {**seen.images, "front": observation(1).images["front"]}},
        "instruction": {"instruction": "press the yellow button"},
        "state": {"state": seen.state + np.eye(20)[0] * 0.05},
    }[part]
    sample = policy.sample(seen)
    other = policy.sample(dataclasses.replace(seen, **changed), noise=sample.noise)
    assert np.abs(other.actions - sample.actions).max() > 1e-6


def test_locked_rows_are_the_promise_itself(policy: CheckpointPolicy) -> None:
    prefix = promise(LOCK, num_locked=4, num_rows=6)
    sample = policy.sample(observation(), prefix)
    np.testing.assert_array_equal(sample.actions[0, :4], prefix.actions[:4])
    free = policy.sample(observation(), noise=sample.noise)
    assert np.abs(sample.actions[0, 4:] - free.actions[0, 4:]).max() > 1e-6


def test_promised_rows_beyond_the_lock_do_not_count(policy: CheckpointPolicy) -> None:
    prefix = promise(LOCK, num_locked=3, num_rows=6)
    longer = policy.sample(observation(), prefix)
    short = Prefix(actions=prefix.actions[:3], num_locked=3, conditioning=LOCK)
    shorter = policy.sample(observation(), short, noise=longer.noise)
    np.testing.assert_array_equal(longer.actions, shorter.actions)


def test_a_promise_longer_than_the_chunk_fills_it(policy: CheckpointPolicy) -> None:
    prefix = promise(LOCK, num_locked=policy.horizon + 3)
    chunk = policy.infer(observation(), prefix)
    np.testing.assert_array_equal(chunk, prefix.actions[: policy.horizon])


def test_no_promised_rows_are_no_promise(policy: CheckpointPolicy) -> None:
    free = policy.sample(observation())
    for conditioning in (LOCK, GUIDE):
        empty = promise(conditioning, num_locked=0)
        held = policy.sample(observation(), empty, noise=free.noise)
        np.testing.assert_array_equal(held.actions, free.actions)


def _plan_error(chunk: np.ndarray, plan: Prefix) -> float:
    """Mean distance of the first two rows from the plan, in deviations."""
    return float(np.abs((chunk[:2, :6] - plan.actions[:2, :6]) / np.array(STD[:6])).mean())


@pytest.mark.parametrize("guidance", ["jacobian", "identity"])
def test_guidance_pulls_towards_the_plan(
    policy: CheckpointPolicy, directories: dict[str, Path], guidance: str
) -> None:
    plan = promise(GUIDE, num_locked=0, num_rows=policy.horizon)
    free = policy.sample(observation())
    if guidance == "identity":
        kind = "nano" if policy.horizon == NANO_HORIZON else "stock"
        policy = _policy(directories[kind], guidance=guidance)
    guided = policy.sample(observation(), plan, noise=free.noise)
    before, after = (_plan_error(s.actions[0], plan) for s in (free, guided))
    assert after < 0.8 * before


def test_a_guidance_limit_of_zero_turns_it_off(directories: dict[str, Path]) -> None:
    policy = _policy(directories["stock"], guidance_limit=0.0)
    plan = promise(GUIDE, num_locked=1, num_rows=5)
    free = policy.sample(observation())
    guided = policy.sample(observation(), plan, noise=free.noise)
    np.testing.assert_allclose(guided.actions[:, 1:], free.actions[:, 1:], atol=1e-5)


def test_a_missing_image_and_an_unknown_word_are_named(policy: CheckpointPolicy) -> None:
    seen = observation()
    blind = dataclasses.replace(seen, images={"wrist": seen.images["wrist"]})
    with pytest.raises(InvalidCommandError, match="'front'"):
        policy.infer(blind, None)
    with pytest.raises(InvalidCommandError, match="'dance'"):
        policy.infer(dataclasses.replace(seen, instruction="dance"), None)


def test_fewer_steps_are_another_answer(
    policies: dict[str, CheckpointPolicy], directories: dict[str, Path]
) -> None:
    sample = policies["stock"].sample(observation())
    quick = _policy(directories["stock"], denoise_steps=1)
    other = quick.sample(observation(), noise=sample.noise)
    assert np.abs(other.actions - sample.actions).max() > 1e-4


@pytest.mark.parametrize("kind", ["stock", "nano"])
def test_bfloat16_answers_nearly_the_same(
    policies: dict[str, CheckpointPolicy], directories: dict[str, Path], kind: str
) -> None:
    sample = policies[kind].sample(observation())
    coarse = _policy(directories[kind], dtype="bfloat16")
    other = coarse.sample(observation(), noise=sample.noise)
    scaled = (other.actions - sample.actions)[..., :6] / np.array(STD[:6])
    assert 0.0 < np.sqrt(np.mean(scaled**2)) < 0.1


def test_normalisation_of_the_manifest_is_applied(policies: dict[str, CheckpointPolicy]) -> None:
    silent = policies["nano"].sample(observation(), num_samples=200)
    rows = (silent.actions[:, :, :6] - np.array(MEAN[:6])) / np.array(STD[:6])
    assert 0.2 < rows.std() < 5.0


def test_one_inference_of_nano_takes_little_of_one_core(
    policies: dict[str, CheckpointPolicy],
) -> None:
    policy, spent_s = policies["nano"], []
    prefix = promise(LOCK, num_locked=2)
    for _ in range(20):
        start_s = time.thread_time()
        policy.infer(observation(), prefix)
        spent_s.append(time.thread_time() - start_s)
    assert np.median(spent_s) < 0.025
    assert torch.get_num_threads() == 1


def test_torch_is_imported_only_when_a_policy_is_made() -> None:
    script = (
        "import sys, vla_rl_ros.policies.pi0, vla_rl_ros.policies.onnx, vla_rl_ros.tools.export\n"
        "heavy = {'torch', 'transformers', 'onnxruntime', 'tokenizers'} & set(sys.modules)\n"
        "sys.exit(bool(heavy))"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60, cwd=root)


@pytest.mark.parametrize(
    ("name", "missing"), [("pi0", "transformers"), ("pi0", "torch"), ("onnx", "onnxruntime")]
)
def test_a_package_that_is_not_installed_is_named(
    name: str, missing: str, directories: dict[str, Path], tmp_path: Path
) -> None:
    directory = tmp_path / "checkpoint"
    shutil.copytree(directories["nano"], directory)
    (directory / "pi0.onnx").touch()
    change_json(directory / "policy.json", backend=name)
    path = directory / "pi0.onnx" if name == "onnx" else directory
    script = f"""
import sys

class Refuse:
    def find_spec(self, name, *_):
        if name.split(".")[0] == {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name}}", name=name)

sys.meta_path.insert(0, Refuse())
from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.policies.protocol import PolicyEnvironment, PolicySettings, make_policy
try:
    settings = PolicySettings(path={str(path)!r})
    make_policy({name!r}, settings, PolicyEnvironment(cameras={CAMERAS!r}))
except ConfigError as error:
    print(error)
"""
    root = Path(__file__).parents[2]
    words = [sys.executable, "-c", script]
    done = subprocess.run(words, check=True, timeout=60, cwd=root, capture_output=True, text=True)
    assert f"needs the Python package '{missing}" in done.stdout
