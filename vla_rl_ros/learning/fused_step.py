# SPDX-License-Identifier: Apache-2.0
"""How gradient steps run: as written, or compiled whole; and what makes a CPU fast at them.

`torch.compile` turns forward pass, gradient, Adam and target average of a step into a few sweeps
over flat vectors. `tune_cpu` touches settings of the whole process, so only programs call it.
"""

from __future__ import annotations

import ctypes
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vla_rl_ros.core.errors import ConfigError

EXECUTIONS = ("eager", "compiled")

# glibc, malloc.h. Its largest accepted threshold for mmap is 32 MiB; temporaries are smaller.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_MMAP_THRESHOLD_BYTES = 1 << 25
_TRIM_THRESHOLD_BYTES = (1 << 31) - 1
_TOP_PAD_BYTES = 1 << 26

_PROBE_WIDTH = 256
_PROBE_REPEATS = 40
_LARGEST_ERROR = 2e-6

Step = Callable[..., Tensor]


def fused(step: Step, execution: str, device: str = "cpu") -> Step:
    """Return a step that runs without recording gradients, compiled if asked for.

    Args:
        step: Function of tensors that changes networks in place.
        execution: "eager" or "compiled".
        device: Where the tensors are.

    Raises:
        ConfigError: Unknown execution.
    """
    if execution not in EXECUTIONS:
        raise ConfigError(f"execution='{execution}' is not one of {', '.join(EXECUTIONS)}")
    if execution == "compiled":
        step = _compiled(step, device)

    def run(*arguments: Any) -> Tensor:  # noqa: ANN401 - whatever the step takes
        with torch.no_grad():
            return step(*arguments)

    return run


def _compiled(step: Step, device: str) -> Step:
    """A step compiled whole, which looks at every call at its tensors only.

    Its settings never change, nor torch's (`tune_cpu` comes first), and on a CPU the look at them
    costs as much as a twentieth of a step. What is compiled is found by code object and by what is
    looked at, so each step needs a code of its own.
    """

    def alone(*arguments: Any) -> Tensor:  # noqa: ANN401 - whatever the step takes
        return step(*arguments)

    alone.__code__ = alone.__code__.replace()
    options: dict[str, Any] = {
        "guard_filter_fn": torch.compiler.keep_tensor_guards_unsafe,
        # What calls the sweeps is C++ as well; tried on CPUs only.
        "cpp_wrapper": torch.device(device).type == "cpu",
    }
    compiled: Step = torch.compile(alone, fullgraph=True, dynamic=False, options=options)
    return compiled


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuTuning:
    """What `tune_cpu` found and did.

    Attributes:
        gflops_before: Speed of a matrix product with torch's default library.
        gflops_after: Speed with oneDNN.
        error_after: Its relative error against float64.
        uses_onednn: Whether matrix products go to oneDNN now.
        keeps_memory: Whether malloc keeps freed memory now.
    """

    gflops_before: float
    gflops_after: float
    error_after: float
    uses_onednn: bool
    keeps_memory: bool


def tune_cpu(num_threads: int = 1) -> CpuTuning:
    """Choose the faster library for matrix products and keep freed memory in the process.

    On AMD, torch's MKL takes a slower path than oneDNN does. The switch towards oneDNN allows
    reduced precision where the CPU has matrix units for it, so a probe looks at speed *and* error
    and takes the switch back if float32 is not kept.

    Args:
        num_threads: Threads of matrix products.
    """
    torch.set_num_threads(num_threads)
    keeps_memory = _keep_memory()
    settings: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = str(settings.fp32_precision)
    gflops_before, _ = _probe()
    settings.fp32_precision = "bf16"
    gflops_after, error = _probe()
    uses_onednn = gflops_after > gflops_before and error < _LARGEST_ERROR
    if not uses_onednn:
        settings.fp32_precision = before
    return CpuTuning(
        gflops_before=gflops_before,
        gflops_after=gflops_after,
        error_after=error,
        uses_onednn=uses_onednn,
        keeps_memory=keeps_memory,
    )


def _keep_memory() -> bool:
    """Tell glibc to keep big temporaries: handing them back costs a page fault per 4 KiB."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    answers = [
        mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES),
        mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD_BYTES),
        mallopt(_M_TOP_PAD, _TOP_PAD_BYTES),
    ]
    return all(answers)


def _probe() -> tuple[float, float]:
    """Best speed in GFLOP/s of a square product, and its relative error."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(_PROBE_WIDTH, _PROBE_WIDTH, generator=generator) for _ in range(2))
    exact = a.double() @ b.double()
    best_s = float("inf")
    product = a
    for _ in range(_PROBE_REPEATS):
        begin_s = time.perf_counter()
        product = a @ b
        best_s = min(best_s, time.perf_counter() - begin_s)
    error = float((product.double() - exact).norm() / exact.norm())
    return 2.0 * _PROBE_WIDTH**3 / best_s / 1e9, error
