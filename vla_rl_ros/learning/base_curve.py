# SPDX-License-Identifier: Apache-2.0
"""The figure of a run of `train base`. Called by `base_training`."""

from __future__ import annotations

from pathlib import Path


def plot(history: list[dict[str, float]], path: Path) -> Path:
    """Losses, and what the model knows of the object it was told about."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (losses, error, wrong) = plt.subplots(3, 1, figsize=(7, 8), sharex=True)
    steps = [row["step"] for row in history]
    losses.semilogy(steps, [row["flow_loss"] for row in history], label="flow")
    losses.semilogy(steps, [row["where_loss"] for row in history], label="localisation")
    losses.set(ylabel="training loss")
    losses.legend()
    error.semilogy(steps, [1e3 * row["grounding_error_m"] for row in history])
    error.set(ylabel="median error at reset [mm]")
    wrong.plot(steps, [100.0 * row["wrong_object_part"] for row in history])
    wrong.set(ylabel="wrong object at reset [%]", xlabel="step", ylim=(0, None))
    for axis in (losses, error, wrong):
        axis.grid(alpha=0.3)
    figure.suptitle("train base: losses, and grounding on held-out scenes")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path
