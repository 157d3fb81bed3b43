"""Recipes and studies are configurations that fit their models."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from moss_audio_tokenizer.errors import ConfigError, TrainingError
from moss_audio_tokenizer.training import studies, validation
from moss_audio_tokenizer.training.assembly import codec_config
from moss_audio_tokenizer.training.loop import Loop
from moss_audio_tokenizer.training.recipes import RECIPES, recipe
from moss_audio_tokenizer.training.studies import DEPTHS, STUDIES, run_study


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_fits_its_model(name):
    config = recipe(name)
    assert codec_config(config).sampling_rate >= 24_000
    if config.adversarial.start:
        assert config.adversarial.start < config.max_steps


def test_the_papers_run_is_the_papers():
    config = recipe("v1")
    assert (config.max_steps, config.adversarial.start) == (1_020_000, 520_000)
    assert config.data.batch_change == (520_000, 0.5)
    assert config.data.batch_seconds == 5 * 3600
    assert config.optimizer.learning_rate == 1e-4
    weights = config.losses
    found = (weights.semantic, weights.mel, weights.commitment, weights.codebook)
    assert (*found, weights.adversarial, weights.features) == (20, 15, 0.25, 1, 1, 2)


@pytest.mark.parametrize("name", STUDIES)
def test_the_runs_of_a_study_differ_in_one_thing(name):
    runs = list(STUDIES[name]().runs.values())
    assert len(set(runs)) == len(runs) >= 2
    for config in runs:
        allowed = {
            "batch": replace(config, data=runs[0].data),
            "end_to_end": replace(config, decoder_only_from=0),
            "width": replace(config, model=runs[0].model),
        }
        assert allowed[name] == runs[0]


@pytest.fixture
def quick_study(monkeypatch, make_recipe):
    """Two runs of three steps."""
    monkeypatch.setattr(validation, "mel_distance", lambda left, right, rate: 1.5)
    monkeypatch.setattr(validation, "stoi", lambda left, right, rate: 0.75)
    monkeypatch.setattr(validation, "gross_pitch_error", lambda left, right, rate: 0.5)
    base = make_recipe(
        max_steps=3,
        validation=validation.ValidationConfig(
            every=3, clips=2, max_seconds=0.2, num_quantizers=DEPTHS
        ),
    )
    runs = {"one seed": base, "another": replace(base, seed=1)}
    study = studies.Study("Does the seed matter?", runs, "depth")
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


def test_a_study_keeps_no_run_of_other_keys_and_no_torn_log(quick_study, tmp_path):
    folder = run_study("seed", str(tmp_path / "study"), [], lambda _: None)
    with pytest.raises(TrainingError, match="made with other keys"):
        run_study("seed", str(folder), ["log_every=1"], lambda _: None)
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
    with pytest.raises(ConfigError, match="no study 'sleep'; there are batch"):
        run_study("sleep", str(tmp_path), [])
    with pytest.raises(TrainingError, match="output=DIR"):
        run_study("width", "", [])
    with pytest.raises(ConfigError, match="unknown key"):
        run_study("width", str(tmp_path), ["nonsense=1"])
    assert not list(Path(tmp_path).iterdir())
