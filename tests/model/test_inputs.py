"""What callers pass: odd arrays that are fine, and everything that must be refused in words."""

import numpy as np
import pytest
import torch

from moss_audio_tokenizer.api.validation import check_num_quantizers, frames_of_duration
from moss_audio_tokenizer.errors import AudioError, CodesError, InputError
from moss_audio_tokenizer.model.inputs import TENSORS

NO_ARRAYS = [None, "abc", b"abc", {"a": 1}, [[1], [1, 2]], np.array([None]), np.array(["1"])]
NO_VALUES = [torch.zeros(1, 1, 8, device="meta"), torch.zeros(1, 1, 8).to_sparse()]


@pytest.mark.parametrize("values", NO_ARRAYS + NO_VALUES)
def test_what_is_no_array_is_refused_as_audio_and_mask(values):
    with pytest.raises(AudioError, match="expected"):
        TENSORS.as_waveform_rows(values, 1)
    if values is not None:
        with pytest.raises(InputError, match="expected"):
            TENSORS.lengths_of(values, 1, 8, "samples")


@pytest.mark.parametrize("values", [*NO_ARRAYS, *(value.long() for value in NO_VALUES)])
def test_what_is_no_array_is_refused_as_codes(values, make_config):
    with pytest.raises(CodesError, match="expected"):
        TENSORS.as_code_rows(values, make_config())


@pytest.mark.parametrize("shape", [(6000, 2), (6000, 1), (65, 8)])
def test_samples_first_are_no_batch_of_clips(shape):
    with pytest.raises(AudioError, match=r"looks like \(samples, channels\); transpose it"):
        TENSORS.as_waveform_rows(np.zeros(shape, np.float32), 1)


def test_arrays_that_only_numpy_reads():
    audio = np.linspace(-1, 1, 8, dtype=np.float32)
    for odd in (audio[::-1], audio[::-1].astype(">f4"), np.frombuffer(audio[::-1].tobytes(), "f4")):
        assert TENSORS.as_waveform_rows(odd, 1)[0, 0].tolist() == audio[::-1].tolist()
    assert TENSORS.lengths_of(np.array([[0, 0, 1]])[:, ::-1], 1, 3, "samples") == [1]


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", ">i2", "u2", "i4", "u4", "i8", "u8"])
def test_codes_of_every_integer_type(dtype, make_config):
    codes = np.array([[3, 0, 15]], dtype)[:, ::-1]
    assert TENSORS.as_code_rows(codes, make_config()).tolist() == [[[15, 0, 3]]]


def test_unsigned_codes_out_of_range_do_not_wrap(make_config):
    for value in (2**63, 2**64 - 1):
        with pytest.raises(CodesError, match="codes reach"):
            TENSORS.as_code_rows(np.array([[value]], np.uint64), make_config())


def test_a_batch_of_no_clips_is_refused():
    with pytest.raises(AudioError, match="no clips"):
        TENSORS.as_waveform_rows(torch.zeros(0, 1, 8), 1)


def test_num_quantizers_of_other_libraries(make_config):
    for count in (np.int64(2), np.uint8(2), np.array(2), torch.tensor(2)):
        assert check_num_quantizers(count, make_config()) == 2
    for count in (True, np.True_, torch.tensor(True), 2.0, "2", [2], torch.tensor([2]), 0, 10**30):
        with pytest.raises(CodesError, match="expected 1 to 4"):
            check_num_quantizers(count, make_config())


def test_chunk_durations_that_are_no_numbers(make_config):
    nan, infinity = float("nan"), float("inf")
    for seconds in (nan, infinity, -infinity, "0.01", True, [0.01], 1j, 10**400, 1e300, 0, -0.01):
        with pytest.raises(InputError, match=r"multiple of 0\.01 s"):
            frames_of_duration(seconds, make_config())
    assert frames_of_duration(torch.tensor(0.02), make_config()) == 2


def test_a_model_without_weights_says_so(make_model):
    model = make_model().to("meta")
    for act in (
        lambda: model.encode(np.zeros(800, np.float32)),
        lambda: model.decode(np.zeros((4, 2), np.int64)),
        lambda: model.decoder_stream(1),
    ):
        with pytest.raises(InputError, match="without weights; load them with from_pretrained"):
            act()
