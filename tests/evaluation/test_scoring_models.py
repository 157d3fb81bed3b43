"""Scores by functions of the user's, and error rates."""

import math
import sys

import numpy as np
import pytest

from moss_audio_tokenizer.errors import InputError, MissingDependencyError
from moss_audio_tokenizer.evaluation.scoring_models.scores import (
    ScoringModelNames,
    ScoringModels,
    error_rates,
    normalized,
)


@pytest.fixture
def signals():
    time = np.arange(16_000) / 16_000
    return np.sin(2 * np.pi * 200 * time), np.sin(2 * np.pi * 5_000 * time)


def test_functions_of_the_users_score(signals):
    names = ScoringModelNames("toy_codecs:embedder@2", "toy_codecs:rater", "toy_codecs:recogniser")
    assert names.metrics == ("speaker_similarity", "opinion_score", "wer", "cer")
    pytest.importorskip("jiwer")
    low, high = signals
    same, other = (ScoringModels(names).score(low, one, "One, two, three!") for one in (low, high))
    assert same.values["speaker_similarity"] == pytest.approx(1.0)
    assert other.values["speaker_similarity"] < 0.2
    assert same.values["opinion_score"] == pytest.approx(1.0, abs=1e-3)
    assert same.values["wer"] == pytest.approx(1 / 3)
    # "two" and "too" differ in one of eleven letters.
    assert same.values["cer"] == pytest.approx(1 / 11)
    assert (same.transcript, same.num_words, same.num_characters) == ("one too three", 3, 11)


def test_the_reference_is_embedded_once_for_all_versions(signals, monkeypatch):
    scorers = ScoringModels(ScoringModelNames(speaker_model="toy_codecs:embedder@1"))
    calls = []
    embed = scorers._embed
    monkeypatch.setattr(scorers, "_embed", lambda *one: calls.append(1) or embed(*one))
    for _ in range(3):
        scorers.score(*signals, "")
    assert len(calls) == 1 + 3


def test_without_models_there_are_no_scores(signals):
    assert ScoringModelNames().metrics == ()
    assert ScoringModels(ScoringModelNames()).score(*signals, "text").values == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It\N{RIGHT SINGLE QUOTATION MARK}s ONE, two -- three!", "it's one two three"),
        ("  ", ""),
        ("snake_case 3.5", "snake case 3 5"),
        ("Füße; \N{LATIN SMALL LIGATURE FI}n", "füsse fin"),
        ("你好\N{FULLWIDTH COMMA}世界。", "你好 世界"),
    ],
)
def test_text_is_compared_without_case_and_punctuation(text, expected):
    assert normalized(text) == normalized(expected) == expected


def test_error_rates_are_those_of_edits():
    pytest.importorskip("jiwer")
    assert error_rates("a b c d", "a x c") == {"wer": 0.5, "cer": 0.5}
    assert error_rates("a b", "") == {"wer": 1.0, "cer": 1.0}
    assert all(math.isnan(value) for value in error_rates("", "a").values())


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "jiwer", None)
    with pytest.raises(MissingDependencyError, match=r"jiwer.*\[eval\]"):
        error_rates("a", "a")
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    with pytest.raises(MissingDependencyError, match="pip install pocketsphinx"):
        ScoringModels(ScoringModelNames(recogniser="pocketsphinx"))


def test_pocketsphinx_hears_something_or_nothing():
    pytest.importorskip("pocketsphinx")
    scores = ScoringModels(ScoringModelNames(recogniser="pocketsphinx"))
    silence = np.zeros(16_000)
    found = scores.score(silence, silence, "hello")
    assert isinstance(found.transcript, str)
    assert 0.0 < found.values["wer"] <= 5.0


def test_what_pocketsphinx_hears_does_not_depend_on_the_order_of_clips():
    pytest.importorskip("pocketsphinx")
    scorers = ScoringModels(ScoringModelNames(recogniser="pocketsphinx"))
    random = np.random.default_rng(0)
    hiss, hum = 0.1 * random.standard_normal(8_000), 0.02 * np.sin(0.05 * np.arange(8_000))
    transcript = [scorers.score(clip, clip, "a").transcript for clip in (hiss, hum, hiss, hum)]
    assert transcript[:2] == transcript[2:]


@pytest.mark.parametrize("name", ["toy_codecs:nothing", "no_such_module:f", "toy_codecs:RATE"])
def test_a_function_that_is_not_there_is_refused(name):
    with pytest.raises(InputError, match=name.partition(":")[0]):
        ScoringModels(ScoringModelNames(opinion_model=name))
