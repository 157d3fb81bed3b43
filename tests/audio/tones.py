"""Tones, and sound files of every format made from them."""

import struct
from pathlib import Path

import numpy as np

RATE = 24_000
# Name of each format: suffix, libsndfile's format and subtype, largest error of a sample.
FORMATS = {
    "wav-8": (".wav", "WAV", "PCM_U8", 2**-6),
    "wav-16": (".wav", "WAV", "PCM_16", 2**-14),
    "wav-24": (".wav", "WAV", "PCM_24", 2**-22),
    "wav-32": (".wav", "WAV", "PCM_32", 2**-23),
    "wav-float": (".wav", "WAV", "FLOAT", 0.0),
    "flac": (".flac", "FLAC", "PCM_16", 2**-14),
    "vorbis": (".ogg", "OGG", "VORBIS", 0.1),
    "opus": (".opus", "OGG", "OPUS", 0.15),
    "mp3": (".mp3", "MP3", "MPEG_LAYER_III", 0.1),
}


def tone(frequency=440.0, seconds=0.4, rate=RATE, channels=1, level=0.5):
    """(channels, samples) float32; channel i is i + 1 times as high."""
    time = np.arange(round(seconds * rate)) / rate
    pitches = frequency * np.arange(1, channels + 1)[:, None]
    return (level * np.sin(2 * np.pi * pitches * time)).astype(np.float32)


def names(folder: Path) -> list[str]:
    """What lies in a folder."""
    return sorted(path.name for path in folder.iterdir())


def riff(data: bytes, declared: int | None = None, subchunks: bytes = b"") -> bytes:
    """A mono 16-bit WAV file with any number of bytes declared."""
    layout = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    length = len(data) if declared is None else declared
    body = b"WAVE" + layout + subchunks + struct.pack("<4sI", b"data", length) + data
    return struct.pack("<4sI", b"RIFF", len(body)) + body
