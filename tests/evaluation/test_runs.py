"""Runs over a manifest: rows, failures, resuming, several processes; best and bad values."""

import json
import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import soundfile
from toy_codecs import ByteCodec, Deadly, Noise, byte_codec

from moss_audio_tokenizer.cli.failures import exit_code_of
from moss_audio_tokenizer.errors import CodesError, EvaluationError, InputError
from moss_audio_tokenizer.evaluation import LayeredCodec, Plan, run_evaluation, write_results
from moss_audio_tokenizer.evaluation.baselines import open_baseline
from moss_audio_tokenizer.evaluation.metric_registry import ALL_METRICS, METRICS
from moss_audio_tokenizer.evaluation.run import check_folder, choose_examples
from moss_audio_tokenizer.evaluation.scoring_models import ScoringModelNames
from moss_audio_tokenizer.manifest import ManifestEntry, read_manifest

pytest.importorskip("pystoi")

# Not in the order of the registry, which a resumed run must not fall back to.
FEW = ("si_sdr", "stoi", "mel_distance")


def no_progress(done, total):
    pass


@pytest.fixture
def plan(manifest):
    clips = read_manifest(manifest, split="valid")
    return Plan(clips, [partial(byte_codec, 1, 2), Noise], FEW, num_examples=2)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    return path


def lines_of(folder):
    text = (folder / "results.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_a_row_for_every_clip_model_and_depth(plan, folder):
    outcome = run_evaluation(plan, folder, no_progress)
    rows = lines_of(folder)
    assert [row.as_json() for row in outcome.rows] == rows
    assert [(row["path"], row["model"], row["num_quantizers"]) for row in rows[:4]] == [
        ("speech0.wav", "bytes", 1),
        ("speech0.wav", "bytes", 2),
        ("speech0.wav", "noise", None),
        ("speech1.wav", "bytes", 1),
    ]
    assert len(rows) == 4 * 3
    assert rows[1] | {"kbps": 256.0, "actual_kbps": 256.0, "delay_ms": 0.0} == rows[1]
    assert (rows[0]["language"], rows[0]["identity"]) == ("en", "0" * 16)


def test_a_corrupt_clip_costs_itself_only_and_is_listed(plan, folder):
    run_evaluation(plan, folder, no_progress)
    failed = [row for row in lines_of(folder) if "error" in row]
    assert {row["path"] for row in failed} == {"broken.wav"}
    assert [row["num_quantizers"] for row in failed] == [1, 2, None]
    assert all("broken.wav" in row["error"] for row in failed)


def test_a_codec_that_raises_costs_that_clip_only(plan, folder, tmp_path):
    soundfile.write(tmp_path / "short.wav", np.ones(2_000) * 0.1, 16_000)
    short = ManifestEntry(tmp_path / "short.wav", name="short.wav")
    outcome = run_evaluation(replace(plan, clips=[short, plan.clips[0]]), folder, no_progress)
    errors = {row.key: row.error for row in outcome.rows}
    assert "too short for me" in errors["short.wav", "noise", None]
    assert sum(bool(error) for error in errors.values()) == 1


def test_more_layers_are_better_and_stoi_is_of_speech_alone(plan, folder):
    rows = {row.key: row.metrics for row in run_evaluation(plan, folder, no_progress).rows}
    one, two = (rows["speech0.wav", "bytes", depth] for depth in (1, 2))
    assert two["mel_distance"] < one["mel_distance"]
    # Two layers are 16-bit audio, as the clip is: an infinite ratio.
    assert one["si_sdr"] > 20
    assert math.isnan(two["si_sdr"])
    assert "stoi" not in rows["music2.wav", "bytes", 2]


def test_identity_is_the_best_and_noise_is_bad_in_every_metric(plan, folder):
    pytest.importorskip("pesq")
    original = partial(open_baseline, "original")
    best = replace(plan, clips=plan.clips[:1], openers=[original, Noise], metrics=ALL_METRICS)
    identity, noise = (row.metrics for row in run_evaluation(best, folder, no_progress).rows)
    assert identity["stoi"] == pytest.approx(1.0)
    assert identity["pesq_wb"] == pytest.approx(4.64, abs=0.02)
    assert identity["pesq_nb"] == pytest.approx(4.55, abs=0.02)
    assert identity["pitch_error"] == 0.0
    assert math.isnan(identity["si_sdr"])  # infinite, which JSON cannot say
    for name in ("mel_distance", "stft_distance", "dac_mel_distance"):
        assert identity[name] == 0.0
        assert noise[name] > 1.5
    assert noise["stoi"] < 0.6
    assert noise["pesq_wb"] < 1.5
    assert noise["pitch_error"] > 0.8
    assert noise["si_sdr"] < -15.0
    assert set(identity) == set(ALL_METRICS)


def test_every_clip_is_encoded_once_at_the_greatest_depth(plan, folder):
    codec = ByteCodec()
    music = [clip for clip in plan.clips if clip.domain == "music"]
    openers = [lambda: LayeredCodec(codec, "bytes", [1, 2])]
    run_evaluation(replace(plan, clips=music, openers=openers), folder, no_progress)
    assert codec.encoded == [2]


def test_two_processes_give_the_same_file(plan, folder, tmp_path):
    run_evaluation(plan, folder, no_progress)
    other = tmp_path / "other"
    other.mkdir()
    run_evaluation(replace(plan, jobs=2), other, no_progress)
    assert (folder / "results.jsonl").read_bytes() == (other / "results.jsonl").read_bytes()


def test_a_model_that_is_not_there_ends_the_run_before_it_begins(plan, folder):
    names = ScoringModelNames(opinion_model="toy_codecs:no_such_function")
    with pytest.raises(InputError, match="no_such_function"):
        run_evaluation(replace(plan, scoring_models=names), folder, no_progress)
    assert not (folder / "results.jsonl").exists()


def test_models_of_the_users_score_speech_in_every_process(plan, folder):
    names = ScoringModelNames(opinion_model="toy_codecs:rater", asr_model="toy_codecs:recogniser")
    pytest.importorskip("jiwer")
    outcome = run_evaluation(replace(plan, scoring_models=names, jobs=2), folder, no_progress)
    rows = {row.key: row for row in outcome.rows}
    row = rows["speech0.wav", "bytes", 2]
    assert row.metrics["wer"] == pytest.approx(1 / 3)
    assert (row.transcript, row.num_words) == ("one too three", 3)
    assert 0.0 < row.metrics["opinion_score"] < 1.0
    assert "wer" not in rows["music2.wav", "bytes", 2].metrics
    again = []
    run_evaluation(
        replace(plan, scoring_models=names), folder, lambda done, total: again.append(done)
    )
    assert again[0] == 6


def test_a_process_that_dies_ends_the_run_with_a_reason(plan, folder):
    with pytest.raises(EvaluationError, match="run the same command again") as death:
        run_evaluation(replace(plan, openers=[Deadly], jobs=2), folder, no_progress)
    assert exit_code_of(death.value) == 1


def test_a_stopped_run_goes_on(plan, folder):
    run_evaluation(plan, folder, no_progress)
    whole = (folder / "results.jsonl").read_bytes()
    (folder / "results.jsonl").write_bytes(whole[: len(whole) // 2])
    calls = []
    run_evaluation(plan, folder, lambda done, total: calls.append((done, total)))
    assert (folder / "results.jsonl").read_bytes() == whole
    # Some tasks were done already, and so were not done again.
    assert 0 < calls[0][0] < calls[0][1] == 8
    assert calls[-1] == (8, 8)


def test_what_is_done_is_not_done_again_but_failures_are(plan, folder):
    run_evaluation(plan, folder, no_progress)
    calls = []
    run_evaluation(plan, folder, lambda done, total: calls.append(done))
    assert calls == [6, 7, 8]


def test_going_on_leaves_the_same_summaries(plan, folder):
    pytest.importorskip("matplotlib")
    names = ("summary.json", "summary.md", "summary.csv", "report.html")
    contents = []
    for _ in range(2):
        outcome = run_evaluation(plan, folder, no_progress)
        write_results(folder, outcome, plan.clips, "title", "command")
        contents.append([(folder / name).read_bytes() for name in names])
    assert contents[0] == contents[1]


def test_another_version_of_a_codec_is_measured_anew(plan, folder):
    run_evaluation(plan, folder, no_progress)
    later = Noise()
    later.identity = "2"
    calls = []
    again = replace(plan, clips=plan.clips[:1], openers=[lambda: later])
    run_evaluation(again, folder, lambda done, total: calls.append(done))
    assert calls == [0, 1]
    rows = lines_of(folder)
    # Rows of other clips and models have not been lost.
    assert len(rows) == 12
    assert rows[0]["identity"] == "2"


def test_a_metric_asked_for_later_is_measured(plan, folder):
    run_evaluation(plan, folder, no_progress)
    outcome = run_evaluation(replace(plan, metrics=(*FEW, "pitch_error")), folder, no_progress)
    assert all("pitch_error" in row.metrics for row in outcome.rows if row.path == "speech0.wav")


def test_a_missing_package_gives_null_and_a_note(plan, folder, monkeypatch):
    monkeypatch.setattr(
        "moss_audio_tokenizer.evaluation.metric_registry.is_installed", lambda name: False
    )
    outcome = run_evaluation(replace(plan, metrics=("pesq_wb", "si_sdr")), folder, no_progress)
    assert lines_of(folder)[0]["pesq_wb"] is None
    assert math.isnan(outcome.rows[0].metrics["pesq_wb"])
    (note,) = outcome.notes
    assert "pip install pesq" in note


def test_sound_is_kept_of_the_examples_alone(plan, folder):
    outcome = run_evaluation(plan, folder, no_progress)
    clips = [plan.clips[place].name for place in outcome.examples]
    kept = sorted(path.relative_to(folder / "audio") for path in folder.rglob("*.flac"))
    assert len(clips) == len({path.parts[0] for path in kept}) == 2
    assert {path.name for path in kept} == {
        *("bytes-1.flac", "bytes-2.flac", "noise.flac", "reference.flac")
    }
    (path,) = folder.glob("audio/speech0-*/bytes-2.flac")
    audio, rate = soundfile.read(path)
    original, _ = soundfile.read(plan.clips[0].path)
    assert rate == 16_000
    np.testing.assert_allclose(audio, original, atol=2 / 32768)


def test_examples_are_spread_over_domains():
    clips = [ManifestEntry(None, "speech", name=f"{n}") for n in range(6)]
    clips += [ManifestEntry(None, "music", name=f"m{n}") for n in range(2)]
    assert choose_examples(clips, 3) == [0, 3, 6]
    assert choose_examples(clips[::-1], 1) == [2]
    assert choose_examples(clips, 100) == list(range(8))
    assert choose_examples(clips, 0) == []


@pytest.mark.parametrize("depth", [0, 3])
def test_a_depth_that_the_codec_lacks_is_refused(depth):
    with pytest.raises(CodesError, match=f"is {depth}"):
        byte_codec(depth)


def test_names_given_twice_are_refused(plan, folder):
    with pytest.raises(InputError, match="'noise' is given twice"):
        run_evaluation(replace(plan, openers=[Noise, Noise]), folder, no_progress)
    with pytest.raises(InputError, match=r"'speech0\.wav' is given twice"):
        run_evaluation(replace(plan, clips=[plan.clips[0]] * 2), folder, no_progress)


def test_damaged_results_are_not_taken_for_results(plan, folder):
    (folder / "results.jsonl").write_text('{"path": 1}\n{}\n', encoding="utf-8")
    with pytest.raises(EvaluationError, match="line 1"):
        run_evaluation(plan, folder, no_progress)


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.doc").write_text("x", encoding="utf-8")
    with pytest.raises(EvaluationError, match=r"no results\.jsonl"):
        check_folder(tmp_path)
    check_folder(tmp_path / "new")


def test_a_manifest_without_such_clips_is_an_error(manifest):
    with pytest.raises(InputError, match="song"):
        read_manifest(manifest, domain="song")


def test_every_metric_has_what_tables_need():
    for metric in METRICS.values():
        assert metric.better in ("higher", "lower")
        assert metric.heading.endswith(("↑", "↓"))


def test_other_audio_of_the_same_name_is_measured_anew(plan, folder):
    one = replace(plan, clips=plan.clips[:2])
    before = {row.key: row for row in run_evaluation(one, folder, no_progress).rows}
    changed = plan.clips[0].path
    sound, rate = soundfile.read(changed)
    soundfile.write(changed, 0.5 * sound[::-1], rate)
    calls = []
    # Not the noise: what it made of the old sound must not lie beside the new one.
    again = replace(one, openers=plan.openers[:1])
    outcome = run_evaluation(again, folder, lambda done, total: calls.append((done, total)))
    assert calls == [(1, 2), (2, 2)]
    after = {row.key: row for row in outcome.rows}
    for name, changes in (("speech0.wav", True), ("speech1.wav", False)):
        key = (name, "bytes", 1)
        assert (after[key].metrics["si_sdr"] != before[key].metrics["si_sdr"]) is changes
        assert (after[key].content != before[key].content) is changes
    (place,) = folder.glob("audio/speech0-*")
    assert {path.name for path in place.iterdir()} == {
        *("bytes-1.flac", "bytes-2.flac", "reference.flac")
    }
    for name in ("reference", "bytes-2"):
        kept, _ = soundfile.read(place / f"{name}.flac")
        np.testing.assert_allclose(kept, 0.5 * sound[::-1], atol=2 / 32768)
    assert ("speech0.wav", "noise") not in {(row["path"], row["model"]) for row in lines_of(folder)}


def test_another_text_is_measured_anew_where_it_counts(plan, folder):
    pytest.importorskip("jiwer")
    transcript = replace(
        plan,
        clips=plan.clips[:1],
        scoring_models=ScoringModelNames(asr_model="toy_codecs:recogniser"),
    )
    assert {row.metrics["wer"] for row in run_evaluation(transcript, folder, no_progress).rows} == {
        1 / 3
    }
    other = replace(transcript, clips=[replace(plan.clips[0], text="one too three")])
    assert {row.metrics["wer"] for row in run_evaluation(other, folder, no_progress).rows} == {0.0}


def test_the_text_does_not_count_without_a_recogniser(plan, folder):
    run_evaluation(replace(plan, clips=plan.clips[:1]), folder, no_progress)
    calls = []
    other = replace(plan, clips=[replace(plan.clips[0], text="other")])
    run_evaluation(other, folder, lambda done, total: calls.append(done))
    assert calls == [2]


def test_another_model_that_scores_measures_anew(plan, folder):
    def scored(scale):
        names = ScoringModelNames(opinion_model=f"toy_codecs:scaled_rater@{scale}")
        few = replace(plan, clips=plan.clips[:1], scoring_models=names)
        calls = []
        outcome = run_evaluation(few, folder, lambda done, total: calls.append(done))
        return [row.metrics["opinion_score"] for row in outcome.rows], calls

    once, _ = scored(1)
    twice, calls = scored(2)
    assert twice == pytest.approx([2 * score for score in once])
    assert calls == [0, 1, 2]
    assert scored(2) == (twice, [2])
    assert lines_of(folder)[0]["scorers"] == {"opinion_score": "toy_codecs:scaled_rater@2"}


def test_a_second_run_into_a_folder_is_refused_while_the_first_goes_on(plan, folder):
    refusals = []

    def begin_another(done, total):
        if not refusals:
            with pytest.raises(EvaluationError, match="in use by another run") as refusal:
                run_evaluation(plan, folder, no_progress)
            refusals.append(refusal)

    outcome = run_evaluation(plan, folder, begin_another)
    assert len(refusals) == 1
    assert [row.as_json() for row in outcome.rows] == lines_of(folder)
    run_evaluation(plan, folder, no_progress)


def test_a_folder_is_made_once_every_codec_is_open(plan, tmp_path):
    folder = tmp_path / "deep" / "run"
    with pytest.raises(InputError):
        run_evaluation(
            replace(plan, openers=[partial(open_baseline, "gramophone:78")]), folder, no_progress
        )
    assert not folder.parent.exists()
    run_evaluation(plan, folder, no_progress)
    assert (folder / "results.jsonl").is_file()


def test_a_run_stopped_before_its_first_row_goes_on(tmp_path):
    (tmp_path / "run.lock").touch()
    check_folder(tmp_path)


def test_results_cut_inside_a_letter_go_on(plan, folder):
    source = plan.clips[0].path
    clip = replace(plan.clips[0], path=source.rename(source.with_name("Öl.wav")), name="Öl.wav")
    few = replace(plan, clips=[clip])
    run_evaluation(few, folder, no_progress)
    whole = (folder / "results.jsonl").read_bytes()
    (folder / "results.jsonl").write_bytes(whole[: whole.rindex("Ö".encode()) + 1])
    calls = []
    run_evaluation(few, folder, lambda done, total: calls.append(done))
    assert calls == [1, 2]
    assert (folder / "results.jsonl").read_bytes() == whole


@pytest.mark.parametrize(
    "damage",
    [
        {"num_quantizers": [1]},
        {"num_quantizers": True},
        {"delay_ms": math.nan},
        {"delay_ms": 10**400},
        {"kbps": "8"},
        {"stoi": "good"},
        {"num_words": "three"},
        {"transcript": 3},
        {"language": ["en"]},
        {"clip_bytes": None},
        {"scorers": ["wer"]},
        {"scorers": {"wer": None}},
    ],
)
def test_a_row_with_values_of_another_kind_is_refused(plan, folder, damage):
    few = replace(plan, clips=plan.clips[:1])
    run_evaluation(few, folder, no_progress)
    first, *others = lines_of(folder)
    lines = [json.dumps(row) + "\n" for row in (first | damage, *others)]
    (folder / "results.jsonl").write_text("".join(lines), encoding="utf-8")
    with pytest.raises(EvaluationError, match=r"line 1: .*start with an empty -o"):
        run_evaluation(few, folder, no_progress)


@pytest.mark.parametrize("line", [b"\xff", b"[" * 100_000, b"3"])
def test_a_line_that_is_no_row_is_refused(plan, folder, line):
    (folder / "results.jsonl").write_bytes(line + b"\n")
    with pytest.raises(EvaluationError, match="line 1"):
        run_evaluation(plan, folder, no_progress)


def test_long_names_become_short_ones_that_differ(plan, folder):
    pytest.importorskip("matplotlib")
    domains = ["ü" * 300 + end for end in "ab"]
    music = next(clip for clip in plan.clips if clip.domain == "music")
    clips = [replace(music, domain=domain, name=domain) for domain in domains]
    few = replace(plan, clips=clips, metrics=("mel_distance",))
    write_results(folder, run_evaluation(few, folder, no_progress), clips, "t", "c")
    plots = [path.name for path in folder.glob("plots/*-mel_distance.png")]
    assert len(plots) == 2
    assert all(len(name.encode()) < 150 for name in plots)
    assert len(list(folder.glob("audio/*/noise.flac"))) == 2


def test_a_clip_that_is_gone_is_played_from_its_artifact(plan, folder):
    pytest.importorskip("matplotlib")
    few = replace(plan, clips=plan.clips[:1], metrics=("si_sdr",))
    write_results(folder, run_evaluation(few, folder, no_progress), few.clips, "t", "c")
    page = (folder / "report.html").read_bytes()
    rows = lines_of(folder)
    plan.clips[0].path.unlink()
    write_results(folder, run_evaluation(few, folder, no_progress), few.clips, "t", "c")
    assert (folder / "report.html").read_bytes() == page
    for path in folder.glob("audio/*/*.flac"):
        path.unlink()
    write_results(folder, run_evaluation(few, folder, no_progress), few.clips, "t", "c")
    assert "This clip was deleted" in (folder / "report.html").read_text("utf-8")
    assert lines_of(folder) == rows
