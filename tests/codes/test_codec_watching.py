"""Progress within a clip: reported chunk by chunk, to the thread that asked."""

import threading

import numpy as np

from moss_audio_tokenizer.codes.codec import reported, watched
from moss_audio_tokenizer.onnx.engines import OnnxEncoderEngine
from moss_audio_tokenizer.onnx.tokenizer import OnnxCodec

CHUNKS = [slice(0, 4), slice(4, 8), slice(8, 10)]


def test_chunks_are_reported_once_they_are_done():
    seen = []
    with watched(lambda done, total: seen.append((done, total))):
        chunks = reported(CHUNKS, 10)
        assert (next(chunks), seen) == (CHUNKS[0], [])
        assert (next(chunks), seen) == (CHUNKS[1], [(4, 10)])
        assert list(chunks) == CHUNKS[2:]
        other = threading.Thread(target=lambda: list(reported(CHUNKS, 10)))
        other.start()
        other.join()
    assert list(reported(CHUNKS, 10)) == CHUNKS
    assert seen == [(4, 10), (8, 10), (10, 10)]


def test_onnx_reports_a_chunk_after_it_was_computed(monkeypatch):
    codec, events = OnnxCodec.from_pretrained("bundled", num_threads=1), []
    step = OnnxEncoderEngine.step_with_hidden
    monkeypatch.setattr(
        OnnxEncoderEngine,
        "step_with_hidden",
        lambda engine, chunks: (events.append("step"), step(engine, chunks))[1],
    )
    with watched(lambda done, total: events.append((done, total))):
        codec.encode(np.zeros((1, 1920 * 3), np.float32), chunk_duration=0.16)
    assert events == ["step", (2, 3), "step", (3, 3)]


def test_the_bundled_model_reports_both_ways():
    codec, seen = OnnxCodec.from_pretrained("bundled", num_threads=1), []
    audio = np.zeros((1, 1920 * 5), np.float32)
    with watched(lambda done, total: seen.append((done, total))):
        codes = codec.encode(audio, chunk_duration=0.16)
        codec.decode(codes, chunk_duration=0.16)
    assert seen == [(2, 5), (4, 5), (5, 5)] * 2
