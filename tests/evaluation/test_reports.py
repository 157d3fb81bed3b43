"""The report: self-contained, escaped, complete, and with sound that is the sound given."""

import io
import re

import numpy as np
import pytest
import soundfile
from pages import Page, decoded

from moss_audio_tokenizer.errors import AudioError
from moss_audio_tokenizer.evaluation.clip_results import slug
from moss_audio_tokenizer.evaluation.exhibits import Version, build_report, quantizers
from moss_audio_tokenizer.evaluation.metric_registry import measure
from moss_audio_tokenizer.evaluation.pictures import (
    _INCHES,
    _add_legend,
    _set_axes,
    _shortened,
    difference_png,
    frequency_height,
    log_mel,
    shared_scale,
    spectrogram_png,
)

pytest.importorskip("matplotlib")
pytest.importorskip("pystoi")

RATE = 16_000


@pytest.fixture(scope="module")
def original():
    return 0.2 * np.random.default_rng(0).standard_normal((2, RATE)).astype(np.float32)


def version(audio, original, count=1):
    values = measure(original, audio, RATE)
    return Version(quantizers(count), count / 8, audio, RATE, values)


@pytest.fixture(scope="module")
def text(original):
    versions = [version(original * n / 32, original, n) for n in (1, 32)]
    return build_report('a <b>"&', "cmd <script>", "<i>m</i>", original, versions)


def test_every_version_has_a_player_and_pictures(text):
    page = Page(text)
    # Two versions beside the original differ from it.
    assert len(page.all("audio")) == 3
    assert len(page.all("img")) == 3 + 2
    assert all(decoded(image["src"]).startswith(b"\x89PNG") for image in page.all("img"))
    assert "1 quantizer <" in text
    assert "32 quantizers <" in text


def test_nothing_is_loaded_and_nothing_runs(text):
    page = Page(text)
    sources = [a["src"] for _, a in page.tags if "src" in a]
    assert all(source.startswith("data:") for source in sources)
    assert [link["href"] for link in page.all("link")] == ["data:,"]
    assert not {"script", "iframe"} & {tag for tag, _ in page.tags}
    assert not re.search(r"https?://|url\(|@import", text)


def test_strings_of_the_user_are_escaped(text):
    assert "a &lt;b&gt;&quot;&amp;" in text
    assert "cmd &lt;script&gt;" in text
    assert "&lt;i&gt;m&lt;/i&gt;" in text


def sound_of(text, place):
    return soundfile.read(io.BytesIO(decoded(Page(text).all("audio")[place]["src"])))


def test_sound_is_that_of_the_clip_in_16_bits(text, original):
    samples, rate = sound_of(text, 0)
    assert rate == RATE
    np.testing.assert_allclose(samples.T, original.clip(-1, 1), atol=1 / 32768)


def test_extreme_values_have_a_sign(original):
    silence = np.zeros_like(original)
    text = build_report("t", "c", "m", original, [version(silence, original)])
    assert "\N{MINUS SIGN}\N{INFINITY}" in text
    text = build_report("t", "c", "m", silence, [version(silence, silence)])
    assert "<span>\N{EN DASH}</span>" in text


def test_what_the_codec_adds_past_the_end_is_left_out(original):
    longer = np.pad(original, ((0, 0), (0, 5_000)))
    text = build_report("t", "c", "m", original, [version(longer, original)])
    assert len(sound_of(text, 1)[0]) == RATE


@pytest.mark.parametrize("samples", [40, 800, 16_000 * 40])
def test_clips_of_any_length(samples):
    audio = 0.1 * np.sin(np.arange(samples, dtype=np.float32))[None]
    level = log_mel(audio, RATE)
    assert level.shape[0] > 0
    assert level.shape[1] <= 2_000
    Page(build_report("t", "c", "m", audio, [version(audio, audio)]))


def test_an_empty_clip_is_an_error():
    empty = np.zeros((1, 0), np.float32)
    with pytest.raises(AudioError):
        build_report("t", "c", "m", empty, [Version("a", 1.0, empty, RATE)])


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


def pixels_of(picture):
    image = pytest.importorskip("matplotlib.image")
    return image.imread(io.BytesIO(picture))[..., :3]


def test_a_picture_has_a_pixel_for_each_value_and_its_low_end_below():
    level = np.full((4, 6), -100.0)
    level[0, 2] = 0.0
    pixels = pixels_of(spectrogram_png(level, (-80.0, 0.0)))
    assert pixels.shape == (4, 6, 3)
    assert pixels[3, 2].sum() > 2.5
    assert pixels.sum(-1).argmax() == 3 * 6 + 2


def test_a_difference_is_orange_for_more_and_blue_for_less():
    level = np.full((4, 6), -20.0)
    other = level.copy()
    other[0, 0], other[1, 1], other[2, 2] = -5.0, -40.0, -20.5
    pixels = pixels_of(difference_png(other, level, (-80.0, 0.0)))
    assert pixels[3, 0, 0] > 0.4 > pixels[3, 0, 2]
    assert pixels[2, 1, 2] > 0.4 > pixels[2, 1, 0]
    assert pixels[1, 2].sum() < 0.1


def test_what_is_below_the_scale_makes_no_difference():
    silence, faint = np.full((4, 6), -100.0), np.full((4, 6), -81.0)
    assert pixels_of(difference_png(silence, faint, (-80.0, 0.0))).sum() < 0.5


def test_what_a_recogniser_heard_stands_below_the_figures(manifest, tmp_path):
    from toy_codecs import Noise

    from moss_audio_tokenizer.evaluation import Plan, run_evaluation, write_results
    from moss_audio_tokenizer.evaluation.scoring_models import ScoringModelNames
    from moss_audio_tokenizer.manifest import read_manifest

    pytest.importorskip("jiwer")
    pytest.importorskip("scipy")
    clips = read_manifest(manifest, domain="speech", split="valid")[:1]
    plan = Plan(clips, [Noise], ("si_sdr",), ScoringModelNames(asr_model="toy_codecs:recogniser"))
    folder = tmp_path / "run"
    folder.mkdir()
    table = write_results(folder, run_evaluation(plan, folder, lambda *_: None), clips, "t", "c")
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "understood as “one too three”" in text
    assert "“One, two, three.”" in text
    assert "| noise | - | 1 | 1.00 | 1 |" in table
    assert "0.333" in table
    Page(text)


def test_a_name_that_is_short_enough_stays():
    assert slug("opus:6") == "opus_6"
    assert slug("a" * 100, 8) == "a" * 100 + "-8"
    assert len(slug("\udcff" * 101)) < 110


def test_a_wide_interval_does_not_press_the_curves_flat():
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    _set_axes(axes, [(1, 6.0, 20.0), (2, 8.0, 0.1), (4, 7.0, 0.1)], (1, 2, 4), (0, None))
    bottom, top = axes.get_ylim()
    assert 3.0 < bottom < 4.0
    assert 10.0 < top < 11.0


def test_intervals_wider_than_what_they_belong_to_differs_are_whole():
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    _set_axes(axes, [(8, 0.46, 0.22), (16, 0.56, 0.19)], (8, 16), (0, None))
    bottom, top = axes.get_ylim()
    assert bottom < 0.46 - 0.22
    assert top > 0.56 + 0.19


@pytest.mark.parametrize("length", [5, 25, 300])
def test_legends_lie_within_the_plot(length):
    """Names of models may be long paths."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=_INCHES, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for number in range(4):
        axes.plot([1, 2], [0, number], label=_shortened(str(number) * length))
    _add_legend(figure, "black")
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width
    assert len(figure.legends) == 1
