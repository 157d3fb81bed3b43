"""Text tokens that need transformers, and text.json of a model folder.

Tokens without it are `speech.tokens`'.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from ..errors import CheckpointError, ConfigError
from ..files import atomic_path
from ..speech.tokens import (
    LETTERS,
    TEXT_NAME,
    TOKENIZER_FOLDER,
    ByteText,
    CharacterText,
    PieceText,
    TextCodec,
    up_to,
)
from ..speech.tokens import load_text as load_stored_text


class PretrainedText:
    """The tokenizer of a pretrained model, with its end-of-text token.

    Raises:
        ConfigError: there is none at ``source``, or it has no end-of-text token.
    """

    def __init__(self, source: str) -> None:
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(source)
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ConfigError(
                f"no tokenizer at {source!r} ({reason}); name one, or 'bytes'"
            ) from error
        if self._tokenizer.eos_token_id is None:
            raise ConfigError(f"the tokenizer at {source!r} has no end-of-text token")
        if not self._tokenizer.encode("a text", add_special_tokens=False):
            raise ConfigError(
                f"the tokenizer at {source!r} makes no tokens of a text: its files are missing; "
                "name a folder that has them, or 'bytes'"
            )
        self.end = int(self._tokenizer.eos_token_id)
        self.num_tokens = len(self._tokenizer)

    def spell(self, text: str) -> str | None:
        """The text unchanged."""
        return text

    def encode(self, text: str) -> list[int]:
        """The tokenizer's ids, without special tokens."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The tokenizer's text."""
        text: str = self._tokenizer.decode(up_to(ids, self.end), skip_special_tokens=True)
        return text

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files into a folder."""
        self._tokenizer.save_pretrained(str(folder))


def make_text(source: str) -> TextCodec:
    """The text tokens that a recipe names.

    Args:
        source: "bytes", "letters" for the English alphabet, or folder or hub id of a tokenizer.

    Raises:
        ConfigError: there is no such tokenizer.
    """
    if source == "letters":
        return CharacterText(LETTERS)
    return ByteText() if source == "bytes" else PretrainedText(source)


def save_text(text: TextCodec, folder: Path) -> None:
    """Write text.json, and a pretrained tokenizer's files, into a model folder."""
    facts: dict[str, Any] = {"kind": "bytes"}
    if isinstance(text, PieceText):
        facts = {"kind": "pieces", "alphabet": text.alphabet, "pieces": list(text.pieces)}
    elif isinstance(text, CharacterText):
        facts = {"kind": "characters", "alphabet": text.alphabet, "words": list(text.words)}
    elif isinstance(text, PretrainedText):
        facts = {"kind": "pretrained"}
        text.save(folder / TOKENIZER_FOLDER)
    with atomic_path(folder / TEXT_NAME, error=CheckpointError) as beside:
        beside.write_text(json.dumps(facts) + "\n", encoding="utf-8")


def load_text(folder: Path) -> TextCodec:
    """The text tokens of a model folder.

    Raises:
        CheckpointError: text.json is missing or damaged.
    """
    return load_stored_text(folder, lambda stored: PretrainedText(str(stored)))
