"""Sentences of books: what is prose, where sentences end, and what a test shares with them."""

from book_sentences import book_sentences, without_tests, word_runs

BOOK = """CHAPTER I

"Come in," said Mr. Hale. "It is a cold
night!" The door--the old one--was shut.

    a verse
    of a song.

Contents: 12

Caf\u00e9s were open. J. B. Smith [1] was there.
"""


def test_prose_is_split_at_its_ends() -> None:
    assert list(book_sentences(BOOK)) == [
        '"Come in," said Mr. Hale.',
        '"It is a cold night!"',
        "The door - the old one - was shut.",
        "J. B. Smith was there.",
    ]


def test_long_sentences_and_lists_of_numbers_are_left_out() -> None:
    assert not list(book_sentences("Word " * 61 + "end."))
    assert not list(book_sentences("In 1901, 1902 and 1903."))


def test_sentences_of_tests_are_left_out() -> None:
    excluded = word_runs("The birch canoe slid on the smooth planks.") | word_runs("Come in.")
    sentences = ["He saw the birch canoe slid on the sand.", "Come in!", "The birch canoe slid."]
    assert list(without_tests(sentences, excluded)) == ["The birch canoe slid."]
