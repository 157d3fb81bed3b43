"""Sound in and out: reading, writing, resampling and checking samples.

The only package that touches sound files. Audio is ``(channels, samples)`` float32, full
scale at -1 and 1. It knows nothing of models or codes, and never imports torch.
"""

from .containers import SOUND_SUFFIXES
from .reading import (
    AudioInfo,
    audio_info,
    crop_start,
    load_audio,
    load_crop,
    load_with_info,
    read_audio,
)
from .samples import as_float_audio, check_audio, convert_channels, resample
from .sndfile import AudioSource
from .writing import encode_audio, save_audio

__all__ = [
    "SOUND_SUFFIXES",
    "AudioInfo",
    "AudioSource",
    "as_float_audio",
    "audio_info",
    "check_audio",
    "convert_channels",
    "crop_start",
    "encode_audio",
    "load_audio",
    "load_crop",
    "load_with_info",
    "read_audio",
    "resample",
    "save_audio",
]
