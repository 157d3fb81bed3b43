"""What speaks without a model: sound that depends on the text and every option, at a set pace."""

import time
import zlib

import numpy as np
from toy_codec import FRAME, ToyCodec

from moss_audio_tokenizer.errors import InputError


class ToySpeaker:
    """A frame for every letter, as `Synthesizer` gives them."""

    voices = ("anna", "ben")

    def __init__(self, frame_seconds=0.0):
        self.codec = ToyCodec()
        self.frame_seconds = frame_seconds
        self.num_frames = 0
        self.texts = []

    def stream(self, text, *, max_frames=250, prompt_codes=None, prompt_text="", **sampling):
        self.texts.append(text)
        if "7" in text:
            raise InputError(f"got '7' in {text!r}; write numbers out")
        if "crash" in text:
            raise RuntimeError("secret")
        seed = repr((text, prompt_text, sorted(sampling.items()))).encode()
        if prompt_codes is not None:
            seed += np.asarray(prompt_codes, np.int64).tobytes()
        random = np.random.default_rng(zlib.crc32(seed))
        for number in range(min(max_frames, 0 if text == "hush" else len(text))):
            time.sleep(self.frame_seconds)
            self.num_frames += 1
            if "break" in text and number == 2:
                raise RuntimeError("secret")
            yield random.uniform(-0.9, 0.9, FRAME).astype(np.float32)

    def speak(self, text, **options):
        return np.concatenate(list(self.stream(text, **options)))
