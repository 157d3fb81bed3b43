"""Made-up texts: what they consist of, and that a seed makes the same ones."""

import re
from collections import Counter

from moss_audio_tokenizer.training.data.spelling import pronunciation, spelling


def test_the_same_seed_makes_the_same_texts_however_many():
    assert spelling(50, 3) == spelling(80, 3)[:50]
    assert spelling(50, 3) != spelling(50, 4)


def test_texts_are_lowercase_words_with_single_blanks():
    texts = spelling(2000, 0)
    assert all(re.fullmatch(r"[a-z]+( [a-z]+)*", text) for text in texts)
    assert max(len(text.split()) for text in texts) <= 26


def test_all_letters_digits_and_kinds_of_text_occur():
    texts = spelling(3000, 0)
    words = Counter(word for text in texts for word in text.split())
    assert set("abcdefghijklmnopqrstuvwxyz") <= set(words)
    expected = {"zero", "oh", "nine", "nineteen", "ninety", "hundred", "thousand", "rubout", "yes"}
    assert expected | {"twelfth", "thirtieth", "march"} <= set(words)
    assert any(re.fullmatch(r"[a-z]( [a-z]){3,}", text) for text in texts)
    assert any(re.fullmatch(r"enter (\w{3,} ?)+", text) for text in texts)
    dates = [text for text in texts if re.search(r"nineteen \w{3,}", text) and "march" in text]
    assert any(re.match(r"march (\w+ )?\w+(st|nd|rd|th) nineteen", text) for text in dates)


def test_one_text_does_not_mix_two_words_for_nought():
    for text in spelling(2000, 1):
        if re.fullmatch(r"((zero|oh|one|two|three|four|five|six|seven|eight|nine) ?)+", text):
            assert not {"zero", "oh"} <= set(text.split())


def test_the_letter_a_and_rubout_are_pronounced_as_they_are_meant():
    assert pronunciation("rubout a b a one") == "rub-out [['eI]] b [['eI]] one"
    assert pronunciation("may third") == "may third"
