"""Text to token ids and back, for the language model of training.

Owns the two ways there are: UTF-8 bytes, and the tokenizer of a pretrained model.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from transformers import AutoTokenizer

from ..errors import ConfigError


class TextCodec(Protocol):
    """Token ids of texts.

    Attributes:
        end: the id that follows a text.
        num_tokens: ids are below this.
    """

    end: int
    num_tokens: int

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without the end."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, up to the first end."""
        ...


class ByteText:
    """UTF-8 bytes, then the end: needs no files, knows every language."""

    end = 256
    num_tokens = 257

    def encode(self, text: str) -> list[int]:
        """One id a byte."""
        return list(text.encode("utf-8"))

    def decode(self, ids: Sequence[int]) -> str:
        """Bytes that are no text show as replacement characters."""
        return bytes(_up_to(ids, self.end)).decode("utf-8", errors="replace")


class PretrainedText:
    """The tokenizer of a pretrained model, with its end-of-text.

    Raises:
        ConfigError: there is none at ``source``, or it knows no end of a text.
    """

    def __init__(self, source: str) -> None:
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(source)
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ConfigError(
                f"no tokenizer at {source!r} ({reason}); set semantic.tokenizer to one, or to "
                "'bytes'"
            ) from error
        if self._tokenizer.eos_token_id is None:
            raise ConfigError(f"the tokenizer at {source!r} has no end-of-text token")
        if not self._tokenizer.encode("a text", add_special_tokens=False):
            raise ConfigError(
                f"the tokenizer at {source!r} makes no tokens of a text: its files are missing; "
                "set semantic.tokenizer to a folder that has them, or to 'bytes'"
            )
        self.end = int(self._tokenizer.eos_token_id)
        self.num_tokens = len(self._tokenizer)

    def encode(self, text: str) -> list[int]:
        """The tokenizer's ids, without special tokens."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The tokenizer's text."""
        text: str = self._tokenizer.decode(_up_to(ids, self.end), skip_special_tokens=True)
        return text


def _up_to(ids: Sequence[int], end: int) -> list[int]:
    ids = list(ids)
    return ids[: ids.index(end)] if end in ids else ids
