# SPDX-License-Identifier: Apache-2.0
"""How good a classifier is: curves, threshold, confusion. Numpy alone.

Called by `classifier_training` and by the benches of the classifier.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vla_rl_ros.core.errors import ConfigError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
_MISSED_PART = 0.05
_CAUTION = 0.75
_LEAST = 0.2
_EPSILON = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Confusion:
    """Frames by what they are and what was said of them."""

    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int

    @property
    def accuracy(self) -> float:
        """Part of the frames that were judged rightly."""
        right = self.true_positives + self.true_negatives
        return right / max(1, right + self.false_positives + self.false_negatives)

    @property
    def false_positive_rate(self) -> float:
        """Part of the failures that passed for success."""
        return self.false_positives / max(1, self.false_positives + self.true_negatives)

    @property
    def recall(self) -> float:
        """Part of the successes that were seen."""
        return self.true_positives / max(1, self.true_positives + self.false_negatives)


def confusion(probabilities: Floats, is_success: Bools, threshold: float) -> Confusion:
    """Count."""
    said = probabilities >= threshold
    return Confusion(
        true_positives=int((said & is_success).sum()),
        false_positives=int((said & ~is_success).sum()),
        true_negatives=int((~said & ~is_success).sum()),
        false_negatives=int((~said & is_success).sum()),
    )


def calibrated_threshold(probabilities: Floats, is_success: Bools, max_fpr: float) -> float:
    """Threshold that keeps the rate of false positives, with as much room as there is.

    Above the highest probability that `max_fpr` allows a failure to have, and where success lies
    clearly higher, three quarters of the way up to it (in the logit): the next failure may look
    better yet, and a false success ends an episode and teaches what is wrong, while one that is
    seen late costs a tick. Never below `_LEAST`, where the image itself speaks against success:
    where checks of the state sort the failures out, their probabilities tell nothing.

    Args:
        probabilities: Of frames that were not trained on, shape (n,).
        is_success: What they are.
        max_fpr: Part of the failures that may pass.

    Raises:
        ConfigError: One of the classes is missing.
    """
    negatives, positives = np.sort(probabilities[~is_success]), probabilities[is_success]
    if not len(negatives) or not len(positives):
        raise ConfigError("a threshold needs frames of success and of failure")
    # The smallest threshold at which about this many failures pass; never all of them.
    num_allowed = min(round(max_fpr * len(negatives)), len(negatives) - 1)
    floor = _logit(negatives[len(negatives) - 1 - num_allowed]) + 1e-3
    floor = max(floor, _logit(_LEAST))
    ceiling = _logit(np.quantile(positives, _MISSED_PART))
    chosen = max(floor, floor + _CAUTION * (ceiling - floor))
    return float(1.0 / (1.0 + np.exp(-chosen)))


def roc(probabilities: Floats, is_success: Bools) -> tuple[Floats, Floats]:
    """False positive rate and recall at every threshold, from none to all."""
    passed = _passed(probabilities, is_success)
    return (
        np.concatenate([[0.0], np.cumsum(~passed) / max(1, int((~is_success).sum()))]),
        np.concatenate([[0.0], np.cumsum(passed) / max(1, int(is_success.sum()))]),
    )


def precision_recall(probabilities: Floats, is_success: Bools) -> tuple[Floats, Floats]:
    """Recall and precision at every threshold that lets something pass."""
    passed = _passed(probabilities, is_success)
    hits = np.cumsum(passed)
    return hits / max(1, int(is_success.sum())), hits / np.arange(1, len(passed) + 1)


def area(x: Floats, y: Floats) -> float:
    """Area under a curve."""
    return float(np.sum(np.diff(x) * 0.5 * (y[1:] + y[:-1])))


def average_precision(probabilities: Floats, is_success: Bools) -> float:
    """Area under the curve of precision against recall: its mean over the successes."""
    passed = _passed(probabilities, is_success)
    _, precisions = precision_recall(probabilities, is_success)
    return float(precisions[passed].mean()) if passed.any() else 0.0


def _passed(probabilities: Floats, is_success: Bools) -> Bools:
    return is_success[np.argsort(-probabilities, kind="stable")]


def _logit(probability: float) -> float:
    clipped = min(max(float(probability), _EPSILON), 1.0 - _EPSILON)
    return float(np.log(clipped / (1.0 - clipped)))
