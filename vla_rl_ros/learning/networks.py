# SPDX-License-Identifier: Apache-2.0
"""Actor and critic ensemble as functions of one flat parameter vector each.

A flat vector makes the optimiser, the target average and a copy of the weights one pass over
memory, whatever the network looks like. Layouts say where a matrix lies in it; forward functions
take the views. Nothing here knows a loss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

LAYER_NORM_EPS = 1e-5


@dataclass(frozen=True, slots=True)
class Layout:
    """Where named arrays lie in a flat vector.

    Attributes:
        shapes: Shape by name, in the order of the vector.
    """

    shapes: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def size(self) -> int:
        """Length of the flat vector."""
        return sum(math.prod(shape) for _, shape in self.shapes)

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """Named views into a flat vector of length `size`."""
        views, begin = {}, 0
        for name, shape in self.shapes:
            length = math.prod(shape)
            views[name] = flat[begin : begin + length].view(shape)
            begin += length
        return views

    def joined(self, views: Mapping[str, Tensor]) -> Tensor:
        """Flat vector of named arrays, e.g. of gradients by `views`; the way back."""
        return torch.cat([views[name].reshape(-1) for name, _ in self.shapes])


def critic_layout(
    num_critics: int, obs_dim: int, action_dim: int, hidden: Sequence[int], num_outputs: int = 1
) -> Layout:
    """Layout of E critics, each Dense, LayerNorm, ReLU per layer and a linear end.

    Arrays of layer i: ``weight_i`` (E, in, out), ``bias_i``, ``scale_i`` and ``shift_i``
    (E, 1, out); the end is ``weight_out`` (E, in, num_outputs), ``bias_out`` (E, 1, num_outputs).
    """
    shapes: list[tuple[str, tuple[int, ...]]] = []
    width = obs_dim + action_dim
    for i, next_width in enumerate(hidden):
        shapes.append((f"weight_{i}", (num_critics, width, next_width)))
        shapes += [
            (f"{name}_{i}", (num_critics, 1, next_width)) for name in ("bias", "scale", "shift")
        ]
        width = next_width
    shapes.append(("weight_out", (num_critics, width, num_outputs)))
    shapes.append(("bias_out", (num_critics, 1, num_outputs)))
    return Layout(tuple(shapes))


def actor_layout(num_inputs: int, hidden: Sequence[int], num_outputs: int) -> Layout:
    """Layout of one network of Dense and ReLU; ``weight_i`` (in, out), ``bias_i`` (out,)."""
    shapes: list[tuple[str, tuple[int, ...]]] = []
    width = num_inputs
    for i, next_width in enumerate(hidden):
        shapes += [(f"weight_{i}", (width, next_width)), (f"bias_{i}", (next_width,))]
        width = next_width
    shapes += [("weight_out", (width, num_outputs)), ("bias_out", (num_outputs,))]
    return Layout(tuple(shapes))


def initialise(layout: Layout, generator: torch.Generator, *, is_end_zero: bool) -> Tensor:
    """Fresh flat weights: uniform within ``1 / sqrt(inputs)``, scales 1, all else 0.

    Args:
        layout: Of an actor or critic.
        generator: Source of randomness.
        is_end_zero: Whether the last layer begins at zero, so that the output is its bias.
    """
    flat = torch.zeros(layout.size)
    for name, view in layout.views(flat).items():
        if name.startswith("scale"):
            view.fill_(1.0)
        elif name.startswith("weight") and not (is_end_zero and name == "weight_out"):
            bound = 1.0 / math.sqrt(view.shape[-2])
            view.uniform_(-bound, bound, generator=generator)
    return flat


def num_layers(views: dict[str, Tensor]) -> int:
    """Hidden layers of an actor or critic."""
    return sum(name.startswith("weight_") for name in views) - 1


def critic_forward(
    views: dict[str, Tensor], inputs: Tensor, given: Tensor | None = None
) -> Tensor:
    """Outputs of all critics of the ensemble.

    Args:
        views: Arrays of `critic_layout`.
        inputs: Observation and action, shape (B, O + A).
        given: The first columns, where `inputs` are only the others: a gradient by `inputs` does
            not pay for them then.

    Returns:
        Shape (E, B, num_outputs).
    """
    return critic_end(views, critic_layers(views, inputs, given)[-1])


def critic_layers(
    views: dict[str, Tensor], inputs: Tensor, given: Tensor | None = None
) -> list[Tensor]:
    """What each hidden layer hands to its LayerNorm, (E, B, width); see `critic_forward`."""
    bias, weight = views["bias_0"], views["weight_0"]
    num_critics = len(weight)
    if given is not None:
        width = given.shape[-1]
        bias = torch.baddbmm(bias, given.expand(num_critics, *given.shape), weight[:, :width])
        weight = weight[:, width:]
    layers = [torch.baddbmm(bias, inputs.expand(num_critics, *inputs.shape), weight)]
    for i in range(1, num_layers(views)):
        hidden = normalised(views, i - 1, layers[-1])
        layers.append(torch.baddbmm(views[f"bias_{i}"], hidden, views[f"weight_{i}"]))
    return layers


def critic_end(views: dict[str, Tensor], last: Tensor) -> Tensor:
    """Outputs (E, B, num_outputs) from the last of `critic_layers`."""
    hidden = normalised(views, num_layers(views) - 1, last)
    end = views["weight_out"]
    if end.shape[2] == 1:
        # A product with one column is slow as a matrix product.
        return (hidden * end.transpose(1, 2)).sum(-1, keepdim=True) + views["bias_out"]
    return torch.baddbmm(views["bias_out"], hidden, end)


def normalised(views: dict[str, Tensor], layer: int, values: Tensor) -> Tensor:
    """LayerNorm and ReLU of a layer, shape of `values`."""
    values = functional.layer_norm(values, values.shape[-1:], eps=LAYER_NORM_EPS)
    return torch.relu(values * views[f"scale_{layer}"] + views[f"shift_{layer}"])


def actor_forward(views: dict[str, Tensor], inputs: Tensor) -> Tensor:
    """Head of the actor before the bound, shape (B, num_outputs), from inputs (B, I)."""
    hidden = inputs
    for i in range(num_layers(views)):
        hidden = torch.relu(torch.addmm(views[f"bias_{i}"], hidden, views[f"weight_{i}"]))
    return torch.addmm(views["bias_out"], hidden, views["weight_out"])
