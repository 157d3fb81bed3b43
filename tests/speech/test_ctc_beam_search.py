"""CTC prefix beam search: equal to trying every alignment, and what a language model changes."""

import math
from collections import defaultdict
from itertools import groupby, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moss_audio_tokenizer.errors import InputError
from moss_audio_tokenizer.speech.ctc_beam_search import BeamSettings, beam_search
from moss_audio_tokenizer.speech.tokens import LETTERS, CharacterText
from moss_audio_tokenizer.speech.word_language_model import BOUNDARY, UNKNOWN
from moss_audio_tokenizer.speech.word_ngrams import build_word_language_model

TINY = CharacterText(" ab")
TEXT = CharacterText(LETTERS)
TINY_MODEL = build_word_language_model(["ab a", "b ab", "a b a", "ab ab"] * 3)
MODEL = build_word_language_model(["the cat sat", "the cat ran", "a dog sat"] * 3)
EVERYTHING = BeamSettings(0.7, 0.4, -1.5, -1000.0, 1e9)


def _text_score(text: str, settings: BeamSettings) -> float:
    context, score = (BOUNDARY,), 0.0
    for word in text.split():
        number = TINY_MODEL.id_of(word)
        score += settings.weight * TINY_MODEL.score(number, context) + settings.word_bonus
        score += settings.unknown_penalty if number == UNKNOWN else 0.0
        context = (context[-1], number)
    return score + (settings.weight * TINY_MODEL.score(BOUNDARY, context) if text else 0.0)


def _exhaustive(scores: np.ndarray, settings: BeamSettings) -> dict[str, float]:
    """The score of every text, by all alignments."""
    totals: dict[str, float] = defaultdict(float)
    for path in product((0, 1, 2, 4), repeat=len(scores)):
        letters = "".join(TINY.alphabet[index] for index, _ in groupby(path) if index < 3)
        probability = math.exp(sum(scores[step, index] for step, index in enumerate(path)))
        totals[" ".join(letters.split())] += probability
    return {text: math.log(total) + _text_score(text, settings) for text, total in totals.items()}


@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_without_pruning_it_finds_the_best_text(seed: int, steps: int) -> None:
    logits = np.random.default_rng(seed).normal(0, 2, (steps, 5))
    logits[:, 3] = -np.inf
    scores = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    wanted = _exhaustive(scores, EVERYTHING)
    found = beam_search(scores, TINY, TINY_MODEL, 10_000, EVERYTHING)
    assert wanted[found] == pytest.approx(max(wanted.values()))


def _spoken(letters: str, sure: float = 0.9, other: str = "") -> np.ndarray:
    """Scores of letters, each followed by a blank; the rest of a probability on other letters."""
    scores = np.full((2 * len(letters), TEXT.num_tokens + 1), 1e-6)
    for index, letter in enumerate(letters):
        scores[2 * index, TEXT.encode(f"a{letter}a")[1]] = sure
        if other:
            scores[2 * index, TEXT.encode(f"a{other[index]}a")[1]] += 1 - sure
        scores[2 * index + 1, -1] = 1.0
    return np.log(scores / scores.sum(-1, keepdims=True))


def test_a_known_word_wins_against_a_misspelling() -> None:
    scores = _spoken("the kat sat", 0.6, "the cat sat")
    assert beam_search(scores, TEXT, MODEL) == "the cat sat"
    no_model = BeamSettings(weight=0.0, word_bonus=0.0, unknown_penalty=0.0)
    assert beam_search(scores, TEXT, MODEL, settings=no_model) == "the kat sat"


def test_a_clear_unknown_word_stays() -> None:
    assert beam_search(_spoken("the zebra sat"), TEXT, MODEL) == "the zebra sat"


def test_silence_says_nothing() -> None:
    silent = np.full((40, TEXT.num_tokens + 1), -12.0, np.float32)
    silent[:, -1] = 0.0
    assert beam_search(silent, TEXT, MODEL) == ""
    assert beam_search(silent[:0], TEXT, MODEL) == ""
    assert beam_search(np.full_like(silent, -np.inf), TEXT, MODEL) == ""


@given(st.integers(0, 2**32 - 1))
def test_the_same_scores_give_the_same_words_with_single_spaces(seed: int) -> None:
    logits = np.random.default_rng(seed).normal(0, 3, (12, TEXT.num_tokens + 1))
    scores = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    found = beam_search(scores, TEXT, MODEL, 8)
    assert found == beam_search(scores.copy(), TEXT, MODEL, 8) == " ".join(found.split())


@pytest.mark.parametrize(
    ("scores", "num_beams", "reason"),
    [
        (np.zeros((3, 5)), 4, "shape"),
        (np.zeros(TEXT.num_tokens + 1), 4, "shape"),
        (np.zeros((3, TEXT.num_tokens + 1)), 0, "one beam"),
        (np.ones((3, TEXT.num_tokens + 1)), 4, "log-probabilities"),
        (np.full((3, TEXT.num_tokens + 1), np.nan), 4, "log-probabilities"),
    ],
)
def test_unusable_scores_are_refused(scores: np.ndarray, num_beams: int, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        beam_search(scores, TEXT, MODEL, num_beams)
