"""The parts by themselves: bytes, queues, rates, settings."""

import io
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_codec import FRAME, INFO, ToyCodec, some_audio

from moss_audio_tokenizer.audio import encode_audio, load_audio
from moss_audio_tokenizer.codes import CodecInfo
from moss_audio_tokenizer.errors import AudioError, CodesError, ConfigError, InputError
from moss_audio_tokenizer.serve import admission
from moss_audio_tokenizer.serve.admission import RequestRates, TokenBucket, is_known_key
from moss_audio_tokenizer.serve.batching import QueuedStream, StreamBatch
from moss_audio_tokenizer.serve.settings import ServerSettings
from moss_audio_tokenizer.serve.wire_format import PackedFrames, audio_reader, audio_writer


@given(st.integers(1, 7), st.integers(0, 9), st.sampled_from([2, 10, 16, 1000, 1024, 65536]))
def test_packed_frames_come_back(layers, frames, rows):
    info = CodecInfo("", 8000, 1, 640, 7, rows)
    codes = np.random.default_rng(layers + frames).integers(0, rows, (7, frames))
    packed = PackedFrames(info, layers)
    message = packed.write(codes)
    assert len(message) == frames * packed.bytes_per_frame
    assert packed.bytes_per_frame == -(-layers * (rows - 1).bit_length() // 8)
    np.testing.assert_array_equal(packed.read(message), codes[:layers])
    for frame in range(frames):  # and each frame by itself
        piece = message[frame * packed.bytes_per_frame :][: packed.bytes_per_frame]
        np.testing.assert_array_equal(packed.read(piece)[:, 0], codes[:layers, frame])


def test_a_frame_of_32_layers_of_1024_rows_is_40_bytes():
    info = CodecInfo("", 24000, 1, 1920, 32, 1024)
    codes = np.arange(32)[:, None] * 33
    message = PackedFrames(info, None).write(codes)
    assert int.from_bytes(message, "big") == sum(
        int(code) << 10 * (31 - layer) for layer, code in enumerate(codes[:, 0])
    )
    assert len(message) == 40


def test_what_is_no_frame_is_refused():
    info = CodecInfo("", 8000, 1, 640, 3, 10)
    packed = PackedFrames(info, 3)  # 12 bits in 2 bytes
    for message, words in [
        (b"x", "multiple of 2"),
        (b"\xaa\xaa", "beyond 9"),
        (b"\x11\x1f", "bits after"),
    ]:
        with pytest.raises(CodesError, match=words):
            packed.read(message)
    with pytest.raises(CodesError, match="expected 1 to 3"):
        PackedFrames(info, 4)


@pytest.mark.parametrize(("name", "close"), [("pcm_f32le", 0), ("pcm_s16le", 2**-16)])
def test_pcm_comes_back(name, close):
    info = CodecInfo("", 8000, 2, 640, 3, 10)
    audio = np.random.default_rng(0).uniform(-1, 1, (2, 50)).astype(np.float32)
    audio[0, 0], audio[1, 0] = -1, 0.25
    (message,) = audio_writer(name, info, 0).messages(audio)
    back = audio_reader(name, info).read(message)
    assert np.abs(back - np.clip(audio, -1, 32767 / 32768)).max() <= close
    with pytest.raises(AudioError, match="whole samples of 2 channels"):
        audio_reader(name, info).read(message[:-1])


def test_integers_are_clipped_not_wrapped():
    (message,) = audio_writer("pcm_s16le", INFO, 0).messages(np.float32([[2, -2]]))
    assert np.frombuffer(message, "<i2").tolist() == [32767, -32768]


def test_opus_refuses_what_it_cannot_hold():
    pytest.importorskip("av")
    with pytest.raises(InputError, match="3 channels"):
        audio_reader("opus", CodecInfo("", 8000, 3, 640, 3, 10))
    with pytest.raises(InputError, match="11025"):
        audio_writer("opus", CodecInfo("", 11025, 1, 640, 3, 10), 16000)


@given(st.lists(st.integers(0, 2000), max_size=8), st.integers(1, 3))
def test_a_queue_gives_whole_frames_in_order_and_pads_the_last(sizes, max_frames):
    stream = queued(4 * FRAME)
    audio = some_audio(sum(sizes))
    start = 0
    for size in sizes:
        stream.put(audio[:, start : start + size], 0.0)
        start += size
    taken = []
    while stream.is_ready:
        taken.append(stream.take(max_frames))
    assert stream.num_waiting == sum(sizes) % FRAME
    stream.is_finished = True
    if stream.num_waiting:
        taken.append(stream.take(max_frames))
    assert all(chunk.shape[1] % FRAME == 0 for chunk in taken)
    assert all(chunk.shape[1] <= max_frames * FRAME for chunk in taken)
    padded = np.pad(audio, ((0, 0), (0, -audio.shape[1] % FRAME)))
    np.testing.assert_array_equal(np.concatenate([np.zeros((1, 0)), *taken], axis=1), padded)


def queued(max_owed=4):
    session = ToyCodec().encoder_stream(2, 4)
    batch = StreamBatch("encode", True, session, FRAME, 4, max_owed)
    stream = QueuedStream(batch, lambda result: None)
    batch.admit(stream)
    return stream


def test_a_stream_whose_results_are_not_taken_pauses():
    stream = queued(max_owed=4)
    stream.put(some_audio(20 * FRAME), 0.0)
    lock = threading.Lock()
    assert stream.batch.step(lock)[0].num_frames == 4
    assert stream.batch.step(lock) == []
    stream.num_owed -= 1
    assert stream.batch.step(lock)[0].num_frames == 4


def test_waiting_counts_from_when_a_frame_could_have_been_made():
    stream = queued()
    stream.put(some_audio(3 * FRAME), 10.0)  # two frames ahead of real time
    assert stream.waited(1, 10.05, 0.08) == pytest.approx(0.05)
    assert stream.waited(1, 10.05, 0.08) == 0  # its time has not come yet
    assert stream.waited(1, 10.3, 0.08) == pytest.approx(0.3 - 0.16)
    stream.put(some_audio(FRAME), 11.0)  # late: from its arrival
    assert stream.waited(1, 11.02, 0.08) == pytest.approx(0.02)


def test_pace_lets_a_burst_pass_and_then_asks_to_wait(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(admission.time, "monotonic", lambda: now[0])
    pace = TokenBucket(rate=10, burst=5)
    assert pace.spend(5) == 0
    assert pace.spend(1) == pytest.approx(0.1)
    now[0] = 0.1
    assert pace.spend(2) == pytest.approx(0.2)
    now[0] = 100.0
    assert pace.spend(6) == pytest.approx(0.1)


def test_rates_are_each_clients_own_and_forgotten_in_the_end(monkeypatch):
    monkeypatch.setattr(admission, "_MAX_CLIENTS", 2)
    rates = RequestRates(6.0)  # one at once
    assert rates.admit("a") == 0
    assert rates.admit("a") > 5
    assert rates.admit("b") == 0
    assert rates.admit("c") == 0  # and "a" is forgotten
    assert rates.admit("a") == 0
    assert RequestRates(0).admit("a") == 0


def test_keys_are_compared_whole():
    assert is_known_key("abcdefgh", {"12345678", "abcdefgh"})
    assert not is_known_key("abcdefg", {"abcdefgh"})
    assert not is_known_key("", {"abcdefgh"})
    assert not is_known_key("schlüssel", {"abcdefgh"})


@pytest.mark.parametrize(
    "wrong", [{"max_streams": 0}, {"max_speed": -1.0}, {"api_keys": frozenset({"short"})}]
)
def test_impossible_settings(wrong):
    with pytest.raises(ConfigError):
        ServerSettings(**wrong)


def test_long_audio_is_refused_before_it_is_all_read():
    silence = encode_audio(np.zeros((1, 8000 * 600)), 8000, ".flac")
    assert len(silence) < 30_000
    start = time.monotonic()
    with pytest.raises(AudioError, match="longer than 1 s"):
        load_audio(io.BytesIO(silence), max_seconds=1.0)
    assert load_audio(io.BytesIO(silence), max_seconds=600.0).shape == (1, 8000 * 600)
    assert time.monotonic() - start < 5
