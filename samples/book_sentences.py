"""Sentences of English books, one a line, for a word language model.

    python samples/book_sentences.py BOOK.txt [BOOK.txt ...] -o books.txt --exclude test.txt

Books are plain texts with blank lines between paragraphs, as Project Gutenberg has them. Headings,
verse, tables and very long sentences are left out, and every sentence that shares six words in a
row with a text of a test.
"""

import argparse
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from natural_texts import normalized

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


def book_sentences(text: str) -> Iterator[str]:
    """Sentences of a book's prose, of plain letters, in their order."""
    for paragraph in re.split(r"\n\s*\n", text.translate(_PLAIN).replace("--", " - ")):
        if is_prose(paragraph):
            whole = " ".join(re.sub(r"\[[^\]]*\]", "", paragraph).split())
            yield from filter(is_usable, split_sentences(whole))


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


def word_runs(sentence: str) -> set[str]:
    """All runs of `SHARED_WORDS` words in a sentence; a shorter one is a run of its own."""
    words = normalized(sentence).split()
    count = max(len(words) - SHARED_WORDS, 0) + 1
    return {" ".join(words[start : start + SHARED_WORDS]) for start in range(count)}


def without_tests(sentences: Iterable[str], excluded: set[str]) -> Iterator[str]:
    """Sentences that share no run of words with a test.

    Args:
        sentences: of books.
        excluded: `word_runs` of all texts of tests.
    """
    return (sentence for sentence in sentences if excluded.isdisjoint(word_runs(sentence)))


def main() -> None:
    """Read books and write their sentences."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("books", type=Path, nargs="+", help="plain texts, UTF-8")
    parser.add_argument("-o", "--output", type=Path, default=Path("books.txt"))
    parser.add_argument("--exclude", type=Path, nargs="*", default=[], help="texts of tests")
    given = parser.parse_args()
    tests = [line for path in given.exclude for line in path.read_text("utf-8").splitlines()]
    excluded = set[str]().union(*map(word_runs, tests)) - {""}
    num_words = 0
    with given.output.open("w", encoding="utf-8") as output:
        for path in given.books:
            text = path.read_text(encoding="utf-8", errors="replace")
            for sentence in without_tests(book_sentences(text), excluded):
                num_words += len(sentence.split())
                output.write(sentence + "\n")
    print(f"{given.output}: {num_words} words of {len(given.books)} books")


if __name__ == "__main__":
    main()
