# SPDX-License-Identifier: Apache-2.0
"""A classifier trained on 20 goals is exploited, VICE is not: the figure of reward-results.md.

    python bench/vice.py --out out/vice [--seeds 3] [--steps 12000]

A hand on a table has to push a puck to a goal; hand and puck are points in the plane. The
classifier knows 20 states of success (puck in the goal, hand behind it) and what a base policy saw
that goes to the puck and shoves it somewhere. It has never seen the hand at the goal without the
puck. One learner is paid by this classifier as it is, one by the same classifier while it goes on
learning by VICE, one by the truth. All else is equal: goals, first training, base, learner, seeds.
Prints one JSON line; writes `vice.json` and `vice.svg`. A run that was stopped begins its
unfinished seed again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from vla_rl_ros.learning.learner import ResidualLearner
from vla_rl_ros.learning.presets import LearnerConfig
from vla_rl_ros.learning.replay import Replay
from vla_rl_ros.learning.rows import Row, RowLayout, Source
from vla_rl_ros.learning.vice import VICE_TERM, Vice, ViceSettings, check_learner

ARMS = ("static", "vice", "truth")
WORDS = {
    "static": "classifier as it was",
    "vice": "VICE",
    "truth": "paid by the truth",
}
GOAL = np.array([0.6, 0.0])
GOAL_RADIUS, CONTACT, STEP = 0.15, 0.12, 0.12
TICKS, NUM_GOALS, BASE_EPISODES, FIRST_UPDATES = 40, 20, 30, 2_000
EVAL_EVERY, EVAL_EPISODES, VICE_EVERY = 1_000, 30, 2
CONFIG = LearnerConfig(
    algorithm="sac", from_scratch=True, xi=1.0, hidden=(64, 64), gamma=0.95, n_step=1, tau=0.01,
    actor_lr=3e-4, actor_every=1, batch_size=128, initial_temperature=0.05, residual_weight=0.0,
    entropy_per_dim=-1.0,
)  # fmt: skip


class Table:
    """The hand and the puck; observations are (hand, puck, puck - hand, goal - puck), shape (8,)."""

    def __init__(self) -> None:
        self.hand = np.zeros(2)
        self.puck = np.zeros(2)

    def reset(self, rng: np.random.Generator) -> np.ndarray:
        """Hand on the left, puck in the middle."""
        self.hand = np.array([-0.6, 0.0]) + rng.uniform(-0.2, 0.2, 2)
        self.puck = rng.uniform(-0.15, 0.15, 2) + np.array([-0.05, 0.0])
        return self.obs()

    def step(self, action: np.ndarray) -> np.ndarray:
        """Move the hand; a puck it touches is pushed ahead."""
        self.hand = np.clip(self.hand + STEP * np.clip(action, -1.0, 1.0), -1.0, 1.0)
        gap = self.puck - self.hand
        distance = float(np.hypot(*gap))
        if distance < CONTACT:
            away = gap / distance if distance > 1e-6 else np.array([1.0, 0.0])
            self.puck = np.clip(self.hand + CONTACT * away, -1.0, 1.0)
        return self.obs()

    def obs(self) -> np.ndarray:
        """Everything there is to see."""
        parts = (self.hand, self.puck, self.puck - self.hand, GOAL - self.puck)
        return np.concatenate(parts).astype(np.float32)

    @property
    def is_solved(self) -> bool:
        """Whether the puck lies in the goal."""
        return bool(np.hypot(*(self.puck - GOAL)) < GOAL_RADIUS)


def base_action(obs: np.ndarray, aim: np.ndarray) -> np.ndarray:
    """Go behind the puck and shove it towards `aim`."""
    hand, puck = obs[:2].astype(float), obs[2:4].astype(float)
    way = (aim - puck) / max(1e-6, float(np.hypot(*(aim - puck))))
    behind = puck - 1.1 * CONTACT * way
    is_behind = np.hypot(*(behind - hand)) < 0.05 or (puck - hand) @ way > 0.9 * CONTACT
    target = puck + 0.1 * way if is_behind and (puck - hand) @ way > 0 else behind
    return np.clip((target - hand) / STEP, -1.0, 1.0)


def goals(rng: np.random.Generator) -> np.ndarray:
    """20 states of success, as somebody would show them."""
    found, table = [], Table()
    while len(found) < NUM_GOALS:
        obs = table.reset(rng)
        for _ in range(3 * TICKS):
            obs = table.step(base_action(obs, GOAL))
            if table.is_solved:
                found.append(obs)
                break
    return np.stack(found)


def base_states(rng: np.random.Generator) -> np.ndarray:
    """What the base sees, which shoves the puck to places of its own and seldom to the goal."""
    found, table = [], Table()
    for _ in range(BASE_EPISODES):
        obs = table.reset(rng)
        aim = rng.uniform(-0.9, 0.3, 2)
        for _ in range(TICKS):
            obs = table.step(base_action(obs, aim) + rng.normal(0.0, 0.2, 2))
            if not table.is_solved:
                found.append(obs)
    return np.stack(found)


def make_vice(seed: int) -> Vice:
    """The classifier that every arm begins with."""
    rng = np.random.default_rng([seed, 0])
    positives, negatives = goals(rng), base_states(rng)
    vice = Vice(positives, negatives, ViceSettings(), seed=seed)
    for _ in range(FIRST_UPDATES):
        vice.update(negatives[rng.integers(0, len(negatives), vice.settings.batch)])
    return vice


def run(arm: str, seed: int, steps: int) -> list[dict[str, float]]:
    """Learn, and measure on the way."""
    check_learner(CONFIG)
    vice, rng = make_vice(seed), np.random.default_rng([seed, 1])
    learner = ResidualLearner(CONFIG, 8, 2, seed)
    layout = RowLayout(
        obs_dim=8, action_dim=2, reward_terms=(VICE_TERM,), reward_version=vice.version
    )
    history: list[dict[str, float]] = []
    table, zeros = Table(), np.zeros(2, np.float32)
    with tempfile.TemporaryDirectory() as folder:
        replay = Replay(Path(folder), layout, n_step=1, gamma=CONFIG.gamma)
        for episode in range(-(-steps // TICKS)):
            obs, rows = table.reset(rng), []
            for tick in range(TICKS + 1):
                is_end = tick == TICKS
                action = zeros if is_end else learner.act(obs, zeros)
                seen, was = obs, np.clip(action, -1.0, 1.0).astype(np.float32)
                if not is_end:
                    obs = table.step(was)
                # Only `truth` reads what is stored; the others are paid when a batch is drawn.
                rows.append(
                    Row(
                        obs=seen, base=zeros, executed=was, rewards=(float(table.is_solved),),
                        source=Source.RESIDUAL, episode=episode, tick=tick,
                        is_truncated=tick == TICKS - 1, is_end=is_end,
                    )
                )  # fmt: skip
            replay.append(rows)
            for number in range(TICKS):
                batch: Any = replay.sample(CONFIG.batch_size, rng)
                if arm != "truth":
                    batch = vice.relabelled(batch)
                learner.update(batch)
                if arm == "vice" and number % VICE_EVERY == 0:
                    vice.update(replay.sample(vice.settings.batch, rng)["next_obs"])
            if (episode + 1) % (EVAL_EVERY // TICKS) == 0:
                history.append({"step": TICKS * (episode + 1), **measure(learner, vice, seed)})
                print(f"[bench] {arm} {seed} {history[-1]}", file=sys.stderr, flush=True)
        replay.close()
    return history


def measure(learner: ResidualLearner, vice: Vice, seed: int) -> dict[str, float]:
    """What the classifier pays for held-out episodes, and what is true of them."""
    rng, table, zeros = np.random.default_rng([seed, 2]), Table(), np.zeros(2, np.float32)
    paid, solved = [], 0
    for _ in range(EVAL_EPISODES):
        obs, seen = table.reset(rng), []
        for _ in range(TICKS):
            obs = table.step(learner.act(obs, zeros, deterministic=True))
            seen.append(obs)
        paid.append(float(vice.reward(np.stack(seen)).mean()))
        solved += table.is_solved
    return {"paid": float(np.mean(paid)), "success": solved / EVAL_EPISODES}


def plot(results: dict[str, list[list[dict[str, float]]]], path: Path) -> None:
    """What was paid and what was true, over the steps, mean and range of the seeds."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharex=True, sharey=True)
    for number, arm in enumerate(ARMS):
        for axis, key in zip(axes, ("paid", "success"), strict=True):
            if not results.get(arm):
                continue
            values = np.array([[row[key] for row in history] for history in results[arm]])
            steps = [row["step"] for row in results[arm][0]]
            axis.plot(steps, values.mean(0), color=f"C{number}", label=WORDS[arm])
            axis.fill_between(
                steps, values.min(0), values.max(0), color=f"C{number}", alpha=0.2, linewidth=0
            )
    axes[0].set(ylabel="part of the ticks that the classifier pays", xlabel="step")
    axes[1].set(ylabel="episodes that end in success", xlabel="step", ylim=(-0.03, 1.03))
    axes[1].legend()
    for axis in axes:
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def main() -> int:
    """Run every arm and seed that is not there yet."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12_000)
    parser.add_argument("--only", nargs="+", choices=ARMS, default=list(ARMS))
    arguments = parser.parse_args()
    from vla_rl_ros.learning.fused_step import tune_cpu

    tune_cpu(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "vice.json"
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for seed in range(arguments.seeds):
        for arm in arguments.only:
            if len(results.setdefault(arm, [])) <= seed:
                results[arm].append(run(arm, seed, arguments.steps))
                path.write_text(json.dumps(results) + "\n", encoding="utf-8")
    plot(results, arguments.out / "vice.svg")
    last = {
        arm: {
            key: round(float(np.mean([history[-1][key] for history in results[arm]])), 3)
            for key in ("paid", "success")
        }
        for arm in arguments.only
    }
    print(json.dumps({"seeds": arguments.seeds, "config": dataclasses.asdict(CONFIG)["algorithm"],
                      **last}))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
