"""A codec that is quick, that can be slow, and that can take its worker down once."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from moss_audio_tokenizer.codes import CodecInfo

RATE, FRAME, LAYERS, BOOK = 8000, 400, 3, 16


class ToyCodec:
    """Every layer is another digit of a frame's mean level."""

    def __init__(self, choice):
        self.choice = choice

    @property
    def info(self):
        return CodecInfo(self.choice.identity, RATE, 1, FRAME, LAYERS, BOOK)

    def encode(self, audio, *, num_quantizers=None, chunk_duration=None):
        self._die_once()
        if self.choice.litter:
            Path(self.choice.litter).touch()
        time.sleep(self.choice.delay)
        frames = -(-audio.shape[1] // FRAME)
        padded = np.pad(audio[0], (0, frames * FRAME - audio.shape[1]))
        level = ((padded.reshape(frames, FRAME).mean(1) + 1) / 2 * (BOOK**LAYERS - 1)).round()
        digits = [level.astype(np.int64) // BOOK**power % BOOK for power in range(LAYERS)]
        return np.stack(digits[::-1])[:num_quantizers]

    def decode(self, codes, *, chunk_duration=None):
        powers = BOOK ** np.arange(LAYERS - 1, LAYERS - 1 - len(codes), -1)
        level = (powers @ codes) / (BOOK**LAYERS - 1) * 2 - 1
        return np.repeat(level, FRAME)[None].astype(np.float32)

    def _die_once(self):
        if self.choice.fatal:
            marker = Path(self.choice.fatal)
            if not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if self.choice.always_fatal:
                os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class ToyChoice:
    """Opens a ToyCodec.

    ``fatal`` is a file that says whether a worker has died already, ``litter`` one that encoding
    leaves behind.
    """

    model: str = "toy"
    device: str = "cpu"
    dtype: str = "fp32"
    attention: str | None = None
    identity: str = "0123456789abcdef"
    delay: float = 0.0
    fatal: str = ""
    always_fatal: bool = False
    litter: str = ""
    runs_on: str = "toy"

    def open(self, parts):
        return ToyCodec(self)

    def revision(self):
        return f"{self.model}-1"
