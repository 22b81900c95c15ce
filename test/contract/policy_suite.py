# SPDX-License-Identifier: Apache-2.0
"""What every policy has to do, whatever is behind it."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest

from vla_rl_ros.core.errors import VlaRlError
from vla_rl_ros.core.intervention import Anchor
from vla_rl_ros.core.prefix import Conditioning, Prefix
from vla_rl_ros.core.types import Pose
from vla_rl_ros.policies.protocol import ChunkPolicy, PolicyEnvironment, PolicyObservation

CAMERAS = ("wrist", "front")
ENVIRONMENT = PolicyEnvironment(control_period_s=0.1, cameras=CAMERAS)
READY_RAD = (0.0, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785)
UPRIGHT = np.array([0.0, 0.0, 0.0, 1.0])
DOWN = np.array([1.0, 0.0, 0.0, 0.0])


def observation(tick: int = 0, **changes: object) -> PolicyObservation:
    """What the cell shows at a tick: everything that any policy may ask for, read-only."""
    rng = np.random.default_rng(tick)
    state = np.zeros(20)
    state[:3], state[3:7], state[19] = [0.5 + 0.002 * tick, 0.0, 0.25], DOWN, 0.08
    images = {name: rng.integers(0, 256, (128, 128, 3), dtype=np.uint8) for name in CAMERAS}
    for array in (state, *images.values()):
        array.setflags(write=False)
    objects = {
        "cube": Pose(np.array([0.5, 0.0, 0.02]), UPRIGHT),
        "button": Pose(np.array([0.5, 0.1, 0.05]), UPRIGHT),
        "hole": Pose(np.array([0.5, -0.1, 0.04]), UPRIGHT),
        "peg": Pose(np.array([0.5, 0.0, 0.3]), DOWN),
    }
    values = {
        "stamp_ns": 1_700_000_000_000_000_000 + tick * 100_000_000,
        "images": images,
        "state": state,
        "instruction": "lift the red cube",
        "task": "lift",
        "joint_rad": np.array(READY_RAD),
        "target": Pose(state[:3] + np.array([0.001, 0.0, -0.002]), DOWN),
        "objects": objects,
        **changes,
    }
    return PolicyObservation(**values)


def promise(conditioning: Conditioning, num_rows: int, num_locked: int) -> Prefix:
    rng = np.random.default_rng(num_rows)
    actions = np.zeros((num_rows, 7))
    actions[:, :6] = rng.uniform(-0.005, 0.005, (num_rows, 6))
    actions[:, 6] = 1.0
    return Prefix(actions=actions, num_locked=num_locked, conditioning=conditioning)


def check_chunk(policy: ChunkPolicy, actions: np.ndarray) -> None:
    assert actions.shape == (policy.horizon, 7)
    assert np.isfinite(actions).all()
    assert (actions[:, 6] >= 0.0).all()
    assert (actions[:, 6] <= 1.0).all()


def _is_lock(conditioning: Conditioning) -> bool:
    return conditioning is Conditioning.LOCK


class PolicySuite:
    """Subclasses bring the fixtures `policy` and `make`, which makes another one like it."""

    most_repeated: int | None = None
    """Locked rows it repeats itself, where the runtime does the rest; None for all."""
    has_state_checks = True
    """Whether it looks at proprioception at all."""

    def test_a_chunk_is_finite_and_of_the_stated_length(self, policy: ChunkPolicy) -> None:
        check_chunk(policy, policy.infer(observation(), None))

    def test_it_says_what_it_needs_and_what_it_can(self, policy: ChunkPolicy) -> None:
        assert policy.horizon >= 1
        assert set(policy.cameras) <= set(CAMERAS)
        assert isinstance(policy.needs_objects, bool)
        assert isinstance(policy.anchor, Anchor)
        assert Conditioning.NONE in policy.conditionings
        assert 0 <= policy.max_locked <= policy.horizon
        if Conditioning.LOCK in policy.conditionings:
            assert policy.max_locked >= 1

    def test_policies_made_alike_answer_alike(self, make: Callable[[], ChunkPolicy]) -> None:
        twins = []
        for policy in (make(), make()):
            answers = []
            for _ in range(2):
                policy.reset()
                answers += [policy.infer(observation(tick), None) for tick in (0, 3, 6)]
            twins.append(answers)
        assert np.array_equal(twins[0], twins[1])

    @pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 1.0])
    def test_a_locked_prefix_is_repeated(self, policy: ChunkPolicy, part: float) -> None:
        if Conditioning.LOCK not in policy.conditionings:
            pytest.skip("cannot be locked")
        num_locked = int(np.ceil(part * policy.max_locked))
        prefix = promise(Conditioning.LOCK, max(num_locked, 1), num_locked)
        actions = policy.infer(observation(), prefix)
        num = num_locked if self.most_repeated is None else min(num_locked, self.most_repeated)
        check_chunk(policy, actions)
        np.testing.assert_allclose(actions[:num], prefix.actions[:num], atol=1e-9)

    @pytest.mark.parametrize("extra", [0, 5])
    def test_every_conditioning_it_claims_takes_a_plan_of_any_length(
        self, policy: ChunkPolicy, extra: int
    ) -> None:
        for conditioning in policy.conditionings:
            prefix = promise(conditioning, policy.horizon + extra, min(2, policy.max_locked))
            check_chunk(policy, policy.infer(observation(), prefix))

    def test_inputs_are_left_as_they_are(self, policy: ChunkPolicy) -> None:
        seen = observation()
        before = seen.state.copy(), {name: image.copy() for name, image in seen.images.items()}
        prefix = promise(max(policy.conditionings, key=_is_lock), 3, 1)
        promised = prefix.actions.copy()
        policy.infer(seen, prefix)
        assert np.array_equal(seen.state, before[0])
        assert all(np.array_equal(seen.images[name], before[1][name]) for name in CAMERAS)
        assert np.array_equal(prefix.actions, promised)

    def test_an_answer_belongs_to_the_caller(self, policy: ChunkPolicy) -> None:
        prefix = promise(max(policy.conditionings, key=_is_lock), 3, 1)
        first = policy.infer(observation(), prefix)
        first[:] = np.nan
        policy.reset()
        check_chunk(policy, policy.infer(observation(), prefix))
        assert np.isfinite(prefix.actions).all()

    def test_it_answers_in_a_thread_other_than_the_one_that_made_it(
        self, policy: ChunkPolicy
    ) -> None:
        there: list[np.ndarray] = []
        worker = threading.Thread(target=lambda: there.append(policy.infer(observation(), None)))
        worker.start()
        worker.join()
        check_chunk(policy, there[0])

    @pytest.mark.parametrize("fault", ["no image", "flat image", "float image"])
    def test_a_bad_image_is_refused_and_the_next_one_answered(
        self, policy: ChunkPolicy, fault: str
    ) -> None:
        if not policy.cameras:
            pytest.skip("looks at no camera")
        bad = {
            "no image": {},
            "flat image": {policy.cameras[0]: np.zeros((128, 128), dtype=np.uint8)},
            "float image": {policy.cameras[0]: np.zeros((128, 128, 3))},
        }[fault]
        others = {} if fault == "no image" else dict(observation().images)
        self._check_refused(policy, images={**others, **bad})

    @pytest.mark.parametrize("state", [np.full(20, np.nan), np.zeros(7)], ids=["nan", "short"])
    def test_a_bad_state_is_refused_and_the_next_one_answered(
        self, policy: ChunkPolicy, state: np.ndarray
    ) -> None:
        if not self.has_state_checks:
            pytest.skip("looks at no state")
        self._check_refused(policy, state=state)

    def test_missing_objects_are_named(self, policy: ChunkPolicy) -> None:
        if not policy.needs_objects:
            pytest.skip("asks for no objects")
        self._check_refused(policy, objects=None)

    def _check_refused(self, policy: ChunkPolicy, **changes: object) -> None:
        with pytest.raises(VlaRlError) as caught:
            policy.infer(observation(**changes), None)
        assert len(str(caught.value)) > len("wrong_length")
        check_chunk(policy, policy.infer(observation(), None))
