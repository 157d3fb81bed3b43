"""Sound in containers that libsndfile does not read: by PyAV, by ffmpeg, or refused."""

import io
import os
import shutil
import stat
import sys
from contextlib import suppress

import numpy as np
import pytest
import soundfile
from tones import RATE, tone

from moss_audio_tokenizer.audio import audio_info, ffmpeg, load_audio, load_crop
from moss_audio_tokenizer.errors import AudioError, AudioFileError

av = pytest.importorskip("av")

# Ending: muxer and encoder.
CONTAINERS = {
    "m4a": ("ipod", "aac"),
    "mp4": ("mp4", "aac"),
    "mov": ("mov", "pcm_s16le"),
    "aac": ("adts", "aac"),
    "webm": ("webm", "libopus"),
    "mka": ("matroska", "pcm_s16le"),
    "wma": ("asf", "wmav2"),
}


def contained(ending: str, rate: int = 48_000, seconds: float = 2.0) -> bytes:
    """A tone in a container."""
    muxer, codec = CONTAINERS[ending]
    data = io.BytesIO()
    samples = tone(440.0, seconds, rate)
    with av.open(data, "w", format=muxer) as container:
        layout = "mono"
        stream = container.add_stream(codec, rate=rate, layout=layout)
        kind = stream.codec_context.format.name
        stream.bit_rate = 64_000
        stream.codec_context.open(strict=False)
        resampler = av.AudioResampler(
            format=kind,
            layout=layout,
            rate=rate,
            frame_size=stream.codec_context.frame_size or None,
        )
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate = rate
        for part in (*resampler.resample(frame), *resampler.resample(None)):
            for packet in stream.encode(part):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return data.getvalue()


@pytest.mark.parametrize("ending", CONTAINERS)
def test_every_container_gives_its_samples(tmp_path, ending):
    path = tmp_path / f"x.{ending}"
    path.write_bytes(contained(ending))
    samples = load_audio(path, RATE, 1)
    expected = tone(440.0, 2.0, RATE)
    assert abs(samples.shape[1] - expected.shape[1]) < 0.1 * RATE
    spectrum = np.abs(np.fft.rfft(samples[0, 4_800:38_400]))
    assert round(np.argmax(spectrum) * RATE / 33_600) == 440
    assert 0.3 < samples[0, 4_800:38_400].std() < 0.4
    assert audio_info(path).sampling_rate == 48_000
    np.testing.assert_array_equal(load_audio(io.BytesIO(path.read_bytes()), RATE, 1), samples)
    crop = load_crop(path, 0.5, 4_000, RATE, 1)
    start = round(0.5 * (samples.shape[1] - 4_000))
    assert any(np.array_equal(crop, samples[:, i : i + 4_000]) for i in range(start - 2, start + 3))


@pytest.mark.parametrize("ending", ["m4a", "webm", "wma", "mka", "aac"])
def test_damaged_containers_are_refused_or_read_but_never_a_crash(tmp_path, ending):
    data = contained(ending)
    path = tmp_path / "x"
    random = np.random.default_rng(0)
    for number in range(30):
        altered = np.frombuffer(data, np.uint8).copy()
        end = len(data) if number % 2 else 200
        altered[random.integers(0, end, 3)] = random.integers(0, 256, 3)
        path.write_bytes(altered[: random.integers(8, 2 * len(data))].tobytes())
        with suppress(AudioFileError, AudioError):
            load_audio(path)


@pytest.mark.parametrize("ending", ["m4a", "mov"])
@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9])
def test_cut_mp4_files_are_refused(tmp_path, ending, kept):
    data = contained(ending)
    path = tmp_path / "x.m4a"
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(AudioFileError):
        load_audio(path)


def test_joined_mp4_files_are_refused(tmp_path):
    path = tmp_path / "x.m4a"
    path.write_bytes(contained("m4a") * 2)
    with pytest.raises(AudioFileError, match="2 files joined"):
        load_audio(path)


@pytest.fixture
def no_av(monkeypatch):
    """What an installation without PyAV is like."""
    monkeypatch.setattr(ffmpeg, "find_spec", lambda name: None)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
@pytest.mark.parametrize("ending", CONTAINERS)
def test_the_real_program_reads_what_pyav_reads(tmp_path, monkeypatch, ending):
    path = tmp_path / f"it's {ending}"
    path.write_bytes(contained(ending))
    expected = load_audio(path)
    monkeypatch.setattr(ffmpeg, "find_spec", lambda name: None)
    samples = load_audio(path)
    both = min(samples.shape[1], expected.shape[1])
    assert abs(samples.shape[1] - expected.shape[1]) < 1024  # releases trim AAC differently
    np.testing.assert_allclose(samples[:, :both], expected[:, :both], atol=1e-3)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
@pytest.mark.parametrize("decoder", ["PyAV", "ffmpeg"])
@pytest.mark.parametrize("ending", ["m4a", "mp4", "mov", "webm", "mka", "wma"])
def test_cut_files_are_refused_by_both(tmp_path, monkeypatch, ending, decoder):
    data = contained(ending, seconds=3.0)
    path = tmp_path / f"x.{ending}"
    path.write_bytes(data[: len(data) * 2 // 3])
    if decoder == "ffmpeg":
        monkeypatch.setattr(ffmpeg, "find_spec", lambda name: None)
    with pytest.raises(AudioFileError):
        load_audio(path)


@pytest.mark.usefixtures("no_av")
@pytest.mark.parametrize("ending", ["m4a", "webm", "wma", "aac"])
def test_without_ffmpeg_the_remedy_is_a_command(tmp_path, monkeypatch, ending):
    monkeypatch.setenv("PATH", str(tmp_path))
    path = tmp_path / f"x.{ending}"
    path.write_bytes(contained(ending))
    with pytest.raises(AudioFileError) as caught:
        load_audio(path)
    assert f"ffmpeg -i '{path}' 'x.flac'" in str(caught.value)
    assert "pip install 'moss-audio-tokenizer[formats]'" in str(caught.value)
    assert "damaged" not in str(caught.value)


PROGRAM = """#!{python}
import sys
arguments = sys.argv[1:]
assert arguments[arguments.index("-protocol_whitelist") + 1] == "file,pipe"
assert arguments[arguments.index("-i") + 1].startswith("file:")
with open({content!r}, "rb") as file:
    sys.stdout.buffer.write(file.read())
sys.stderr.write({complaint!r})
sys.exit({code})
"""


@pytest.fixture
def program(tmp_path, no_av, monkeypatch):
    """A stand-in for ffmpeg, which writes an AU file of unknown length to its output."""

    def make(code: int = 0, complaint: str = "", samples=None):
        data = io.BytesIO()
        samples = tone(440.0, 2.0, 48_000, 2) if samples is None else samples
        soundfile.write(data, samples.T, 48_000, "FLOAT", format="AU")
        content = bytearray(data.getvalue())
        content[8:12] = b"\xff\xff\xff\xff"
        (tmp_path / "content").write_bytes(content)
        path = tmp_path / "bin" / "ffmpeg"
        path.parent.mkdir()
        settings = {"content": str(tmp_path / "content"), "complaint": complaint, "code": code}
        path.write_text(PROGRAM.format(python=sys.executable, **settings))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", str(path.parent))

    return make


@pytest.mark.parametrize("in_memory", [False, True])
def test_the_program_is_used_where_pyav_is_missing(tmp_path, program, in_memory):
    program()
    path = tmp_path / "x.m4a"
    path.write_bytes(contained("m4a"))
    samples = load_audio(io.BytesIO(path.read_bytes()) if in_memory else path)
    np.testing.assert_array_equal(samples, tone(440.0, 2.0, 48_000, 2))


def test_a_program_that_fails_is_an_error_with_its_reason(tmp_path, program):
    program(code=1, complaint="first\nmoov atom not found\n")
    path = tmp_path / "x.m4a"
    path.write_bytes(contained("m4a"))
    with pytest.raises(AudioFileError, match="moov atom not found"):
        load_audio(path)


def test_names_that_are_not_utf8_are_read(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xe4.m4a")
    with open(path, "wb") as file:  # noqa: PTH123 - as users would
        file.write(contained("m4a"))
    assert load_audio(path).shape[0] == 1
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xe4.wav")
    with open(path, "wb") as file:  # noqa: PTH123
        soundfile.write(file, np.zeros(100), RATE, format="WAV")
    assert load_audio(path).shape == (1, 100)


@pytest.mark.parametrize("layout", ["SDS", "HTK", "MAT5", "VOC", "SVX", "PVF", "NIST", "IRCAM"])
def test_other_formats_of_libsndfile_are_refused(tmp_path, layout):
    path = tmp_path / "x"
    soundfile.write(path, np.zeros(1000), 16_000, "PCM_16", format=layout)
    with pytest.raises(AudioFileError, match="ffmpeg -i"):
        load_audio(path)


@pytest.mark.parametrize("layout", ["AIFF", "AU", "CAF", "W64", "RF64"])
def test_more_formats_are_read_and_cut_ones_refused(tmp_path, layout):
    path = tmp_path / "x"
    soundfile.write(path, tone()[0], RATE, "PCM_16", format=layout)
    np.testing.assert_allclose(load_audio(path), tone(), atol=2**-14)
    data = path.read_bytes()
    for kept in (0.1, 0.5, 0.99):
        path.write_bytes(data[: int(len(data) * kept)])
        with pytest.raises(AudioFileError):
            load_audio(path)


def test_bytes_are_refused_with_a_remedy():
    with pytest.raises(AudioError, match=r"io\.BytesIO"):
        load_audio(b"RIFF")


def test_samples_that_overflow_in_resampling_are_refused(tmp_path):
    path = tmp_path / "x.wav"
    samples = np.where(np.arange(4800) % 7 < 3, 3.3e38, -3.3e38).astype(np.float32)
    soundfile.write(path, samples, 48_000, "FLOAT")
    with pytest.raises(AudioError, match="not finite"):
        load_audio(path, 24_000)
