"""Decoder fine-tuning: only the decoder changes, and the report proves it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from moss_audio_tokenizer.checkpoint.codec_checkpoint import Checkpoint, load_codec, save_codec
from moss_audio_tokenizer.config import preset
from moss_audio_tokenizer.errors import ConfigError, TrainingError
from moss_audio_tokenizer.model.codec import Codec
from moss_audio_tokenizer.training.codec import validation
from moss_audio_tokenizer.training.codec.codec_config import (
    PartsConfig,
    TrainingConfig,
    ValidationConfig,
    WarmStart,
)
from moss_audio_tokenizer.training.codec.codec_trainer import CodecTrainer
from moss_audio_tokenizer.training.run_config import override


@pytest.fixture(autouse=True)
def quick_measures(monkeypatch):
    monkeypatch.setattr(validation, "mel_distance", lambda left, right, rate: 1.5)
    monkeypatch.setattr(validation, "stoi", lambda left, right, rate: 0.5)
    monkeypatch.setattr(validation, "gross_pitch_error", lambda left, right, rate: 0.5)


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    codec = Codec(preset("tiny"))
    codec.initialize(torch.Generator().manual_seed(0))
    folder = tmp_path / "start"
    folder.mkdir()
    save_codec(codec, folder)
    return folder


@pytest.fixture
def recipe(make_recipe, checkpoint) -> TrainingConfig:
    return make_recipe(
        model="bundled",  # the checkpoint's configuration counts
        train=PartsConfig(str(checkpoint), "decoder"),
        warm_start=WarmStart(steps=0, samples=0),
        validation=ValidationConfig(every=100, clips=2, num_quantizers=(4,)),
    )


def run(config: TrainingConfig, resume: bool = False) -> Path:
    return CodecTrainer(config, resume, report=lambda _: None).run()


def weights(folder: Path) -> dict[str, torch.Tensor]:
    with Checkpoint(folder) as opened:
        return load_codec(opened).state_dict()


def report_of(config: TrainingConfig) -> dict:
    return json.loads((Path(config.output) / "frozen.json").read_text())


def test_only_the_decoder_changes_and_the_report_says_so(recipe, checkpoint):
    before, after = weights(checkpoint), weights(run(recipe))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.startswith("decoder.")}
    report = report_of(recipe)
    assert report["identical"] is True
    assert report["before"] == report["after"]
    assert report["before"].keys() == {"encoder", "quantizer", "codes"}
    assert report["validation_clips"] == 2


def test_a_resumed_run_is_held_against_the_first_start(recipe):
    run(replace(recipe, max_steps=3))
    (Path(recipe.output) / "final").rename(Path(recipe.output) / "aside")
    run(recipe, resume=True)
    assert report_of(recipe)["identical"] is True
    (Path(recipe.output) / "frozen.json").write_text("{")
    with pytest.raises(TrainingError, match=r"frozen\.json"):
        run(replace(recipe, max_steps=8), resume=True)


@pytest.mark.parametrize("part", ["encoder", "quantizer"])
def test_a_change_of_what_is_frozen_is_found(recipe, part):
    trainer = CodecTrainer(recipe, report=lambda _: None)
    with torch.no_grad():
        next(getattr(trainer.task.codec, part).parameters()).mul_(1.5)
    with pytest.raises(TrainingError, match="frozen has changed"):
        trainer.run()
    report = report_of(recipe)
    assert report["identical"] is False
    assert report["before"][part] != report["after"][part]
    assert not (Path(recipe.output) / "final").exists()


def test_after_the_encoder_everything_trains(recipe, checkpoint):
    config = override(recipe, ["train.parts=after_encoder"])
    before, after = weights(checkpoint), weights(run(config))
    same = {name.split(".")[0] for name in before if torch.equal(before[name], after[name])}
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert same == {"encoder"}
    assert changed == {"quantizer", "decoder"}
    assert report_of(recipe)["before"].keys() == {"encoder"}


def test_other_validation_clips_are_refused_at_the_start(recipe):
    run(replace(recipe, max_steps=3))
    fewer = override(recipe, ["validation.clips=1"])
    with pytest.raises(TrainingError, match=r"began with 2 validation clips.*validation\.clips"):
        CodecTrainer(fewer, resume=True, report=lambda _: None)


SEMANTIC = ("semantic.llm=random", "semantic.width=16", "data.text_share=0.5")


def test_the_language_model_alone_learns_to_read_a_frozen_codec(recipe, checkpoint, spoken):
    keys = ["train.parts=semantic", f"data.manifest={spoken}", "data.batch_seconds=1.0", *SEMANTIC]
    config = override(recipe, keys)
    before, final = weights(checkpoint), run(config)
    assert all(torch.equal(value, before[name]) for name, value in weights(final).items())
    assert report_of(config)["before"].keys() == {"encoder", "quantizer", "decoder", "codes"}
    read = load_file(final / "semantic.safetensors")
    start = load_file(Path(config.output) / "checkpoints/step-000003/semantic.safetensors")
    assert any(not torch.equal(read[name], value) for name, value in start.items())


def test_all_parts_can_start_from_a_checkpoint(recipe, checkpoint):
    config = replace(recipe, train=PartsConfig(str(checkpoint), "all"))
    trained = weights(run(config))
    start = weights(checkpoint)
    assert any(not torch.equal(start[n], trained[n]) for n in start if n.startswith("encoder."))
    assert not (Path(config.output) / "frozen.json").exists()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ("train.parts=encoder", ConfigError),
        ("train.checkpoint=", ConfigError),
        ("warm_start.samples=512", ConfigError),
    ],
)
def test_recipes_that_cannot_be(recipe, change, error):
    with pytest.raises(error):
        override(recipe, [change])


def test_speakers_that_are_not_in_the_data_are_refused(recipe):
    config = override(recipe, ["data.speakers=('nobody',)"])
    with pytest.raises(TrainingError, match="nobody"):
        CodecTrainer(config, report=lambda _: None)


def test_one_speakers_clips(recipe, tmp_path, manifest):
    lines = [json.loads(line) for line in Path(manifest).read_text().splitlines()]
    for line in lines:
        line["path"] = str(Path(manifest).parent / line["path"])
        line["speaker"] = "ada" if line["domain"] == "speech" else "bob"
    mine = tmp_path / "mine.jsonl"
    mine.write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = override(recipe, [f"data.manifest={mine}", "data.speakers=('ada',)"])
    trainer = CodecTrainer(config, report=lambda _: None)
    names = {Path(name).name for step in range(8) for name in trainer.data.batch(step).names}
    trainer.close()
    assert names == {"speech-0.wav", "speech-1.wav"}
