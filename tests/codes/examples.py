"""Codes to test with."""

import numpy as np

from moss_audio_tokenizer.codes import AudioCodes

SUFFIXES = [".moss", ".safetensors", ".npz"]


def random_codes(num_quantizers=8, num_frames=13, codebook_size=1024, **options) -> AudioCodes:
    """Codes at 24 kHz whose last frame is cut by 7 samples."""
    random = np.random.default_rng(num_quantizers * num_frames)
    codes = random.integers(0, codebook_size, (num_quantizers, num_frames))
    return AudioCodes(codes, 24_000, num_frames * 1920 - 7, codebook_size=codebook_size, **options)


def names(folder) -> list[str]:
    """What lies in a folder."""
    return sorted(path.name for path in folder.iterdir())
