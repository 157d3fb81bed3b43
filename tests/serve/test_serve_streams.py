"""Live streams give what offline encoding and decoding give, in any company."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from running_server import next_document, running_server
from toy_codec import FRAME, ToyCodec, in_chunks, some_audio, some_codes

from moss_audio_tokenizer.serve.settings import ServerSettings
from moss_audio_tokenizer.serve.wire_format import PackedFrames

CODEC = ToyCodec()


def decoded(running, codes, size):
    with running.client() as client, client.decode_stream(len(codes)) as stream:
        audio = np.concatenate(list(stream.run(in_chunks(codes, size))), axis=1)
        assert stream.summary["samples"] == audio.shape[1]
        return audio


def encoded(running, audio, size, layers=None):
    with running.client() as client, client.encode_stream(layers) as stream:
        codes = np.concatenate(list(stream.run(in_chunks(audio, size))), axis=1)
        assert stream.summary["samples"] == audio.shape[1]
        assert stream.summary["frames"] == codes.shape[1]
        return codes


@pytest.mark.parametrize(("frames", "size", "layers"), [(1, 1, 4), (9, 2, 3), (40, 40, 1)])
def test_decoding_equals_offline(server, frames, size, layers):
    codes = some_codes(frames, layers=layers)
    np.testing.assert_array_equal(decoded(server, codes, size), CODEC.decode(codes))


@pytest.mark.parametrize(("samples", "size"), [(1, 1), (FRAME, FRAME), (5001, 333), (9000, 9000)])
def test_encoding_equals_offline_with_its_padded_end(server, samples, size):
    audio = some_audio(samples)
    np.testing.assert_array_equal(encoded(server, audio, size), CODEC.encode(audio))
    np.testing.assert_array_equal(encoded(server, audio, size, 2), CODEC.encode(audio)[:2])


def test_nothing_in_gives_nothing_out(server):
    with server.client() as client, client.encode_stream() as stream:
        stream.finish()
        assert list(stream.results()) == []
        assert stream.summary == {"type": "done", "frames": 0, "samples": 0}


def test_many_streams_step_together_and_each_equals_offline(serving):
    with serving(step_seconds=0.005, max_speed=1000.0) as running:

        def work(seed):
            codes, audio = some_codes(30 + seed, seed), some_audio(9000 + 100 * seed, seed)
            np.testing.assert_array_equal(decoded(running, codes, 1 + seed), CODEC.decode(codes))
            np.testing.assert_array_equal(
                encoded(running, audio, 200 + 77 * seed), CODEC.encode(audio)
            )

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
        batches = running.streams._model_thread._batches.values()
        assert max(max(batch.session.engine.batches, default=0) for batch in batches) > 2
        running.wait_until_idle()
        assert running.figure("moss_frames_total") > 8 * 30
        assert running.figure("moss_streams") == 0


def test_hello_says_how_to_talk(server):
    with server.socket("encode", "num_quantizers=3") as socket:
        hello = json.loads(socket.recv(timeout=10))
    assert hello == {
        "type": "ready",
        "side": "encode",
        "model": "0123456789abcdef",
        "audio": "pcm_s16le",
        "sampling_rate": 8000,
        "num_channels": 1,
        "samples_per_frame": 640,
        "num_quantizers": 3,
        "codebook_size": 16,
        "bits_per_code": 4,
        "bytes_per_frame": 2,
    }


def test_16_bit_audio_is_full_scale(server):
    audio = (some_audio(4 * FRAME) * 32767).astype("<i2")
    with server.socket("encode", "audio=pcm_s16le") as socket:
        socket.send(audio.tobytes())
        socket.send('{"type": "end"}')
        messages = [socket.recv(timeout=10)]
        while isinstance(messages[-1], bytes) or '"done"' not in messages[-1]:
            messages.append(socket.recv(timeout=10))
    packed = b"".join(message for message in messages if isinstance(message, bytes))
    codes = PackedFrames(CODEC.info, None).read(packed)
    np.testing.assert_array_equal(codes, CODEC.encode(audio.astype(np.float32) / 32768))


def test_packets_of_opus_both_ways(server):
    pytest.importorskip("av")
    from moss_audio_tokenizer.serve.wire_format import OpusDecoder, OpusEncoder

    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16000) / 8000)[None].astype(np.float32)
    writer = OpusEncoder(CODEC.info, 32000)
    packets = writer.messages(tone) + writer.last_messages()
    with server.socket("encode", "audio=opus") as socket:
        for packet in packets:
            socket.send(packet)
        socket.send('{"type": "end"}')
        assert next_document(socket)["type"] == "ready"
        done = next_document(socket)
    # The coder looks ahead, and its last packet is full: a little more comes out than went in.
    assert 16000 <= done["samples"] <= 16000 + 2 * 160
    reader = OpusDecoder(CODEC.info)
    heard = np.concatenate([*map(reader.read, packets), reader.rest()], axis=1)[0]
    assert np.sqrt(np.mean(heard[4000:12000] ** 2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.05)
    spectrum = np.abs(np.fft.rfft(heard[4000:12000]))
    assert spectrum.argmax() == 440
    with server.socket("decode", "audio=opus") as socket:
        socket.send(PackedFrames(CODEC.info, None).write(some_codes(5)))
        socket.send('{"type": "end"}')
        sizes = []
        while isinstance(message := socket.recv(timeout=10), bytes) or '"ready"' in message:
            sizes += [len(message)] if isinstance(message, bytes) else []
    assert len(sizes) >= 20  # 5 frames of 80 ms in packets of 20 ms
    assert max(sizes) < 400


def test_a_stream_takes_only_so_many_frames_a_step(serving):
    with serving(step_frames=2, max_speed=1000.0) as running:
        codes = some_codes(9)
        np.testing.assert_array_equal(decoded(running, codes, 9), CODEC.decode(codes))
        live = running.streams._model_thread._batches["decode", True].session.engine
        assert len(live.batches) >= 5


def test_feeding_is_slowed_to_the_allowed_speed(serving):
    with serving(max_speed=20.0) as running:  # and a burst of 20 s
        codes = some_codes(280)  # 22.4 s
        start = time.monotonic()
        np.testing.assert_array_equal(decoded(running, codes, 40), CODEC.decode(codes))
        assert 0.1 < time.monotonic() - start < 3


def test_the_model_of_pytorch_equals_its_offline_self(make_speech_codec):
    codec = make_speech_codec()
    audio = [0.3 * some_audio(3000 + 700 * i, i) for i in range(5)]
    expected = [codec.encode(clip) for clip in audio]
    sounds = [codec.decode(codes) for codes in expected]
    assert len({codes.tobytes() for codes in expected}) == 5
    with running_server(codec, ServerSettings(max_speed=1000.0)) as running:

        def work(index):
            codes = encoded(running, audio[index], 500 + 131 * index)
            np.testing.assert_array_equal(codes, expected[index])
            sound = decoded(running, codes, 1 + index)
            rms = np.sqrt(np.mean(sounds[index] ** 2))
            assert np.abs(sound - sounds[index]).max() <= 1e-4 * rms

        with ThreadPoolExecutor(5) as pool:
            list(pool.map(work, range(5)))
