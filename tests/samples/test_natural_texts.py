import zlib

import pytest
from natural_sources import R_PACKAGES, arctic_prompts, harvard_sentences, sentences
from natural_templates import expand_templates, read_templates
from natural_texts import (
    SENTENCES,
    cleaned,
    excluded_sentences,
    is_held_out,
    is_usable,
    normalized,
    speech_test_texts,
    test_sentences,
    test_texts,
    training_texts,
)

test_sentences.__test__ = test_texts.__test__ = False
HARVARD = ["The birch canoe slid."] + [f"Sentence {n} of the list." for n in range(1, 720)]


@pytest.fixture
def packages(tmp_path):
    """A folder of unpacked packages, with a data file as R writes it."""
    path = tmp_path / R_PACKAGES / "stringr/data/Rdata.rdb"
    path.parent.mkdir(parents=True)
    head = bytes([0, 4, 0, 9])
    content = b"".join(head + len(s).to_bytes(4, "big") + s.encode() for s in HARVARD)
    path.write_bytes(len(content).to_bytes(4, "big") + zlib.compress(content))
    return tmp_path


def write_arctic(folder, texts):
    path = folder / "cmuarctic.data"
    lines = (f'( arctic_a{number:04d} "{text}" )\n' for number, text in enumerate(texts))
    path.write_text("".join(lines), encoding="utf-8")
    return path


def test_sentences_are_compared_by_their_words():
    assert normalized("Don\u2019t stop -- NOW!") == normalized("don't stop, now")


def test_a_tenth_is_held_out_whatever_the_punctuation():
    texts = [f"Prompt number {number} of many." for number in range(2000)]
    held_out = list(map(is_held_out, texts))
    assert 0.07 < sum(held_out) / 2000 < 0.13
    assert held_out == [is_held_out(text.upper().replace(".", "!")) for text in texts]


@pytest.mark.parametrize(
    ("text", "usable"),
    [
        ("It rained all day.", True),
        ("Go on.", False),
        (" ".join(["word"] * 23) + ".", False),
        ("See <b>this</b> page now.", False),
        ("THIS IS SHOUTED AT YOU.", False),
        ('He said "stop and went.', False),
        ("明天北京会下雨。", True),
    ],
)
def test_usable_sentences(text, usable):
    assert is_usable(text) == usable


def test_cleaning_removes_copies_and_what_is_excluded():
    excluded = {normalized("The birch canoe slid.")}
    texts = [
        "The Birch canoe slid!",
        "A new sentence here.",
        "a new sentence, here",
        "At 5:30 we go.",
    ]
    assert cleaned(texts, "en", excluded) == ["A new sentence here."]


def test_numbers_and_abbreviations_are_written_out():
    pytest.importorskip("num2words")
    texts = ["Mr. Ray paid 1,200 dollars in 1984.", "Call 0042 & wait."]
    assert cleaned(texts, "en", set()) == [
        "Mister Ray paid twelve hundred dollars in nineteen eighty-four.",
        "Call zero zero four two and wait.",
    ]


def test_harvard_sentences_are_read_from_the_package(packages):
    assert harvard_sentences(packages) == HARVARD


def test_without_harvard_sentences_nothing_is_made(tmp_path):
    with pytest.raises(SystemExit, match="r-cran-stringr"):
        training_texts(tmp_path, "en", 10, 0)


def test_training_texts_have_none_of_the_test(packages, monkeypatch):
    monkeypatch.setattr("natural_texts.spoken", lambda text, language: text)
    prompts = [f"The old captain told us story {'very ' * n}well." for n in range(15)]
    arctic = write_arctic(packages, [*prompts, "The birch canoe slid.", *test_sentences()])
    texts = {normalized(text) for text in training_texts(packages, "en", 3000, 0, arctic)}
    kept_out = {normalized(text) for text in prompts if is_held_out(text)}
    assert kept_out
    assert not texts & excluded_sentences(packages, arctic)
    assert {normalized(text) for text in prompts} - kept_out <= texts
    assert not texts & {normalized(text) for text in test_texts(packages)}


def test_what_a_voice_is_asked_to_say_is_in_no_training_text(packages):
    texts = speech_test_texts(packages)
    assert len(texts) == len(set(texts)) == 100 + 50
    assert {normalized(text) for text in texts} <= excluded_sentences(packages, None)


def test_the_test_set_has_harvard_sentences_and_our_own(packages):
    texts = test_texts(packages)
    assert len(texts) == 25
    assert len(set(texts) & set(HARVARD)) == 13


def test_arctic_prompts_are_optional(tmp_path):
    assert arctic_prompts(None) == []
    assert arctic_prompts(write_arctic(tmp_path, ["One, two."])) == ["One, two."]


def test_running_text_is_split_into_sentences():
    assert sentences('"Well," said Mr. Ray.\nIt was late! "Was it?"') == [
        "Well, said Mr. Ray.",
        "It was late!",
        "Was it?",
    ]


@pytest.mark.parametrize("path", sorted(SENTENCES.glob("??.txt")), ids=lambda path: path.stem)
def test_templates_of_every_language_fill_in(path):
    _, templates = read_templates(path)
    texts = expand_templates(path, 3 * len(templates), seed=1)
    assert not any("{" in text or "}" in text for text in texts)
    assert texts == expand_templates(path, 3 * len(templates), seed=1)
    assert len(set(texts)) > 1.5 * len(templates)


def test_a_slot_that_is_not_defined_is_refused(tmp_path):
    path = tmp_path / "xx.txt"
    path.write_text("@a: b | c\nThe {a} and the {d}.\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="uses d"):
        expand_templates(path, 1, 0)
