# SPDX-License-Identifier: Apache-2.0
"""The words of pi0-nano."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from tokenizers import Tokenizer

from vla_rl_ros.learning.base_language import (
    MAX_TOKENS,
    WORDINGS,
    draw_wordings,
    encode,
    vocabulary,
    wording_tokens,
    write_tokenizer,
)
from vla_rl_ros.policies.pi0.nano import PAD_ID, UNKNOWN_ID, VOCABULARY_SIZE
from vla_rl_ros.ros.share import share_path
from vla_rl_ros.sim.tasks import TASKS, Task


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("words") / "tokenizer.json"
    write_tokenizer(path)
    return Tokenizer.from_file(str(path))


def test_the_file_encodes_as_training_does(tokenizer):
    for text in [wording for texts in WORDINGS.values() for wording in texts]:
        ids = encode(text)

        assert len(ids) == MAX_TOKENS
        assert tokenizer.encode(text).ids == ids[ids != PAD_ID].tolist()


def test_every_instruction_that_is_taught_is_known(tokenizer):
    for task, wordings in WORDINGS.items():
        file = share_path() / "config" / "tasks" / f"{task.value}.yaml"
        text = yaml.safe_load(file.read_text(encoding="utf-8"))["instruction"]

        assert UNKNOWN_ID not in tokenizer.encode(text).ids
        assert wordings[0] == text


def test_undoing_is_not_taught(tokenizer):
    assert set(Task) - set(WORDINGS) == {Task.PEG_OUT}
    assert UNKNOWN_ID in tokenizer.encode(TASKS[Task.PEG_OUT].instruction).ids


def test_capitals_do_not_matter_and_strange_words_are_marked(tokenizer):
    assert tokenizer.encode("Lift the RED cube").ids == tokenizer.encode("lift the red cube").ids
    assert UNKNOWN_ID in tokenizer.encode("fold the laundry").ids
    assert UNKNOWN_ID in encode("fold the laundry")


def test_words_fit_into_the_embedding_beside_the_image_token():
    assert max(vocabulary().values()) < VOCABULARY_SIZE - 1


def test_wordings_are_drawn_mostly_as_the_cell_says_them():
    tokens = wording_tokens(list(WORDINGS))
    drawn = draw_wordings(5000, np.random.default_rng(0))

    assert drawn.max() < tokens.shape[1]
    assert np.bincount(drawn)[0] > 2500
    assert (np.bincount(drawn)[1:] > 200).all()
