"""A transcriber without a model: its text depends on the number of frames."""

import numpy as np
from toy_codec import ToyCodec

from moss_audio_tokenizer.speech.token_frames import Word
from moss_audio_tokenizer.speech.transcriber import Transcript


class ToyTranscriber:
    """Says how many frames there were."""

    def __init__(self, has_times=True):
        self.codec = ToyCodec()
        self.has_times = has_times

    def encode(self, samples, sampling_rate, num_quantizers):
        assert sampling_rate == 8000
        return self.codec.encode(np.asarray(samples), num_quantizers=num_quantizers)

    def transcripts(self, clips):
        (codes,) = clips
        if codes.shape[1] == 13:
            raise RuntimeError("secret")
        texts = [*(f"word{i}" for i in range(codes.shape[1])), "a<b"]
        words = [Word(text, 0.5 * i, 0.5 * i + 0.4) for i, text in enumerate(texts)]
        return [
            Transcript(" ".join(texts), tuple(words) if self.has_times else (), 0.08 * len(texts))
        ]
