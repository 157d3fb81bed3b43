"""A codec of NumPy alone whose streams remember: what a frame gives depends on all before it."""

import time
from dataclasses import dataclass

import numpy as np

from moss_audio_tokenizer.codes import CodecInfo
from moss_audio_tokenizer.errors import AudioError, CodesError
from moss_audio_tokenizer.streaming import DecoderStream, EncoderStream

RATE, FRAME, LAYERS, BOOK = 8000, 640, 4, 16
INFO = CodecInfo("0123456789abcdef", RATE, 1, FRAME, LAYERS, BOOK)


@dataclass
class ToyEngine:
    """`StepEngine` as far as a server uses it; a stream's memory is one number."""

    num_slots: int
    max_chunk_frames: int
    step_seconds: float = 0.0
    samples_per_frame: int = FRAME
    identity: str = INFO.identity

    def __post_init__(self):
        self.memory = np.zeros(self.num_slots, np.int64)
        self.batches = []

    def reset(self, slots):
        self.memory[list(slots)] = 0

    def num_bytes(self):
        return self.memory.nbytes

    def join_chunks(self, chunks):
        return np.concatenate(list(chunks), axis=-1)

    def pad(self, chunk, length):
        return np.pad(chunk, ((0, 0), (0, length - chunk.shape[-1])))

    def step(self, chunks):
        time.sleep(self.step_seconds)
        self.batches.append(len(chunks))
        if any(getattr(chunk, "is_poison", False) for chunk in chunks.values()):
            raise RuntimeError("poisoned")
        return {slot: self.advance(slot, chunk) for slot, chunk in chunks.items()}


class ToyEncoder(ToyEngine):
    def check(self, chunk):
        if np.abs(chunk).max(initial=0) > 100:
            raise AudioError("audio peaks above 100; scale it to -1 .. 1")
        return chunk

    def advance(self, slot, chunk):
        levels = np.rint(chunk.reshape(-1, FRAME).mean(1) * 30000).astype(np.int64)
        sums = (np.cumsum(levels) + self.memory[slot]) % BOOK**LAYERS
        self.memory[slot] = sums[-1]
        return np.stack([sums // BOOK**power % BOOK for power in range(LAYERS)])

    def join_results(self, results):
        return np.concatenate([np.zeros((LAYERS, 0), np.int64), *results], axis=1)


class ToyDecoder(ToyEngine):
    def check(self, chunk):
        if len(chunk) > LAYERS:
            raise CodesError(f"codes have {len(chunk)} layers")
        return chunk

    def advance(self, slot, chunk):
        sums = np.cumsum((BOOK ** np.arange(len(chunk))) @ chunk) + self.memory[slot]
        self.memory[slot] = sums[-1]
        return np.repeat(np.sin(sums), FRAME)[None].astype(np.float32)

    def join_results(self, results):
        return np.concatenate([np.zeros((1, 0), np.float32), *results], axis=1)


class ToyCodec:
    """Encodes and decodes as its streams do."""

    info = INFO

    def __init__(self, step_seconds=0.0):
        self.step_seconds = step_seconds

    def encoder_stream(self, max_slots, max_chunk_frames):
        return EncoderStream(ToyEncoder(max_slots, max_chunk_frames, self.step_seconds))

    def decoder_stream(self, max_slots, max_chunk_frames):
        return DecoderStream(ToyDecoder(max_slots, max_chunk_frames, self.step_seconds))

    def encode(self, audio, *, num_quantizers=None, chunk_duration=None):
        padded = np.pad(audio, ((0, 0), (0, -audio.shape[1] % FRAME)))
        return ToyEncoder(1, 1).advance(0, padded)[:num_quantizers]

    def decode(self, codes, *, chunk_duration=None):
        return ToyDecoder(1, 1).advance(0, np.asarray(codes))


def some_audio(samples, seed=0):
    return np.random.default_rng(seed).uniform(-0.8, 0.8, (1, samples)).astype(np.float32)


def some_codes(frames, seed=0, layers=LAYERS):
    return np.random.default_rng(seed).integers(0, BOOK, (layers, frames))


def in_chunks(array, size):
    return [array[:, start : start + size] for start in range(0, array.shape[1], size)]
