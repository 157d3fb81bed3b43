"""A codec that is quick: every layer is another digit of a frame's mean level."""

import numpy as np
from small_sounds import RATE

from moss_audio_tokenizer.codes import Codec, CodecInfo

STEP, LAYERS, BOOK = 400, 3, 16


class LevelCodec(Codec):
    """One that counts what it encodes."""

    def __init__(self, identity="0123456789abcdef", layers=LAYERS):
        self._info = CodecInfo(identity, RATE, 1, STEP, layers, BOOK)
        self.encoded = 0

    @property
    def info(self):
        return self._info

    def encode(self, audio, *, num_quantizers=None, chunk_duration=None):
        self.encoded += 1
        frames = -(-audio.shape[1] // STEP)
        padded = np.pad(audio[0], (0, frames * STEP - audio.shape[1]))
        level = ((padded.reshape(frames, STEP).mean(1) + 1) / 2 * (BOOK**LAYERS - 1)).round()
        digits = [level.astype(np.int64) // BOOK**power % BOOK for power in range(LAYERS)]
        return np.stack(digits[::-1])[: num_quantizers or self.info.num_quantizers]

    def decode(self, codes, *, chunk_duration=None):
        raise NotImplementedError
