# SPDX-License-Identifier: Apache-2.0
"""`vla-rl-ros train residual --bags`: learn from recordings alone."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vla_rl_ros.core.changes import changed, check_changes
from vla_rl_ros.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vla_rl_ros.learning.offline_run import OfflineTrainer
    from vla_rl_ros.ros.bag_rows import BagEpisode, BagRows

PRESET = "calql"
_PREFIXES = ("learner", "run", "reward")


def add_bag_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of learning from recordings."""
    group = parser.add_argument_group("recordings instead of an environment")
    group.add_argument(
        "--bags", nargs="+", type=Path, metavar="DIR",
        help="learn from the episodes recorded in these bags, or folders with bags at any depth, "
        "and from nothing else",
    )  # fmt: skip
    group.add_argument("--updates", type=int, help="gradient steps (default: those of the preset)")


def run_bags(arguments: argparse.Namespace) -> int:
    """Run `train residual --bags`; returns the exit code."""
    from vla_rl_ros.learning.fused_step import tune_cpu

    if arguments.task or arguments.gym:
        raise ConfigError("--bags takes no --task and no --gym: recordings are all it learns from")
    check_changes(arguments.set, _PREFIXES)
    tune_cpu(arguments.threads)
    out: Path = arguments.out
    print(f"[train] log, snapshot and policy in {out.resolve()}", file=sys.stderr, flush=True)
    figures = train(arguments)
    print(json.dumps(figures), flush=True)
    return 0


def train(arguments: argparse.Namespace) -> dict[str, Any]:
    """Read what is new in the bags, learn, and return the numbers to print.

    Raises:
        BagError: No bags, or bags without what rows are made of.
        ConfigError: Bags that do not fit the run in ``--out``.
    """
    from vla_rl_ros.core.spec import ActionSpec
    from vla_rl_ros.learning.offline_run import OfflineSettings, OfflineTrainer
    from vla_rl_ros.learning.presets import preset
    from vla_rl_ros.learning.reward_config import reward_config
    from vla_rl_ros.learning.reward_plan import RewardPlan
    from vla_rl_ros.learning.session_rows import session_layout
    from vla_rl_ros.ros.bag_rows import BagRows, common_meaning, find_episodes

    config = changed(preset(arguments.preset or PRESET), "learner", arguments.set)
    wanted = reward_config(arguments.set, config)
    if wanted.vice:
        raise ConfigError(
            "reward.vice needs a policy that goes and tries what it is paid for, to learn that it "
            "is no success: leave it out with --bags"
        )
    episodes = find_episodes(arguments.bags)
    seen = common_meaning(episodes)
    settings = OfflineSettings(
        updates=arguments.updates or config.offline_updates or OfflineSettings.updates,
        seed=arguments.seed,
        execution="compiled" if arguments.compiled else "eager",
    )
    reward = RewardPlan(config, wanted, obs_dim=len(seen.names), obs_version=seen.version)
    trainer = OfflineTrainer(
        arguments.out,
        session_layout(len(seen.names), seen.version, reward=reward.episode()),
        seen.names,
        config,
        changed(settings, "run", arguments.set),
        truncation_value=reward.truncation_value,
        value_range=reward.value_range,
    )
    reader = BagRows(
        ActionSpec(control_period_s=seen.control_period_s),
        seen.version,
        reward.episode,
    )
    try:
        facts = _read(trainer, reader, episodes)
        return facts | _learn(trainer, arguments.minutes)
    finally:
        trainer.close()


def _read(
    trainer: OfflineTrainer, reader: BagRows, episodes: Sequence[BagEpisode]
) -> dict[str, Any]:
    """Store the episodes that are not stored yet; returns what was found in the bags."""
    from tqdm import tqdm

    known = trainer.known_episodes
    new = [episode for episode in episodes if episode.epoch not in known]
    outcomes: Counter[str] = Counter()
    judges: Counter[str] = Counter()
    for episode in tqdm(new, desc="reading bags", unit="episode", mininterval=0.5):
        for made in reader.read(episode.bags):
            outcome = made.state.outcome
            outcomes["unknown" if outcome is None else outcome.value] += 1
            judges[made.state.judge or "unknown"] += 1
            trainer.add(trainer.replay.layout.pack(made.rows), made.state.judge)
    tasks = sorted({episode.task for episode in episodes})
    if len(tasks) > 1:
        print(
            f"[train] tasks {', '.join(tasks)} together: observations do not say which one it is",
            file=sys.stderr,
        )
    return {
        "recorded_episodes": len(episodes),
        "new_outcomes": dict(outcomes),
        "new_judges": dict(judges),
        "tasks": tasks,
        "messages": {**asdict(reader.counters), "malformed": reader.num_malformed},
    }


def _learn(trainer: OfflineTrainer, minutes: float | None) -> dict[str, Any]:
    from tqdm import tqdm

    with tqdm(
        total=trainer.settings.updates,
        initial=trainer.num_updates,
        desc="offline updates",
        unit="",
        mininterval=0.5,
    ) as bar:

        def tell(done: int, metrics: dict[str, float]) -> None:
            bar.set_postfix(
                q=f"{metrics['q_mean']:.2f}", td=f"{metrics['td_error']:.3f}", refresh=False
            )
            bar.update(done - bar.n)

        return trainer.run(minutes=minutes, tell=tell)
