# SPDX-License-Identifier: Apache-2.0
"""The denoising loop: stock without promises, exact with locked ones, pulled by a plan."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from unit.pi0_checkpoints import write_nano, write_stock

from vla_rl_ros.policies.pi0 import forward
from vla_rl_ros.policies.pi0.denoise import Context, Flow, Guide, Lock, denoise, denoise_guided
from vla_rl_ros.policies.pi0.graph import ChunkGraph, example_inputs, recorded
from vla_rl_ros.policies.pi0.loading import load_model, model_shape

CPU = torch.device("cpu")


def _load(directory: Path) -> torch.nn.Module:
    return load_model(directory, CPU, torch.float32)


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> torch.nn.Module:
    return _load(write_stock(tmp_path_factory.mktemp("stock")))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> torch.nn.Module:
    return _load(write_nano(tmp_path_factory.mktemp("nano")))


@pytest.fixture(params=["stock", "small"])
def model(request: pytest.FixtureRequest) -> torch.nn.Module:
    return request.getfixturevalue(request.param)


class Scene:
    """Random inputs for a model, in the terms of `Flow` and of stock."""

    def __init__(self, model: torch.nn.Module, seed: int = 0, num_padding: int = 0) -> None:
        """Draw."""
        config, random = model.config, torch.Generator().manual_seed(seed)
        vision = config.vlm_config.vision_config
        px, cameras = vision.image_size, 2
        num_seen = cameras * (px // vision.patch_size) ** 2
        self.pixels = torch.rand(1, cameras, 3, px, px, generator=random) * 2 - 1
        self.tokens = torch.randint(0, 10, (1, 5 + num_padding), generator=random)
        self.token_mask = torch.ones_like(self.tokens)
        self.token_mask[:, 5:] = 0
        self.state = torch.randn(1, config.max_state_dim, generator=random)
        size = (1, config.chunk_size, config.max_action_dim)
        self.noise = torch.randn(size, generator=random)
        self.plan = torch.randn(size, generator=random)
        seen = torch.full((1, num_seen), config.vlm_config.image_token_id)
        self.all_tokens = torch.cat([seen, self.tokens], dim=1)
        self.all_mask = torch.cat([torch.ones_like(seen), self.token_mask], dim=1)

    def context(self, flow: Flow) -> Context:
        """Encoded by `flow`."""
        with torch.no_grad():
            return flow.observe(self.pixels, self.tokens, self.token_mask, self.state)

    def lock(self, num_locked: int, *, is_clean: bool) -> Lock:
        """The first rows of the plan."""
        rows = torch.arange(self.plan.shape[1])
        return Lock(self.plan, (rows < num_locked)[None], is_clean)


def _close(one: Tensor, other: Tensor, tolerance: float = 2e-5) -> bool:
    return float((one - other).abs().max()) <= tolerance


@pytest.mark.parametrize("num_padding", [0, 3])
@pytest.mark.parametrize("num_steps", [1, 4, 10])
def test_without_a_promise_it_is_stock_sample_actions(
    model: torch.nn.Module, num_steps: int, num_padding: int
) -> None:
    scene, flow = Scene(model, num_padding=num_padding), Flow(model)
    wanted = model.sample_actions(
        scene.state,
        scene.all_tokens,
        scene.pixels,
        noise=scene.noise,
        attention_mask=scene.all_mask,
        pixel_attention_mask=torch.ones(1, 2, dtype=torch.bool),
        num_steps=num_steps,
    )
    assert wanted.abs().max() > 0.5
    assert _close(denoise(flow, scene.context(flow), scene.noise, num_steps), wanted)


def test_one_velocity_is_what_training_sees_with_a_time_per_row(small: torch.nn.Module) -> None:
    scene, flow = Scene(small, num_padding=2), Flow(small)
    times = torch.full((1, 16), 0.7)
    times[:, :4] = 0.0
    with torch.no_grad():
        cache = forward.encode_prefix(small, scene.pixels, scene.all_tokens, scene.all_mask)
        hidden = forward.suffix_hidden(small, cache, scene.state, scene.noise, times)
        wanted = small.action_out_proj(hidden[:, 1:])
        assert _close(flow.velocity(scene.context(flow), scene.noise, times), wanted)


def test_samples_on_one_context_equal_single_ones(model: torch.nn.Module) -> None:
    scene, flow = Scene(model), Flow(model)
    noise = torch.cat([scene.noise, scene.plan, -scene.noise])
    context, lock = scene.context(flow), scene.lock(2, is_clean=False)
    together = denoise(flow, context, noise, 3, lock)
    alone = [denoise(flow, context, one[None], 3, lock) for one in noise]
    assert _close(together, torch.cat(alone))


@pytest.mark.parametrize("is_clean", [True, False])
@pytest.mark.parametrize("num_locked", [1, 3, 8])
def test_locked_rows_come_back_bit_identical(
    model: torch.nn.Module, num_locked: int, is_clean: bool
) -> None:
    scene, flow = Scene(model), Flow(model)
    lock = scene.lock(num_locked, is_clean=is_clean)
    actions = denoise(flow, scene.context(flow), scene.noise, 4, lock)
    assert torch.equal(actions[:, :num_locked], scene.plan[:, :num_locked])


@pytest.mark.parametrize("is_clean", [True, False])
def test_free_rows_follow_the_locked_ones_and_nothing_else_of_the_plan(
    model: torch.nn.Module, is_clean: bool
) -> None:
    scene, flow = Scene(model), Flow(model)
    context, lock = scene.context(flow), scene.lock(3, is_clean=is_clean)

    def free_rows(plan: Tensor) -> Tensor:
        return denoise(flow, context, scene.noise, 4, Lock(plan, lock.is_locked, is_clean))[:, 3:]

    base = free_rows(scene.plan)
    behind, before = scene.plan.clone(), scene.plan.clone()
    behind[:, 3:] += 1.0
    before[:, :3] += 1.0
    assert torch.equal(free_rows(behind), base)
    assert not _close(free_rows(before), base, 1e-3)


@pytest.mark.parametrize("is_clean", [True, False])
def test_a_lock_of_no_rows_changes_nothing(model: torch.nn.Module, is_clean: bool) -> None:
    scene, flow = Scene(model), Flow(model)
    context = scene.context(flow)
    locked = denoise(flow, context, scene.noise, 3, scene.lock(0, is_clean=is_clean))
    assert torch.equal(locked, denoise(flow, context, scene.noise, 3))


@pytest.mark.parametrize("num_locked", [0, 3])
def test_the_recorded_graph_is_the_loop_bit_for_bit(
    model: torch.nn.Module, num_locked: int
) -> None:
    graph = ChunkGraph(model, num_steps=4, is_clean_lock=True)
    run = recorded(graph, example_inputs(model_shape(model), 2, 1))
    flow = Flow(model)
    for seed, num_padding in ((0, 0), (1, 3)):
        scene = Scene(model, seed, num_padding)
        lock = scene.lock(num_locked, is_clean=True)
        wanted = denoise(flow, scene.context(flow), scene.noise, 4, lock)
        inputs = (scene.pixels, scene.tokens, scene.token_mask, scene.state)
        answer, features = run(*inputs, scene.noise, scene.plan, torch.tensor([num_locked]))
        assert torch.equal(answer, wanted)
        assert torch.equal(features, graph.reduce(scene.context(flow).seen))


class _Watched(Flow):
    """Remembers what the model was shown."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__(model)
        self.shown: list[tuple[Tensor, Tensor, bool]] = []

    def velocity(self, context: Context, noisy: Tensor, times: Tensor) -> Tensor:
        self.shown.append((noisy.detach(), times, torch.is_grad_enabled()))
        return super().velocity(context, noisy, times)


def test_trained_weights_see_promises_clean_at_every_step(small: torch.nn.Module) -> None:
    scene, flow = Scene(small), _Watched(small)
    denoise(flow, scene.context(flow), scene.noise, 4, scene.lock(3, is_clean=True))
    assert len(flow.shown) == 4
    for step, (noisy, times, _) in enumerate(flow.shown):
        assert torch.equal(noisy[:, :3], scene.plan[:, :3])
        assert (times[:, :3] == 0.0).all()
        assert (times[:, 3:] == 1.0 - step / 4).all()


def test_other_weights_see_promises_as_noisy_as_the_rest(stock: torch.nn.Module) -> None:
    scene, flow = Scene(stock), _Watched(stock)
    denoise(flow, scene.context(flow), scene.noise, 4, scene.lock(3, is_clean=False))
    for step, (noisy, times, _) in enumerate(flow.shown):
        time = 1.0 - step / 4
        assert (times == time).all()
        mixed = time * scene.noise[:, :3] + (1.0 - time) * scene.plan[:, :3]
        assert _close(noisy[:, :3], mixed, 1e-6)


def _guide(scene: Scene, *, is_jacobian: bool, num_rows: int = 5) -> Guide:
    weights = torch.zeros_like(scene.plan)
    weights[:, :num_rows] = torch.linspace(1.0, 0.2, num_rows)[:, None]
    return Guide(scene.plan, weights, lambda tau: 2.0, is_jacobian)


@pytest.mark.parametrize("is_jacobian", [True, False])
def test_guidance_brings_the_answer_nearer_to_the_plan(
    model: torch.nn.Module, is_jacobian: bool
) -> None:
    scene, flow = Scene(model), Flow(model)
    context, guide = scene.context(flow), _guide(scene, is_jacobian=is_jacobian)

    def distance(actions: Tensor) -> float:
        return float(((actions - scene.plan) * guide.weights).pow(2).sum())

    free = denoise(flow, context, scene.noise, 10)
    guided = denoise_guided(flow, context, scene.noise, 10, guide)
    assert distance(guided) < 0.7 * distance(free)
    assert not guided.requires_grad


def test_guidance_without_weight_changes_nothing(model: torch.nn.Module) -> None:
    scene, flow = Scene(model), Flow(model)
    context = scene.context(flow)
    for is_jacobian in (True, False):
        guide = Guide(scene.plan, torch.zeros_like(scene.plan), lambda tau: 5.0, is_jacobian)
        guided = denoise_guided(flow, context, scene.noise, 4, guide)
        assert _close(guided, denoise(flow, context, scene.noise, 4), 1e-5)


def test_gradients_are_on_only_for_the_exact_jacobian(small: torch.nn.Module) -> None:
    scene, flow = Scene(small), _Watched(small)
    context = scene.context(flow)
    for run, wanted in (
        (lambda: denoise(flow, context, scene.noise, 2), False),
        (lambda: denoise(flow, context, scene.noise, 2, scene.lock(2, is_clean=True)), False),
        (
            lambda: denoise_guided(
                flow, context, scene.noise, 2, _guide(scene, is_jacobian=False)
            ),
            False,
        ),
        (
            lambda: denoise_guided(flow, context, scene.noise, 2, _guide(scene, is_jacobian=True)),
            True,
        ),
    ):
        flow.shown.clear()
        with torch.no_grad():
            run()
        assert [is_on for *_, is_on in flow.shown] == [wanted] * 2
    assert all(parameter.grad is None for parameter in small.parameters())


class _Linear:
    """A flow with velocity ``slope * actions + 1``, whose Jacobian is known."""

    def __init__(self, slope: float) -> None:
        self.slope = slope

    def velocity(self, context: object, noisy: Tensor, times: Tensor) -> Tensor:
        return self.slope * noisy + 1.0


def _by_hand(slope: float, start: np.ndarray, target: np.ndarray, weights: np.ndarray, n: int):
    """RTC for a linear flow, written with tau = 1 - time as in the paper."""
    actions = start.copy()
    for step in range(n):
        tau = step / n
        v = -(slope * actions + 1.0)
        clean = actions + (1.0 - tau) * v
        jacobian = 1.0 - (1.0 - tau) * slope
        pull = (target - clean) * weights * jacobian
        actions = actions + (v + (2.0 + tau) * pull) / n
    return actions


@pytest.mark.parametrize("slope", [0.0, 0.4, -1.3])
def test_the_exact_guidance_is_the_formula_of_the_paper(slope: float) -> None:
    rng = np.random.default_rng(0)
    start, target = rng.standard_normal((2, 1, 6, 3))
    weights = rng.uniform(0.0, 1.0, (1, 6, 3))
    guide = Guide(torch.tensor(target), torch.tensor(weights), lambda tau: 2.0 + tau, True)
    guided = denoise_guided(_Linear(slope), None, torch.tensor(start), 5, guide)
    np.testing.assert_allclose(guided, _by_hand(slope, start, target, weights, 5), atol=1e-12)


def test_both_guidances_agree_where_the_jacobian_is_the_identity() -> None:
    start, target = torch.randn(2, 1, 6, 3, generator=torch.Generator().manual_seed(0))
    weights = torch.full_like(start, 0.8)
    answers = [
        denoise_guided(
            _Linear(0.0), None, start, 5, Guide(target, weights, lambda tau: 1.5, is_jacobian)
        )
        for is_jacobian in (True, False)
    ]
    assert torch.allclose(*answers)
