"""Codes as token sequences: every way there has its way back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from moss_audio_tokenizer.codes import AudioCodes
from moss_audio_tokenizer.codes.language_model import CodeVocabulary, delay, pad_batch, undelay
from moss_audio_tokenizer.errors import CodesError

SIZE = 16
CODES = arrays.arrays(
    np.uint16, st.tuples(st.integers(1, 5), st.integers(0, 7)), elements=st.integers(0, SIZE - 1)
)


@given(CODES, st.integers(0, 100))
def test_flat_ids_come_back(codes, first_id):
    vocabulary = CodeVocabulary(len(codes), SIZE, first_id)
    ids = vocabulary.flatten(codes)
    assert ids.shape == (codes.size,)
    if codes.size:
        assert first_id <= ids.min() <= ids.max() < vocabulary.special("pad")
    marked = [vocabulary.special("begin"), *ids, vocabulary.special("end")]
    assert np.array_equal(vocabulary.unflatten(np.array(marked)), codes)
    assert vocabulary.special("end") == vocabulary.size - 1


def test_ids_are_frame_by_frame_with_an_offset_a_layer():
    codes = np.array([[1, 2], [3, 4]])
    assert CodeVocabulary(2, 10, 100).flatten(codes).tolist() == [101, 113, 102, 114]


@given(CODES)
def test_delays_come_back(codes):
    delayed = delay(codes, SIZE)
    assert delayed.shape == (len(codes), codes.shape[1] + len(codes) - 1)
    assert (delayed == SIZE).sum() == len(codes) * (len(codes) - 1)
    assert np.array_equal(undelay(delayed), codes)
    assert np.array_equal(undelay(delayed[:, : len(codes) + 1]), codes[:, :2])


@given(st.lists(st.integers(0, 6), min_size=1, max_size=4))
def test_batches_say_which_frames_are_real(lengths):
    clips = [np.full((3, length), 5) for length in lengths]
    batch, real = pad_batch(clips, pad=7)
    assert batch.shape == (len(lengths), 3, max(lengths))
    assert real.sum(1).tolist() == lengths
    assert (batch.transpose(0, 2, 1)[real] == 5).all()
    assert (batch.transpose(0, 2, 1)[~real] == 7).all()


def test_codes_of_files_and_shards_are_taken_as_they_are():
    codes = np.array([[1, 2, 3], [3, 4, 5]])
    clip = AudioCodes(codes, 24_000, 3 * 1920, codebook_size=16)
    vocabulary = CodeVocabulary(2, 16)
    assert np.array_equal(vocabulary.flatten(clip), vocabulary.flatten(codes))
    assert np.array_equal(delay(clip, SIZE), delay(codes, SIZE))
    assert np.array_equal(pad_batch([clip, codes[:, :1]])[0], pad_batch([codes, codes[:, :1]])[0])


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: CodeVocabulary(0), "expected sizes above 0"),
        (lambda: CodeVocabulary(2, 10).special("mask"), "there are pad, begin, end"),
        (lambda: CodeVocabulary(2, 10).flatten(np.zeros((3, 4), int)), r"shape \(2, frames\)"),
        (lambda: CodeVocabulary(2, 10).flatten(np.zeros((2, 4))), "expected integers"),
        (lambda: CodeVocabulary(2, 10).flatten(np.full((2, 4), 10)), "0 to 9"),
        (lambda: CodeVocabulary(2, 10).unflatten(np.array([3, 4])), "not in the order of layers"),
        (lambda: pad_batch(np.zeros((2, 3), int)), "one clip's"),
        (lambda: delay(np.zeros((1, 2, 3), int), 0), "one clip's"),
        (lambda: pad_batch([]), "one number of layers"),
        (lambda: pad_batch([np.zeros((2, 1), int), np.zeros((3, 1), int)]), "first layers"),
    ],
)
def test_mistakes_are_named(act, message):
    with pytest.raises(CodesError, match=message):
        act()
