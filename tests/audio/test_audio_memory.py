"""Memory of reading follows the samples that are asked for, not those that a file holds."""

import io
import tracemalloc

import numpy as np
import pytest
import soundfile
from test_audio_containers import contained
from tones import RATE, tone

from moss_audio_tokenizer.audio import load_audio, load_crop

# Blocks that are decoded, mixed and resampled at one time, whatever the length of a file.
WORKING_BYTES = 10e6


def written(layout: str, subtype: str, channels: int, seconds: float) -> bytes:
    """A tone of 48 kHz in a format of libsndfile."""
    data = io.BytesIO()
    samples = tone(440.0, seconds, 48_000, channels, level=0.1).T
    soundfile.write(data, samples, 48_000, subtype, format=layout)
    return data.getvalue()


# Each holds at least 19 MB of float32.
LONG_FILES = {
    "wav, 8 channels": lambda: written("WAV", "PCM_16", 8, 30.0),
    "flac, 8 channels": lambda: written("FLAC", "PCM_16", 8, 30.0),
    "joined mp3": lambda: written("MP3", "MPEG_LAYER_III", 2, 4.0) * 30,
    "joined opus": lambda: written("OGG", "OPUS", 2, 3.0) * 40,
    "m4a": lambda: contained("m4a", seconds=100.0),
}


def peak_of(read) -> tuple[np.ndarray, int]:
    """What a function returns, and the most bytes that it allocated at one time."""
    tracemalloc.start()
    try:
        return read(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", LONG_FILES)
def test_reading_takes_twice_the_result_and_a_few_blocks(name):
    data = io.BytesIO(LONG_FILES[name]())
    samples, peak = peak_of(lambda: load_audio(data, 8_000, 1))
    assert samples.shape[1] >= 30 * 8_000  # nothing is missing
    assert peak < 2 * samples.nbytes + WORKING_BYTES


def test_a_crop_takes_no_more_however_long_the_file_is():
    data = io.BytesIO(written("FLAC", "PCM_16", 8, 30.0))
    _, peak = peak_of(lambda: load_crop(data, 0.5, RATE, RATE, 1))
    assert peak < WORKING_BYTES


def test_a_length_limit_stops_reading_early():
    data = io.BytesIO(written("FLAC", "PCM_16", 8, 30.0))

    def refused() -> None:
        with pytest.raises(ValueError, match="longer than 2 s"):
            load_audio(data, 8_000, 1, max_seconds=2.0)

    assert peak_of(refused)[1] < WORKING_BYTES
