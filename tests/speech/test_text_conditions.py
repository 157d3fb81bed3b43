"""Durations and conditions of the frames of speech."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from moss_audio_tokenizer.speech.phonemes import TICKS
from moss_audio_tokenizer.speech.text_conditions import EncodedText, FramePlan, median_durations


def certain(durations: list[int]) -> np.ndarray:
    """Logits that allow one duration each."""
    scores = np.full((len(durations), 8), -50.0, np.float32)
    scores[np.arange(len(durations)), durations] = 50.0
    return scores


def test_the_median_is_not_moved_by_a_long_tail() -> None:
    """Half of the probability lies below it."""
    shares = np.array([[0.1, 0.5, 0.1, 0.0, 0.3], [0.6, 0.1, 0.1, 0.1, 0.1]], np.float32)
    assert median_durations(np.log(shares + 1e-9)).tolist() == [1, 0]


@given(st.lists(st.integers(0, 7), min_size=1, max_size=9))
def test_frames_hold_all_ticks(durations: list[int]) -> None:
    """Each tick adds what its token adds there; there is always a frame."""
    random = np.random.default_rng(len(durations))
    conditions = random.standard_normal((len(durations), TICKS, 4), np.float32)
    encoded = EncodedText(certain(durations), conditions, np.zeros((TICKS, 16, 4), np.float32))
    frames = encoded.frames()
    assert len(frames) == max(1, -(-sum(durations) // TICKS))
    said = np.repeat(np.arange(len(durations)), durations)[:TICKS]
    expected = sum(conditions[token, tick] for tick, token in enumerate(said))
    if len(said) == TICKS:
        np.testing.assert_allclose(frames[0], expected, rtol=1e-5)


def test_a_plan_ends_each_row_by_itself() -> None:
    """Conditions behind a row are zero."""
    plan = FramePlan([np.ones((3, 2), np.float32), np.ones((1, 2), np.float32)])
    assert plan.ended(1).tolist() == [False, True]
    assert plan.ended(3).tolist() == [True, True]
    assert plan.at(1).tolist() == [[1, 1], [0, 0]]
    assert plan.at(3).tolist() == [[0, 0], [0, 0]]
