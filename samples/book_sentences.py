"""Sentences of English books, one a line, for a word language model.

    python samples/book_sentences.py BOOK.txt [BOOK.txt ...] -o books.txt --exclude test.txt

Books are plain texts with blank lines between paragraphs, as Project Gutenberg has them; its header
and footer are cut off. Headings, verse, tables and very long sentences are left out, and every
sentence that shares six words in a row with a text of a test. The words are compared as the
language model reads them: numbers and abbreviations in words, without quotation marks.
"""

import argparse
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Set
from pathlib import Path

from moss_audio_tokenizer.speech.text_preparation import spell
from moss_audio_tokenizer.speech.tokens import LETTERS, CharacterText
from moss_audio_tokenizer.speech.word_ngrams import plain_words

MAX_WORDS = 60
MAX_DIGITS = 7
# A sentence that shares so many words in a row with a text of a test is taken to be from it.
SHARED_WORDS = 6
_ABBREVIATION = re.compile(
    r"\b(Mr|Mrs|Ms|Dr|St|Prof|Capt|Col|Gen|Lieut|Lt|Sergt|Rev|Hon|Messrs|Mme|Mlle|Esq|Jr|Sr|Co"
    r"|vol|No|vs|[A-Z])\.$"
)
_END = re.compile(r"""(?<=[.!?])["')\]]*\s+(?=["'(\[]?[A-Z])""")
_PLAIN = str.maketrans(
    {"\u2018": "'", "\u2019": "'", "`": "'", "\u201c": '"', "\u201d": '"', "\u2014": " - "}
    | dict.fromkeys("_*~\r")
)
# Lines of Project Gutenberg around a book; a long title may take two of them.
_HEADER_END = re.compile(r"^\*{3} ?START OF(?:[^*]{,300}\*{3}|.*$)", re.MULTILINE)
_FOOTER_START = re.compile(r"^\*{3} ?END OF", re.MULTILINE)
# Marks that would keep "(Mr." from being read as an abbreviation.
_BRACKETS_AND_QUOTES = re.compile(r"""["()\[\]]|(?<!\w)'|'(?!\w)""")
# `spell` takes a "no." at the end of a sentence for "number".
_ANSWER = re.compile(r"\bno\.(?!\s*\d)", re.IGNORECASE)
_LETTERS = CharacterText(LETTERS)


def book_sentences(text: str, excluded: Set[str] = frozenset()) -> Iterator[str]:
    """Sentences of a book's prose, of plain letters, in their order.

    Args:
        text: the whole file.
        excluded: `word_runs` of all texts of tests. A run across two sentences leaves out both.
    """
    for paragraph in re.split(r"\n\s*\n", book(text).translate(_PLAIN).replace("--", " - ")):
        if is_prose(paragraph):
            whole = " ".join(re.sub(r"\[[^\]]*\]", "", paragraph).split())
            yield from filter(is_usable, without_tests(split_sentences(whole), excluded))


def book(text: str) -> str:
    """A text without the header and footer of Project Gutenberg; all of it where it has none."""
    return _FOOTER_START.split(_HEADER_END.split(text, maxsplit=1)[-1], maxsplit=1)[0]


def is_prose(paragraph: str) -> bool:
    """Whether a paragraph ends like a sentence and most of its lines are not indented."""
    lines = paragraph.split("\n")
    indented = sum(line.startswith((" ", "\t")) for line in lines)
    has_end = re.search(r"""[.!?]["')\]]*\s*$""", paragraph)
    return bool(re.search("[a-z]", paragraph) and has_end) and (
        len(lines) == 1 or 2 * indented <= len(lines)
    )


def split_sentences(paragraph: str) -> list[str]:
    """Parts that end in a mark before a capital letter, but for abbreviations and initials."""
    parts, start = [], 0
    for found in _END.finditer(paragraph):
        if not _ABBREVIATION.search(paragraph[start : found.start()]):
            parts.append(paragraph[start : found.end()].strip())
            start = found.end()
    return [*parts, paragraph[start:].strip()]


def is_usable(sentence: str) -> bool:
    """Whether a sentence is of plain letters, not too long, and not a list of numbers."""
    digits = sum(character.isdigit() for character in sentence)
    return sentence.isascii() and 0 < len(sentence.split()) <= MAX_WORDS and digits <= MAX_DIGITS


def compared_words(text: str) -> list[str]:
    """Words as the language model reads them: letters without accents, no digit and no mark."""
    text = _ANSWER.sub("no", text.translate(_PLAIN).replace("--", " - "))
    split = unicodedata.normalize("NFKD", _BRACKETS_AND_QUOTES.sub(" ", text))
    plain = "".join(c for c in split if not unicodedata.combining(c))
    # Letters of other alphabets: the words around them are compared nevertheless.
    known = "".join(c if c.isascii() or not c.isalnum() else " " for c in plain)
    return plain_words(spell(known, _LETTERS) or "")


def word_runs(text: str) -> set[str]:
    """All runs of `SHARED_WORDS` words in a text; a shorter one is a run of its own."""
    words = compared_words(text)
    count = max(len(words) - SHARED_WORDS, 0) + 1
    return {" ".join(words[start : start + SHARED_WORDS]) for start in range(count)} - {""}


def runs_of_tests(paths: Iterable[Path]) -> set[str]:
    """The `word_runs` of every line of texts of tests."""
    lines = (line for path in paths for line in path.read_text("utf-8").splitlines())
    return {run for line in lines for run in word_runs(line)}


def without_tests(sentences: list[str], excluded: Set[str]) -> list[str]:
    """Sentences that share no run of words with a test.

    Args:
        sentences: that follow each other, as in a paragraph: a run may go on in the next one.
        excluded: `word_runs` of all texts of tests.
    """
    if not excluded:
        return sentences
    words = [compared_words(sentence) for sentence in sentences]
    flat = [(word, index) for index, own in enumerate(words) for word in own]
    shared = {index for index, own in enumerate(words) if " ".join(own) in excluded}
    for start in range(len(flat) - SHARED_WORDS + 1):
        run = flat[start : start + SHARED_WORDS]
        if " ".join(word for word, _ in run) in excluded:
            shared.update(index for _, index in run)
    return [sentence for index, sentence in enumerate(sentences) if index not in shared]


def is_file(name: str) -> bool:
    """Whether a file has this name; none has one that is too long."""
    return os.path.isfile(name)  # noqa: PTH113 - Path.is_file raises where a name is too long


def existing_file(name: str) -> Path:
    """The path of a file, for the command line.

    Raises:
        argparse.ArgumentTypeError: there is none.
    """
    if not is_file(name):
        raise argparse.ArgumentTypeError(
            f"{name[:80]!r} was not found; expected a file of plain text, check its path"
        )
    return Path(name)


def main() -> None:
    """Read books and write their sentences."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("books", type=existing_file, nargs="+", help="plain texts, UTF-8")
    parser.add_argument("-o", "--output", type=Path, default=Path("books.txt"))
    parser.add_argument(
        "--exclude", type=existing_file, nargs="*", default=[], help="texts of tests"
    )
    given = parser.parse_args()
    excluded = runs_of_tests(given.exclude)
    num_words = 0
    with given.output.open("w", encoding="utf-8") as output:
        for path in given.books:
            text = path.read_text(encoding="utf-8", errors="replace")
            for sentence in book_sentences(text, excluded):
                num_words += len(sentence.split())
                output.write(sentence + "\n")
    print(f"{given.output}: {num_words} words of {len(given.books)} books")


if __name__ == "__main__":
    main()
