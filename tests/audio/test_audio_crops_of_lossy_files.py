"""Crops of MP3 and Opus files equal the whole, whatever an encoder put into its bit reservoir."""

import ctypes
import io
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from moss_audio_tokenizer.audio import crop_start, load_audio, load_crop

PLACES = np.random.default_rng(1).uniform(0, 1, 40)


def speech_like(rate: int, seconds: float = 8.0) -> np.ndarray:
    """Bursts of noise and tones between near-silence, so that variable bitrates vary."""
    random = np.random.default_rng(0)
    time = np.arange(round(rate * seconds)) / rate
    envelope = np.clip(np.sin(2 * np.pi * 1.7 * time), 0, 1) ** 2
    sound = np.sin(2 * np.pi * (200 + 150 * np.sin(time)) * time) + random.normal(0, 0.4, len(time))
    return (0.3 * envelope * sound).astype(np.float32)


def lame(samples: np.ndarray, rate: int, **options: str) -> bytes:
    """An MP3 file by LAME, which PyAV brings along."""
    av = pytest.importorskip("av")
    data = io.BytesIO()
    with av.open(data, "w", format="mp3") as container:
        quality = {key: options.pop(key) for key in ("global_quality",) if key in options}
        stream = container.add_stream("libmp3lame", rate=rate, options=options, layout="mono")
        if quality:
            stream.codec_context.qscale = True
            stream.codec_context.global_quality = 118 * int(quality["global_quality"])
        elif "b" in options:
            stream.bit_rate = int(options["b"])
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate = rate
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    return data.getvalue()


@pytest.fixture
def printed(capfd):
    """What C code has printed to stderr, after its buffer is emptied."""

    def text() -> str:
        ctypes.CDLL(None).fflush(None)
        return capfd.readouterr().err

    return text


def check_crops(path, rate: int, tolerance: float) -> None:
    whole = load_audio(path, rate, 1)
    for place in PLACES:
        start = crop_start(whole.shape[1], rate, place)
        crop = load_crop(path, place, rate, rate, 1)
        np.testing.assert_allclose(crop, whole[:, start : start + rate], atol=tolerance)


@pytest.mark.parametrize("quality", range(0, 10, 3))
@pytest.mark.parametrize("rate", [16_000, 24_000, 48_000])
def test_variable_bitrates_of_lame(tmp_path, rate, quality):
    path = tmp_path / "x.mp3"
    path.write_bytes(lame(speech_like(rate), rate, global_quality=str(quality)))
    check_crops(path, rate, 1e-5)


@pytest.mark.parametrize(
    ("rate", "options"),
    [
        (48_000, {"b": "32000"}),
        (24_000, {"b": "8000"}),
        (24_000, {"b": "56000", "abr": "1"}),
        (44_100, {"b": "128000"}),
    ],
)
def test_constant_and_average_bitrates_of_lame(tmp_path, rate, options):
    path = tmp_path / "x.mp3"
    path.write_bytes(lame(speech_like(rate), rate, **options))
    check_crops(path, rate, 1e-5)


@pytest.mark.parametrize("rate", [16_000, 24_000, 44_100])
def test_mp3_of_libsndfile(tmp_path, rate):
    path = tmp_path / "x.mp3"
    soundfile.write(path, speech_like(rate), rate)
    check_crops(path, rate, 1e-5)


@pytest.mark.parametrize("rate", [24_000, 48_000])
def test_opus(tmp_path, rate):
    path = tmp_path / "x.opus"
    soundfile.write(path, speech_like(rate), rate, format="OGG", subtype="OPUS")
    check_crops(path, rate, 1e-3)


def test_decoders_print_nothing_where_crops_begin(tmp_path, printed):
    path = tmp_path / "x.mp3"
    path.write_bytes(lame(speech_like(24_000), 24_000, global_quality="9"))
    for place in PLACES:
        load_crop(path, place, 24_000, 24_000, 1)
    assert printed() == ""


@pytest.mark.parametrize("behind", [bytes(9000), b"TAG" + bytes(125), b"APETAGEX" + bytes(5000)])
def test_decoders_print_nothing_about_tags_and_padding_behind_a_stream(tmp_path, printed, behind):
    path = tmp_path / "x.mp3"
    soundfile.write(path, speech_like(24_000, 2.0), 24_000)
    expected = load_audio(path)
    path.write_bytes(path.read_bytes() + behind)
    np.testing.assert_array_equal(load_audio(path), expected)
    np.testing.assert_allclose(
        load_crop(path, 0.5, 9600, 24_000, 1), expected[:, 19_200:28_800], atol=1e-5
    )
    assert printed() == ""


PRINTING = """
import ctypes, os, subprocess, sys
from moss_audio_tokenizer.audio.sndfile import silenced

library = ctypes.CDLL(None)
with silenced():
    library.perror(b"in C, within")
    with silenced():
        print("in Python", file=sys.stderr)
    subprocess.run(["/bin/sh", "-c", "echo in a program >&2"], check=True)
    child = os.fork()
    if not child:
        library.perror(b"in a child")
        os._exit(0)
    os.waitpid(child, 0)
    library.perror(b"in C, still within")
library.perror(b"in C, afterwards")
"""


def test_what_others_print_is_not_lost():
    result = subprocess.run(
        [sys.executable, "-c", PRINTING], capture_output=True, text=True, check=True
    )
    lines = [line.split(":")[0] for line in result.stderr.splitlines()]
    assert lines == ["in Python", "in a program", "in a child", "in C, afterwards"]
