"""Sessions: what they refuse, what an error leaves behind, and odd ways to use them."""

import copy
import pickle
import threading

import numpy as np
import pytest
import torch
from stream_checks import (
    assert_close_audio,
    assert_decoded,
    assert_encoded,
    random_audio,
    random_codes,
)

from moss_audio_tokenizer.errors import AudioError, CodesError, InputError, SlotsFull
from moss_audio_tokenizer.hf.torch_codec import TorchCodec
from moss_audio_tokenizer.onnx import OnnxAudioTokenizer

STEP = 8  # samples a frame


@pytest.fixture
def model(make_model):
    return make_model()


# Refusals


@pytest.mark.parametrize("value", [0, -1, 1.5, "2", None, True, [2], float("nan")])
def test_counts_that_are_none(model, value):
    for make in (model.decoder_stream, model.encoder_stream):
        with pytest.raises(InputError, match=r"max_slots is .* whole number of at least 1"):
            make(max_slots=value)
        with pytest.raises(InputError, match=r"max_chunk_frames is .* whole number of at least 1"):
            make(max_slots=1, max_chunk_frames=value)


@pytest.mark.parametrize("sizes", [(10**12, 1), (1, 10**13), (1, 2**70), (2**70, 1)])
def test_counts_that_need_more_memory_than_there_is(model, make_exported, sizes):
    exported = OnnxAudioTokenizer.from_pretrained(make_exported()[1])
    for codec in (model, exported):
        for make in (codec.decoder_stream, codec.encoder_stream):
            with pytest.raises(InputError, match=r"max_slots is .* not enough memory"):
                make(*sizes)


@pytest.mark.parametrize("value", [0, 5, 1.0, True])
def test_layers_that_there_are_not(model, value):
    with pytest.raises(CodesError, match="expected 1 to 4"):
        model.encoder_stream(1, num_quantizers=value)


def test_counts_of_other_libraries(model):
    assert model.decoder_stream(np.int64(2), torch.tensor(3)).max_slots == 2


WRONG_CODES = [
    random_codes(3).float(),
    random_codes(3) + 16,
    random_codes(3) - 20,
    random_codes(3, layers=5),
    random_codes(3)[0],
    random_codes(3)[:, None].expand(-1, 2, -1),
    torch.zeros(0, 3, dtype=torch.long),
    torch.zeros(5, 0, dtype=torch.long),
    None,
    "codes",
]
WRONG_AUDIO = [
    torch.full((1, 20), float("nan")),
    random_audio(20) * 1e4,
    random_audio(20, 2),
    random_audio(20)[None, None],
    torch.zeros(20, dtype=torch.long),
    torch.zeros(2, 0),
    None,
    "audio",
]


def halves(stream, clip, cut, wrong):
    """A step before, a refused one with ``wrong`` for its neighbour, and a step after it."""
    good, neighbour = stream.open(), stream.open()
    first = stream.step({good: clip[:, :cut], neighbour: clip[:, :cut]})
    with pytest.raises(InputError):
        stream.step({good: clip[:, cut:], neighbour: wrong})
    with pytest.raises(InputError):
        stream.step({good: clip[:, cut:], "no slot": clip[:, cut:]})
    second = stream.step({good: clip[:, cut:], neighbour: clip[:, cut:]})
    return [torch.cat((first[slot], second[slot]), dim=1) for slot in (good, neighbour)]


@pytest.mark.parametrize("wrong", WRONG_CODES)
def test_wrong_codes_move_no_stream(model, wrong):
    codes = random_codes(20)
    for audio in halves(model.decoder_stream(2, 3), codes, 9, wrong):
        assert_decoded(model, codes, audio)


@pytest.mark.parametrize("wrong", WRONG_AUDIO)
def test_wrong_audio_moves_no_stream(model, wrong):
    audio = random_audio(20 * STEP)
    for codes in halves(model.encoder_stream(2, 3), audio, 9 * STEP - 3, wrong):
        assert_encoded(model, audio, codes)


def test_errors_have_their_kinds(model):
    decoder, encoder = model.decoder_stream(1), model.encoder_stream(1)
    with pytest.raises(CodesError, match="expected integers"):
        decoder.step({decoder.open(): random_codes(3).float()})
    with pytest.raises(AudioError, match="NaN"):
        encoder.step({encoder.open(): np.full(9, np.nan)})
    for chunks in ([random_codes(3)], None, 3):
        with pytest.raises(InputError, match="expected a dict of slots to chunks"):
            decoder.step(chunks)


def test_slots_of_others_and_of_the_past(model):
    ours, theirs = model.decoder_stream(2, 3), model.decoder_stream(2, 3)
    slot, stranger = ours.open(), theirs.open()
    codes = random_codes(12)
    first = ours.step({slot: codes[:, :5]})[slot]
    closed = ours.open()
    ours.close(closed)
    ours.open()  # at the place of the closed one
    for wrong in (stranger, closed, 0, slot.index, None):
        for call in (ours.close, ours.reset, ours.fork):
            with pytest.raises(InputError):
                call(wrong)
        with pytest.raises(InputError):
            ours.step({slot: codes[:, 5:], wrong: codes[:, :3]})
    assert len(ours.open_slots) == 2
    assert_decoded(model, codes, torch.cat((first, ours.step({slot: codes[:, 5:]})[slot]), dim=1))


@pytest.mark.parametrize("side", ["decoder", "encoder"])
def test_a_full_session_goes_on(model, side):
    stream = getattr(model, f"{side}_stream")(2)
    slots = [stream.open(), stream.open()]
    for call in (stream.open, lambda: stream.fork(slots[0])):
        with pytest.raises(SlotsFull, match="all 2 slots"):
            call()
    assert stream.open_slots == slots
    assert stream.max_slots == 2
    stream.close(slots[0])
    assert stream.fork(slots[1]).index == 0


# Errors on the way


@pytest.mark.usefixtures("plain_steps", "path")
@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt()])
def test_a_step_that_fails_halfway_moves_no_stream(model, monkeypatch, error):
    codes = random_codes(60)
    stream = model.decoder_stream(2, 4)
    slots = [stream.open(), stream.open()]
    results = [stream.step(dict.fromkeys(slots, codes[:, :40]))]
    last = stream.engine._decoder.transformers()[-1]
    for frames in (slice(40, 42), slice(42, 46), slice(46, 60)):
        with monkeypatch.context() as patch:

            def fail(*arguments):
                raise error

            patch.setattr(last, "run", fail)
            with pytest.raises(type(error)):
                stream.step(dict.fromkeys(slots, codes[:, frames]))
        results.append(stream.step(dict.fromkeys(slots, codes[:, frames])))
    for slot in slots:
        assert_decoded(model, codes, torch.cat([result[slot] for result in results], dim=1))


# Odd uses


def test_chunks_from_numpy_and_of_other_shapes(model):
    codes, audio = random_codes(12), random_audio(100)
    decoder, encoder = model.decoder_stream(1), model.encoder_stream(1)
    slot = decoder.open()
    parts = [codes[:, :5].numpy().astype(np.uint8), codes[:, None, 5:9], codes[:, 9:].tolist()]
    assert_decoded(model, codes, torch.cat([decoder.step({slot: c})[slot] for c in parts], dim=1))
    slot = encoder.open()
    parts = [audio[0, :13].numpy().astype(np.float64), audio[None, :, 13:60], audio[0, 60:]]
    got = [encoder.step({slot: chunk})[slot] for chunk in parts]
    assert_encoded(model, audio, torch.cat([*got, encoder.close(slot)], dim=1))


def test_sessions_of_numpy_arrays(model, tmp_path):
    codec = TorchCodec(model)
    codes, audio = random_codes(30).numpy(), random_audio(100).numpy()
    decoder, encoder = codec.decoder_stream(1, 4), codec.encoder_stream(1, 4, num_quantizers=3)
    slots = decoder.open(), encoder.open()
    sounds = [decoder.step({slots[0]: codes[:, :9]})[slots[0]]]
    found = [encoder.step({slots[1]: audio[:, :45]})[slots[1]]]
    decoder.save(tmp_path / "decoder")
    encoder.save(tmp_path / "encoder")
    decoder, encoder = codec.decoder_stream(1, 4), codec.encoder_stream(1, 4, num_quantizers=3)
    decoder.load(tmp_path / "decoder")
    encoder.load(tmp_path / "encoder")
    sounds += [decoder.step({slots[0]: codes[:, 9:]})[slots[0]], decoder.close(slots[0])]
    found += [encoder.step({slots[1]: audio[:, 45:]})[slots[1]], encoder.close(slots[1])]
    assert all(isinstance(item, np.ndarray) for item in sounds + found)
    whole = torch.from_numpy(codec.decode(codes))
    assert_close_audio(torch.from_numpy(np.concatenate(sounds, axis=1)), whole)
    expected = codec.encode(audio, num_quantizers=3)
    assert (np.concatenate(found, axis=1) == expected).all()


def test_nothing_to_do(model):
    decoder, encoder = model.decoder_stream(2), model.encoder_stream(2)
    assert decoder.step({}) == {}
    slot = decoder.open()
    audio = decoder.step({slot: random_codes(0)})[slot]
    assert audio.shape == decoder.close(slot).shape == (1, 0)
    assert audio.dtype == torch.float32
    slot = encoder.open()
    codes = encoder.step({slot: torch.zeros(0)})[slot]
    assert codes.shape == encoder.close(slot).shape == (4, 0)
    assert codes.dtype == torch.int64


def test_a_caller_may_write_to_its_chunks(model):
    audio = random_audio(5 * STEP)
    encoder = model.encoder_stream(1)
    slot = encoder.open()
    chunk = audio[:, : 2 * STEP + 5].clone()
    got = [encoder.step({slot: chunk})[slot]]
    chunk.zero_()
    got.append(encoder.step({slot: audio[:, 2 * STEP + 5 :]})[slot])
    assert_encoded(model, audio, torch.cat(got, dim=1))


def test_results_go_where_they_are_wanted(model):
    streams = model.decoder_stream(1), model.encoder_stream(1)
    for stream, chunk in zip(streams, (random_codes(3), random_audio(2 * STEP + 3)), strict=True):
        stream.engine.results_device = torch.device("meta")
        slot = stream.open()
        assert stream.step({slot: chunk})[slot].is_meta
        assert stream.close(slot).is_meta


@pytest.mark.usefixtures("plain_steps")
def test_chunks_of_several_devices_are_joined_where_the_last_is(model):
    chunks = [torch.zeros(1, 3), torch.zeros(1, 2, device="meta")]
    joined = model.encoder_stream(1).engine.join_chunks(chunks)
    assert joined.is_meta
    assert joined.shape == (1, 5)


def test_fewer_layers(model):
    audio, codes = random_audio(15 * STEP), random_codes(15)
    encoder, decoder = model.encoder_stream(1, 4, num_quantizers=2), model.decoder_stream(2, 4)
    slot = encoder.open()
    got = encoder.step({slot: audio})[slot]
    assert torch.equal(got, model.encode(audio).audio_codes[:2, 0])
    assert encoder.close(slot).shape == (2, 0)
    # Rows of unequal depths, and one row whose depth changes on its way.
    few, all_layers = decoder.open(), decoder.open()
    for frames in (slice(0, 3), slice(3, 15)):
        got = decoder.step({few: codes[:2, frames], all_layers: codes[:, frames]})
    expected = model.decode(codes[:2]).audio[0], model.decode(codes).audio[0]
    for slot, whole in zip((few, all_layers), expected, strict=True):
        assert_close_audio(got[slot], whole[:, 3 * STEP :])
    got = decoder.step({few: codes[:, :1]})[few]
    assert not torch.allclose(got, decoder.step({all_layers: codes[:, :1]})[all_layers])


def test_forks_leave_each_other_alone(model):
    audio, other = random_audio(30 * STEP), random_audio(30 * STEP, seed=1)
    encoder = model.encoder_stream(2, 3)
    trunk = encoder.open()
    cut = 11 * STEP + 5
    start = encoder.step({trunk: audio[:, :cut]})[trunk]
    branch = encoder.fork(trunk)
    ends = encoder.step({trunk: audio[:, cut:], branch: other[:, cut : cut + 50]})
    for slot, rest in ((trunk, audio[:, cut:]), (branch, other[:, cut : cut + 50])):
        fed = torch.cat((audio[:, :cut], rest), dim=1)
        assert_encoded(model, fed, torch.cat((start, ends[slot], encoder.close(slot)), dim=1))


def test_a_fork_has_nothing_of_the_stream_before(model):
    audio = random_audio(20 * STEP)
    encoder = model.encoder_stream(2, 3)
    trunk, former = encoder.open(), encoder.open()
    encoder.step({former: audio[:, :5]})
    encoder.close(former)
    fork = encoder.fork(trunk)
    assert fork.index == former.index
    got = encoder.step({fork: audio, trunk: audio})
    for slot in (fork, trunk):
        assert_encoded(model, audio, torch.cat((got[slot], encoder.close(slot)), dim=1))


def test_modes_of_autograd(model):
    codes, audio = random_codes(12), random_audio(100)
    with torch.inference_mode():
        decoder, encoder = model.decoder_stream(1, 3), model.encoder_stream(1, 3)
        slots = decoder.open(), encoder.open()
        first = decoder.step({slots[0]: codes[:, :5]})[slots[0]]
        begun = encoder.step({slots[1]: audio[:, :45]})[slots[1]]
    second = decoder.step({slots[0]: codes[:, 5:]})[slots[0]]
    ended = encoder.step({slots[1]: audio[:, 45:].requires_grad_()})[slots[1]]
    assert not second.requires_grad
    assert_decoded(model, codes, torch.cat((first, second), dim=1))
    tail = encoder.close(slots[1])
    assert_encoded(model, audio.detach(), torch.cat((begun, ended, tail), dim=1))


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("kind", [{}, {"quantizer_type": "rvq"}, {"codebook_dim": 10}])
def test_a_session_keeps_the_weights_that_it_was_made_with(make_model, kind):
    model = make_model(**kind)
    codes, audio = random_codes(20), random_audio(20 * STEP)
    decoder, encoder = model.decoder_stream(1), model.encoder_stream(1)
    expected = model.decode(codes).audio[0], model.encode(audio).audio_codes[:, 0]
    for parameter in model.codec.parameters():
        parameter.mul_(1.5)
    slots = decoder.open(), encoder.open()
    assert_close_audio(decoder.step({slots[0]: codes})[slots[0]], expected[0])
    assert torch.equal(encoder.step({slots[1]: audio})[slots[1]], expected[1])
    assert not torch.allclose(model.decode(codes).audio[0], expected[0], rtol=0.1)


def test_a_session_keeps_the_precision_that_it_was_made_with(model):
    codes = random_codes(20)
    expected = model.decode(codes).audio[0]
    stream = model.decoder_stream(1)
    model.set_compute_dtype("bf16")
    slot = stream.open()
    assert_close_audio(stream.step({slot: codes})[slot], expected)


def test_sessions_in_threads(model):
    codes = [random_codes(60, seed) for seed in range(2)]
    results = {}

    def stream_one(row):
        stream = model.decoder_stream(1, 2)
        slot = stream.open()
        parts = [stream.step({slot: part})[slot] for part in codes[row].split(1, dim=1)]
        results[row] = torch.cat(parts, dim=1)

    threads = [threading.Thread(target=stream_one, args=(row,)) for row in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for row in range(2):
        assert_decoded(model, codes[row], results[row])


@pytest.mark.parametrize("act", [copy.copy, copy.deepcopy, pickle.dumps])
@pytest.mark.parametrize("kind", ["encoder_stream", "decoder_stream"])
def test_sessions_are_not_copied(model, kind, act):
    with pytest.raises(InputError, match=r"fork\(slot\) copies a stream, and save\(path\)"):
        act(getattr(model, kind)(1))
