"""Studies: runs that differ in one thing, their tables and plots."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_speech import language_config, write_aligner, write_codes

from moss_audio_tokenizer.errors import ConfigError, TrainingError
from moss_audio_tokenizer.training.codec import validation
from moss_audio_tokenizer.training.loop import Loop
from moss_audio_tokenizer.training.recipes import trainer_for
from moss_audio_tokenizer.training.studies import CODEC_MEASURES, DEPTHS, STUDIES, Study, run_study
from moss_audio_tokenizer.training.study_measures import step_memory

VARIED = {
    "batch": "data",
    "end_to_end": "decoder_only_from",
    "reading_depth": "prefix_share",
    "sequence_dropout": "dropout",
    "width": "model",
}


@pytest.mark.parametrize("name", STUDIES)
def test_the_runs_of_a_study_differ_in_one_thing(name):
    runs = list(STUDIES[name]().runs.values())
    assert len(set(runs)) == len(runs) >= 2
    for config in runs:
        assert replace(config, **{VARIED[name]: getattr(runs[0], VARIED[name])}) == runs[0]


@pytest.mark.parametrize("name", STUDIES)
def test_the_runs_of_a_study_validate_at_its_num_quantizers(name):
    study = STUDIES[name]()
    for config in study.runs.values():
        assert config.validation.num_quantizers == study.depths


def test_sequence_dropout_is_studied_without_what_else_the_recipe_does():
    for config in STUDIES["sequence_dropout"]().runs.values():
        assert (config.dropout.skew, config.soft_targets.share, config.half_weight_at) == (1, 0, 0)
        assert (config.num_quantizers, config.hidden_dropout, config.scored_share) == (0, 0, 0.5)
        assert config.recognition_weight == 0


@pytest.fixture
def quick_study(monkeypatch, make_recipe):
    """Two runs of three steps."""
    monkeypatch.setattr(validation, "mel_distance", lambda left, right, rate: 1.5)
    monkeypatch.setattr(validation, "stoi", lambda left, right, rate: 0.75)
    monkeypatch.setattr(validation, "gross_pitch_error", lambda left, right, rate: 0.5)
    base = make_recipe(
        max_steps=3,
        validation=validation.ValidationConfig(every=3, clips=2, num_quantizers=DEPTHS),
    )
    runs = {"one seed": base, "another": replace(base, seed=1)}
    study = Study("Does the seed matter?", runs, "depth", CODEC_MEASURES, DEPTHS)
    monkeypatch.setitem(STUDIES, "seed", lambda: study)


def test_a_study_leaves_runs_table_and_plot_and_keeps_what_is_done(quick_study, tmp_path):
    lines: list[str] = []
    folder = run_study("seed", str(tmp_path / "study"), [], lines.append)
    assert "| one seed | 1.500 | 1.500 | 1.500 | nan |" in (folder / "study.md").read_text()
    assert (folder / "study.png").read_bytes().startswith(b"\x89PNG")
    summary = json.loads((folder / "study.json").read_text())
    assert summary["runs"].keys() == {"one seed", "another"}
    assert (folder / "one-seed" / "final").is_dir()
    again: list[str] = []
    run_study("seed", str(folder), [], again.append)
    assert again == ["== one seed", "== another"]


@pytest.mark.parametrize(
    ("name", "measures"), [("sequence_dropout", ["codes"]), ("reading_depth", ["wer", "cer"])]
)
def test_language_models_are_compared_by_num_quantizers(name, measures, tmp_path):
    keys = ["model.width=16", "model.num_layers=1", "device=cpu"]
    keys += ["model.start_from_codec=False", "data.codec=", "data.languages=()", "max_steps=2"]
    keys += [f"data.manifest={write_codes(tmp_path)}", "data.batch_seconds=3", "peak_tflops=1"]
    if name == "sequence_dropout":
        keys += ["model.width=64", f"aligner={write_aligner(tmp_path / 'aligner')}"]
    folder = run_study(name, str(tmp_path / "study"), keys, lambda _: None)
    summary = json.loads((folder / "study.json").read_text())
    study = STUDIES[name]()
    assert list(summary["runs"]) == list(study.runs)
    lines = (folder / "study.md").read_text().splitlines()
    for measure in measures:
        head = "| depth 1 | depth 2 | depth 4 | depth 8 | depth 16 | depth 32 |"
        assert f"| {study.measures[measure]} {head}" in lines
        for label, (measured,) in summary["runs"].items():
            ends = [measured[-1].get(f"{measure}/{depth}", math.nan) for depth in study.depths]
            assert all(map(math.isfinite, ends[:2]))
            assert f"| {label} | {' | '.join(f'{end:.3f}' for end in ends)} |" in lines
    assert (folder / "study.png").read_bytes().startswith(b"\x89PNG")
    if name == "sequence_dropout":
        megabytes = [measured[-1]["step_megabytes"] for (measured,) in summary["runs"].values()]
        assert megabytes == sorted(megabytes, reverse=True)
        assert f"| p 1 | {megabytes[-1]:.1f} |" in lines


def test_what_is_kept_for_the_backward_pass_is_counted_once(tmp_path):
    config = language_config("asr", tmp_path / "run", write_codes(tmp_path))
    trainer = trainer_for(config, report=lambda _: None)
    trainer.close()
    found = step_memory(trainer)
    assert found == step_memory(trainer) > 0
    assert all(weight.grad is None for weight in trainer.task.parameters())
    weight, rows = torch.ones(8, 4, requires_grad=True), torch.ones(2, 4)
    trainer.trained_module = lambda: torch.nn.ParameterList([weight])
    # The product keeps the rows and the weight, the exponential its result, 2 x 8 floats.
    trainer.losses = lambda *_: {"total": (rows @ weight.T).exp().exp().sum()}
    assert step_memory(trainer) == pytest.approx((2 * 4 + 2 * 2 * 8) * 4 / 1e6)


def test_runs_of_several_seeds_have_means_and_intervals(quick_study, tmp_path, monkeypatch):
    base = STUDIES["seed"]().runs["one seed"]
    study = Study("Is it chance?", {"one run": base}, "steps", CODEC_MEASURES, DEPTHS, (3, 5, 8))
    monkeypatch.setitem(STUDIES, "seed", lambda: study)
    values = iter(np.repeat([1.0, 2.0, 3.0], 6))
    monkeypatch.setattr(validation, "mel_distance", lambda left, right, rate: next(values))
    lines: list[str] = []
    folder = run_study("seed", str(tmp_path / "study"), [], lines.append)
    # The 95% interval of Student's t for 1, 2 and 3: 2 +- 4.303 / sqrt(3).
    assert "| one run | 2.000 ± 2.484 | 2.000 ± 2.484 |" in (folder / "study.md").read_text()
    assert [line for line in lines if line.startswith("==")] == [
        f"== one run, seed {seed}" for seed in (3, 5, 8)
    ]
    assert len(json.loads((folder / "study.json").read_text())["runs"]["one run"]) == 3
    for seed in (3, 5, 8):
        recipe = json.loads((folder / f"one-run-seed-{seed}" / "recipe.json").read_text())
        assert recipe["seed"] == seed
    with pytest.raises(ConfigError, match="would be the same"):
        run_study("seed", str(tmp_path / "other"), ["seed=7"], lines.append)


def test_a_study_keeps_runs_from_before_a_key_existed(quick_study, tmp_path):
    folder = run_study("seed", str(tmp_path / "study"), [], lambda _: None)
    expected = (folder / "study.md").read_text()
    for path in folder.glob("*/recipe.json"):
        recipe = json.loads(path.read_text())
        del recipe["keep_best"], recipe["warm_start"]["low_band"]
        path.write_text(json.dumps(recipe))
    run_study("seed", str(folder), [], lambda _: None)
    assert (folder / "study.md").read_text() == expected


def test_a_study_keeps_no_run_of_other_keys_and_no_torn_log(quick_study, tmp_path):
    folder = run_study("seed", str(tmp_path / "study"), [], lambda _: None)
    with pytest.raises(TrainingError, match="made with other keys"):
        run_study("seed", str(folder), ["peak_tflops=2"], lambda _: None)
    (folder / "another" / "validation.jsonl").write_text("{")
    with pytest.raises(TrainingError, match="cannot be read"):
        run_study("seed", str(folder), [], lambda _: None)


def test_a_key_that_makes_runs_equal_is_refused(quick_study, tmp_path):
    with pytest.raises(ConfigError, match="would be the same"):
        run_study("seed", str(tmp_path), ["seed=7"], lambda _: None)
    assert not list(tmp_path.iterdir())


def test_a_stopped_run_ends_its_study(quick_study, tmp_path, monkeypatch):
    monkeypatch.setattr(Loop, "_run_steps", lambda self, log: self._save())
    lines: list[str] = []
    with pytest.raises(TrainingError, match="stopped; give the same command again"):
        run_study("seed", str(tmp_path / "study"), [], lines.append)
    assert "== another" not in lines


def test_studies_that_cannot_be(tmp_path):
    with pytest.raises(ConfigError, match=r"no study 'sleep'; there are batch.*, width"):
        run_study("sleep", str(tmp_path), [])
    with pytest.raises(TrainingError, match="output=DIR"):
        run_study("width", "", [])
    with pytest.raises(ConfigError, match="unknown key"):
        run_study("width", str(tmp_path), ["nonsense=1"])
    assert not list(Path(tmp_path).iterdir())
