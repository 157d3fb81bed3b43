"""`moss-audio eval asr` and `eval tts`: what they write, print and refuse."""

import json
import sys

import numpy as np
import pytest
import soundfile

from moss_audio_tokenizer.cli import evaluate_speech
from moss_audio_tokenizer.cli.evaluate_speech import asr_model_labels, labelled
from moss_audio_tokenizer.errors import InputError
from moss_audio_tokenizer.speech.synthesizer import Speech

pytest.importorskip("jiwer")
pytest.importorskip("matplotlib")
pytest.importorskip("scipy")

DEPTHS = ["-n", "1,2"]


class AsrSystem:
    identity, num_quantizers = "asr", 4

    def transcribe_codes(self, clips, num_quantizers, num_beams=1):
        return [f"word {num_beams}" if num_quantizers > 1 else "word" for _ in clips]


class TtsSystem:
    identity, num_quantizers, kbps_per_quantizer = "tts", 4, 0.125

    def synthesize(self, requests, num_quantizers, seed):
        sound = (0.2 * np.sin(np.arange(4_000) / 5)).astype(np.float32)
        return [Speech(sound, 8_000, np.zeros((1, 1), int), True) for _ in requests]


@pytest.fixture
def opened(codec, monkeypatch):
    """Toys in place of models; what they were opened with."""
    calls = []

    def asr_system(name, codec, device):
        calls.append((name, device))
        return AsrSystem()

    def system(name, codec, device, **sampling):
        calls.append((name, codec, device, sampling))
        return TtsSystem()

    monkeypatch.setattr(evaluate_speech, "open_asr_system", asr_system)
    monkeypatch.setattr(evaluate_speech, "open_tts_system", system)
    module = type(sys)("toy_scoring")
    module.save_audio = lambda: lambda samples, rate: "word 2"
    module.rate = lambda: lambda samples, rate: 3.25
    monkeypatch.setitem(sys.modules, "toy_scoring", module)
    return calls


@pytest.fixture
def manifest(tmp_path):
    lines = []
    for index in range(2):
        soundfile.write(tmp_path / f"{index}.wav", 0.1 * np.sin(np.arange(4_000) / 7), 8_000)
        lines.append({"path": f"{index}.wav", "text": "Word, 2!", "split": "valid"})
    path = tmp_path / "manifest.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


def rows_of(folder):
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def test_eval_asr_leaves_rows_tables_plots_and_a_page(
    opened, moss_audio, manifest, tmp_path, names_in
):
    folder = tmp_path / "runs" / "wer"
    options = ["--model", "runs/a", "--num-beams", 2, "--split", "valid", *DEPTHS, "-o", folder]
    result = moss_audio("eval", "asr", manifest, *options)
    assert result.exit_code == 0, result.output
    rows = rows_of(folder)
    assert [(row["num_quantizers"], row["wer"]) for row in rows] == [(1, 0.5)] * 2 + [(2, 0.0)] * 2
    expected = {"results.jsonl", "run.lock", "summary.json", "summary.md", "report.html"}
    assert names_in(folder) == expected | {"plots/wer.png", "plots/cer.png"}
    assert "| a | 1 | 2 | 0.500 ± 0.000 |" in result.stdout
    assert opened == [("runs/a", "cpu")]


def test_eval_tts_compares_models_by_layers(opened, json_of, manifest, tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("word\nword 2\n", "utf-8")
    folder = tmp_path / "run"
    models = ["--model", "runs/p0/final", "--model", "runs/p1/final", "--top-k", 9]
    models += ["--guidance", 2]
    scoring = ["--recogniser", "toy_scoring:save_audio", "--prompts", manifest]
    document = json_of("eval", "tts", texts, *models, *scoring, *DEPTHS, "-o", folder)
    assert [(one["model"], one["num_quantizers"]) for one in document["points"]] == [
        *(("p0/final", 1), ("p0/final", 2), ("p1/final", 1), ("p1/final", 2))
    ]
    found = document["points"][0]["metrics"]
    # One of two words of the first text came too much, over three words.
    assert found["WER, toy_scoring:save_audio"]["mean"] == pytest.approx(1 / 3)
    assert found["SIM"]["num_clips"] == 2
    assert any("not speaker verification" in note for note in document["notes"])
    assert len(list(folder.glob("audio/*/*.flac"))) == 2 * 2 * 2
    assert opened[0][3] == {
        "temperature": None,
        "top_k": 9,
        "top_p": 0.95,
        "repetition_penalty": 1.1,
        "guidance": 2.0,
        "code_choice": None,
    }
    assert (folder / "report.html").read_text("utf-8").count("<audio") == 2 * (1 + 2)


def test_a_preset_takes_the_scoring_models_that_are_named(opened, json_of, manifest, tmp_path):
    table3 = ["compare", manifest, "--preset", "table3", "--model", "runs/a/final", *DEPTHS]
    scoring = ["--asr-model", "toy_scoring:save_audio", "--speaker-model", "mfcc"]
    scoring += ["--opinion-model", "toy_scoring:rate"]
    document = json_of(*table3, *scoring, "-o", tmp_path / "run")
    (first, _) = document["points"]
    assert (first["model"], first["num_texts"]) == ("a/final", 2)
    assert first["metrics"]["WER, toy_scoring:save_audio"]["mean"] == 0.0
    assert first["metrics"]["opinion"]["mean"] == 3.25
    assert "opinion model: toy_scoring:rate" in document["notes"]
    assert {row["opinion"] for row in rows_of(tmp_path / "run")} == {3.25}
    assert "CAT-TTS <" in (tmp_path / "run" / "report.html").read_text("utf-8")


def test_table_4_compares_texts_as_whisper_does(opened, moss_audio, manifest, tmp_path):
    pytest.importorskip("whisper_normalizer")
    table4 = ["compare", manifest, "--preset", "table4", "--model", "a", *DEPTHS]
    result = moss_audio(*table4, "-o", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert "Whisper-Large-v3" in result.stdout


@pytest.mark.parametrize("preset", ["table3", "table4"])
def test_presets_measure_the_installed_model_unless_told_otherwise(
    opened, moss_audio, manifest, tmp_path, preset
):
    pytest.importorskip("whisper_normalizer")
    run = ["compare", manifest, "--preset", preset, *DEPTHS, "-o", tmp_path / "run"]
    run += ["--asr-model", "toy_scoring:save_audio"] if preset == "table3" else []
    result = moss_audio(*run, "--text-normalization", "whisper")
    assert result.exit_code == 0, result.output
    assert [call[0] for call in opened] == ["bundled"]
    assert "| bundled | 1 | 2 |" in result.stdout


def test_table_3_imitates_the_voices_of_prompts(opened, json_of, refused, manifest, tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("word\nword 2\n", "utf-8")
    prompts = ["--prompts", manifest]
    table3 = ["compare", texts, "--preset", "table3", *DEPTHS, "-o", tmp_path / "run"]
    scoring = ["--asr-model", "toy_scoring:save_audio", "--speaker-model", "mfcc"]
    document = json_of(*table3, *scoring, *prompts)
    assert document["points"][0]["metrics"]["SIM"]["num_clips"] == 2
    assert [row["prompt"] for row in rows_of(tmp_path / "run")] == ["0.wav", "1.wav"] * 2
    table4 = ["compare", manifest, "--preset", "table4", *prompts, "-o", tmp_path / "other"]
    assert "has no use for --prompts" in refused(*table4)
    line = refused("compare", manifest, *prompts, "-o", tmp_path / "other")
    assert "--prompts is for speech synthesis: --preset table3" in line


def test_a_preset_of_speech_models_refuses_what_it_cannot_use(opened, refused, manifest, tmp_path):
    run = ["--model", "a", "-o", tmp_path / "run"]
    line = refused("compare", manifest, "--preset", "table3", "--codec", "opus:6", *run)
    assert "has no use for --codec; leave it out" in line
    line = refused("compare", manifest, "--preset", "table4", "--asr-model", "whisper", *run)
    assert "has no use for --asr-model; leave it out" in line
    assert not (tmp_path / "run").exists()


def test_a_manifest_named_asr_is_still_measured(opened, refused, tmp_path):
    line = refused("eval", "./asr", "-o", tmp_path / "run")
    assert "no manifest at 'asr'" in line


def test_help_of_both(moss_audio):
    for command in ("eval asr", "eval tts"):
        assert command in moss_audio("-h").stdout
        text = moss_audio(*command.split(), "--help").stdout
        assert f"Example: moss-audio {command} " in text
    assert "MANIFEST" in moss_audio("eval", "--help").stdout


def test_what_cannot_be_is_refused_before_any_work(opened, refused, manifest, tmp_path):
    run = ["-o", tmp_path / "run"]
    line = refused("eval", "asr", manifest, "--model", "a", "--num-quantizers", 5, *run)
    assert "expected 1 to 4 for 'a'" in line
    assert "--model" in refused("eval", "tts", manifest, *run)
    twice = ["--model", "a", "--model", "a/"]
    assert "given twice" in refused("eval", "asr", manifest, *twice, *run)
    scoring = ["--recogniser", "none", "--speaker-model", "none"]
    assert "no scoring model" in refused("eval", "tts", manifest, "--model", "a", *scoring, *run)
    full = tmp_path / "full"
    full.mkdir()
    (full / "diary.txt").write_text("mine")
    assert "name a new folder" in refused("eval", "asr", manifest, "--model", "a", "-o", full)
    (full / "results.jsonl").write_text('{"path": "a", "domain": "speech", "text": "b"}\n')
    assert "of such a run" in refused("eval", "asr", manifest, "--model", "a", "-o", full)
    assert not (tmp_path / "run").exists()


def test_a_run_that_broke_off_can_be_repeated(opened, moss_audio, manifest, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "results.jsonl").touch()
    (folder / "audio").mkdir()
    options = ["--model", "a", *DEPTHS, "-o", folder]
    for _ in range(2):
        assert moss_audio("eval", "asr", manifest, *options).exit_code == 0
    assert len(rows_of(folder)) == 4


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["runs/a/final"], ["a/final"]),
        (["runs/step-000600", "bundled"], ["runs/step-000600", "bundled"]),
        (["runs/a/final", "runs/b/final"], ["a/final", "b/final"]),
        (["a", "b/a"], ["a", "b/a"]),
        (["one", "two/"], ["one", "two"]),
    ],
)
def test_labels_are_as_short_as_they_can_be(names, labels):
    assert list(labelled(names)) == labels
    with pytest.raises(InputError, match="twice"):
        labelled([*names, names[0]])


def test_asr_models_are_called_by_their_files():
    names = ["pocketsphinx", "pocketsphinx:a/words.txt", "cat:runs/asr", "toy:save_audio"]
    short = ["pocketsphinx", "pocketsphinx:words.txt", "cat:asr", "toy:save_audio"]
    assert list(asr_model_labels(names).values()) == short
    both = ["cat:one/final", "cat:two/final"]
    assert list(asr_model_labels(both).values()) == both
