# SPDX-License-Identifier: Apache-2.0
"""The language of pi0-nano: what each task may be called, and a tokenizer of those words.

Called by `base_training` (random wordings) and `base_checkpoint` (``tokenizer.json``).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.policies.pi0.nano import BEGIN_ID, END_ID, PAD_ID, UNKNOWN_ID, VOCABULARY_SIZE
from vla_rl_ros.sim.tasks import TASKS, Task

SPECIAL_TOKENS = {"<pad>": PAD_ID, "<bos>": BEGIN_ID, "<eos>": END_ID, "<unk>": UNKNOWN_ID}
WORDINGS: dict[Task, tuple[str, ...]] = {
    Task.LIFT: (
        TASKS[Task.LIFT].instruction,
        "pick up the red cube",
        "grasp the cube and lift it",
        "raise the red cube from the table",
        "lift the cube",
    ),
    Task.BUTTON: (
        TASKS[Task.BUTTON].instruction,
        "push the yellow button",
        "press the button",
        "push the button down",
        "move to the yellow button and press it",
    ),
    Task.PEG: (
        TASKS[Task.PEG].instruction,
        "insert the green peg into the hole",
        "put the peg into the blue block",
        "push the peg into the hole",
        "place the peg in the hole of the block",
    ),
}
"""What a task may be called; the first wording is the one the cell uses."""
MAX_TOKENS = 2 + max(len(text.split()) for texts in WORDINGS.values() for text in texts)
_FIRST_WORDING_PART = 0.7


def vocabulary() -> dict[str, int]:
    """Token ids: special tokens, then the words in order of appearance.

    Raises:
        ConfigError: More words than the model has embeddings for (one is the image token).
    """
    words = [w for texts in WORDINGS.values() for text in texts for w in text.split()]
    tokens = [*SPECIAL_TOKENS, *dict.fromkeys(words)]
    if len(tokens) >= VOCABULARY_SIZE:
        raise ConfigError(f"{len(tokens)} words and special tokens exceed {VOCABULARY_SIZE - 1}")
    return {token: number for number, token in enumerate(tokens)}


def write_tokenizer(path: Path) -> None:
    """Write a word-level ``tokenizer.json`` that puts <bos> before and <eos> after the words."""
    from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
    from tokenizers.models import WordLevel

    tokenizer = Tokenizer(WordLevel(vocab=vocabulary(), unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", BEGIN_ID), ("<eos>", END_ID)]
    )
    tokenizer.save(str(path))


def encode(text: str) -> NDArray[np.int64]:
    """Token ids padded to `MAX_TOKENS`, equal to what the tokenizer file makes of `text`."""
    known = vocabulary()
    ids = [BEGIN_ID, *(known.get(word, UNKNOWN_ID) for word in text.lower().split()), END_ID]
    return np.array(ids + [PAD_ID] * (MAX_TOKENS - len(ids)), dtype=np.int64)


def wording_tokens(tasks: list[Task]) -> NDArray[np.int64]:
    """Tokens of every wording, shape (tasks, wordings, MAX_TOKENS)."""
    return np.array([[encode(text) for text in WORDINGS[task]] for task in tasks])


def draw_wordings(count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw numbers of wordings, mostly the first, shape (count,)."""
    others = rng.integers(1, len(WORDINGS[Task.LIFT]), count)
    return np.where(rng.random(count) < _FIRST_WORDING_PART, 0, others)
