"""Classic codecs by their programs: bits, delays, refusals; and codecs of the user's."""

import shutil

import numpy as np
import pytest

from moss_audio_tokenizer.errors import EvaluationError, InputError, MissingDependencyError
from moss_audio_tokenizer.evaluation import LayeredCodec
from moss_audio_tokenizer.evaluation.baselines import low_pass, open_baseline, subprocess_codecs
from moss_audio_tokenizer.evaluation.baselines.subprocess_codecs import (
    adts_payload_bytes,
    ogg_packet_sizes,
    program_version,
    run_program,
)

# Programs of Debian packages; without them there is nothing to measure.
PROGRAMS = {"opus": "opusenc", "speex": "speexenc", "codec2": "c2enc", "mp3": "ffmpeg"}
PROGRAMS["aac"] = "ffmpeg"
# Kilobits a second that two seconds of a buzz must come within; a VBR codec may save.
RATES = {
    "opus:6": (3.0, 8.0),
    "opus:32": (20.0, 40.0),
    "speex:4": (3.9, 4.3),
    "codec2:3200": (3.2, 3.21),
    "codec2:700C": (0.7, 0.71),
    "mp3:16": (15.9, 18.0),
    "aac:32": (20.0, 60.0),
}


def opened(name):
    program = PROGRAMS[name.partition(":")[0]]
    if shutil.which(program) is None:
        pytest.skip(f"the program {program} is not installed")
    return open_baseline(name)


def buzz(rate, seconds=2.0):
    time = np.arange(round(seconds * rate)) / rate
    sound = sum(np.sin(2 * np.pi * 120 * k * time) / k for k in range(1, 25))
    return (0.1 * sound * np.clip(np.sin(2 * np.pi * 2 * time), 0, 1))[None].astype(np.float32)


@pytest.mark.parametrize("name", RATES)
def test_the_bits_are_those_of_the_sound(name):
    codec = opened(name)
    (coded_clip,) = codec.code(buzz(codec.sampling_rate))
    lowest, highest = RATES[name]
    assert lowest <= coded_clip.num_bits / 2 / 1000 <= highest
    assert coded_clip.audio.shape[1] == pytest.approx(2 * codec.sampling_rate, rel=0.1)
    assert np.abs(coded_clip.audio).max() > 0.05
    assert codec.identity
    assert codec.name == name


def test_a_container_is_not_counted(tmp_path):
    codec = opened("opus:6")
    (coded_clip,) = codec.code(buzz(codec.sampling_rate, 0.5))
    # The two headers and the pages of half a second would take some 150 bytes.
    assert coded_clip.num_bits < 8 * 500


@pytest.mark.parametrize("seconds", [0.01, 0.033])
@pytest.mark.parametrize("name", ["opus:6", "speex:4", "codec2:1200", "mp3:16"])
def test_clips_of_one_incomplete_frame(name, seconds):
    codec = opened(name)
    (coded_clip,) = codec.code(buzz(codec.sampling_rate, seconds))
    assert coded_clip.num_bits > 0
    assert coded_clip.audio.size > 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ogg:6", "unknown"),
        ("opus", "kilobits"),
        ("opus:fast", "kilobits"),
        ("opus:nan", "kilobits"),
        ("lowpass:10", "cut-off"),
        ("original:3", "takes no value"),
        ("python:nothing", "MODULE:FUNCTION"),
        ("python:no_such_module:codec", "cannot be found"),
        ("python:toy_codecs:python_nothing", "gave int"),
    ],
)
def test_what_is_no_codec_is_refused(name, message):
    with pytest.raises(InputError, match=message):
        open_baseline(name)


@pytest.mark.parametrize("name", ["opus:3", "speex:2", "codec2:9600", "mp3:1", "aac:1000"])
def test_a_bitrate_that_the_codec_lacks_is_refused(name):
    with pytest.raises(InputError, match=f"'{name}'"):
        opened(name)


@pytest.mark.parametrize(
    ("name", "package"), [("opus:6", "opus-tools"), ("speex:4", "speex"), ("mp3:32", "ffmpeg")]
)
def test_a_missing_program_is_named_with_its_package(name, package, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingDependencyError, match=f"apt install {package}"):
        open_baseline(name)


def test_a_program_that_fails_is_quoted():
    program = shutil.which("sh")
    with pytest.raises(EvaluationError, match=r"status 3: so it goes"):
        run_program([program, "-c", "echo so it goes >&2; exit 3"])


def test_a_codec_of_the_users_own():
    codec = open_baseline("python:toy_codecs:python_codec")
    assert isinstance(codec, LayeredCodec)
    assert codec.quantizer_counts == (2,)
    assert open_baseline("python:toy_codecs:python_evaluated_codec").name == "noise"


def ogg_page(lacing, content=b""):
    header = b"OggS" + bytes(22) + bytes([len(lacing)]) + bytes(lacing)
    return header + bytes(sum(lacing))


def test_packets_may_span_segments_and_pages():
    content = ogg_page([19]) + ogg_page([255, 45]) + ogg_page([10, 255]) + ogg_page([255, 0, 7])
    assert ogg_packet_sizes(content) == [19, 300, 10, 510, 7]


def adts_frame(length):
    return bytes(
        [0xFF, 0xF1, 0x50, 0x80 | length >> 11, length >> 3 & 255, (length & 7) << 5, 0]
    ) + (bytes(length - 7))


def test_adts_headers_are_left_out():
    assert adts_payload_bytes(adts_frame(100) + adts_frame(7 + 2000)) == 93 + 2000


@pytest.mark.parametrize("parse", [ogg_packet_sizes, adts_payload_bytes])
def test_what_is_no_such_stream_is_refused(parse):
    with pytest.raises(EvaluationError, match="byte 0"):
        parse(b"RIFF" + bytes(60))


def test_a_low_pass_keeps_what_is_below_and_has_no_delay():
    time = np.arange(48_000) / 48_000
    low, high = np.sin(2 * np.pi * 1_000 * time), np.sin(2 * np.pi * 5_000 * time)
    passed = low_pass((low + high)[None].astype(np.float32), 48_000, 3_500)
    np.testing.assert_allclose(passed[0, 5_000:-5_000], low[5_000:-5_000], atol=1e-3)
    anchor = open_baseline("lowpass:3500")
    (coded_clip,) = anchor.code((low + high)[None].astype(np.float32))
    np.testing.assert_array_equal(coded_clip.audio, passed)


@pytest.mark.skipif(shutil.which("sleep") is None, reason="no program that takes its time")
def test_a_program_that_does_not_tell_its_version_is_stopped(monkeypatch):
    monkeypatch.setattr(subprocess_codecs, "_VERSION_SECONDS", 0.1)
    with pytest.raises(MissingDependencyError, match="sleep 30 took over"):
        program_version(shutil.which("sleep"), "30")
