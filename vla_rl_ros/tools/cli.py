# SPDX-License-Identifier: Apache-2.0
"""The command `vla-rl-ros`. Each sub-command is a module that is imported only when it is used."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from collections.abc import Sequence
from types import FrameType, ModuleType

from vla_rl_ros import __version__
from vla_rl_ros.core.errors import VlaRlError

INTERRUPTED = 130
COMMANDS = {
    "up": ("vla_rl_ros.tools.up", "run the cell, simulated or real, with or without ROS"),
    "operator": (
        "vla_rl_ros.tools.operator_app",
        "a page with what goes on in the cell, and buttons",
    ),
    "demo": ("vla_rl_ros.tools.demo", "five episodes of each task in simulation, with a report"),
    "bench": ("vla_rl_ros.tools.bench", "measure the running system; prints one JSON line"),
    "teleop": ("vla_rl_ros.tools.keyboard", "drive the arm by hand, without a SpaceMouse"),
    "record": ("vla_rl_ros.tools.record", "record what an operator shows"),
    "label": ("vla_rl_ros.tools.label", "label frames of recordings, for a success classifier"),
    "train": ("vla_rl_ros.tools.train", "train a base policy, a residual, a classifier or eyes"),
    "probe": ("vla_rl_ros.tools.probe", "collect demonstrations by a base and its residual"),
    "distill": ("vla_rl_ros.tools.distill", "teach a base policy what its residual found"),
    "eval": ("vla_rl_ros.tools.eval", "measure how often a policy succeeds"),
    "export": ("vla_rl_ros.tools.export", "write a policy in another format"),
    "bag": ("vla_rl_ros.tools.bag", "look into recorded episodes, repair what a crash cut off"),
    "docs": ("vla_rl_ros.tools.docs", "write the generated reference pages again"),
}
"""Name to module and help. A module offers ``add_parser(subparsers)``, which adds a parser whose
default ``run`` takes the parsed arguments and returns the exit code; or it is a program of its own
with ``main(arguments)``."""


def make_parser(chosen: ModuleType | None, name: str) -> argparse.ArgumentParser:
    """The parser of the whole command line.

    Args:
        chosen: Imported module of the sub-command in use; the others are only listed.
        name: Name of that sub-command.
    """
    parser = argparse.ArgumentParser(
        prog="vla-rl-ros",
        description="Run, measure and inspect a Franka cell that is driven by a "
        "vision-language-action policy.",
        epilog="'vla-rl-ros COMMAND --help' explains a command.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command, (_, sentence) in COMMANDS.items():
        if chosen is not None and command == name:
            chosen.add_parser(subparsers)
        else:
            subparsers.add_parser(command, help=sentence, add_help=False)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return _run(words)
    except VlaRlError as error:
        print(f"vla-rl-ros: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        return _explain_missing(error)
    except OSError as error:
        # Of a file that was named on the command line, mostly; a disk may be full.
        if error.filename is None:
            raise
        print(f"vla-rl-ros: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("vla-rl-ros: interrupted", file=sys.stderr)
        return INTERRUPTED


def _run(words: Sequence[str]) -> int:
    name = words[0] if words else ""
    if name not in COMMANDS:
        # Help, version, or a mistake that the parser explains; it does not return.
        make_parser(None, "").parse_args(words)
        raise AssertionError("argparse let an unknown command pass")
    module = importlib.import_module(COMMANDS[name][0])
    if not hasattr(module, "add_parser"):
        return int(module.main(list(words[1:])))
    options = make_parser(module, name).parse_args(words)
    return int(options.run(options))


def _interrupt(_signum: int, _frame: FrameType | None) -> None:
    """SIGTERM unwinds like Ctrl-C, so that with blocks stop what they started."""
    raise KeyboardInterrupt


def _explain_missing(error: ModuleNotFoundError) -> int:
    module = (error.name or "").split(".")[0]
    if module == "rclpy":
        hint = (
            "ROS 2 is not in this Python. Source your ROS install (source "
            "/opt/ros/$ROS_DISTRO/setup.bash), or where there is none: pip install "
            "'vla_rl_ros[ros]'"
        )
    elif module == "vla_rl_ros":
        hint = f"this installation has no {error.name}"
    else:
        hint = f"the Python package '{module}' is missing: pip install 'vla_rl_ros[sim,ros]'"
    print(f"vla-rl-ros: {hint}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
