"""Text to token ids and back, without PyTorch.

Owns UTF-8 bytes, the characters of an alphabet with frequent words or pieces of words, and the
stored tokenizer of a pretrained model; and text.json, which says what a model folder uses.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from ..errors import CheckpointError, ConfigError, InputError, MissingDependencyError, one_line

TEXT_NAME = "text.json"
TOKENIZER_FOLDER = "tokenizer"
LETTERS = " 'abcdefghijklmnopqrstuvwxyz"


class TextCodec(Protocol):
    """Token ids of texts.

    Attributes:
        end: id of the end token, which follows a text.
        num_tokens: number of ids.
    """

    end: int
    num_tokens: int

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without the end."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, up to the first end token."""
        ...


class ByteText:
    """UTF-8 bytes and an end token: needs no files, and covers every language."""

    end = 256
    num_tokens = 257

    def encode(self, text: str) -> list[int]:
        """One id for each byte."""
        return list(text.encode("utf-8"))

    def decode(self, ids: Sequence[int]) -> str:
        """Invalid UTF-8 becomes replacement characters."""
        return bytes(up_to(ids, self.end)).decode("utf-8", errors="replace")


class CharacterText:
    """The characters of an alphabet, and frequent words: for small models.

    Args:
        alphabet: each character once. Without capital letters, texts are lowercased.
        words: words that are one token each. Others are spelled, after the token of a blank.

    Raises:
        ConfigError: the alphabet is empty or repeats a character, a word is not of the alphabet
            or repeated, or there are words but no blank.
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
        self._ids = {character: index for index, character in enumerate(alphabet)}
        self._word_ids = {word: len(alphabet) + index for index, word in enumerate(words)}
        self.is_lower = alphabet == alphabet.lower()

    def encode(self, text: str) -> list[int]:
        """One id for each character or known word; runs of blanks count as one.

        Raises:
            InputError: a character is not in the alphabet.
        """
        plain = " ".join(text.split())
        plain = plain.lower() if self.is_lower else plain
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
            for token in up_to(ids, self.end)
        ]
        return " ".join("".join(parts).split()) if self.words else "".join(parts)


class PieceText(CharacterText):
    """The characters of an alphabet, and pieces of words; no token crosses a word's start.

    Args:
        alphabet: each character once, a blank among them.
        pieces: strings of two characters and more; one at the start of a word begins with a
            blank.

    Raises:
        ConfigError: the alphabet repeats a character or has no blank, or a piece is not of the
            alphabet, repeated, too short, or has a blank behind its first character.
    """

    def __init__(self, alphabet: str, pieces: Sequence[str]) -> None:
        super().__init__(alphabet)
        known = all(isinstance(piece, str) and set(piece) <= set(alphabet) for piece in pieces)
        usable = known and all(len(piece) > 1 and " " not in piece[1:] for piece in pieces)
        if not (usable and len(set(pieces)) == len(pieces) and " " in alphabet):
            raise ConfigError(
                "expected pieces of two and more of the alphabet's characters, each once, with a "
                "blank at the start alone, and a blank in the alphabet"
            )
        self.pieces = tuple(pieces)
        self._tokens = (*alphabet, *pieces)
        self.end = len(self._tokens)
        self.num_tokens = self.end + 1
        self._piece_ids = {token: index for index, token in enumerate(self._tokens)}
        self._longest = max(map(len, self._tokens))

    def encode(self, text: str) -> list[int]:
        """The longest known piece at every position of each word.

        Raises:
            InputError: a character is not in the alphabet.
        """
        letters = super().encode(text)
        words = "".join(self.alphabet[letter] for letter in letters).split()
        return [token for word in words for token in self._pieces_of(f" {word}")]

    def _pieces_of(self, word: str) -> list[int]:
        found: list[int] = []
        first = 0
        while first < len(word):
            lengths = range(self._longest, 0, -1)
            piece = next(p for n in lengths if (p := word[first : first + n]) in self._piece_ids)
            found.append(self._piece_ids[piece])
            first += len(piece)
        return found

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids."""
        return " ".join("".join(self._tokens[token] for token in up_to(ids, self.end)).split())


class StoredTokenizer:
    """A pretrained model's tokenizer.json, read by the library `tokenizers`.

    Raises:
        MissingDependencyError: the library is not installed.
        ConfigError: the folder holds no such tokenizer, or it has no end-of-text token.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise MissingDependencyError(
                "the tokens of this model need the library tokenizers; pip install tokenizers"
            ) from error
        try:
            self._tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
            facts = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        # The library raises plain exceptions.
        except Exception as error:
            raise ConfigError(
                f"{folder} holds no tokenizer.json that can be read ({one_line(error, 200)})"
            ) from error
        end = facts.get("eos_token")
        end = end.get("content") if isinstance(end, dict) else end
        found = self._tokenizer.token_to_id(end) if isinstance(end, str) else None
        if found is None:
            raise ConfigError(f"the tokenizer at {folder} has no end-of-text token")
        self.end = int(found)
        self.num_tokens = int(self._tokenizer.get_vocab_size())

    def encode(self, text: str) -> list[int]:
        """The tokenizer's ids, without special tokens."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """The tokenizer's text."""
        return self._tokenizer.decode(up_to(ids, self.end), skip_special_tokens=True)


def load_text(folder: Path, pretrained: Callable[[Path], TextCodec] = StoredTokenizer) -> TextCodec:
    """The text tokens of a model folder.

    Args:
        folder: folder with text.json.
        pretrained: opens the folder of a pretrained model's tokenizer.

    Raises:
        CheckpointError: text.json is missing or damaged.
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
        if kind == "pieces":
            pieces = facts["pieces"]
            if not isinstance(pieces, list):
                raise ConfigError(f"its pieces are a {type(pieces).__name__}; expected a list")
            return PieceText(facts["alphabet"], pieces)
        if kind == "pretrained":
            return pretrained(folder / TOKENIZER_FOLDER)
        if kind != "bytes":
            raise ConfigError(
                f"its kind is {kind!r}; expected bytes, characters, pieces or pretrained"
            )
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{path} does not say how texts become tokens ({one_line(error, 200)}); use a "
            "folder that moss-audio train wrote"
        ) from error
    return ByteText()


def up_to(ids: Sequence[int], end: int) -> list[int]:
    """The ids before the first end token."""
    ids = list(ids)
    return ids[: ids.index(end)] if end in ids else ids
