"""Decoder fine-tuning: only the decoder changes, and the report proves it."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from moss_audio_tokenizer.checkpoint.codec_checkpoint import Checkpoint, load_codec, save_codec
from moss_audio_tokenizer.config import preset
from moss_audio_tokenizer.errors import ConfigError, TrainingError
from moss_audio_tokenizer.llm import ByteText, random_language_model
from moss_audio_tokenizer.manifest import ManifestEntry
from moss_audio_tokenizer.model.codec import Codec
from moss_audio_tokenizer.semantic import SemanticHead
from moss_audio_tokenizer.training.codec import validation
from moss_audio_tokenizer.training.codec.codec_config import (
    PartsConfig,
    TrainingConfig,
    ValidationConfig,
    WarmStart,
)
from moss_audio_tokenizer.training.codec.codec_trainer import CodecTrainer
from moss_audio_tokenizer.training.codec.validation import ValidationResult, measure, summarize
from moss_audio_tokenizer.training.data.audio_rows import Clip
from moss_audio_tokenizer.training.run_config import override


def make_clip(domain: str, samples: int, channels: int = 1) -> Clip:
    random = np.random.default_rng(samples)
    values = random.integers(-9000, 9000, (channels, samples)).astype(np.int16)
    return Clip(ManifestEntry(Path("clip.wav"), domain), values)


def validate(codec, clips, depths, quantize: bool = True) -> ValidationResult:
    config = ValidationConfig(num_quantizers=depths)
    return summarize([measure(codec, clips, config, quantize)], codec.config, quantize)


@pytest.fixture
def measured(monkeypatch):
    """What the measures were asked: (name, samples of the reference, of the estimate, rate)."""
    calls = []

    def measure(name: str, value: float):
        def record(reference: np.ndarray, estimate: np.ndarray, rate: int) -> float:
            calls.append((name, reference.shape, estimate.shape, rate))
            return value * len(calls)

        return record

    monkeypatch.setattr(validation, "mel_distance", measure("mel", 1.0))
    monkeypatch.setattr(validation, "stoi", measure("stoi", 1.0))
    monkeypatch.setattr(validation, "gross_pitch_error", lambda left, right, rate: 0.25)
    return calls


def test_every_domain_is_measured_at_every_num_quantizers_and_speech_by_more(make_codec, measured):
    clips = [make_clip("speech", 160), make_clip("music", 160)]
    scalars = validate(make_codec(), clips, (1, 4)).scalars
    assert {name for name in scalars if "/" in name and "perplexity" not in name} == {
        "speech/mel_distance/1",
        "speech/mel_distance/4",
        "speech/stoi/1",
        "speech/stoi/4",
        "speech/pitch_error/1",
        "speech/pitch_error/4",
        "music/mel_distance/1",
        "music/mel_distance/4",
    }


def test_values_are_means_over_clips(make_codec, measured):
    clips = [make_clip("music", 160), make_clip("music", 80)]
    scalars = validate(make_codec(), clips, (2,)).scalars
    assert scalars["music/mel_distance/2"] == 1.5


@pytest.mark.parametrize(
    ("samples", "seconds", "expected"), [(160, 1.0, 160), (161, 1.0, 168), (900, 0.1, 80)]
)
def test_clips_are_cut_or_padded_to_whole_frames(
    make_codec, measured, monkeypatch, samples, seconds, expected
):
    monkeypatch.setattr(validation, "_MOST_SECONDS", seconds)
    validate(make_codec(), [make_clip("music", samples)], (1,))
    assert measured == [("mel", (expected,), (expected,), 800)]


def test_less_than_a_frame_is_a_frame(make_codec, measured, monkeypatch):
    monkeypatch.setattr(validation, "_MOST_SECONDS", 0.001)
    validate(make_codec(), [make_clip("music", 160)], (1,))
    assert measured[0][1] == (8,)


def test_stereo_is_measured_as_mono(make_codec, measured):
    result = validate(make_codec(2), [make_clip("music", 160, 2)], (1,))
    assert measured == [("mel", (160,), (160,), 800)]
    assert result.reference.shape == (160,)


def test_more_quantizers_than_the_codec_has_are_all_of_its_quantizers(make_codec, measured):
    scalars = validate(make_codec(), [make_clip("music", 80)], (4, 8, 32)).scalars
    assert [name for name in scalars if "mel" in name] == ["music/mel_distance/4"]


def test_without_quantizing_there_is_one_measurement_and_no_use_of_codes(make_codec, measured):
    scalars = validate(make_codec(), [make_clip("music", 80)], (1, 4), quantize=False).scalars
    assert set(scalars) == {"music/mel_distance/0", "score"}


def test_undefined_values_are_left_out(make_codec, measured, monkeypatch):
    values = iter((math.nan, 0.5, math.nan))
    monkeypatch.setattr(validation, "stoi", lambda *_: next(values))
    clips = [make_clip("speech", 80), make_clip("speech", 80)]
    assert validate(make_codec(), clips, (1,)).scalars["speech/stoi/1"] == 0.5
    assert "speech/stoi/1" not in validate(make_codec(), clips[:1], (1,)).scalars


@pytest.mark.parametrize("training", [True, False])
def test_the_codec_is_left_in_its_mode(make_codec, measured, training):
    codec = make_codec().train(training)
    validate(codec, [make_clip("music", 80)], (1,), 1.0)
    assert codec.training is training


def test_use_of_codes_is_perplexity_over_what_can_be_reached():
    even, single = torch.arange(16), torch.zeros(16, dtype=torch.long)
    use = validation._codebook_use(torch.stack((even, even % 4, single)), codebook_size=16)
    assert use == pytest.approx(
        {
            "perplexity/first": 1.0,
            "perplexity/middle": 0.25,
            "perplexity/last": 1 / 16,
            "perplexity/lowest": 1 / 16,
        }
    )


def test_parts_of_several_processes_are_measured_as_one(make_codec, measured, monkeypatch):
    monkeypatch.setattr(validation, "mel_distance", lambda left, right, rate: float(len(left)))
    monkeypatch.setattr(validation, "stoi", lambda left, right, rate: 1 / len(left))
    codec = make_codec()
    clips = [make_clip("music", 80), make_clip("speech", 160), make_clip("music", 240)]
    config = ValidationConfig(num_quantizers=(1, 4))
    parts = [measure(codec, clips[rank::2], config) for rank in range(2)]
    together = summarize([measure(codec, clips, config)], codec.config).scalars
    apart = summarize(parts, codec.config).scalars
    assert apart == pytest.approx(together)
    # Domains count the same: (80 + 240) / 2 and 160.
    assert apart["score"] == 160.0


def test_the_language_model_reads_one_clip(make_codec, measured):
    clips = [make_clip("speech", 80), make_clip("speech", 160)]
    clips[1] = replace(clips[1], entry=replace(clips[1].entry, text="HELLO"))
    codec = make_codec()
    reader = SemanticHead(random_language_model(16, 1, 2, 257), ByteText(), 12)
    config = ValidationConfig(num_quantizers=(4,))
    result = summarize([measure(codec, clips, config, semantic=reader)], codec.config)
    assert result.text == "HELLO"
    hidden = codec.encoder(torch.from_numpy(clips[1].cut(0, 160))[None])
    expected = reader.read(codec.quantizer.decode(codec.quantizer.encode(hidden))[0])
    assert result.reading == expected


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
