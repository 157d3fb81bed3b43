import pytest

from moss_audio_tokenizer.errors import InputError
from moss_audio_tokenizer.speech.text_preparation import (
    MAX_CHUNK_CHARACTERS,
    check_speakable,
    normalize,
    prepare_text,
    spell,
    split_text,
)
from moss_audio_tokenizer.speech.tokens import LETTERS, ByteText, CharacterText


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("Dr. Smith owes $3.50", "doctor Smith owes three dollars and fifty cents"),
        ("20% of 1,234.5", "twenty percent of one thousand two hundred and thirty four point five"),
        ("at 9:05, 10:00 and 7:30", "at nine oh five, ten o'clock and seven thirty"),
        ("the 3rd of May 1999.", "the third of May nineteen ninety nine."),
        ("-5 or 3-4", "minus five or three - four"),
        ("£1 & 2€", "one pound and two euros"),
        ("007", "zero zero seven"),
        ("no numbers here", "no numbers here"),
    ],
)
def test_numbers_signs_and_abbreviations_become_words(text, spoken):
    assert normalize(text) == spoken


def test_what_an_alphabet_lacks_is_skipped_and_named():
    prepared = prepare_text("Café 7 \U0001f600 東京!", CharacterText(LETTERS))
    assert prepared.chunks == ["cafe seven"]
    assert set(prepared.skipped) == set("\U0001f600東京")
    assert prepare_text("hi \U0001f600", ByteText()).skipped == "\U0001f600"


@pytest.mark.parametrize("text", ["", "  ", "?!...", "\U0001f600"])
def test_texts_without_words_are_refused_before_a_model_is_loaded(text):
    with pytest.raises(InputError, match=r"empty|no letter or digit"):
        check_speakable(text)


def test_a_text_of_unknown_letters_alone_is_refused():
    with pytest.raises(InputError, match=r"nothing in .* can be said"):
        prepare_text("東京", CharacterText(LETTERS))


def test_long_texts_are_split_at_sentences_and_lose_no_word():
    text = " ".join(f"Sentence number {n} is here." for n in range(2000))
    chunks = split_text(text)
    assert " ".join(chunks) == text
    assert all(len(chunk) <= MAX_CHUNK_CHARACTERS for chunk in chunks)
    assert all(chunk.endswith(".") for chunk in chunks)
    assert " ".join(split_text("word " * 10_000)).split() == ["word"] * 10_000
    assert "".join(split_text("x" * 1000)) == "x" * 1000
    assert split_text("short") == ["short"]


def test_training_and_inference_spell_numbers_alike():
    tokens = CharacterText(LETTERS)
    text = "Dr. X has 21 at 9:05"
    assert prepare_text(text, tokens).chunks == [spell(text, tokens)]
    assert spell("f\u00fcr", tokens) is None
