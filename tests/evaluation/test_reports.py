"""The report: self-contained, escaped, complete, and with sound that is the sound given."""

import base64
import io
import re
import wave
from html.parser import HTMLParser

import numpy as np
import pytest

from moss_audio_tokenizer.errors import AudioError
from moss_audio_tokenizer.evaluation.report import Reconstruction, build_report
from moss_audio_tokenizer.evaluation.spectrograms import (
    frequency_height,
    log_mel,
    shared_scale,
    spectrogram_png,
)

pytest.importorskip("matplotlib")
pytest.importorskip("pystoi")

RATE = 16_000
VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """Collects tags and attributes, and holds that every tag is closed in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def original():
    return 0.2 * np.random.default_rng(0).standard_normal((2, RATE)).astype(np.float32)


@pytest.fixture(scope="module")
def text(original):
    halves = [Reconstruction(n, n / 8, original * n / 32) for n in (1, 32)]
    return build_report('a <b>"&', "cmd <script>", "<i>m</i>", original, RATE, halves)


def decoded(url):
    return base64.b64decode(url.partition(";base64,")[2])


def test_every_version_has_a_picture_and_a_player(text):
    page = Page(text)
    assert len(page.all("img")) == len(page.all("audio")) == 3
    assert all(decoded(image["src"]).startswith(b"\x89PNG") for image in page.all("img"))
    assert "1 quantizer <" in text
    assert "32 quantizers <" in text


def test_nothing_is_loaded_and_nothing_runs(text):
    page = Page(text)
    sources = [a["src"] for _, a in page.tags if "src" in a]
    assert all(source.startswith("data:") for source in sources)
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.tags}
    assert not re.search(r"https?://|url\(|@import", text)


def test_strings_of_the_user_are_escaped(text):
    assert "a &lt;b&gt;&quot;&amp;" in text
    assert "cmd &lt;script&gt;" in text
    assert "&lt;i&gt;m&lt;/i&gt;" in text


def test_sound_is_that_of_the_clip_in_16_bits(text, original):
    with wave.open(io.BytesIO(decoded(Page(text).all("audio")[0]["src"]))) as sound:
        assert (sound.getnchannels(), sound.getframerate(), sound.getsampwidth()) == (2, RATE, 2)
        samples = np.frombuffer(sound.readframes(RATE), "<i2").reshape(-1, 2).T / 32768
    np.testing.assert_allclose(samples, original.clip(-1, 1), atol=1 / 32768)


def test_extreme_values_have_a_sign(original):
    silence = np.zeros_like(original)
    text = build_report("t", "c", "m", original, RATE, [Reconstruction(1, 0.1, silence)])
    assert "&minus;&infin;" in text
    text = build_report("t", "c", "m", silence, RATE, [Reconstruction(1, 0.1, silence)])
    assert "<td>&ndash;</td>" in text


def test_what_the_codec_adds_past_the_end_is_left_out(original):
    longer = np.pad(original, ((0, 0), (0, 5_000)))
    text = build_report("t", "c", "m", original, RATE, [Reconstruction(1, 0.1, longer)])
    with wave.open(io.BytesIO(decoded(Page(text).all("audio")[1]["src"]))) as sound:
        assert sound.getnframes() == RATE


@pytest.mark.parametrize("samples", [40, 800, 16_000 * 40])
def test_clips_of_any_length(samples):
    audio = 0.1 * np.sin(np.arange(samples, dtype=np.float32))[None]
    level = log_mel(audio, RATE)
    assert level.shape[0] > 0
    assert level.shape[1] <= 2_000
    Page(build_report("t", "c", "m", audio, RATE, []))


def test_an_empty_clip_is_an_error():
    empty = np.zeros((1, 0), np.float32)
    with pytest.raises(AudioError):
        build_report("t", "c", "m", empty, RATE, [])


def test_a_tone_lies_where_the_axis_says():
    tone = np.sin(2 * np.pi * 2_000 * np.arange(RATE) / RATE)[None]
    level = log_mel(tone, RATE)
    loudest = level.mean(1).argmax() / len(level)
    assert loudest == pytest.approx(frequency_height(2_000, RATE), abs=0.02)


def test_one_scale_gives_one_picture_for_one_level():
    level = log_mel(np.sin(np.arange(RATE))[None], RATE)
    scale = shared_scale(level)
    assert scale[1] - scale[0] == 80.0
    assert spectrogram_png(level, scale) == spectrogram_png(level, scale)
    assert spectrogram_png(level, scale) != spectrogram_png(level - 20, scale)
