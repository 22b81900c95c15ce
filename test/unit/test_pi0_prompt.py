# SPDX-License-Identifier: Apache-2.0
"""Instructions as tokens, and the tokenizers that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from unit.pi0_checkpoints import INSTRUCTION, WORDS, write_tokenizer

from vla_rl_ros.core.errors import ConfigError, InvalidCommandError
from vla_rl_ros.policies.pi0.prompt import PromptEncoder


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    write_tokenizer(tmp_path)
    return tmp_path


def _words(encoder: PromptEncoder, instruction: str) -> list[str]:
    return [WORDS[i] for i in encoder.encode(instruction)]


def test_raw_is_the_words_alone(directory: Path) -> None:
    assert _words(PromptEncoder(directory, "raw", 32), INSTRUCTION) == INSTRUCTION.split()


def test_pi0_begins_with_bos_and_ends_with_a_line_end(directory: Path) -> None:
    encoder = PromptEncoder(directory, "pi0", 32)
    assert _words(encoder, INSTRUCTION) == ["<bos>", *INSTRUCTION.split(), "\n"]


def test_task_names_are_read_as_words(directory: Path) -> None:
    encoder = PromptEncoder(directory, "raw", 32)
    assert _words(encoder, " press_yellow\nbutton ") == ["press", "yellow", "button"]


def test_many_instructions_do_not_pile_up_or_mix(directory: Path) -> None:
    encoder = PromptEncoder(directory, "raw", 32)
    for i in range(200):
        assert len(encoder.encode(" ".join(["cube"] * (i % 90 + 1)))) == i % 90 + 1


@pytest.mark.parametrize(
    ("instruction", "named"), [("lift the blue cube", "'blue'"), ("  ", "empty")]
)
def test_what_the_model_cannot_understand_is_refused(
    directory: Path, instruction: str, named: str
) -> None:
    for style in ("raw", "pi0"):
        with pytest.raises(InvalidCommandError, match=named):
            PromptEncoder(directory, style, 32).encode(instruction)


def test_a_missing_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tokenizer\.json is missing: put"):
        PromptEncoder(tmp_path, "raw", 32)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"model": {}}'])
def test_a_damaged_tokenizer_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(ConfigError, match=r"tokenizer\.json is damaged"):
        PromptEncoder(tmp_path, "raw", 32)


def test_a_tokenizer_of_another_model_is_refused(directory: Path) -> None:
    with pytest.raises(ConfigError, match=f"has {len(WORDS)} tokens, the model knows 4"):
        PromptEncoder(directory, "raw", 4)


def test_pi0_needs_a_begin_token(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models

    Tokenizer(models.WordLevel({"lift": 0}, unk_token="lift")).save(
        str(tmp_path / "tokenizer.json")
    )
    with pytest.raises(ConfigError, match="<bos>"):
        PromptEncoder(tmp_path, "pi0", 32)
