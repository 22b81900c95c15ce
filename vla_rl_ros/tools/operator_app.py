# SPDX-License-Identifier: Apache-2.0
"""`vla-rl-ros operator`: a page in the browser with what goes on in the cell, and buttons."""

from __future__ import annotations

import argparse
import os
import sys
import threading
from pathlib import Path
from typing import Any

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.ros.processes import RUN_DIR_VARIABLE, graph_environment
from vla_rl_ros.tools.argument_types import port

LOOPBACK = "127.0.0.1"
PORT = 8765


def add_parser(subparsers: Any) -> None:  # noqa: ANN401 - argparse has no public name for it
    """Add the sub-command."""
    parser = subparsers.add_parser(
        "operator",
        help="a page with what goes on in the cell, and buttons",
        description="Serve a page for the operator of a running graph: camera images, who drives, "
        "success, episode, interventions, human minutes; buttons for start, success, failure, "
        "stop, recover and a finished reset. It runs beside the graph until Ctrl-C and may be "
        "started and ended at any time.",
    )
    parser.add_argument("--port", type=port, default=PORT, help=f"default: {PORT}; 0 for any")
    parser.add_argument(
        "--host",
        default=LOOPBACK,
        help="address to listen on. Anything but loopback lets other machines press the buttons "
        "who know the key in the address that is printed; it travels unencrypted",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until Ctrl-C; returns the exit code.

    Raises:
        ConfigError: The address is not to be had.
    """
    environment = graph_environment(Path())
    del environment[RUN_DIR_VARIABLE]
    os.environ.update(environment)
    # After the environment, which rclpy reads when it is imported.
    from vla_rl_ros.ros.operator_view import OperatorView
    from vla_rl_ros.tools.operator_server import OperatorServer

    view = OperatorView()
    try:
        try:
            server = OperatorServer(view, arguments.host, arguments.port)
        except OSError as error:
            where = f"{arguments.host}:{arguments.port}"
            raise ConfigError(f"cannot listen on {where}: {error}; try another --port") from error
        if not server.is_local:
            _tell(
                f"WARNING: every machine that reaches {arguments.host} and knows the key can "
                "press the buttons, and the key travels unencrypted; loopback behind ssh is safer"
            )
        threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
        print(server.url, flush=True)
        _tell("Ctrl-C ends it; the cell goes on")
        try:
            while True:
                view.spin_once()
        finally:
            server.shutdown()
            server.server_close()
    finally:
        view.close()


def _tell(sentence: str) -> None:
    print(f"[operator] {sentence}", file=sys.stderr, flush=True)
