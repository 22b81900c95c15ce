# SPDX-License-Identifier: Apache-2.0
"""`vla-rl-ros export onnx`: a PI0 checkpoint as one file for machines without torch."""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.prefix import Conditioning
from vla_rl_ros.policies.manifest import PolicyManifest, read_manifest, write_manifest
from vla_rl_ros.policies.onnx import OnnxSampler
from vla_rl_ros.policies.pi0.policy import Sampler
from vla_rl_ros.policies.pi0.prompt import TOKENIZER_FILE
from vla_rl_ros.policies.pi0.translation import Translation

DEFAULT_OPSET = 17
DEFAULT_TOKENS = {"raw": 16, "pi0": 48}
"""Longest instruction by the manifest's ``prompt``; 48 is what PI0 was trained with."""
TOLERANCE = 1e-4
"""Largest difference of normalised actions between the file and torch."""


def add_parser(subparsers: Any) -> None:  # noqa: ANN401 - argparse keeps the type private
    """Add `export` and its sub-commands to a command line."""
    parser = subparsers.add_parser("export", help="write checkpoints in other formats")
    commands = parser.add_subparsers(dest="export_command", required=True)
    text = "write a PI0 checkpoint as an ONNX file for the policy 'onnx', and compare the two"
    command = commands.add_parser("onnx", help=text, description=text)
    command.add_argument(
        "--checkpoint",
        type=Path,
        default=None,
        metavar="DIR",
        help="directory with config.json, model.safetensors, tokenizer.json and policy.json "
        "(default: the checkpoint that ships with the package)",
    )
    command.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="the .onnx file to write"
    )
    command.add_argument(
        "--opset", type=int, default=DEFAULT_OPSET, help="operator version (default: %(default)s)"
    )
    command.add_argument(
        "--denoise-steps", type=int, default=0, help="Euler steps (default: policy.json's)"
    )
    command.add_argument(
        "--max-tokens", type=int, default=0, help="longest instruction (default: 16, PI0's own 48)"
    )
    command.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    difference = export_onnx(
        arguments.checkpoint,
        arguments.out,
        opset=arguments.opset,
        num_steps=arguments.denoise_steps,
        max_tokens=arguments.max_tokens,
    )
    size_mb = arguments.out.stat().st_size / 1e6
    print(f"{arguments.out}: {size_mb:.1f} MB, differs from torch by at most {difference:.1e}")
    return 0


def export_onnx(
    checkpoint: Path | None,
    out: Path,
    *,
    opset: int = DEFAULT_OPSET,
    num_steps: int = 0,
    max_tokens: int = 0,
) -> float:
    """Export, compare with torch, and only then put the files in place.

    Args:
        checkpoint: Directory of a `pi0` checkpoint; None for the one that ships.
        out: The ``.onnx`` file; ``policy.json`` and ``tokenizer.json`` go beside it.
        opset: Version of the ONNX operators.
        num_steps: Euler steps, 0 for those of the checkpoint.
        max_tokens: Longest instruction, 0 for `DEFAULT_TOKENS`.

    Returns:
        Largest difference of normalised actions between the file and torch.

    Raises:
        ConfigError: The checkpoint is refused, `out` would spoil other files, or the file computes
            something else than torch.
    """
    from vla_rl_ros.policies.pi0.backend import SHIPPED, make_sampler
    from vla_rl_ros.policies.pi0.onnx_graph import export_graph

    directory = checkpoint or SHIPPED
    _check_target(directory, out)
    manifest = read_manifest(directory)
    manifest = dataclasses.replace(
        manifest, backend="onnx", denoise_steps=num_steps or manifest.denoise_steps
    )
    sampler = make_sampler(directory, manifest)
    translation = Translation(manifest, sampler.shape, directory)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".export-") as name:
        draft = Path(name)
        export_graph(
            sampler.graph,
            sampler.shape,
            draft / out.name,
            num_cameras=len(manifest.cameras),
            num_tokens=max_tokens or DEFAULT_TOKENS[manifest.prompt],
            opset=opset,
            tower_hash=sampler.tower_hash,
        )
        difference = _difference(
            sampler, OnnxSampler(draft / out.name, "cpu", 1), translation, manifest
        )
        shutil.copyfile(directory / TOKENIZER_FILE, draft / TOKENIZER_FILE)
        write_manifest(manifest, draft)
        for file in draft.iterdir():
            file.replace(out.parent / file.name)
    return difference


def _check_target(directory: Path, out: Path) -> None:
    if out.suffix != ".onnx":
        raise ConfigError(f"--out {out} must end in .onnx")
    others = [file for file in out.parent.glob("*.onnx") if file.name != out.name]
    if others or (out.parent / "config.json").exists():
        found = others[0].name if others else "a checkpoint"
        raise ConfigError(
            f"--out {out}: {out.parent} holds {found}, whose policy.json would be overwritten; "
            "name a directory of its own"
        )


def _difference(
    one: Sampler, other: Sampler, translation: Translation, manifest: PolicyManifest
) -> float:
    """Largest difference between two samplers on random inputs, with and without a lock."""
    rng = np.random.default_rng(0)
    shape, blank = one.shape, translation.blank_inputs()
    inputs = dataclasses.replace(
        blank,
        pixels=rng.uniform(-1.0, 1.0, blank.pixels.shape).astype(np.float32),
        state=rng.standard_normal(blank.state.shape, dtype=np.float32),
    )
    noise = rng.standard_normal((1, shape.horizon, shape.action_dim), dtype=np.float32)
    num_locked = manifest.prefix.max_locked or shape.horizon // 2
    plan = translation.blank_plan(Conditioning.LOCK, num_locked, num_locked)
    differences = [
        float(np.abs(one(inputs, noise, p) - other(inputs, noise, p)).max()) for p in (None, plan)
    ]
    if not max(differences) <= TOLERANCE:
        raise ConfigError(
            f"the exported file differs from torch by {max(differences):.1e} (allowed: "
            f"{TOLERANCE:.0e}); try another --opset"
        )
    return max(differences)
