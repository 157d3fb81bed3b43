"""Discriminators, their losses against slow sums in float64, their step and their files."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from micro_batch_rows import make_rows

from moss_audio_tokenizer.checkpoint.codec_checkpoint import Checkpoint, load_codec
from moss_audio_tokenizer.errors import CheckpointError, ConfigError, TrainingError
from moss_audio_tokenizer.training.codec.adversarial import (
    Adversary,
    discriminator_loss,
    feature_loss,
    generator_loss,
)
from moss_audio_tokenizer.training.codec.codec_config import ADVERSARIAL_KINDS as KINDS
from moss_audio_tokenizer.training.codec.codec_config import (
    AdversarialConfig,
    DiscriminatorConfig,
    ValidationConfig,
)
from moss_audio_tokenizer.training.codec.codec_task import CodecTask
from moss_audio_tokenizer.training.codec.codec_trainer import CodecTrainer
from moss_audio_tokenizer.training.codec.discriminators import (
    BandDiscriminator,
    Discriminators,
    load_discriminators,
    save_discriminators,
)
from moss_audio_tokenizer.training.distributed import Processes
from moss_audio_tokenizer.training.run_config import override


def maps_of(seed: int) -> list[list[torch.Tensor]]:
    random = torch.Generator().manual_seed(seed)
    shapes = [[(2, 3, 5), (2, 1, 4)], [(2, 2, 7), (2, 6, 3), (2, 1, 9)]]
    return [[torch.randn(shape, generator=random) for shape in of_one] for of_one in shapes]


def slow(kind: str, real, fake) -> tuple[float, float, float]:
    """Element by element, in float64."""
    judged = generated = features = 0.0
    for reals, fakes in zip(real, fake, strict=True):
        r, f = (maps[-1].double().numpy() for maps in (reals, fakes))
        if kind == "lsgan":
            judged += np.mean((1 - r) ** 2) + np.mean(f**2)
            generated += np.mean((1 - f) ** 2)
        else:
            judged += np.mean(np.maximum(0, 1 - r)) + np.mean(np.maximum(0, 1 + f))
            generated += np.mean(-f)
        for left, right in zip(reals[:-1], fakes[:-1], strict=True):
            features += np.mean(np.abs(left.double().numpy() - right.double().numpy()))
    return judged, generated, features


@pytest.mark.parametrize("kind", KINDS)
def test_sums_over_discriminators_of_means_over_maps(kind):
    real, fake = maps_of(0), maps_of(1)
    expected = slow(kind, real, fake)
    got = (
        discriminator_loss(real, fake, kind),
        generator_loss(fake, kind),
        feature_loss(real, fake),
    )
    np.testing.assert_allclose([float(value) for value in got], expected, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_perfect_discriminator_loses_nothing(kind):
    low = 0.0 if kind == "lsgan" else -1.0
    real, fake = [[torch.ones(2, 1, 5)]], [[torch.full((2, 1, 5), low)]]
    assert float(discriminator_loss(real, fake, kind)) == 0


def test_features_of_recordings_are_targets():
    real, fake = maps_of(0), maps_of(1)
    for maps in (real, fake):
        for of_one in maps:
            for item in of_one:
                item.requires_grad_()
    feature_loss(real, fake).backward()
    assert all(item.grad is None for of_one in real for item in of_one)
    assert all(item.grad is not None for of_one in fake for item in of_one[:-1])
    assert all(of_one[-1].grad is None for of_one in fake)


SMALL = DiscriminatorConfig(periods=(2, 3), windows=(64,), channel_divisor=16)


def parameters(module) -> int:
    """Weights as the sources count them: a weight norm's lengths are part of its weights."""
    return sum(p.numel() for name, p in module.named_parameters() if "original0" not in name)


def test_the_full_ones_have_the_published_sizes():
    with torch.device("meta"):
        full = Discriminators(DiscriminatorConfig())
    assert [round(parameters(p) / 1e6, 2) for p in full.periods] == [8.22] * 5
    assert [round(parameters(s) / 1e6, 2) for s in full.spectra] == [0.47] * 3


@pytest.mark.parametrize("samples", [200, 333])
@pytest.mark.parametrize("channels", [1, 2])
def test_every_discriminator_scores_every_row(samples, channels):
    maps = Discriminators(SMALL)(torch.randn(3, channels, samples))
    assert [len(item) for item in maps] == [6, 6, 26]
    assert all(item.shape[0] == 3 * channels for of_one in maps for item in of_one)
    assert all(of_one[-1].shape[1] == 1 for of_one in maps)


def test_level_and_direct_current_change_no_score():
    discriminators = Discriminators(SMALL)
    audio = torch.randn(1, 300)
    for plain, changed in zip(
        discriminators(audio), discriminators(0.01 * audio + 0.3), strict=True
    ):
        torch.testing.assert_close(plain[-1], changed[-1], atol=1e-3, rtol=1e-3)


def test_silence_gives_finite_gradients():
    audio = torch.zeros(1, 256, requires_grad=True)
    total = sum(maps[-1].sum() for maps in Discriminators(SMALL)(audio))
    total.backward()
    assert audio.grad.isfinite().all()


def test_a_tone_lies_in_its_bin():
    time = torch.arange(4096) / 16_000
    spectrum = BandDiscriminator(512).spectrogram(torch.sin(2 * torch.pi * 2000 * time)[None])
    assert spectrum.shape == (1, 2, 32, 257)
    magnitude = spectrum.square().sum(1).sqrt()
    assert (magnitude[0, 2:-2].argmax(-1) == 2000 * 512 // 16_000).all()


def test_files_bring_back_the_same(tmp_path):
    discriminators = Discriminators(SMALL)
    path = tmp_path / "discriminators.safetensors"
    save_discriminators(discriminators, path)
    loaded = load_discriminators(path)
    assert loaded.config == SMALL
    audio = torch.randn(1, 1, 300)
    for left, right in zip(discriminators(audio), loaded(audio), strict=True):
        assert torch.equal(left[-1], right[-1])


@pytest.mark.parametrize("damage", ["missing", "empty", "garbage", "truncated", "foreign"])
def test_other_files_are_refused(tmp_path, damage):
    path = tmp_path / "discriminators.safetensors"
    save_discriminators(Discriminators(SMALL), path)
    whole = path.read_bytes()
    contents = {"empty": b"", "garbage": b"x" * 100, "truncated": whole[:-9]}
    if damage == "missing":
        path.unlink()
    elif damage == "foreign":
        from safetensors.torch import save_file

        save_file({"x": torch.zeros(2)}, path)
    else:
        path.write_bytes(contents[damage])
    with pytest.raises(CheckpointError, match="discriminators"):
        load_discriminators(path)


@pytest.mark.parametrize(
    "wrong",
    [{"periods": (1,)}, {"windows": (30,)}, {"channel_divisor": 0}, {"periods": (), "windows": ()}],
)
def test_configurations_that_cannot_be(wrong):
    with pytest.raises(ConfigError):
        DiscriminatorConfig(**wrong)


DISCRIMINATORS = DiscriminatorConfig(periods=(2, 3), windows=(64,), channel_divisor=32)
ADVERSARIAL = AdversarialConfig(start=3, crop_seconds=0.05, discriminators=DISCRIMINATORS)


@pytest.fixture
def make_adversary(make_recipe, make_codec):
    """An adversary and the task whose estimates it classifies."""

    def make(**changes):
        recipe = make_recipe(adversarial=replace(ADVERSARIAL, **changes))
        codec = make_codec().train().requires_grad_(requires_grad=True)
        task = CodecTask(codec, None, recipe)
        return Adversary(recipe, 800, Processes("cpu"), task.autocast), task

    return make


def tones(rows: int = 2) -> torch.Tensor:
    time = torch.arange(1200) / 800
    return torch.sin(2 * torch.pi * 50 * time).expand(rows, 1, -1) * torch.rand(
        rows, 1, 1, generator=torch.Generator().manual_seed(0)
    )


def rows_of(task, step: int = 3):
    return make_rows(tones(), task.config, task.codec.config, step)


def test_its_own_step_changes_the_discriminators_alone(make_adversary):
    adversary, task = make_adversary()
    rows = rows_of(task)
    estimate, _ = task(rows)
    before = {name: p.clone() for name, p in adversary.discriminators.named_parameters()}
    scalars = adversary.train_step([(rows, estimate)])
    assert scalars.keys() == {"discriminator", "discriminator_gradient_norm"}
    changed = [n for n, p in adversary.discriminators.named_parameters() if (p != before[n]).any()]
    assert len(changed) == len(before)
    assert all(parameter.grad is None for parameter in task.codec.parameters())


@pytest.mark.parametrize("name", ["adversarial", "features"])
def test_its_losses_train_the_codec_alone(make_adversary, name):
    adversary, task = make_adversary()
    rows = rows_of(task)
    adversary.losses(rows, task(rows)[0])[name].backward()
    parts = {n.split(".")[0] for n, p in task.codec.named_parameters() if p.grad is not None}
    assert parts == {"encoder", "decoder", "quantizer"}
    assert all(parameter.grad is None for parameter in adversary.discriminators.parameters())


def test_it_learns_to_tell_noise_from_tones(make_adversary):
    adversary, task = make_adversary(learning_rate=5e-3)
    noise = 0.3 * torch.randn(2, 1, 1200, generator=torch.Generator().manual_seed(1))
    losses = [
        float(adversary.train_step([(rows_of(task, step), noise)])["discriminator"])
        for step in range(30)
    ]
    assert losses[-1] < 0.6 * losses[0]


def test_both_signals_are_cut_at_the_same_position(make_adversary):
    adversary, task = make_adversary()
    audio = torch.arange(400.0).expand(2, 1, 400)
    rows = [make_rows(audio, task.config, task.codec.config, step) for step in range(50)]
    cuts = [adversary._crop(audio, row) for row in rows]
    assert torch.equal(cuts[1], adversary._crop(audio, rows[1]))
    assert cuts[1].shape == (2, 1, 40)
    places = {int(start) for cut in cuts for start in cut[:, 0, 0]}
    assert len(places) > 40
    assert min(places) >= 0
    assert max(places) <= 360


def test_padding_reaches_no_discriminator(make_adversary):
    adversary, task = make_adversary()
    audio = torch.arange(400.0).expand(2, 1, 400)
    for step in range(20):
        rows = make_rows(audio, task.config, task.codec.config, step, lengths=[100, 20])
        starts = adversary._crop(audio, rows)[:, 0, 0]
        assert starts[0] <= 60
        assert starts[1] == 0


class InterruptionError(Exception):
    """Stands for whatever ends a process in the middle."""


def read_log(config) -> list[dict]:
    text = (Path(config.output) / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    speeds = ("audio_seconds_per_second", "utilization")
    return [{k: v for k, v in line.items() if k not in speeds} for line in lines]


def test_a_run_with_both_stages(make_recipe):
    config = make_recipe(adversarial=ADVERSARIAL, validation=ValidationConfig(clips=0))
    final = CodecTrainer(config, report=lambda _: None).run()
    log = read_log(config)
    assert all("discriminator" not in line for line in log[:3])
    assert all({"discriminator", "adversarial", "features"} <= line.keys() for line in log[3:])
    for line in log[3:]:
        weights = config.losses
        total = sum(getattr(weights, n) * line[n] for n in ("mel", "commitment", "codebook"))
        total += weights.adversarial * line["adversarial"] + weights.features * line["features"]
        assert line["total"] == pytest.approx(total, rel=1e-5)
    assert load_discriminators(final / "discriminators.safetensors").config == DISCRIMINATORS
    with Checkpoint(final) as checkpoint:
        assert load_codec(checkpoint).config.sampling_rate == 24_000


@pytest.mark.parametrize("accumulate", [1, 2])
def test_discriminators_warm_up_before_the_codec_is_trained(make_recipe, accumulate):
    settings = replace(ADVERSARIAL, warmup_steps=2)
    quiet = {"validation": ValidationConfig(clips=0), "accumulate": accumulate}
    config = make_recipe(adversarial=settings, **quiet)
    CodecTrainer(config, report=lambda _: None).run()
    log = read_log(config)
    assert ["discriminator" in line for line in log[:4]] == [False, True, True, True]
    assert ["adversarial" in line for line in log[:4]] == [False, False, False, True]
    alone = make_recipe(output=f"{config.output}-alone", **quiet)
    CodecTrainer(alone, report=lambda _: None).run()
    assert [line["total"] for line in read_log(alone)[:3]] == [line["total"] for line in log[:3]]


@pytest.mark.parametrize("stage", [{"start": 2}, {"start": 5, "warmup_steps": 2}])
def test_a_resumed_run_repeats_the_adversarial_stage_bit_for_bit(make_recipe, tmp_path, stage):
    quiet = {"validation": ValidationConfig(clips=0), "adversarial": replace(ADVERSARIAL, **stage)}
    whole = make_recipe(output=str(tmp_path / "whole"), checkpoint_every=4, **quiet)
    CodecTrainer(whole, report=lambda _: None).run()
    broken = make_recipe(output=str(tmp_path / "broken"), checkpoint_every=4, **quiet)
    trainer = CodecTrainer(broken, report=lambda _: None)
    train_step = trainer.train_step

    def interrupted(batch):
        if trainer.step == 5:
            raise InterruptionError
        return train_step(batch)

    trainer.train_step = interrupted
    with pytest.raises(InterruptionError):
        trainer.run()
    CodecTrainer(broken, resume=True, report=lambda _: None).run()
    assert read_log(broken) == read_log(whole)


def test_checkpoints_without_discriminators_are_not_resumed(make_recipe):
    config = make_recipe(adversarial=ADVERSARIAL, validation=ValidationConfig(clips=0))
    CodecTrainer(replace(config, max_steps=3), report=lambda _: None).run()
    (Path(config.output) / "checkpoints/step-000003/discriminators.safetensors").unlink()
    with pytest.raises(TrainingError, match="discriminators"):
        CodecTrainer(config, resume=True, report=lambda _: None)


@pytest.mark.parametrize(
    "wrong",
    [
        "adversarial.kind=wgan",
        "adversarial.start=-1",
        "adversarial.learning_rate=0",
        "adversarial.warmup_steps=-1",
        "adversarial.discriminators.periods=(1,)",
    ],
)
def test_settings_that_cannot_be(make_recipe, wrong):
    with pytest.raises(ConfigError):
        override(make_recipe(), [wrong])
