# SPDX-License-Identifier: Apache-2.0
"""The figure of `bench latency`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vla_rl_ros.ros.codec_costs import CodecCost
from vla_rl_ros.tools.latency_chain import OVERHEAD_PARTS

if TYPE_CHECKING:
    from vla_rl_ros.tools.latency_run import SourceResult

PARTS = (*OVERHEAD_PARTS, "model_ms", "wait_ms")
STEPS = ("encode_us", "serialize_us", "deserialize_us", "decode_us")


def plot_latency(
    results: Mapping[str, SourceResult], costs: Sequence[CodecCost], path: Path
) -> Path:
    """Medians of all parts, distribution of the overhead, cost of messages."""
    from vla_rl_ros.tools.report import figure_axes, save_figure

    figure, (parts, overhead, codecs) = figure_axes(3, "bench latency", sharex=False)
    left = np.zeros(len(results))
    for part in PARTS:
        medians = [
            float(np.median([getattr(chain, part) for chain in result.chains]))
            for result in results.values()
        ]
        parts.barh(list(results), medians, left=left, label=part.removesuffix("_ms"))
        left += medians
    parts.set(xlabel="median from exposure to target [ms]")
    for source, result in results.items():
        values = np.sort([chain.overhead_ms for chain in result.chains])
        overhead.plot(values, np.linspace(0.0, 1.0, len(values)), label=source)
    overhead.set(xlabel="overhead [ms]", ylabel="share of chunks", xlim=(0, None))
    bottom = np.zeros(len(costs))
    for step in STEPS:
        values_us = np.array([getattr(cost, step) for cost in costs])
        codecs.bar([cost.message for cost in costs], values_us, bottom=bottom, label=step)
        bottom += values_us
    codecs.set(ylabel="per message [us]")
    parts.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(PARTS))
    overhead.legend(loc="best")
    codecs.legend(loc="best")
    for axis in (parts, overhead, codecs):
        axis.grid(alpha=0.3)
    return save_figure(figure, path)
