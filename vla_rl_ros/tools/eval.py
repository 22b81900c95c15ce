# SPDX-License-Identifier: Apache-2.0
"""`vla-rl-ros eval`: how often a policy succeeds."""

from __future__ import annotations

from typing import Any

from vla_rl_ros.tools import eval_base, eval_residual


def add_parser(subparsers: Any) -> None:  # noqa: ANN401 - argparse keeps the type private
    """Add `eval` and its sub-commands to a command line."""
    parser = subparsers.add_parser("eval", help="measure how often a policy succeeds")
    commands = parser.add_subparsers(dest="eval", metavar="WHAT", required=True)
    eval_base.add_parser(commands)
    eval_residual.add_residual_parser(commands)
