"""Sessions and continuous batches on exported graphs: equal to one pass, in any company."""

import numpy as np
import pytest

from moss_audio_tokenizer.errors import (
    AudioError,
    CodesError,
    InputError,
    SlotsFull,
    StreamFileError,
)
from moss_audio_tokenizer.onnx import OnnxAudioTokenizer
from moss_audio_tokenizer.onnx.engines import near_runs

STEP = 8  # samples a frame


@pytest.fixture
def codec(make_exported):
    _, folder = make_exported()
    return OnnxAudioTokenizer.from_pretrained(folder, num_threads=1)


def codes_of(frames, seed=0, layers=4):
    return np.random.default_rng(seed).integers(0, 16, (layers, frames))


def audio_of(samples, seed=0):
    return (0.3 * np.random.default_rng(seed).standard_normal((1, samples))).astype(np.float32)


def assert_close(got, expected):
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= 1e-4 * expected.std()


def test_a_schedule_of_many_streams(codec):
    """Rows of different lengths and depths, pauses, slots far apart, closed and taken again."""
    random = np.random.default_rng(5)
    stream = codec.decoder_stream(max_slots=9, max_chunk_frames=3)
    live, done = {}, 0
    while done < 12:
        if len(live) < 9 and random.random() < 0.5:
            codes = codes_of(60, seed=int(random.integers(99)), layers=int(random.integers(1, 5)))
            live[stream.open()] = (codes, [], [0])
        chosen = [slot for slot in live if random.random() < 0.6]
        cuts = {slot: int(random.integers(0, 8)) for slot in chosen}
        chunks = {}
        for slot, count in cuts.items():
            codes, _, at = live[slot]
            chunks[slot] = codes[:, at[0] : at[0] + count]
            at[0] += count
        for slot, audio in stream.step(chunks).items():
            live[slot][1].append(audio)
        for slot in [slot for slot in chosen if live[slot][2][0] >= 25]:
            codes, heard, at = live.pop(slot)
            assert stream.close(slot).shape == (1, 0)
            assert_close(np.concatenate(heard, axis=1), codec.decode(codes[:, : at[0]]).audio[0])
            done += 1


def test_encoder_sessions(codec):
    audio = audio_of(405)
    expected = codec.encode(audio).audio_codes[:, 0]
    stream = codec.encoder_stream(3, 2, num_quantizers=3)
    slots = [stream.open() for _ in range(3)]
    found = {slot: [] for slot in slots}
    for start in range(0, 405, 45):
        ready = {slots[i]: audio[:, start : start + 45] for i in range(3) if i != 1 or start < 90}
        for slot, codes in stream.step(ready).items():
            found[slot].append(codes)
    found[slots[0]].append(stream.close(slots[0]))
    assert np.array_equal(np.concatenate(found[slots[0]], axis=1), expected[:3])
    paused = np.concatenate(found[slots[1]], axis=1)
    assert np.array_equal(paused, expected[:3, : paused.shape[1]])
    with pytest.raises(InputError, match="is not open"):
        stream.step({slots[0]: audio})


def test_forks_resets_and_files(codec, tmp_path):
    codes, other = codes_of(40), codes_of(40, seed=1)
    stream = codec.decoder_stream(3, 4)
    slot = stream.open()
    stream.step({slot: codes[:, :17]})
    fork = stream.fork(slot)
    joined = np.concatenate((codes[:, :17], other), axis=1)
    got = stream.step({slot: codes[:, 17:], fork: other})
    assert_close(got[slot], codec.decode(codes).audio[0, :, 17 * STEP :])
    assert_close(got[fork], codec.decode(joined).audio[0, :, 17 * STEP :])
    stream.save(tmp_path / "streams.safetensors")
    expected = stream.step({slot: other})[slot]
    restored = codec.decoder_stream(3, 4)
    again, _ = restored.load(tmp_path / "streams.safetensors")
    assert np.array_equal(restored.step({again: other})[again], expected)
    restored.reset(again)
    assert_close(restored.step({again: codes})[again], codec.decode(codes).audio[0])
    with pytest.raises(InputError, match="number of slots or chunk"):
        codec.decoder_stream(2, 4).load(tmp_path / "streams.safetensors")


def test_altered_files(codec, tmp_path):
    path = tmp_path / "streams.safetensors"
    stream = codec.decoder_stream(1, 2)
    stream.step({stream.open(): codes_of(3)})
    stream.save(path)
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(StreamFileError, match="was altered"):
        stream.load(path)
    path.write_bytes(data[:-9])
    with pytest.raises(StreamFileError, match="cannot be read"):
        stream.load(path)


def test_an_error_leaves_streams_where_they_were(codec):
    codes = codes_of(30)
    stream = codec.decoder_stream(2, 3)
    slot, second = stream.open(), stream.open()
    first = stream.step({slot: codes[:, :20], second: codes})[slot]
    with pytest.raises(CodesError):
        stream.step({second: codes, slot: codes + 16})
    with pytest.raises(SlotsFull):
        stream.open()
    rest = stream.step({slot: codes[:, 20:]})[slot]
    assert_close(np.concatenate((first, rest), axis=1), codec.decode(codes).audio[0])
    encoder = codec.encoder_stream(1)
    microphone = encoder.open()
    with pytest.raises(AudioError):
        encoder.step({microphone: np.array([[np.nan]])})


def test_a_failed_run_moves_no_stream(codec, monkeypatch):
    """Two runs, for the slots are far apart; the second fails after the first has computed."""
    codes = codes_of(30)
    stream = codec.decoder_stream(8, 3)
    slots = [stream.open() for _ in range(8)]
    far = (slots[0], slots[7])
    before = stream.step(dict.fromkeys(far, codes[:, :10]))
    runner, calls = stream.engine, []
    original = runner._run_near

    def failing(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise MemoryError
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(runner, "_run_near", failing)
        with pytest.raises(MemoryError):
            stream.step(dict.fromkeys(far, codes[:, 10:13]))
    after = stream.step(dict.fromkeys(far, codes[:, 10:]))
    for slot in far:
        sound = np.concatenate((before[slot], after[slot]), axis=1)
        assert_close(sound, codec.decode(codes).audio[0])


def test_continuous_batches(codec):
    a, b, c = (codes_of(frames, seed) for seed, frames in enumerate((24, 20, 18)))
    first = codec.batch_decode([a[:, :4], b[:, :2]], streaming=True, max_batch_size=3)
    second = codec.batch_decode([a[:, 4:16], b[:, 2:12], c[:, :6]], streaming=True)
    rows = [a[:, 16:18], b[:, 12:], c[:, 6:12]]
    third = codec.batch_decode(rows, streaming=True, finalize_indices=[1])
    fourth = codec.batch_decode([a[:, 18:], c[:, 12:]], streaming=True, finalize_indices=[0, 1])
    pieces = {0: [(first, 0), (second, 0), (third, 0), (fourth, 0)]}
    pieces |= {1: [(first, 1), (second, 1), (third, 1)], 2: [(second, 2), (third, 2), (fourth, 1)]}
    for row, codes in enumerate((a, b, c)):
        cut = [out.audio[at, :, : out.audio_lengths[at]] for out, at in pieces[row]]
        assert_close(np.concatenate(cut, axis=1), codec.decode(codes).audio[0])
    with pytest.raises(InputError, match="reserved"):
        codec.batch_decode([a] * 4, streaming=True)


def test_continuous_encoding(codec):
    audio = audio_of(203)
    first = codec.batch_encode([audio[:, :100]], streaming=True, num_quantizers=2)
    second = codec.batch_encode(
        [audio[:, 100:]], streaming=True, num_quantizers=2, finalize_indices=[0]
    )
    codes = np.concatenate((first.audio_codes, second.audio_codes), axis=2)
    assert np.array_equal(codes, codec.encode(audio, num_quantizers=2).audio_codes)
    assert first.encoder_hidden_states is None


def test_memory_does_not_grow_with_the_stream(codec):
    stream = codec.decoder_stream(2, 2)
    before = stream.engine.num_bytes()
    slot = stream.open()
    for start in range(40):  # of many shapes
        stream.step({slot: codes_of(1 + start % 7)})
    assert stream.engine.num_bytes() == before
    assert len(stream.engine._bindings) <= 16


def test_which_slots_are_computed_together():
    assert near_runs([0]) == [[0]]
    assert near_runs([0, 1, 3, 6, 7, 12]) == [[0, 1, 3], [6, 7], [12]]
