"""The listening test: what gets into the page, and what becomes of listeners' files."""

import base64
import io
import json
import re
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
from toy_codecs import Noise, byte_codec

from moss_audio_tokenizer.errors import EvaluationError, InputError
from moss_audio_tokenizer.evaluation import Plan, run_evaluation, write_results
from moss_audio_tokenizer.evaluation.listening_results import (
    LeftOut,
    aggregate,
    listening_report,
    read_session,
    screen,
)
from moss_audio_tokenizer.evaluation.mushra import build_listening_test
from moss_audio_tokenizer.manifest import read_manifest

pytest.importorskip("matplotlib")
pytest.importorskip("scipy")


@pytest.fixture(scope="module")
def results(shared_manifest, tmp_path_factory):
    """The results of a comparison of three clips, one of them broken; not to be changed."""
    path = tmp_path_factory.mktemp("results")
    clips = read_manifest(shared_manifest, split="valid", domain="speech")
    plan = Plan(clips, [partial(byte_codec, 1), Noise], ("si_sdr",), num_examples=3)
    write_results(path, run_evaluation(plan, path, lambda done, total: None), clips, "t", "c")
    return path


@pytest.fixture
def folder(results, tmp_path):
    """A copy of `results`."""
    return Path(shutil.copytree(results, tmp_path / "run"))


def document_of(page):
    content = re.search(r'<script type="application/json" id="test">(.*?)</script>', page, re.S)
    return json.loads(content[1])


def test_every_trial_has_reference_versions_and_anchor(folder):
    document = document_of(build_listening_test(folder, "Which is best?"))
    assert [trial["clip"] for trial in document["trials"]] == ["speech0.wav", "speech1.wav"]
    for trial in document["trials"]:
        names = [sound["name"] for sound in trial["sounds"]]
        assert names == ["reference", "bytes-1", "noise", "low anchor"]


def test_sounds_are_those_of_the_run_and_the_anchor_is_dull(folder):
    document = document_of(build_listening_test(folder, "t", ["noise"], mid_anchor=True))
    sounds = {
        sound["name"]: soundfile.read(io.BytesIO(base64.b64decode(sound["data"])))[0]
        for sound in document["trials"][0]["sounds"]
    }
    assert list(sounds) == ["reference", "noise", "low anchor", "mid anchor"]
    (kept,) = folder.glob("audio/speech0-*/noise.flac")
    np.testing.assert_array_equal(sounds["noise"], soundfile.read(kept)[0])
    power = {name: np.abs(np.fft.rfft(sound)) ** 2 for name, sound in sounds.items()}
    hertz = np.fft.rfftfreq(len(sounds["reference"]), 1 / 16_000)
    for name, limit in {"low anchor": 3_700, "mid anchor": 7_400}.items():
        kept, above = power[name][hertz < 3_000].sum(), power[name][hertz > limit].sum()
        assert kept > 0.9 * power["reference"][hertz < 3_000].sum()
        assert above < 1e-3 * power["reference"][hertz > limit].sum()


def test_the_page_loads_nothing(folder):
    page = build_listening_test(folder, "a <b>")
    assert "<title>a &lt;b&gt;</title>" in page
    assert not re.search(r"https?://|src=|@import", page)
    assert document_of(page)["title"] == "a <b>"


def test_what_makes_no_test_is_refused(folder, tmp_path):
    with pytest.raises(InputError, match="'opus_6'; it has bytes-1, noise"):
        build_listening_test(folder, "t", ["opus_6"])
    with pytest.raises(InputError, match="no results to listen to"):
        build_listening_test(tmp_path / "nothing", "t")
    for path in folder.glob("audio/*/reference.flac"):
        for index in range(10):
            (path.parent / f"x{index}.flac").write_bytes(path.read_bytes())
    with pytest.raises(InputError, match="14 signals are too many"):
        build_listening_test(folder, "t")


def session(tmp_path, listener, ratings, test="abc"):
    trials = [{"clip": f"clip {index}", "ratings": one} for index, one in enumerate(ratings)]
    document = {"format": "moss-audio listening 1", "test": test, "listener": listener}
    path = tmp_path / f"{listener}.json"
    path.write_text(json.dumps(document | {"trials": trials}), encoding="utf-8")
    return path


def version(codec, kbps):
    return {"label": f"{codec} at {kbps}", "codec": codec, "kbps": kbps}


@pytest.fixture
def figure_7(tmp_path):
    """Two listeners of a test of speech and music, with a codec at two bitrates and one at one."""
    systems = {"a-1": version("a", 1.0), "a-2": version("a", 2.0), "opus": version("opus", 6.0)}
    paths = []
    for listener, more in (("ann", 0), ("bob", 4)):
        ratings = {
            "reference": 100,
            "a-1": 40 + more,
            "a-2": 60 + more,
            "opus": 70,
            "low anchor": 9,
        }
        trials = [
            {"clip": f"{domain}{index}", "domain": domain, "ratings": ratings, "systems": systems}
            for domain in ("music", "speech")
            for index in range(2)
        ]
        document = {"format": "moss-audio listening 1", "test": "t", "listener": listener}
        path = tmp_path / f"{listener}.json"
        path.write_text(json.dumps(document | {"trials": trials}), encoding="utf-8")
        paths.append(path)
    return paths


def rated(reference, good, bad):
    return {"reference": reference, "good": good, "bad": bad, "mid anchor": 50}


@pytest.fixture
def listeners(tmp_path):
    return [
        session(tmp_path, "ann", [rated(100, 80, 20), rated(95, 70, 30)]),
        session(tmp_path, "bob", [rated(98, 60, 10), rated(100, 90, 40)]),
        session(tmp_path, "eve", [rated(40, 90, 99), rated(100, 50, 50)]),
    ]


def test_who_misses_the_reference_is_left_out(listeners):
    kept, left_out = screen(map(read_session, listeners))
    assert [one.listener for one in kept] == ["ann", "bob"]
    assert left_out == [LeftOut("eve", "rated the hidden reference below 90 in 1 of 2 trials")]


def test_two_listeners_of_one_name_are_both_left_out(tmp_path):
    sessions = [
        read_session(session(tmp_path, "eve", [rated(40, good, 10)] * 2)) for good in (80, 90)
    ]
    kept, left_out = screen(sessions)
    assert kept == []
    assert [one.listener for one in left_out] == ["eve", "eve"]


def test_a_file_given_twice_counts_once(listeners, tmp_path):
    copy = tmp_path / "copy.json"
    copy.write_bytes(listeners[0].read_bytes())
    kept, left_out = screen(map(read_session, [*listeners[:2], copy]))
    assert [one.listener for one in kept] == ["ann", "bob"]
    assert left_out == [LeftOut("ann", "gave this file before")]


def test_who_takes_the_mid_anchor_for_the_reference_is_left_out(tmp_path):
    fooled = rated(100, 50, 50) | {"mid anchor": 95}
    path = session(tmp_path, "max", [fooled, rated(100, 50, 50)])
    (left_out,) = screen([read_session(path)])[1]
    assert left_out.listener == "max"
    assert "mid anchor" in left_out.reason


def test_one_slip_in_seven_trials_is_forgiven(tmp_path):
    path = session(tmp_path, "pia", [rated(80, 1, 1)] + [rated(100, 1, 1)] * 6)
    assert screen([read_session(path)])[1] == []


def test_means_have_intervals_and_the_best_is_first(listeners):
    tables = aggregate(screen(map(read_session, listeners))[0])
    overall = [one for one in tables if not one.clip]
    assert [one.system for one in overall] == ["reference", "good", "mid anchor", "bad"]
    good = overall[1]
    assert (good.mean, good.median, good.num_ratings) == (75.0, 75.0, 4)
    # Student's t with three degrees of freedom at 97.5% is 3.1824.
    spread = np.std([80, 70, 60, 90], ddof=1)
    assert good.interval == pytest.approx(3.1824 * spread / 2, rel=1e-4)
    (first,) = [one for one in tables if (one.system, one.clip) == ("good", "clip 0")]
    assert first.mean == 70.0
    text = listening_report([], [], tables, "command").markdown()
    assert "| good | - | 75.0 ± 20.5 | 75 | 68-82 | 4 |" in text


def test_results_of_two_tests_are_not_mixed(tmp_path):
    paths = [session(tmp_path, name, [rated(100, 1, 1)], test=name) for name in ("ann", "bob")]
    with pytest.raises(EvaluationError, match="2 tests"):
        screen(map(read_session, paths))


@pytest.mark.parametrize(
    "ratings",
    [
        [],
        [{"good": 50}],
        [{"reference": 100}],
        [rated(100, 101, 1)],
        [rated(100, "90", 1)],
        [rated(True, 1, 1)],
        [rated(float("nan"), 1, 1)],
        [[1, 2]],
    ],
)
def test_what_is_no_result_is_refused(tmp_path, ratings):
    with pytest.raises(EvaluationError, match="not a result of a listening test"):
        read_session(session(tmp_path, "ann", ratings))


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "x.json"
    for content in ("", "[]", "{}", '{"format": "other"}', "[" * 100_000):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(EvaluationError, match="not a result"):
            read_session(path)
    with pytest.raises(EvaluationError, match="not a result"):
        read_session(tmp_path / "missing.json")


@pytest.fixture
def moss_audio():
    from typer.testing import CliRunner

    from moss_audio_tokenizer.cli.main import app

    return lambda *arguments: CliRunner().invoke(app, [str(item) for item in arguments])


def test_on_the_command_line(moss_audio, folder, listeners, tmp_path):
    made = moss_audio("listening-test", folder, "-o", tmp_path / "pages" / "test.html")
    assert made.exit_code == 0, made.output
    assert (tmp_path / "pages" / "test.html").read_text("utf-8").startswith("<!doctype html>")
    result = moss_audio("listening-results", *listeners)
    assert result.exit_code == 0
    assert result.stdout.startswith("2 of 3 listeners")
    assert "- eve: rated the hidden reference below 90" in result.stdout
    document = json.loads(moss_audio("listening-results", *listeners, "--json").stdout)
    assert document["listeners"] == ["ann", "bob"]
    assert [one["listener"] for one in document["left_out"]] == ["eve"]
    assert document["systems"][0]["system"] == "reference"


def test_a_damaged_file_costs_itself_only(moss_audio, listeners, tmp_path):
    (tmp_path / "bad.json").write_text("{", encoding="utf-8")
    result = moss_audio("listening-results", tmp_path / "bad.json", *listeners)
    assert result.exit_code == 2
    assert "2 of 3 listeners" in result.stdout
    assert "bad.json" in result.stderr


def test_the_name_of_the_page_is_checked(moss_audio, folder, tmp_path):
    assert moss_audio("listening-test", folder, "-o", tmp_path / "test.pdf").exit_code == 2


def test_a_hostile_name_stays_inside_the_page(folder):
    summary = folder / "summary.json"
    document = json.loads(summary.read_text("utf-8"))
    document["examples"][0]["path"] = "<!--<script>.wav"
    summary.write_text(json.dumps(document), "utf-8")
    page = build_listening_test(folder, "</script><b>")
    assert "<!--<script>" not in page
    assert document_of(page)["trials"][0]["clip"] == "<!--<script>.wav"


def test_versions_are_known_by_label_codec_and_actual_bitrate(folder):
    for trial in document_of(build_listening_test(folder, "t"))["trials"]:
        assert trial["domain"] == "speech"
        assert trial["systems"] == {
            "bytes-1": {"label": "bytes, 1 quantizer", "codec": "bytes", "kbps": 128.0},
            "noise": {"label": "noise", "codec": "noise", "kbps": 1.0},
        }


def test_each_domain_has_its_own_means(figure_7):
    tables = aggregate([read_session(path) for path in figure_7])
    overall = [one for one in tables if not one.clip]
    assert [one.domain for one in overall] == ["speech"] * 5 + ["music"] * 5
    assert [(one.label, one.kbps) for one in overall[:5]] == [
        ("hidden reference", None),
        ("opus at 6.0", 6.0),
        ("a at 2.0", 2.0),
        ("a at 1.0", 1.0),
        ("low anchor (3.5 kHz)", None),
    ]
    assert (overall[2].mean, overall[2].num_ratings) == (62.0, 4)


def test_the_figure_has_a_line_for_each_codec_and_the_anchors_across(figure_7, monkeypatch):
    from moss_audio_tokenizer.evaluation import listening_results

    drawn = []
    monkeypatch.setattr(listening_results, "draw_figure", lambda *given: drawn.append(given))
    tables = aggregate([read_session(path) for path in figure_7])
    listening_report([], [], tables, "command")
    (file, title, _, curves, _, bounds), (other, *_) = drawn
    assert (file, other, bounds) == ("speech-score", "music-score", (0, 100))
    assert title == "Listening test, speech: mean score (higher is better)"
    points = {curve.name: [(x, mean) for x, mean, _ in curve.points] for curve in curves}
    assert points == {
        "a": [(1.0, 42.0), (2.0, 62.0)],
        "opus": [(6.0, 70.0)],
        "hidden reference": [(1.0, 100.0), (6.0, 100.0)],
        "low anchor (3.5 kHz)": [(1.0, 9.0), (6.0, 9.0)],
    }
    # Student's t with three degrees of freedom at 97.5% is 3.1824.
    half = 3.1824 * np.std([40, 40, 44, 44], ddof=1) / 2
    assert curves[0].points[0][2] == pytest.approx(half, rel=1e-4)


@pytest.mark.parametrize("domain", ["../../outside", "music/live", "/etc"])
def test_a_listeners_file_writes_nothing_outside_the_folder(moss_audio, figure_7, tmp_path, domain):
    text = figure_7[0].read_text(encoding="utf-8").replace('"music"', json.dumps(domain))
    figure_7[0].write_text(text, encoding="utf-8")
    output = tmp_path / "results" / "figure7"
    before = {path for path in tmp_path.rglob("*") if output not in path.parents}
    assert moss_audio("listening-results", figure_7[0], "-o", output).exit_code == 0
    assert len(list(output.glob("plots/*.png"))) == 2
    after = {path for path in tmp_path.rglob("*") if output not in path.parents}
    assert after - before <= {output, output.parent}


@pytest.mark.parametrize("kbps", [0, -1.5])
def test_a_bitrate_of_nothing_is_refused(figure_7, kbps):
    text = figure_7[0].read_text(encoding="utf-8").replace('"kbps": 6.0', f'"kbps": {kbps}')
    figure_7[0].write_text(text, encoding="utf-8")
    with pytest.raises(EvaluationError, match="where a bitrate was expected"):
        read_session(figure_7[0])


def test_results_become_a_page(moss_audio, figure_7, folder, tmp_path):
    output = tmp_path / "results" / "figure7"
    result = moss_audio("listening-results", *figure_7, "-o", output)
    assert result.exit_code == 0, result.output
    assert "| a at 2.0 | 2.00 | 62.0 ± 3.7 | 62 | 60-64 | 4 |" in result.stdout
    assert result.stdout.startswith("2 of 2 listeners, 4 clips")
    names = {path.name for path in output.rglob("*") if path.is_file()}
    assert names == {
        *("report.html", "summary.json", "summary.md", "speech-score.png", "music-score.png")
    }
    assert json.loads((output / "summary.json").read_text("utf-8"))["listeners"] == ["ann", "bob"]
    refused = moss_audio("listening-results", *figure_7, "-o", folder)
    assert refused.exit_code == 2
    assert "holds a comparison; name another -o" in refused.stderr


def test_results_without_bitrates_make_a_table_alone(moss_audio, listeners, tmp_path):
    result = moss_audio("listening-results", *listeners, "-o", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert not (tmp_path / "run" / "plots").exists()
    nothing = moss_audio("listening-results", listeners[2], "-o", tmp_path / "none")
    assert nothing.exit_code == 2
    assert not (tmp_path / "none").exists()
