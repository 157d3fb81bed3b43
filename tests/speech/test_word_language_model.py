"""The word language model: probabilities, its file, and what is not one."""

import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from moss_audio_tokenizer.errors import CheckpointError, InputError
from moss_audio_tokenizer.speech.word_language_model import (
    BOUNDARY,
    UNKNOWN,
    WORD_LM_NAME,
    WordLanguageModel,
)
from moss_audio_tokenizer.speech.word_ngrams import build_word_language_model

SENTENCES = ["the cat sat on the mat", "the cat ran", "a dog sat on the cat", "'the dog' ran"] * 3
MODEL = build_word_language_model([*SENTENCES, "a rare thing sat"])
sentences = st.lists(
    st.sampled_from(["the", "cat", "dog", "sat", "mat", "a", "'tis"]), min_size=1
).map(" ".join)


def _all_scores(model: WordLanguageModel, context: tuple[int, ...]) -> float:
    return sum(math.exp(model.score(word, context)) for word in range(len(model.words) + 2))


@given(st.lists(sentences, min_size=2, max_size=20), st.integers(2_200, 4_000))
def test_probabilities_sum_to_one_after_any_words(texts: list[str], max_bytes: int) -> None:
    model = build_word_language_model(texts, max_bytes=max_bytes)
    ids = range(min(len(model.words) + 2, 5))
    for context in [(), *((word,) for word in ids), *product(ids, ids)]:
        assert _all_scores(model, context) == pytest.approx(1, abs=0.1)


def test_words_that_follow_each_other_are_likelier() -> None:
    the, cat, mat, on = map(MODEL.id_of, ("the", "cat", "mat", "on"))
    assert MODEL.score(cat, (the,)) > MODEL.score(cat, ()) > MODEL.score(cat, (cat,))
    assert MODEL.score(mat, (on, the)) > MODEL.score(mat, (BOUNDARY, the))
    assert MODEL.score(cat, (on, on, the)) == MODEL.score(cat, (on, the))


def test_sentences_of_more_weight_are_likelier() -> None:
    texts = ["the cat sat", "the cat ran", "a dog sat", "the dog ran", "a cat sat there"]
    once = build_word_language_model(dict.fromkeys(texts, 1))
    plain = build_word_language_model(texts)
    assert once.score_sentence("the cat ran") == plain.score_sentence("the cat ran")
    heavy = build_word_language_model(dict.fromkeys(texts, 1) | {"a dog sat": 9})
    assert heavy.score_sentence("a dog sat") > once.score_sentence("a dog sat")
    assert heavy.score_sentence("the cat ran") < once.score_sentence("the cat ran")


def test_words_seen_once_with_a_weight_are_known() -> None:
    model = build_word_language_model({"the cat sat": 2, "the zebra ran": 1, "''": 7})
    assert model.words == ["cat", "sat", "the"]


@pytest.mark.parametrize("weight", [0, -1, 1.5, 1001, math.nan, "2"])
def test_wrong_weights_are_refused_in_one_line(weight: object) -> None:
    with pytest.raises(InputError, match=r"from 1 to 1,000") as refused:
        build_word_language_model({"the cat sat": weight})  # type: ignore[dict-item]
    assert "\n" not in str(refused.value)


def test_words_seen_once_are_unknown_and_quotation_marks_are_no_words() -> None:
    assert MODEL.id_of("rare") == MODEL.id_of("zebra") == UNKNOWN
    assert "'the" not in MODEL.words
    assert "dog" in MODEL.words


def test_beginnings_are_those_of_known_words() -> None:
    best = MODEL.best_beginning("th")
    assert best == MODEL.score(MODEL.id_of("the"), ())
    assert MODEL.best_beginning("tx") is None


def test_a_saved_model_is_the_same(tmp_path: Path) -> None:
    MODEL.save(tmp_path / WORD_LM_NAME)
    again = WordLanguageModel.load(tmp_path / WORD_LM_NAME)
    assert again.words == MODEL.words
    text = "the cat sat on a zebra"
    assert again.score_sentence(text) == MODEL.score_sentence(text)


def test_a_model_keeps_to_its_size(tmp_path: Path) -> None:
    small = build_word_language_model(SENTENCES, max_bytes=2_150)
    small.save(tmp_path / WORD_LM_NAME)
    assert (tmp_path / WORD_LM_NAME).stat().st_size <= 2_150
    with pytest.raises(InputError, match="do not fit"):
        build_word_language_model(SENTENCES, max_bytes=2_000)
    with pytest.raises(InputError, match="no word"):
        build_word_language_model(["''"])


def _damage(kind: str, path: Path) -> None:
    tensors = load_file(path)
    if kind == "cut off":
        path.write_bytes(path.read_bytes()[:-5])
    elif kind == "no safetensors":
        path.write_bytes(b"words")
    elif kind == "missing":
        path.unlink()
    elif kind == "another model":
        save_file({"weight": np.zeros(3, np.float32)}, path)
    elif kind == "ids too high":
        save_file(tensors | {"bigram_words": tensors["bigram_words"] + np.uint16(9_000)}, path)
    elif kind == "too few costs":
        save_file(tensors | {"trigram_costs": tensors["trigram_costs"][:-1]}, path)
    elif kind == "words in disorder":
        save_file(tensors | {"words": tensors["words"][::-1].copy()}, path)
    else:
        save_file(tensors | {"words": tensors["words"] | np.uint8(0x80)}, path)


@pytest.mark.parametrize(
    "kind",
    [
        *("cut off", "no safetensors", "missing", "another model", "ids too high"),
        *("too few costs", "words in disorder", "not UTF-8"),
    ],
)
def test_damaged_files_are_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    path = tmp_path / WORD_LM_NAME
    MODEL.save(path)
    _damage(kind, path)
    with pytest.raises(CheckpointError) as refused:
        WordLanguageModel.load(path)
    assert "\n" not in str(refused.value)
    assert WORD_LM_NAME in str(refused.value)
