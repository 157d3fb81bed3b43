"""Sentences of books: what is prose, where sentences end, and what a test shares with them."""

from pathlib import Path

import pytest
from book_sentences import book, book_sentences, main, without_tests, word_runs

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


@pytest.mark.parametrize(
    ("test", "sentence"),
    [
        ("He did not come home today.", "'He did not come home today,' she said."),
        ("Well, she said that he would not.", '"She said \u2018that he would not\u2019 - did he?"'),
        ("Mister Hale came home on the third.", "(Mr. Hale came home on the 3rd of May.)"),
        ("All of the men said no.", "All of the men said no, and left."),
        ("The house was No. 5 on the left.", "The house was number five on the left."),
        ("They had 21 cows in 1865.", "They had twenty-one cows in eighteen sixty-five."),
        ("The caf\u00e9 was full of old men.", "The cafe was full of old--men."),
    ],
)
def test_marks_and_numbers_hide_no_test(test: str, sentence: str) -> None:
    assert not without_tests([sentence], word_runs(test))


def test_a_run_across_two_sentences_leaves_out_both() -> None:
    text = "It rained. She went out. He did not come home. All was well."
    kept = list(book_sentences(text, word_runs("She went out; he did not.")))
    assert kept == ["It rained.", "All was well."]


def test_header_and_footer_of_project_gutenberg_are_cut_off() -> None:
    for mark in ("EBOOK EMMA ***", "EBOOK A LONG\r\nTITLE ***", "EBOOK EMMA"):
        text = (
            f"This is free.\n\n*** START OF THE PROJECT GUTENBERG {mark}\n\nShe * smiled.\n\n"
            "***END OF THE PROJECT GUTENBERG EBOOK EMMA ***\n\nGive us money.\n"
        )
        assert list(book_sentences(text)) == ["She smiled."]
    assert book("At the START OF it.\n\nThe END OF it.") == "At the START OF it.\n\nThe END OF it."


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {name: str(tmp_path / name) for name in ("book", "test", "out")}
    (tmp_path / "book").write_text("It rained. 'He did not come home today,' she said.\n")
    (tmp_path / "test").write_text("\nHe did not come home today.\n")
    arguments = [names["book"], "-o", names["out"], "--exclude", names["test"]]
    monkeypatch.setattr("sys.argv", ["book_sentences.py", *arguments])
    main()
    assert (tmp_path / "out").read_text() == "It rained.\n"
    monkeypatch.setattr("sys.argv", ["book_sentences.py", str(tmp_path / "none")])
    with pytest.raises(SystemExit):
        main()
