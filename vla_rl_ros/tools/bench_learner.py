# SPDX-License-Identifier: Apache-2.0
"""`vla-rl-ros bench learner`: gradient steps per second beside those of others, on one core.

Systems run in turn, each in a process of its own on the same core, several rounds; the ratio of a
round compares neighbours in time, and the median over rounds is reported. Equal sizes: SAC, two
hidden layers of 256, batch 256, float32, one actor and temperature step per critic step, replay
sampling included. Not equal: Stable-Baselines3 has no LayerNorm in its critic, which saves it
work; both peers take the minimum of all critics where ours takes a random two, which at E = 10
costs them 15 to 24 % more arithmetic.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vla_rl_ros.core.errors import DeviceError
from vla_rl_ros.tools.argument_types import positive
from vla_rl_ros.tools.learner_systems import PEERS
from vla_rl_ros.tools.up import default_out

VECTOR_DIM = 39
FEATURE_DIM = VECTOR_DIM + 512
CASES = (("vector", VECTOR_DIM, 2), ("vector", VECTOR_DIM, 10), ("features", FEATURE_DIM, 2),
         ("features", FEATURE_DIM, 10))  # fmt: skip
CHILD_TIMEOUT_S = 600.0
_CHILD = "vla_rl_ros.tools.learner_systems"
_ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One run of one system.

    Attributes:
        case: Which observations.
        system: Whose learner.
        critics: Size of the ensemble, E.
        round: Number of the round.
        updates_per_s: Median, wall time.
        updates_per_cpu_s: Median, processor time of the process.
        first_call_s: Time to the first results, compilation included.
    """

    case: str
    system: str
    critics: int
    round: int
    updates_per_s: float
    updates_per_cpu_s: float
    first_call_s: float


def add_parser(benches: Any) -> None:  # noqa: ANN401 - argparse has no public name for it
    """Add `learner` to the benches."""
    parser = benches.add_parser(
        "learner",
        help="gradient steps, replay and actor, beside Stable-Baselines3 and SBX",
        description="Time the residual learner and its peers in turn on one core. Peers come with "
        "`pip install 'vla_rl_ros[bench]'`. Prints one JSON line last.",
    )
    parser.add_argument("--quick", action="store_true", help="one round, vector observations only")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of all systems (default: 5)")
    parser.add_argument(
        "--seconds", type=positive, default=6.0, help="of measuring per run (default: 6)"
    )
    parser.add_argument(
        "--execution", choices=("compiled", "eager"), default="compiled", help="of our own steps"
    )
    parser.add_argument("--no-peers", action="store_true", help="measure our own learner only")
    parser.add_argument("--out", type=Path, help="where rows go (default: out/<time>)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run `bench learner`; returns the exit code."""
    peers = [] if arguments.no_peers else [name for name in PEERS if _is_installed(name)]
    missing = [] if arguments.no_peers else [name for name in PEERS if name not in peers]
    if missing:
        _tell(f"not installed: {', '.join(missing)}; pip install 'vla_rl_ros[bench]' adds them")
    cases = [case for case in CASES if case[0] == "vector"] if arguments.quick else list(CASES)
    rounds = 1 if arguments.quick else arguments.rounds
    rows = _measure_all(cases, ["ours", *peers], rounds, arguments)
    figures = summary(rows) | {"missing_peers": missing, **pipeline()}
    out: Path = arguments.out or default_out("bench_learner")
    out.mkdir(parents=True, exist_ok=True)
    lines = "".join(f"{json.dumps(asdict(row))}\n" for row in rows)
    (out / "learner.jsonl").write_text(lines, encoding="utf-8")
    figures["rows"] = str(out / "learner.jsonl")
    print(json.dumps(figures), flush=True)
    return 0


def _is_installed(peer: str) -> bool:
    return importlib.util.find_spec(PEERS[peer]) is not None


def _measure_all(
    cases: list[tuple[str, int, int]],
    systems: list[str],
    rounds: int,
    arguments: argparse.Namespace,
) -> list[Measurement]:
    from tqdm import tqdm

    rows = []
    total = rounds * len(cases) * len(systems)
    with tqdm(total=total, desc="bench learner", unit="run") as progress:
        for number in range(rounds):
            for case, obs_dim, critics in cases:
                for system in systems:
                    found = _child(system, critics, obs_dim, arguments)
                    rows.append(
                        Measurement(
                            case=case, system=system, critics=critics, round=number, **found
                        )
                    )
                    progress.update()
    return rows


def _child(
    system: str, critics: int, obs_dim: int, arguments: argparse.Namespace
) -> dict[str, float]:
    """Measure one system in a process of its own.

    Raises:
        DeviceError: It failed; with the end of what it said.
    """
    done = subprocess.run(
        [
            sys.executable, "-m", _CHILD, system, "--critics", str(critics),
            "--obs-dim", str(obs_dim), "--seconds", str(arguments.seconds),
            "--execution", arguments.execution,
        ],
        capture_output=True, text=True, check=False, timeout=CHILD_TIMEOUT_S,
        env=os.environ | _ONE_THREAD,
    )  # fmt: skip
    if done.returncode:
        raise DeviceError(f"the learner '{system}' failed: {done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def summary(rows: list[Measurement]) -> dict[str, Any]:
    """Median updates per second by case and system, and median of the ratios of each round."""
    figures: dict[str, Any] = {"updates_per_s": {}, "ratio_sb3": {}, "ratio_sbx": {}}
    for case in dict.fromkeys((row.case, row.critics) for row in rows):
        mine = [row for row in rows if (row.case, row.critics) == case]
        name = f"{case[0]}_e{case[1]}"
        speeds = {
            system: [row.updates_per_s for row in mine if row.system == system]
            for system in dict.fromkeys(row.system for row in mine)
        }
        figures["updates_per_s"][name] = {
            system: round(statistics.median(values), 1) for system, values in speeds.items()
        }
        for peer in PEERS:
            if peer in speeds:
                ratios = [a / b for a, b in zip(speeds["ours"], speeds[peer], strict=True)]
                figures[f"ratio_{peer}"][name] = round(statistics.median(ratios), 2)
    return figures


def pipeline(repeats: int = 200) -> dict[str, float]:
    """Replay samples per second, latency of a tick of the actor, and of new weights.

    Args:
        repeats: Of each.
    """
    from safetensors.numpy import load, save

    from vla_rl_ros.learning.acting import ResidualActor, execute
    from vla_rl_ros.learning.learner import ResidualLearner
    from vla_rl_ros.learning.presets import LearnerConfig
    from vla_rl_ros.tools.learner_systems import ACTION_DIM, BATCH_SIZE, filled_replay

    learner = ResidualLearner(LearnerConfig(), VECTOR_DIM, ACTION_DIM, seed=0)
    actor, rng = ResidualActor(learner.weights()), np.random.default_rng(0)
    obs, base = rng.standard_normal(VECTOR_DIM), np.zeros(ACTION_DIM)
    with tempfile.TemporaryDirectory() as directory:
        replay = filled_replay(Path(directory), VECTOR_DIM)
        sample_s = _times_s(lambda: replay.sample(BATCH_SIZE, rng), repeats)
        replay.close()
    act_s = _times_s(lambda: execute(base, actor.act(obs, base, rng=rng)), repeats)

    def hand_over() -> None:
        ResidualActor(load(save(learner.weights()))).act(obs, base)

    weights_s = _times_s(hand_over, repeats)
    return {
        "replay_samples_per_s": round(BATCH_SIZE / float(np.median(sample_s))),
        "actor_step_p50_us": round(1e6 * float(np.median(act_s)), 1),
        "actor_step_p99_us": round(1e6 * float(np.percentile(act_s, 99)), 1),
        "weights_to_action_p50_ms": round(1e3 * float(np.median(weights_s)), 3),
        "weights_to_action_p99_ms": round(1e3 * float(np.percentile(weights_s, 99)), 3),
    }


def _times_s(call: Any, repeats: int) -> list[float]:  # noqa: ANN401 - result is not used
    call()
    times = []
    for _ in range(repeats):
        begin_s = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin_s)
    return times


def _tell(sentence: str) -> None:
    print(f"[bench] {sentence}", file=sys.stderr, flush=True)
