# SPDX-License-Identifier: Apache-2.0
"""Figures of a trained classifier: curves, confusion, and the frames it is worst at.

Called by `vla-rl-ros train classifier`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vla_rl_ros.learning.classifier_scores import confusion, precision_recall, roc

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from vla_rl_ros.learning.classifier_training import Judged

_WORST = 12
_EPSILON = 1e-6


def write_figures(judged: Sequence[Judged], threshold: float, out: Path) -> list[Path]:
    """Write ``curves.png`` and ``worst.png``; returns their paths."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(9, 8))
    for number, each in enumerate(judged):
        labels, probabilities = each.frames.is_success, each.probabilities
        axes[0, 0].step(*precision_recall(probabilities, labels), label=each.name)
        axes[0, 1].step(*roc(probabilities, labels), label=each.name)
        counted = confusion(probabilities, labels, threshold)
        axes[0, 1].plot(counted.false_positive_rate, counted.recall, "o", color=f"C{number}")
    axes[0, 0].set(xlabel="recall", ylabel="precision", xlim=(-0.02, 1.02), ylim=(0, 1.02))
    axes[0, 1].set(xlabel="false positive rate", ylabel="recall", ylim=(0, 1.02))
    axes[0, 1].set_xscale("symlog", linthresh=0.01)
    axes[0, 1].set_xlim(-0.001, 1.02)
    axes[0, 0].legend(loc="lower left")
    _confusion(axes[1, 0], judged[-1], threshold)
    _histogram(axes[1, 1], judged[-1], threshold)
    for axis in (axes[0, 0], axes[0, 1], axes[1, 1]):
        axis.grid(alpha=0.3)
    figure.suptitle(f"classifier on episodes it was not trained on, threshold {threshold:.3f}")
    figure.tight_layout()
    curves = out / "curves.png"
    figure.savefig(curves, dpi=110)
    plt.close(figure)
    return [curves, _contact_sheet(judged, threshold, out / "worst.png")]


def _confusion(axis: Axes, judged: Judged, threshold: float) -> None:
    found = confusion(judged.probabilities, judged.frames.is_success, threshold)
    table = np.array(
        [
            [found.true_negatives, found.false_positives],
            [found.false_negatives, found.true_positives],
        ]
    )
    axis.imshow(table / np.maximum(1, table.sum(1, keepdims=True)), cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(table):
        axis.text(column, row, str(count), ha="center", va="center", color="C3", fontsize=14)
    words = ["failure", "success"]
    axis.set_xticks([0, 1], words)
    axis.set_yticks([0, 1], words)
    axis.set(xlabel="said", ylabel="is", title=f"{judged.name}: frames")


def _histogram(axis: Axes, judged: Judged, threshold: float) -> None:
    clipped = np.clip(judged.probabilities, _EPSILON, 1.0 - _EPSILON)
    logits, cut = np.log(clipped / (1.0 - clipped)), np.log(threshold / (1.0 - threshold))
    bins = np.linspace(logits.min(), max(logits.max(), logits.min() + 1.0), 40).tolist()
    for label, word in ((False, "failure"), (True, "success")):
        mine = logits[judged.frames.is_success == label]
        axis.hist(mine, bins=bins, alpha=0.6, label=word)
    axis.axvline(float(cut), color="black", linewidth=1)
    axis.set(xlabel="logit", ylabel="frames", yscale="log")
    axis.legend()


def _contact_sheet(judged: Sequence[Judged], threshold: float, path: Path) -> Path:
    """The frames of all parts that were judged worst, the worst first."""
    from matplotlib import pyplot as plt

    worst = [
        (abs(float(each.frames.is_success[i]) - float(each.probabilities[i])), each, i)
        for each in judged
        for i in range(len(each.frames))
    ]
    worst.sort(key=lambda row: -row[0])
    cameras = list(judged[0].frames.images)
    columns = 4 * len(cameras)
    figure, axes = plt.subplots(
        -(-_WORST // 4), columns, figsize=(1.7 * columns, 2.1 * -(-_WORST // 4)), squeeze=False
    )
    for axis in axes.flat:
        axis.axis("off")
    for number, (_, each, i) in enumerate(worst[:_WORST]):
        is_success, said = bool(each.frames.is_success[i]), float(each.probabilities[i])
        mark = "right" if (said >= threshold) == is_success else "WRONG"
        for offset, camera in enumerate(cameras):
            axis = axes.flat[number * len(cameras) + offset]
            axis.imshow(each.frames.images[camera][i])
            if offset == 0:
                axis.set_title(
                    f"{each.frames.kinds[i]}: {'success' if is_success else 'failure'}\n"
                    f"said {said:.3f}, {mark}",
                    fontsize=7,
                    loc="left",
                )
    figure.suptitle("the worst of the held-out frames")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
