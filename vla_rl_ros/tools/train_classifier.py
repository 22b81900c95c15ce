# SPDX-License-Identifier: Apache-2.0
"""`vla-rl-ros train classifier`: what says when a task is done, from labelled frames."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from vla_rl_ros.core.changes import changed, check_changes
from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.data.label_set import LabelSet, is_label_set
from vla_rl_ros.tools.argument_types import count


def add_classifier_parser(subparsers: Any) -> None:  # noqa: ANN401 - argparse keeps the type private
    """Add `classifier` to the sub-commands of `train`."""
    parser = subparsers.add_parser(
        "classifier",
        help="a success classifier from labelled frames",
        description="Train a success classifier on what 'vla-rl-ros label' wrote. Episodes are "
        "split, never frames; the threshold is chosen for a false positive rate on episodes that "
        "were not trained on. The same command continues a run that was stopped. Prints one JSON "
        "line last.",
    )
    parser.add_argument("--labels", type=Path, required=True, metavar="DIR", help="a label set")
    parser.add_argument("--out", type=Path, required=True, help="directory of the classifier")
    parser.add_argument(
        "--held-out", type=Path, metavar="DIR", help="a label set of other episodes to measure on"
    )
    parser.add_argument("--name", default="", help="for messages (default: the task)")
    parser.add_argument("--steps", type=int, default=600, help="gradient steps (default: 600)")
    parser.add_argument("--seed", type=int, default=0, help="of split and training (default: 0)")
    parser.add_argument(
        "--backbone", choices=("cnn", "pi0"), default="cnn",
        help="a small network of its own, or the frozen vision tower of a PI0 (default: cnn)",
    )  # fmt: skip
    parser.add_argument(
        "--checkpoint", type=Path, metavar="DIR",
        help="PI0 whose tower is used; the shipped one if left out",
    )  # fmt: skip
    parser.add_argument(
        "--image-px", type=int, default=128, help="side of the network's images (default: 128)"
    )
    parser.add_argument(
        "--max-fpr", type=float, default=0.005,
        help="false positive rate the threshold is chosen for (default: 0.005)",
    )  # fmt: skip
    parser.add_argument(
        "--min-positives", type=int, default=30,
        help="refuse to train on fewer frames of success (default: 30)",
    )  # fmt: skip
    parser.add_argument(
        "--check", nargs=3, action="append", default=[], metavar=("CHANNEL", "LOW", "HIGH"),
        help="success must keep these limits, too, e.g. gripper.width_m 0.03 0.05",
    )  # fmt: skip
    parser.add_argument("--threads", type=count, default=1, help="threads of torch (default: 1)")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="classifier.FIELD=VALUE",
        help="change any setting of the training",
    )  # fmt: skip
    parser.set_defaults(run=run_classifier)


def run_classifier(arguments: argparse.Namespace) -> int:
    """Run `train classifier`; returns the exit code."""
    # What is wrong is told before torch is loaded.
    labels = _label_set(arguments.labels, "--labels")
    held_out = None
    if arguments.held_out is not None:
        held_out = _label_set(arguments.held_out, "--held-out")
    checks = _checks(arguments.check)
    from tqdm import tqdm

    from vla_rl_ros.learning.classifier_report import write_figures
    from vla_rl_ros.learning.classifier_trainer import ClassifierSettings
    from vla_rl_ros.learning.classifier_training import train
    from vla_rl_ros.learning.fused_step import tune_cpu

    check_changes(arguments.set, ("classifier",))
    tune_cpu(arguments.threads)
    settings = changed(
        ClassifierSettings(
            steps=arguments.steps,
            seed=arguments.seed,
            backbone=arguments.backbone,
            image_px=arguments.image_px,
            max_fpr=arguments.max_fpr,
            min_positives=arguments.min_positives,
        ),
        "classifier",
        arguments.set,
    )
    out: Path = arguments.out
    print(f"[train] classifier, report and snapshot in {out.resolve()}", file=sys.stderr)
    with tqdm(total=settings.steps, desc="train", unit="step", mininterval=0.5) as bar:

        def tell(step: int, loss: float) -> None:
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            bar.update(step - bar.n)

        figures, judged = train(
            out,
            labels,
            settings,
            name=arguments.name,
            held_out=held_out,
            checkpoint=_checkpoint(arguments),
            checks=checks,
            command=_command(arguments),
            tell=tell,
        )
    figures["figures"] = [str(path) for path in write_figures(judged, figures["threshold"], out)]
    (out / "report.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(figures), flush=True)
    return 0


def _label_set(directory: Path, option: str) -> LabelSet:
    if not is_label_set(directory):
        raise ConfigError(
            f"{option} {directory} is no label set: make one with 'vla-rl-ros label BAG --out "
            f"{directory}'"
        )
    return LabelSet(directory)


def _checkpoint(arguments: argparse.Namespace) -> Path | None:
    if arguments.backbone != "pi0":
        if arguments.checkpoint is not None:
            raise ConfigError("--checkpoint goes with --backbone pi0")
        return None
    from vla_rl_ros.policies.pi0.backend import SHIPPED

    return Path(arguments.checkpoint or SHIPPED)


def _checks(given: list[list[str]]) -> dict[str, tuple[float, ...]]:
    try:
        return {name: (float(low), float(high)) for name, low, high in given}
    except ValueError as error:
        raise ConfigError(f"--check CHANNEL LOW HIGH: {error}") from error


def _command(arguments: argparse.Namespace) -> str:
    parts = [f"vla-rl-ros train classifier --labels DIR --out DIR --steps {arguments.steps}"]
    parts += [f"--seed {arguments.seed} --backbone {arguments.backbone}"]
    parts += [f"--image-px {arguments.image_px} --max-fpr {arguments.max_fpr}"]
    return " ".join(parts)
