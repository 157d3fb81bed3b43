"""Codecs that are exact arithmetic, which worker processes can import by name."""

import os
import time
from pathlib import Path

import numpy as np

from moss_audio_tokenizer.codes.codec import CodecInfo
from moss_audio_tokenizer.evaluation import LayeredCodec
from moss_audio_tokenizer.evaluation.codecs import CodedClip

RATE = 16_000


class ByteCodec:
    """Layer k of the codes holds a sample's k-th byte: two layers are 16-bit audio."""

    info = CodecInfo("0" * 16, RATE, 1, 1, 2, 256)

    def __init__(self):
        self.encoded = []

    def encode(self, audio, *, num_quantizers=None, chunk_duration=None):
        self.encoded.append(num_quantizers)
        values = np.clip(np.rint(audio[0] * 32768), -32768, 32767).astype(np.int64) + 32768
        return np.stack([values >> 8, values & 255])[:num_quantizers]

    def decode(self, codes, *, chunk_duration=None):
        low = codes[1] if len(codes) > 1 else 128
        return (((codes[0] << 8) + low - 32768) / 32768).astype(np.float32)[None]


class Noise:
    """Answers everything with the same noise, and a clip of under half a second not at all."""

    name, identity = "noise", "1"
    sampling_rate, num_channels = RATE, 1
    quantizer_counts = (None,)
    codebook_size = 0

    def code(self, audio):
        if audio.shape[1] < RATE // 2:
            raise RuntimeError("too short for me")
        noise = 0.1 * np.random.default_rng(9).standard_normal(audio.shape).astype(np.float32)
        return [CodedClip(None, 1.0, 1000, noise)]


class Deadly(Noise):
    """Takes its process with it, as a crash in somebody's C library does."""

    name = "deadly"

    def code(self, audio):
        os._exit(3)


class Sleepy(Noise):
    """Tells who it is, and takes a minute."""

    name = "sleepy"

    def __init__(self, folder):
        self.folder = Path(folder)

    def code(self, audio):
        (self.folder / f"{os.getpid()}.pid").touch()
        time.sleep(60)


class Slow(Noise):
    """Takes its time, so that there is a moment to kill it in."""

    name = "slow"

    def code(self, audio):
        time.sleep(0.5)
        return super().code(audio)


def byte_codec(*quantizer_counts):
    return LayeredCodec(ByteCodec(), "bytes", quantizer_counts)


def python_codec():
    return ByteCodec()


def python_evaluated_codec():
    return Noise()


def python_nothing():
    return 3


def embedder(scale):
    """A voice is where its energy lies."""

    def embed(samples, sampling_rate):
        spectrum = np.abs(np.fft.rfft(samples, 4096)[:2048]).reshape(8, -1).sum(1)
        return float(scale) * spectrum

    return embed


def rater():
    return lambda samples, sampling_rate: float(np.abs(samples).max())


def scaled_rater(scale):
    return lambda samples, sampling_rate: float(scale) * rater()(samples, sampling_rate)


def recogniser():
    return lambda samples, sampling_rate: "one too three" if samples.any() else ""
