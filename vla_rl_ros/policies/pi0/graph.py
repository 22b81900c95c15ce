# SPDX-License-Identifier: Apache-2.0
"""A whole inference of PI0 as one graph: images, instruction, all Euler steps, locked rows.

Recorded once, it runs without Python. `backend` does so on a CPU, where a small model spends more
than half of its time in Python and would hold the interpreter from the rest of the node meanwhile;
`onnx_graph` writes the same graph into a file.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vla_rl_ros.policies.pi0.denoise import Flow, Lock, denoise
from vla_rl_ros.policies.pi0.translation import ModelShape
from vla_rl_ros.policies.pi0.vision import make_reduction


class ChunkGraph(nn.Module):
    """Observation, noise and promised rows to normalised actions, and to image features."""

    def __init__(self, model: nn.Module, *, num_steps: int, is_clean_lock: bool) -> None:
        """Wrap a loaded model.

        Args:
            model: `PI0ForConditionalGeneration`, float32 on a CPU.
            num_steps: Euler steps, fixed in the graph.
            is_clean_lock: See `denoise.Lock`.
        """
        super().__init__()
        self.model = model
        self.reduce = make_reduction(model)
        self._flow = Flow(model)
        self.num_steps = num_steps
        self._is_clean_lock = is_clean_lock

    def forward(
        self,
        images: Tensor,
        tokens: Tensor,
        token_mask: Tensor,
        state: Tensor,
        noise: Tensor,
        prefix_actions: Tensor,
        num_locked: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Run one inference.

        Args:
            images: In [-1, 1], (1, cameras, 3, px, px).
            tokens: Instruction, padded behind, (1, n), int64.
            token_mask: 1 for words, 0 for padding, (1, n), int64.
            state: Normalised and padded, (1, state_dim).
            noise: (1, H, action_dim).
            prefix_actions: Promised rows, normalised, (1, H, action_dim).
            num_locked: How many of them are decided, (1,), int64; 0 for none.

        Returns:
            Normalised actions, (1, H, action_dim), and features of the images, (F,).
        """
        context = self._flow.observe(images, tokens, token_mask, state)
        rows = torch.arange(self._flow.horizon, device=num_locked.device)
        lock = Lock(prefix_actions, (rows < num_locked)[None], self._is_clean_lock)
        actions = denoise(self._flow, context, noise, self.num_steps, lock)
        return actions, self.reduce(context.seen)


def example_inputs(shape: ModelShape, num_cameras: int, num_tokens: int) -> tuple[Tensor, ...]:
    """Arguments of `ChunkGraph` with the sizes to record it with, float32."""
    actions = torch.zeros(1, shape.horizon, shape.action_dim)
    return (
        torch.zeros(1, num_cameras, 3, shape.image_px, shape.image_px),
        torch.zeros(1, num_tokens, dtype=torch.int64),
        torch.ones(1, num_tokens, dtype=torch.int64),
        torch.zeros(1, shape.state_dim),
        actions,
        actions,
        torch.ones(1, dtype=torch.int64),
    )


def recorded(
    graph: ChunkGraph, examples: tuple[Tensor, ...]
) -> Callable[..., tuple[Tensor, Tensor]]:
    """Record a graph for this process; instructions of any length fit it.

    Args:
        graph: On a CPU.
        examples: From `example_inputs`.

    Returns:
        Takes what `ChunkGraph.forward` takes and answers the same, bit for bit.
    """
    jit: Any = torch.jit
    with warnings.catch_warnings(), torch.no_grad():
        # They name branches on shapes, which are fixed, and advise compilers that need minutes.
        warnings.simplefilter("ignore")
        trace = jit.freeze(jit.trace(graph.eval(), examples, check_trace=False))

    def run(*inputs: Tensor) -> tuple[Tensor, Tensor]:
        # The optimiser would specialise on every new length, for 100 ms in the middle of a task.
        with torch.no_grad(), jit.optimized_execution(False):
            answer: tuple[Tensor, Tensor] = trace(*inputs)
        return answer

    return run
