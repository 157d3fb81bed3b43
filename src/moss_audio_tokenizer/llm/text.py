"""Text to token ids and back.

Owns the three ways there are: UTF-8 bytes, the characters of an alphabet, and the tokenizer of a
pretrained model; and how a model folder says which of them is its own.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from transformers import AutoTokenizer

from ..errors import CheckpointError, ConfigError, InputError
from ..files import atomic_path

TEXT_NAME = "text.json"
_TOKENIZER_FOLDER = "tokenizer"
_LETTERS = " 'abcdefghijklmnopqrstuvwxyz"


class TextCodec(Protocol):
    """Token ids of texts.

    Attributes:
        end: the id that follows a text.
        num_tokens: ids are below this.
    """

    end: int
    num_tokens: int

    def spell(self, text: str) -> str | None:
        """A text of training data as the tokens can say it; None where they cannot."""
        ...

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

    def spell(self, text: str) -> str | None:
        """As it is."""
        return text

    def encode(self, text: str) -> list[int]:
        """One id a byte."""
        return list(text.encode("utf-8"))

    def decode(self, ids: Sequence[int]) -> str:
        """Bytes that are no text show as replacement characters."""
        return bytes(_up_to(ids, self.end)).decode("utf-8", errors="replace")


class CharacterText:
    """The characters of an alphabet, and whole words that are frequent: for small models.

    Args:
        alphabet: each character once. Without capital letters texts are read as small ones.
        words: that are one token each. Other words are spelled, behind the token of a blank.

    Raises:
        ConfigError: the alphabet is empty or names a character twice, a word is none or comes
            twice, or there are words and no blank.
    """

    def __init__(self, alphabet: str, words: Sequence[str] = ()) -> None:
        named = isinstance(alphabet, str) and all(isinstance(word, str) for word in words)
        if not named or not alphabet or len(set(alphabet)) < len(alphabet):
            raise ConfigError(f"the alphabet is {alphabet!r}; expected characters, each once")
        usable = all(word and set(word) <= set(alphabet) - {" "} for word in words)
        if words and not (usable and len(set(words)) == len(words) and " " in alphabet):
            raise ConfigError(
                "expected words of the alphabet's characters, each once, and a blank in it"
            )
        self.alphabet, self.words = alphabet, tuple(words)
        self._tokens = (*alphabet, *words)
        self.end = len(self._tokens)
        self.num_tokens = self.end + 1
        self._ids = {character: place for place, character in enumerate(alphabet)}
        self._word_ids = {word: len(alphabet) + place for place, word in enumerate(words)}
        self._is_small = alphabet == alphabet.lower()

    def spell(self, text: str) -> str | None:
        """Without signs that the alphabet does not have; None with other letters or figures."""
        plain = text.lower() if self._is_small else text
        if any(c.isalnum() and c not in self._ids for c in plain):
            return None
        return " ".join("".join(c if c in self._ids else " " for c in plain).split())

    def encode(self, text: str) -> list[int]:
        """One id a character, or a known word; runs of blanks count as one.

        Raises:
            InputError: a character is not in the alphabet.
        """
        plain = " ".join(text.split())
        plain = plain.lower() if self._is_small else plain
        unknown = sorted(set(plain) - set(self._ids))
        if unknown:
            raise InputError(
                f"got {''.join(unknown)!r} in {text[:60]!r}; this model knows {self.alphabet!r} "
                "alone: write numbers and signs out as words"
            )
        if not self.words:
            return [self._ids[character] for character in plain]
        return [token for word in plain.split() for token in self._word(word)]

    def _word(self, word: str) -> list[int]:
        if word in self._word_ids:
            return [self._word_ids[word]]
        return [self._ids[" "], *(self._ids[character] for character in word)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids."""
        parts = [
            f" {self._tokens[token]} " if token >= len(self.alphabet) else self._tokens[token]
            for token in _up_to(ids, self.end)
        ]
        return " ".join("".join(parts).split()) if self.words else "".join(parts)


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
        """As it is."""
        return text

    def encode(self, text: str) -> list[int]:
        """The tokenizer's ids, without special tokens."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The tokenizer's text."""
        text: str = self._tokenizer.decode(_up_to(ids, self.end), skip_special_tokens=True)
        return text

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files into a folder of their own."""
        self._tokenizer.save_pretrained(str(folder))


def make_text(source: str) -> TextCodec:
    """The text codec that a recipe names.

    Args:
        source: "bytes", "letters" for the English alphabet, or folder or hub id of a tokenizer.

    Raises:
        ConfigError: there is none.
    """
    if source == "letters":
        return CharacterText(_LETTERS)
    return ByteText() if source == "bytes" else PretrainedText(source)


def save_text(text: TextCodec, folder: Path) -> None:
    """Write what `load_text` needs into a model's folder."""
    facts: dict[str, Any] = {"kind": "bytes"}
    if isinstance(text, CharacterText):
        facts = {"kind": "characters", "alphabet": text.alphabet, "words": list(text.words)}
    elif isinstance(text, PretrainedText):
        facts = {"kind": "pretrained"}
        text.save(folder / _TOKENIZER_FOLDER)
    with atomic_path(folder / TEXT_NAME, error=CheckpointError) as beside:
        beside.write_text(json.dumps(facts) + "\n", encoding="utf-8")


def load_text(folder: Path) -> TextCodec:
    """The text codec of a model's folder.

    Raises:
        CheckpointError: the folder does not say which, or it is not whole.
    """
    path = folder / TEXT_NAME
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        kind = facts["kind"]
        if kind == "characters":
            words = facts.get("words", [])
            if not isinstance(words, list):
                raise ConfigError(f"its words are a {type(words).__name__}; expected a list")
            return CharacterText(facts["alphabet"], words)
        if kind == "pretrained":
            return PretrainedText(str(folder / _TOKENIZER_FOLDER))
        if kind != "bytes":
            raise ConfigError(f"its kind is {kind!r}; expected bytes, characters or pretrained")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path} does not say how texts become tokens ({reason}); use a folder that "
            "moss-audio train wrote"
        ) from error
    return ByteText()


def _up_to(ids: Sequence[int], end: int) -> list[int]:
    ids = list(ids)
    return ids[: ids.index(end)] if end in ids else ids
