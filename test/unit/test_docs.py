# SPDX-License-Identifier: Apache-2.0
"""The reference pages follow from the code, and no page points at something that is not there."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex

import pytest
import yaml

from vla_rl_ros.core.episode import TaskConfig
from vla_rl_ros.ros.graph import TOPICS
from vla_rl_ros.ros.share import share_path
from vla_rl_ros.tools.cli import COMMANDS
from vla_rl_ros.tools.docs import node_configs, pages, parameter_rows

ROOT = share_path()
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("urdf/*.md")])
COMMAND = re.compile(r"(\.venv/bin/|[A-Z_]+=\S+ )*vla-rl-ros ")
PARAM_SET = re.compile(r"ros2 param set /(\w+) (\S+) ")
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)\s]*)?\)")


def blocks(language):
    """Fenced blocks of a language on all pages that are written by hand."""
    fence = re.compile(rf"^```{language}\n(.*?)^```", re.MULTILINE | re.DOTALL)
    return [block for page in PAGES for block in fence.findall(page.read_text(encoding="utf-8"))]


@pytest.fixture(scope="module")
def generated():
    return pages()


@pytest.fixture(scope="module")
def parameters():
    """Names of the parameters of each node."""
    return {
        entry.node: {name for name, *_ in parameter_rows(entry.config)} for entry in node_configs()
    }


def test_reference_pages_are_up_to_date(generated):
    stale = [
        str(path)
        for path, content in generated.items()
        if (ROOT / path).read_text(encoding="utf-8") != content
    ]

    assert not stale, "run `make docs` and commit the result"


def test_every_topic_stands_in_the_table(generated):
    (page,) = (content for path, content in generated.items() if path.name == "topics.md")

    for topic in TOPICS:
        assert f"| `{topic.name}` |" in page


def test_every_node_has_a_table_of_parameters(generated):
    (page,) = (content for path, content in generated.items() if path.name == "parameters.md")

    assert node_configs()
    for entry in node_configs():
        assert f"## `{entry.node}`" in page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file(page):
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" not in target and not target.startswith("mailto:"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_page_of_the_docs_is_in_the_index_and_the_menu():
    index = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")

    for page in ROOT.glob("docs/**/*.md"):
        name = str(page.relative_to(ROOT / "docs"))
        assert name in menu
        assert name in index or name == "index.md"


def test_the_page_of_commands_has_those_below_a_command_however_long_their_names_are():
    (page,) = [text for path, text in pages().items() if path.name == "commands.md"]
    for what in ("base", "residual", "classifier", "eyes"):
        assert f"### `vla-rl-ros train {what}`" in page


def test_commands_in_the_text_are_accepted():
    lines = [line.strip() for block in blocks("bash") for line in block.split("\n")]
    commands = [
        shlex.split(line.partition("vla-rl-ros ")[2], comments=True)
        for line in lines
        if COMMAND.match(line)
    ]

    assert commands
    for words in commands:
        module = importlib.import_module(COMMANDS[words[0]][0])
        parser = argparse.ArgumentParser(exit_on_error=False)
        module.add_parser(parser.add_subparsers())
        parser.parse_args(words)


def test_parameters_in_the_text_exist(parameters):
    files = [yaml.safe_load(block) for block in blocks("yaml")]
    tasks = [content for content in files if "instruction" in content]
    assert [TaskConfig(**content) for content in tasks]
    used = [
        (node, name)
        for content in files
        if content not in tasks
        for node, values in content.items()
        for name in values["ros__parameters"]
    ]
    used += [match for block in blocks("bash") for match in PARAM_SET.findall(block)]

    assert used
    for node, name in used:
        known = parameters["camera" if node.startswith("camera_") else node]
        assert name in known, f"{node} has no parameter {name}"


def test_python_in_the_text_compiles():
    for block in blocks("python"):
        compile(block, "docs", "exec")
