# SPDX-License-Identifier: Apache-2.0
"""A classifier trained on 20 goals is exploited, VICE is not: the figure of reward-results.md.

    python bench/vice.py --out out/vice [--seeds 3] [--steps 3000]

A hand on a table has to fetch a puck and bring it to a goal; both are points in the plane, and the
puck sticks to a hand that touches it. The classifier knows 20 states of success, the ends of 20
demonstrations, and what a clumsy policy saw that drags the puck about elsewhere. It has never seen
the hand near the goal without the puck. One learner is paid by this classifier as it is, one by
the same classifier while it goes on learning by VICE, one by the truth. All else is equal: first
training, demonstrations in the offline half of the batches, learner, seeds.
Prints one JSON line; writes `vice.json` and `vice.svg`. A run that was stopped begins its
unfinished seed again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vla_rl_ros.learning.learner import ResidualLearner
from vla_rl_ros.learning.presets import LearnerConfig
from vla_rl_ros.learning.replay import Replay, SymmetricSampler
from vla_rl_ros.learning.rows import Row, RowLayout, Source
from vla_rl_ros.learning.vice import VICE_TERM, Vice, ViceSettings, check_learner

ARMS = ("static", "vice", "truth")
WORDS = {
    "static": "classifier as it was",
    "vice": "VICE",
    "truth": "paid by the truth",
}
GOAL = np.array([0.6, 0.0])
GOAL_RADIUS, CONTACT, STEP = 0.15, 0.15, 0.15
TICKS, NUM_GOALS, CLUMSY_EPISODES, FIRST_UPDATES = 25, 20, 30, 1_500
EVAL_EVERY, EVAL_EPISODES, VICE_EVERY, DEMO_PART = 500, 40, 1, 0.5
CONFIG = LearnerConfig(
    algorithm="sac", from_scratch=True, xi=1.0, hidden=(64, 64), gamma=0.95, n_step=1, tau=0.02,
    actor_lr=1e-3, critic_lr=1e-3, temperature_lr=1e-3, actor_every=1, batch_size=128,
    initial_temperature=0.05, residual_weight=0.0,
    entropy_per_dim=-1.0,
)  # fmt: skip
LAYOUT = RowLayout(obs_dim=4, action_dim=2, reward_terms=(VICE_TERM,), reward_version="vice")
# A goal 0.15 wide in states that vary by 0.4 needs a steeper slope than SERL's penalty allows.
SETTINGS = ViceSettings(gradient_penalty=0.1, learning_rate=1e-3)
ZEROS = np.zeros(2, np.float32)

Act = Callable[[np.ndarray], np.ndarray]


class Table:
    """The hand and the puck; observations are (hand, puck), shape (4,)."""

    def __init__(self) -> None:
        self.hand = np.zeros(2)
        self.puck = np.zeros(2)
        self.is_held = False

    def reset(self, rng: np.random.Generator) -> np.ndarray:
        """Hand on the left, puck aside of the way from there to the goal."""
        self.hand = np.array([-0.6, 0.0]) + rng.uniform(-0.15, 0.15, 2)
        self.puck = np.array([0.0, 0.5]) + rng.uniform(-0.15, 0.15, 2)
        self.is_held = False
        return self.obs()

    def step(self, action: np.ndarray) -> np.ndarray:
        """Move the hand, and the puck once it was touched."""
        before = self.hand
        self.hand = np.clip(self.hand + STEP * np.clip(action, -1.0, 1.0), -1.0, 1.0)
        if self.is_held:
            self.puck = np.clip(self.puck + self.hand - before, -1.0, 1.0)
        self.is_held |= bool(np.hypot(*(self.puck - self.hand)) < CONTACT)
        return self.obs()

    def obs(self) -> np.ndarray:
        """Everything there is to see."""
        return np.concatenate([self.hand, self.puck]).astype(np.float32)

    @property
    def is_solved(self) -> bool:
        """Whether the puck lies in the goal."""
        return bool(np.hypot(*(self.puck - GOAL)) < GOAL_RADIUS)


def carry(table: Table, aim: np.ndarray) -> np.ndarray:
    """Go to the puck, then bring it to `aim`."""
    wanted = aim - table.puck if table.is_held else table.puck - table.hand
    return np.clip(wanted / STEP, -1.0, 1.0)


def episode(
    table: Table, rng: np.random.Generator, act: Act, number: int, *, is_demo: bool = False
) -> list[Row]:
    """Play one episode; its rows hold the true reward, which only the arm `truth` reads."""
    obs, rows = table.reset(rng), []
    for tick in range(TICKS + 1):
        is_end, seen, executed = tick == TICKS, obs, ZEROS
        if not is_end:
            executed = np.clip(act(obs), -1.0, 1.0).astype(np.float32)
            obs = table.step(executed)
        rows.append(
            Row(
                obs=seen, base=ZEROS, executed=executed, rewards=(float(table.is_solved),),
                source=Source.HUMAN if is_demo else Source.RESIDUAL, episode=number, tick=tick,
                is_truncated=tick == TICKS - 1, is_end=is_end, is_demo=is_demo,
            )
        )  # fmt: skip
    return rows


def demonstrations(rng: np.random.Generator) -> list[list[Row]]:
    """20 episodes of somebody who can do it."""
    table = Table()

    def act(_: np.ndarray) -> np.ndarray:
        return carry(table, GOAL) + rng.normal(0.0, 0.1, 2)

    return [episode(table, rng, act, number, is_demo=True) for number in range(NUM_GOALS)]


def clumsy_states(rng: np.random.Generator) -> np.ndarray:
    """What somebody sees who drags the puck about, and never near the goal."""
    found, table = [], Table()
    for _ in range(CLUMSY_EPISODES):
        aim = np.array([rng.uniform(-0.9, 0.2), rng.uniform(-0.8, 0.8)])
        rows = episode(
            table, rng, lambda _, aim=aim: carry(table, aim) + rng.normal(0.0, 0.2, 2), 0
        )
        found += [row.obs for row in rows if not row.rewards[0]]
    return np.stack(found)


def make_vice(seed: int) -> tuple[Vice, list[list[Row]]]:
    """The classifier that every arm begins with, and the demonstrations its goals are from."""
    rng = np.random.default_rng([seed, 0])
    shown, negatives = demonstrations(rng), clumsy_states(rng)
    goals = np.stack([rows[-1].obs for rows in shown])
    vice = Vice(goals, negatives, SETTINGS, seed=seed)
    for _ in range(FIRST_UPDATES):
        vice.update(negatives[rng.integers(0, len(negatives), vice.settings.batch)])
    return vice, shown


def run(arm: str, seed: int, steps: int) -> list[dict[str, float]]:
    """Learn, and measure on the way."""
    check_learner(CONFIG)
    (vice, shown), rng = make_vice(seed), np.random.default_rng([seed, 1])
    learner = ResidualLearner(CONFIG, LAYOUT.obs_dim, LAYOUT.action_dim, seed)
    history: list[dict[str, float]] = []
    table = Table()
    with tempfile.TemporaryDirectory() as folder:
        online, offline = (
            Replay(Path(folder) / name, LAYOUT, n_step=1, gamma=CONFIG.gamma)
            for name in ("online", "offline")
        )
        for rows in shown:
            offline.append(rows)
        sampler = SymmetricSampler(online, offline, DEMO_PART)
        for number in range(-(-steps // TICKS)):
            online.append(episode(table, rng, lambda obs: learner.act(obs, ZEROS), number))
            for update in range(TICKS):
                batch: Any = sampler.sample(CONFIG.batch_size, rng)
                learner.update(batch if arm == "truth" else vice.relabelled(batch))
                if arm == "vice" and update % VICE_EVERY == 0:
                    vice.update(online.sample(vice.settings.batch, rng)["next_obs"])
            if (number + 1) % (EVAL_EVERY // TICKS) == 0:
                history.append({"step": TICKS * (number + 1), **measure(learner, vice, seed)})
                print(f"[bench] {arm} {seed} {history[-1]}", file=sys.stderr, flush=True)
        online.close()
        offline.close()
    return history


def measure(learner: ResidualLearner, vice: Vice, seed: int) -> dict[str, float]:
    """What the classifier pays for held-out episodes, and what is true of them."""
    rng, table = np.random.default_rng([seed, 2]), Table()
    paid, solved = [], 0
    for _ in range(EVAL_EPISODES):
        rows = episode(table, rng, lambda obs: learner.act(obs, ZEROS, deterministic=True), 0)
        paid.append(float(vice.reward(np.stack([row.obs for row in rows[1:]])).mean()))
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
    parser.add_argument("--steps", type=int, default=3_000)
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
    print(json.dumps({"seeds": arguments.seeds, "steps": arguments.steps, **last}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
