# SPDX-License-Identifier: Apache-2.0
"""Instructions as tokens. Called by `policies.pi0.translation`."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from vla_rl_ros.core.errors import ConfigError, InvalidCommandError

TokenArray: TypeAlias = NDArray[np.int64]

TOKENIZER_FILE = "tokenizer.json"
_BEGIN = "<bos>"
_UNKNOWN = "<unk>"
_REMEMBERED = 64


class PromptEncoder:
    """Turns an instruction into the token ids that follow the image tokens."""

    def __init__(self, directory: Path, style: str, vocabulary_size: int) -> None:
        """Read the tokenizer of a checkpoint.

        Args:
            directory: Holds ``tokenizer.json``, a file of the `tokenizers` library.
            style: ``raw``: what the tokenizer makes of the words; ``pi0``: begin token, words,
                line end, without the tokenizer's own additions.
            vocabulary_size: Number of rows of the model's embedding.

        Raises:
            ConfigError: The file is missing, damaged, or made for another model.
        """
        try:
            from tokenizers import Tokenizer
        except ModuleNotFoundError as error:
            raise ConfigError(
                "instructions need the Python package 'tokenizers': pip install tokenizers"
            ) from error

        path = directory / TOKENIZER_FILE
        if not path.is_file():
            raise ConfigError(
                f"{path} is missing: put the {TOKENIZER_FILE} the model was trained with beside "
                "its weights (that of PaliGemma has to be fetched separately)"
            )
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:
            raise ConfigError(f"{path} is damaged: {error}") from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._is_bare = style == "raw"
        self._known: dict[str, TokenArray] = {}
        if not self._is_bare and self._tokenizer.token_to_id(_BEGIN) is None:
            raise ConfigError(f"{path} has no token {_BEGIN}, which prompt='{style}' begins with")
        # Added tokens such as <image> lie beyond the embedding and no instruction uses them.
        words = self._tokenizer.get_vocab(with_added_tokens=False)
        if not words or max(words.values()) >= vocabulary_size:
            raise ConfigError(
                f"{path} has {len(words)} tokens, the model knows {vocabulary_size}: it belongs "
                "to another model"
            )

    def encode(self, instruction: str) -> TokenArray:
        """Token ids, shape (n,), n >= 1; the last instructions are remembered.

        Raises:
            InvalidCommandError: The instruction is empty or has words the model does not know.
        """
        tokens = self._known.get(instruction)
        if tokens is None:
            tokens = self._tokenize(instruction)
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[instruction] = tokens
        return tokens

    def _tokenize(self, instruction: str) -> TokenArray:
        # The cleaning of openpi's tokenizer: task names are often written with underscores.
        words = instruction.strip().replace("_", " ").replace("\n", " ")
        if not words:
            raise InvalidCommandError("instruction", "it is empty")
        text = words if self._is_bare else f"{_BEGIN}{words}\n"
        encoding = self._tokenizer.encode(text, add_special_tokens=self._is_bare)
        if _UNKNOWN in encoding.tokens:
            start, end = encoding.offsets[encoding.tokens.index(_UNKNOWN)]
            raise InvalidCommandError(
                "instruction", f"the policy does not know '{text[start:end]}' of '{words}'"
            )
        tokens = np.array(encoding.ids, dtype=np.int64)
        if len(tokens) == 0:
            raise InvalidCommandError("instruction", f"'{words}' has no words the policy knows")
        tokens.setflags(write=False)
        return tokens
