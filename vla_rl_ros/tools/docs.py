# SPDX-License-Identifier: Apache-2.0
"""`vla-rl-ros docs`: the reference pages that follow from the code.

Sources: `ros/graph.py`, `ros/services.py` and `ros/qos.py`, the config dataclass of each node, and
the parsers of the command line.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import io
import os
import pkgutil
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_origin

from vla_rl_ros.core.config import ParamInfo, field_hints, info_of
from vla_rl_ros.ros.graph import TOPICS, Topic
from vla_rl_ros.ros.services import SERVICES

FOLDER = Path("docs/reference")
_NOTE = "<!-- Made by `make docs` from the code. Do not edit. -->"
_HELP_COLUMNS = "98"
# argparse indents the commands below a command by four blanks, options by two; what one
# with a long name does is told in the next line.
_NESTED = re.compile(r"^ {4}([a-z]+)(?:$| {2,}\S)", re.MULTILINE)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """The parameters of one node.

    Attributes:
        node: Node name.
        summary: First line of the node's docstring.
        config: Dataclass whose fields are the parameters.
    """

    node: str
    summary: str
    config: type[Any]


def pages() -> dict[Path, str]:
    """Content of every generated page, by path below the repository root."""
    return {
        FOLDER / "topics.md": topics_page(TOPICS),
        FOLDER / "parameters.md": parameters_page(node_configs()),
        FOLDER / "commands.md": commands_page(),
    }


def topics_page(topics: Sequence[Topic]) -> str:
    """The topic table with the QoS behind each name."""
    rows = [
        (
            f"`{topic.name}`",
            f"`{topic.type.replace('/msg/', '/')}`",
            topic.qos,
            f"{topic.rate_hz:g}" if topic.rate_hz else "on change",
            f"`{topic.publisher}`" if topic.publisher != "all" else "all nodes",
            topic.doc,
        )
        for topic in topics
    ]
    return "\n".join(
        [
            "# Topics",
            _NOTE,
            "",
            "Names are relative to the namespace of the graph. A vector that has no ROS type of "
            "its own travels as named channels with units in `JointState` (one step) or "
            "`JointTrajectory` (a chunk).",
            "",
            *_table(("Topic", "Type", "QoS", "Hz", "Publisher", "Holds"), rows),
            "",
            "## Quality of service",
            "",
            "What publishers offer. Control nodes read SENSOR topics best effort with depth 1, "
            "the recorder reads everything reliably with depth 500.",
            "",
            *_table(("Name", "Reliability", "Durability", "Depth", "Lifespan"), _qos_rows()),
            "",
        ]
    )


def parameters_page(configs: Sequence[NodeConfig]) -> str:
    """One table of parameters per node."""
    lines = [
        "# Parameters",
        _NOTE,
        "",
        "A missing, unknown or inconsistent value fails at start with a sentence that names the "
        "field. Live parameters may change while the node runs (`ros2 param set`).",
        "Every node also takes `autostart` (default true): become active without a supervisor.",
        "",
    ]
    for entry in configs:
        lines += [f"## `{entry.node}`", "", entry.summary, ""]
        rows = [(f"`{name}`", *rest) for name, *rest in parameter_rows(entry.config)]
        header = ("Parameter", "Type", "Default", "Unit", "Range", "Live", "Meaning")
        lines += [*_table(header, rows), ""] if rows else ["No parameters of its own.", ""]
    return "\n".join(lines)


def commands_page() -> str:
    """Help of every command, and the services that do the same from within ROS."""
    from vla_rl_ros.tools.cli import COMMANDS

    lines = ["# Commands and services", _NOTE, ""]
    for name, (path, sentence) in COMMANDS.items():
        module = importlib.import_module(path)
        lines += [f"## `vla-rl-ros {name}`", ""]
        if not hasattr(module, "add_parser"):
            lines += [f"{sentence}.", ""]
            continue
        text = help_of(module, name)
        lines += ["```text", text, "```", ""]
        for nested in _NESTED.findall(text):
            heading = [f"### `vla-rl-ros {name} {nested}`", ""]
            lines += [*heading, "```text", help_of(module, name, nested), "```", ""]
    rows = [(f"`{name}`", f"`std_srvs/{kind}`", doc) for name, kind, doc in SERVICES]
    lines += ["## Services", "", *_table(("Service", "Type", "Does"), rows), ""]
    return "\n".join(lines)


def help_of(module: ModuleType, *words: str) -> str:
    """What ``vla-rl-ros COMMAND --help`` prints, at a fixed width.

    Args:
        module: Module whose ``add_parser`` declares the sub-command.
        words: Name of the sub-command and of those below it.
    """
    parser = argparse.ArgumentParser(prog="vla-rl-ros")
    module.add_parser(parser.add_subparsers())
    said, columns = io.StringIO(), os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = _HELP_COLUMNS
    try:
        with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
            parser.parse_args([*words, "--help"])
    finally:
        del os.environ["COLUMNS"]
        if columns is not None:
            os.environ["COLUMNS"] = columns
    return said.getvalue().strip()


def node_configs() -> list[NodeConfig]:
    """Every node of `ros/nodes` with its config, by name."""
    from vla_rl_ros.ros import nodes
    from vla_rl_ros.ros.managed_node import ManagedNode

    found = []
    for module_info in pkgutil.iter_modules(nodes.__path__):
        module = importlib.import_module(f"{nodes.__name__}.{module_info.name}")
        for value in vars(module).values():
            if not (isinstance(value, type) and value.__module__ == module.__name__):
                continue
            for base in getattr(value, "__orig_bases__", ()):
                origin = get_origin(base)
                if isinstance(origin, type) and issubclass(origin, ManagedNode):
                    summary = (value.__doc__ or "").strip().splitlines()[0]
                    (config,) = get_args(base)
                    found.append(NodeConfig(node=module_info.name, summary=summary, config=config))
    return sorted(found, key=lambda entry: entry.node)


def parameter_rows(config: type[Any], prefix: str = "") -> Iterator[tuple[str, ...]]:
    """Name, type, default, unit, range, liveness and meaning of each parameter of a config."""
    hints = field_hints(config)
    for config_field in dataclasses.fields(config):
        hint, name = hints[config_field.name], f"{prefix}{config_field.name}"
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            yield from parameter_rows(hint, f"{name}.")
            continue
        info = info_of(config_field)
        yield (
            name,
            _type_name(hint),
            _default(config_field),
            info.unit,
            _range(info),
            "yes" if info.is_live else "",
            info.doc,
        )


def _type_name(hint: object) -> str:
    if get_origin(hint) is tuple:
        return f"list of {get_args(hint)[0].__name__}"
    return str(getattr(hint, "__name__", hint))


def _default(config_field: dataclasses.Field[Any]) -> str:
    value = config_field.default
    if value is dataclasses.MISSING:
        return "required"
    if isinstance(value, tuple):
        value = list(value)
    return f"`{str(value).lower() if isinstance(value, bool) else repr(value)}`"


def _range(info: ParamInfo) -> str:
    if info.choices:
        return ", ".join(f"`{choice}`" for choice in info.choices)
    low = "" if info.low is None else f"{info.low:g}"
    high = "" if info.high is None else f"{info.high:g}"
    if low and high:
        return f"{low} to {high}"
    return f"at least {low}" if low else f"at most {high}" if high else ""


def _qos_rows() -> Iterator[tuple[str, ...]]:
    from vla_rl_ros.ros.qos import PUBLISHER_QOS

    for name, profile in PUBLISHER_QOS.items():
        lifespan_s = profile.lifespan.nanoseconds * 1e-9
        yield (
            name,
            profile.reliability.name.lower().replace("_", " "),
            profile.durability.name.lower().replace("_", " "),
            str(profile.depth),
            # ROS writes "no lifespan" as zero or as centuries.
            f"{lifespan_s:g} s" if 0.0 < lifespan_s < 1e6 else "",
        )


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines]


def add_parser(subparsers: Any) -> None:  # noqa: ANN401 - argparse has no public name for it
    """Add the sub-command."""
    parser = subparsers.add_parser(
        "docs",
        help="write the generated reference pages again",
        description="Write docs/reference/ from the topic table, the parameters and the commands.",
    )
    parser.add_argument("--check", action="store_true", help="write nothing, fail if out of date")
    parser.add_argument("--root", type=Path, default=Path(), help="root of the checkout")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the sub-command; returns 1 when ``--check`` found a page out of date, else 0."""
    stale = []
    for relative, content in pages().items():
        path = arguments.root / relative
        if path.is_file() and path.read_text(encoding="utf-8") == content:
            continue
        stale.append(str(relative))
        if not arguments.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
    verb = "out of date" if arguments.check else "written"
    print(f"{verb}: {', '.join(stale)}" if stale else "reference pages are up to date")
    return 1 if stale and arguments.check else 0
