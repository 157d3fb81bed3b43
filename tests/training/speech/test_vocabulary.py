import pytest

from moss_audio_tokenizer.errors import ConfigError
from moss_audio_tokenizer.speech.tokens import LETTERS, CharacterText, PieceText
from moss_audio_tokenizer.training.speech.speech_config import LanguageModelConfig
from moss_audio_tokenizer.training.speech.vocabulary import (
    frequent_pieces,
    frequent_words,
    text_with_vocabulary,
)

TEXTS = ["the other theme", "the moth", "he"]


def test_frequent_words_come_first():
    assert frequent_words(TEXTS, 3) == ["the", "he", "moth"]


def test_pieces_join_the_most_frequent_pair_again_and_again():
    # "th" occurs in the, other, theme, the and moth; "the" in the first four of these.
    assert frequent_pieces(TEXTS, 3) == ["th", "the", " the"]


def test_there_are_no_pieces_of_what_occurs_once():
    assert frequent_pieces(["ab ab cd"], 9) == ["ab", " ab"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, CharacterText(LETTERS)),
        ({"num_words": 1}, CharacterText(LETTERS, ["the"])),
        ({"num_pieces": 2}, PieceText(LETTERS, ["th", "the"])),
    ],
)
def test_the_recipe_says_what_is_learned(changes, expected):
    found = text_with_vocabulary(CharacterText(LETTERS), LanguageModelConfig(**changes), TEXTS)
    assert (type(found), found._tokens) == (type(expected), expected._tokens)


def test_words_and_pieces_exclude_each_other():
    with pytest.raises(ConfigError, match=r"num_pieces is 2; expected 0 where model\.num_words"):
        LanguageModelConfig(num_words=1, num_pieces=2)
