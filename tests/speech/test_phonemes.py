"""Phoneme tokens of texts, and their durations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moss_audio_tokenizer.errors import CheckpointError, InputError
from moss_audio_tokenizer.speech.phonemes import (
    BOUNDARIES,
    NUM_TOKENS,
    PHONEMES,
    TICKS,
    Lexicon,
    Schedule,
    SpokenWord,
    durations_of_words,
    letter_tokens,
    phoneme_tokens,
    phonemes_of,
    split_words,
    spread,
)

LEXICON = Lexicon({"hello": "həlˈoʊ", "judge": "dʒˈʌdʒ", "cat": "kˈæt"})


def test_words_and_what_follows_them() -> None:
    """Signs make pauses; the last word ends a sentence."""
    assert split_words("Hello, it's a cat; 'really' so") == [
        SpokenWord("hello", ","),
        SpokenWord("it's", " "),
        SpokenWord("a", " "),
        SpokenWord("cat", ","),
        SpokenWord("really", " "),
        SpokenWord("so", "."),
    ]
    assert split_words("what?!")[-1].boundary == "?"


def test_a_text_without_words_is_refused() -> None:
    """Signs alone cannot be said."""
    with pytest.raises(InputError, match="has no word"):
        split_words("?! ,")


def test_stress_lasts_from_its_mark_to_the_vowel() -> None:
    """Both consonants before a stressed vowel are stressed."""
    tokens = phoneme_tokens("həlˈoʊ")
    stressed = [(token - len(BOUNDARIES)) % 2 for token in tokens]
    assert "".join(PHONEMES[index] for index in phonemes_of(tokens)) == "həloʊ"
    assert stressed == [0, 0, 0, 1, 0]


def test_unknown_words_are_spelled() -> None:
    """A word that the dictionary lacks becomes letters, and a possessive its noun and s."""
    tokens = LEXICON.tokens("hello zq")
    assert tokens[-3:-1] == letter_tokens("zq")
    assert tokens[0] == tokens[-1] == BOUNDARIES.index(".")
    assert max(tokens) < NUM_TOKENS
    assert LEXICON.pronounce("cat's") == phoneme_tokens("kˈæts")
    assert LEXICON.pronounce("judge's") == phoneme_tokens("dʒˈʌdʒɪz")
    assert LEXICON.pronounce("dog's") == []


def test_a_lexicon_is_read_as_it_was_written(tmp_path) -> None:
    """Save and load are inverse; other files are refused with the line."""
    LEXICON.save(tmp_path / "lexicon.txt")
    loaded = Lexicon.load(tmp_path / "lexicon.txt")
    assert loaded.tokens("hello cat judge") == LEXICON.tokens("hello cat judge")
    (tmp_path / "bad.txt").write_text("cat\tkæt\ndog\n", encoding="utf-8")
    with pytest.raises(CheckpointError, match="line 2"):
        Lexicon.load(tmp_path / "bad.txt")
    with pytest.raises(CheckpointError, match="cannot be read"):
        Lexicon.load(tmp_path / "missing.txt")
    (tmp_path / "empty.txt").write_text("", encoding="utf-8")
    with pytest.raises(CheckpointError, match="line 1"):
        Lexicon.load(tmp_path / "empty.txt")


@given(st.lists(st.integers(0, 30), min_size=1, max_size=20).filter(sum))
def test_a_schedule_fills_whole_frames(durations: list[int]) -> None:
    """Each token has its ticks, in order; the last also those that fill its frame."""
    schedule = Schedule.of(durations)
    counts = np.bincount(schedule.tokens.ravel(), minlength=len(durations))
    assert counts[:-1].tolist() == durations[:-1]
    assert 0 <= counts[-1] - durations[-1] < TICKS
    assert (np.diff(schedule.tokens.ravel()) >= 0).all()
    assert schedule.left.ravel()[-1] == 0
    assert schedule.left.max() <= Schedule.MOST_LEFT


@given(st.data())
def test_durations_add_up_to_the_clip(data: st.DataObject) -> None:
    """No tick is lost, wherever the phonemes are emitted."""
    counts = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=6))
    gaps = data.draw(st.lists(st.integers(1, 12), min_size=sum(counts), max_size=sum(counts)))
    steps = np.cumsum(gaps).tolist()
    ticks = steps[-1] + data.draw(st.integers(1, 20))
    words, gaps_between = durations_of_words(steps, counts, ticks)
    assert [len(word) for word in words] == counts
    assert len(gaps_between) == len(counts) + 1
    assert sum(map(sum, words)) + sum(gaps_between) == ticks
    assert min(min(map(min, words)), *gaps_between) >= 0


@given(st.integers(0, 50), st.integers(1, 9))
def test_spread_durations_are_as_equal_as_can_be(total: int, count: int) -> None:
    """They differ by one tick at most."""
    durations = spread(total, count)
    assert sum(durations) == total
    assert max(durations) - min(durations) <= 1
