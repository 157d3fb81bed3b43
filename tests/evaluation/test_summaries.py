"""Averages with intervals, tables, code statistics and plots from rows made by hand."""

import csv
import io
import math

import numpy as np
import pytest

from moss_audio_tokenizer.evaluation.clip_results import Row, row_from_json
from moss_audio_tokenizer.evaluation.codec_report import family, rate_curves, shown_model
from moss_audio_tokenizer.evaluation.pages import pipe_table, printable
from moss_audio_tokenizer.evaluation.pictures import Curve, draw_figure
from moss_audio_tokenizer.evaluation.summary import (
    average,
    code_statistics,
    csv_table,
    statistics_table,
    summarize,
    summary_table,
)

pytest.importorskip("scipy")


def row(path, value, model="m", depth=1, **more):
    kbps = 1.0 * (depth or 6)
    settings = {"actual_kbps": kbps, "kbps": kbps} | more
    return Row(path, model, depth, metrics=value, **{"domain": "speech"} | settings)


@pytest.fixture
def rows():
    speech = [0.5, 0.7, 0.9]
    made = [
        row(f"{index}", {"stoi": value, "si_sdr": math.inf}, depth=depth, language=language)
        for depth in (1, 2)
        for index, (value, language) in enumerate(zip(speech, ["en", "en", "de"], strict=True))
    ]
    made.append(row("3", {}, kbps=0.0, actual_kbps=0.0, error="broken"))
    made.append(row("tune", {"si_sdr": 3.0}, model="opus:6", depth=None, domain="music"))
    return made


def test_summary_is_mean_and_students_interval(rows):
    one, *_, music = summarize(rows)
    assert (one.model, one.num_quantizers, one.domain, one.kbps) == ("m", 1, "speech", 1.0)
    assert (one.num_clips, one.num_failed) == (3, 1)
    assert one.metrics["stoi"].mean == pytest.approx(0.7)
    # Student's t with two degrees of freedom at 97.5% is 4.3027.
    assert one.metrics["stoi"].interval == pytest.approx(4.3027 * 0.2 / math.sqrt(3), rel=1e-4)
    assert "si_sdr" not in one.metrics
    assert music.metrics["si_sdr"].interval is None


def test_languages_are_groups_of_their_own(rows):
    groups = summarize(rows, by_language=True)
    assert [(group.language, group.num_clips) for group in groups[:2]] == [("en", 2), ("de", 1)]


def test_error_rates_weigh_words():
    # 1 error in 1 word and 1 in 9: two in ten, not the mean of 1 and 1/9.
    made = [row("a", {"wer": 1.0}, num_words=1), row("b", {"wer": 1 / 9}, num_words=9)]
    made.append(row("c", {"wer": math.nan}))
    (summary,) = summarize(made)
    assert summary.metrics["wer"].mean == pytest.approx(0.2)
    assert summary.metrics["wer"].num_clips == 2


def test_weighted_interval_covers_the_ratio():
    random = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        words = random.integers(1, 12, 40)
        errors = random.binomial(words, 0.3)
        found = average(errors / words, words)
        hits += abs(found.mean - 0.3) <= found.interval
    assert 180 <= hits <= 199


def markdown(summaries):
    table = summary_table(summaries)
    return pipe_table(table.headings, table.rows)


def test_table_has_a_line_for_each_model_depth_and_domain(rows):
    lines = markdown(summarize(rows)).splitlines()
    assert len(lines) == 2 + 3
    assert len({line.count("|") for line in lines}) == 1
    assert "0.700 ± 0.497" in lines[2]
    assert "3 (1 failed)" in lines[2]
    assert lines[4].startswith("| opus:6 | - | 6 | 6.00 | 1 | - | 3.0 |")
    assert markdown(summarize(rows, by_language=True)).startswith("| language | model")


def test_csv_has_every_figure(rows):
    first, *_, last = csv.DictReader(csv_table(summarize(rows)).splitlines())
    assert float(first["stoi_mean"]) == pytest.approx(0.7)
    assert first["stoi_num_clips"] == "3"
    assert (last["model"], last["num_quantizers"], last["stoi_mean"]) == ("opus:6", "", "")


def test_rows_go_through_json(rows):
    transcript = row("x", {"wer": 0.5}, transcript="one", num_words=2, num_characters=3)
    for one in [*rows[-2:], transcript]:
        assert row_from_json(one.as_json()) == one
    assert math.isnan(row_from_json(rows[0].as_json()).metrics["si_sdr"])


def test_statistics_of_codes_that_are_known():
    even = np.tile(np.arange(4), 25)
    lazy = np.zeros(100, int)
    clips = [np.stack([even[:60], lazy[:60]]), np.stack([even[60:], lazy[60:]])]
    found = code_statistics(clips, 8, 12.5)
    assert (found.num_frames, found.used) == (100, (0.5, 0.125))
    assert found.perplexity == pytest.approx((4.0, 1.0))
    assert found.entropy_bits == pytest.approx((2.0, 0.0))
    # Two layers of three bits as stored; two bits in all are needed.
    assert found.nominal_kbps == pytest.approx(0.075)
    assert found.achievable_kbps == pytest.approx(0.025)
    table = statistics_table({"m": found})
    assert "| m | 1 | 50.0% | 4 | 2.00 | 3 |" in pipe_table(table.headings, table.rows)


def test_curves_join_the_bitrates_of_a_family(rows):
    assert [family(name) for name in ("opus:6", "codec2:700C", "encodec:a/b@6", "bundled")] == [
        *("opus", "codec2", "encodec:a/b", "bundled")
    ]
    anchors = [row("0", {"stoi": 1.0}, model=name) for name in ("original", "lowpass:3500")]
    found = rate_curves(summarize([*reversed(rows), *anchors]), "stoi")
    assert list(found) == ["m"]
    assert [point.num_quantizers for point in found["m"]] == [1, 2]


@pytest.fixture(scope="module")
def figure():
    pytest.importorskip("matplotlib")
    curve = Curve("m", [(1.0, 0.7, 0.5), (2.0, 0.8, 0.1)], 0)
    paper = Curve("paper", [(1.0, 0.9, 0.0), (2.0, 0.95, 0.0)])
    return draw_figure("speech-stoi", "STOI", "kbps", [curve, paper], [1, 2, 4], (0, 1))


@pytest.mark.parametrize(("theme", "level"), [("light", 1.0), ("dark", 0.12)])
def test_a_plot_is_a_picture_on_the_themes_paper(figure, theme, level):
    image = pytest.importorskip("matplotlib.image")
    pixels = image.imread(io.BytesIO(getattr(figure, theme)))
    assert pixels.shape[1] > 600
    assert pixels[2, 2, :3].mean() == pytest.approx(level, abs=0.05)
    # A curve in color: somewhere blue is far from red.
    assert (np.abs(pixels[..., 2] - pixels[..., 0]) > 0.4).sum() > 100


def test_a_name_cannot_steer_the_terminal():
    assert printable("a\x1b[2Jb\nc \u00e9") == "a\\x1b[2Jb\nc \u00e9"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("resemblyzer", "resemblyzer"),
        ("whisper:base", "whisper:base"),
        ("whisper:/models/base (whisper texts)", "whisper:base, whisper normalization"),
        ("hf:microsoft/wavlm", "hf:wavlm"),
        ("scores:load@a/b (seed-tts texts)", "scores:b, seed-tts normalization"),
    ],
)
def test_scoring_models_are_called_by_their_files(name, shown):
    assert shown_model(name) == shown
