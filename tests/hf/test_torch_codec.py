"""Codes of several clips: exactly those of each by itself, or computed at once."""

from itertools import product

import numpy as np
import pytest

from moss_audio_tokenizer.codes.codec import StreamingCodec, encode_clips
from moss_audio_tokenizer.errors import AudioError, CodesError
from moss_audio_tokenizer.hf.torch_codec import TorchCodec
from moss_audio_tokenizer.onnx.tokenizer import OnnxCodec


@pytest.fixture
def codec(make_model):
    return TorchCodec(make_model())


@pytest.fixture
def clips():
    random = np.random.default_rng(0)
    lengths = (1, 8, 100, 333, 334)
    return [random.uniform(-0.5, 0.5, (1, length)).astype(np.float32) for length in lengths]


def test_clips_one_by_one_do_not_depend_on_each_other(codec, clips):
    alone = [codec.encode(clip, num_quantizers=3) for clip in clips]
    for order in ([4, 0, 2, 1, 3], [2, 3]):
        found = encode_clips(codec, [clips[place] for place in order], 3)
        assert all(np.array_equal(a, alone[p]) for a, p in zip(found, order, strict=True))


def test_clips_at_once_have_the_same_codes_but_for_rounding(codec, clips):
    assert isinstance(codec, StreamingCodec)
    alone = [codec.encode(clip) for clip in clips]
    together = encode_clips(codec, clips, together=True)
    assert [codes.shape for codes in together] == [codes.shape for codes in alone]
    same = np.mean([(a == b).mean() for a, b in zip(alone, together, strict=True)])
    assert same > 0.98
    again = encode_clips(codec, clips, together=True)
    assert all(np.array_equal(a, b) for a, b in zip(together, again, strict=True))


def test_what_cannot_be_encoded_is_refused(codec, clips):
    with pytest.raises(AudioError):
        codec.encode_batch([*clips, np.full((1, 9), np.nan, np.float32)])
    with pytest.raises(CodesError):
        codec.encode_batch(clips, num_quantizers=5)


def test_streams_drop_an_unfinished_frame_where_clips_do(make_model):
    model = make_model()
    model.set_lengths("floor")
    stream = TorchCodec(model).encoder_stream(max_slots=1)
    slot = stream.open()
    stream.step({slot: np.zeros((1, 3), np.float32)})
    assert stream.close(slot).shape[1] == 0


def test_codes_of_a_batch_are_refused_and_not_cut_to_one_clip(codec, make_exported):
    exported = OnnxCodec.from_pretrained(make_exported()[1])
    for one, codes in product((codec, exported), (np.zeros((4, 3, 5), int), np.zeros(4, int))):
        with pytest.raises(CodesError, match=r"expected \(num_quantizers, frames\), the codes of"):
            one.decode(codes)
