import json
import os
import shutil
import signal
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from moss_audio_tokenizer.checkpoint.codec_checkpoint import Checkpoint, load_codec
from moss_audio_tokenizer.config import PRESETS, preset
from moss_audio_tokenizer.errors import ConfigError, InputError, TrainingError
from moss_audio_tokenizer.training import checkpointing
from moss_audio_tokenizer.training.codec import validation
from moss_audio_tokenizer.training.codec.codec_config import (
    CodecOptimizerConfig,
    LossWeights,
    SpectraConfig,
    TrainingConfig,
    ValidationConfig,
    WarmStart,
)
from moss_audio_tokenizer.training.codec.codec_trainer import CodecTrainer
from moss_audio_tokenizer.training.data.data_config import DataConfig

VALIDATED = ValidationConfig(every=2, clips=2, num_quantizers=(1, 4, 32))


class InterruptionError(Exception):
    """Stands for whatever ends a process in the middle."""


@pytest.fixture(autouse=True)
def quick_measures(monkeypatch):
    monkeypatch.setattr(validation, "mel_distance", lambda left, right, rate: 1.5)
    monkeypatch.setattr(validation, "stoi", lambda left, right, rate: float("nan"))
    monkeypatch.setattr(validation, "gross_pitch_error", lambda left, right, rate: 0.5)


def make_trainer(config: TrainingConfig, resume: bool = False) -> tuple[CodecTrainer, list[str]]:
    lines: list[str] = []
    return CodecTrainer(config, resume, lines.append), lines


def run_to_end(config: TrainingConfig, resume: bool = False) -> Path:
    return make_trainer(config, resume)[0].run()


def run_until(config: TrainingConfig, step: int) -> None:
    """Run and break off, without a word, before step ``step`` + 1."""
    trainer, _ = make_trainer(config)
    train_step = trainer.train_step

    def interrupted(batch):
        if trainer.step == step:
            raise InterruptionError
        return train_step(batch)

    trainer.train_step = interrupted
    with pytest.raises(InterruptionError):
        trainer.run()


def read_log(config: TrainingConfig, name: str = "metrics.jsonl") -> list[dict]:
    lines = (Path(config.output) / name).read_text().splitlines()
    return [json.loads(line) for line in lines]


def without_speed(lines: list[dict]) -> list[dict]:
    speeds = ("audio_seconds_per_second", "utilization")
    return [{k: v for k, v in line.items() if k not in speeds} for line in lines]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    with Checkpoint(folder) as checkpoint:
        return load_codec(checkpoint).state_dict()


def assert_same_weights(left: Path, right: Path) -> None:
    expected = weights(right)
    for name, value in weights(left).items():
        assert torch.equal(value, expected[name]), name


def test_a_run_leaves_what_the_interface_promises(make_recipe):
    config = make_recipe(validation=VALIDATED, keep_best=False)
    trainer, lines = make_trainer(config)
    final = trainer.run()
    output = Path(config.output)
    assert final == output / "final"
    assert weights(final)
    assert sorted(path.name for path in (output / "checkpoints").iterdir()) == [
        "step-000003",
        "step-000006",
    ]
    assert list((output / "tensorboard").iterdir())
    assert json.loads((output / "recipe.json").read_text())["max_steps"] == 6
    log = read_log(config)
    assert [line["step"] for line in log] == [1, 2, 3, 4, 5, 6]
    always = {"step", "mel", "total", "learning_rate", "audio_seconds_per_second"}
    assert always <= log[0].keys()
    assert "commitment" not in log[1]
    assert always | {"commitment", "codebook"} <= log[2].keys()
    assert "4 training clips, 0 unreadable" in lines
    assert any(line.startswith("quantizer fitted to ") for line in lines)


def test_validations_are_logged_by_num_quantizers_without_undefined_values(make_recipe):
    config = make_recipe(validation=VALIDATED)
    run_to_end(config)
    log = read_log(config, "validation.jsonl")
    assert [line["step"] for line in log] == [2, 4, 6]
    depths = {key.split("/")[2] for key in log[1] if "mel_distance" in key}
    assert {key.split("/")[2] for key in log[0] if "mel_distance" in key} == {"0"}
    assert depths == {"1", "4"}
    assert "speech/stoi/4" not in log[1]
    assert 0 < log[1]["perplexity/lowest"] <= log[1]["perplexity/first"] <= 1


FOLLOWING = {
    "codebook_decay": 0.9,
    "optimizer": CodecOptimizerConfig(kind="muon"),
    "losses": LossWeights(phase=1.0),
    "spectra": SpectraConfig(mel_windows=2, phase_windows=1),
}


@pytest.mark.parametrize(("broken_at", "changes"), [(3, {}), (5, {}), (5, FOLLOWING)])
def test_a_resumed_run_continues_bit_for_bit(make_recipe, tmp_path, broken_at, changes):
    whole = make_recipe(output=str(tmp_path / "whole"), validation=VALIDATED, **changes)
    parted = replace(whole, output=str(tmp_path / "parted"))
    run_to_end(whole)
    run_until(parted, broken_at)
    assert [line["step"] for line in read_log(parted)] == list(range(1, broken_at + 1))
    trainer, lines = make_trainer(parted, resume=True)
    assert "resuming from step-000003" in lines
    assert trainer.step == 3
    trainer.run()
    assert without_speed(read_log(parted)) == without_speed(read_log(whole))
    assert read_log(parted, "validation.jsonl") == read_log(whole, "validation.jsonl")
    assert_same_weights(tmp_path / "parted" / "final", tmp_path / "whole" / "final")


@pytest.mark.parametrize("checkpoint_every", [1, 2])
def test_resuming_around_the_start_of_the_quantizer_changes_nothing(
    make_recipe, tmp_path, checkpoint_every
):
    whole = make_recipe(output=str(tmp_path / "whole"), max_steps=4)
    parted = replace(whole, output=str(tmp_path / "parted"), checkpoint_every=checkpoint_every)
    run_to_end(whole)
    run_until(parted, checkpoint_every)
    run_to_end(parted, resume=True)
    assert_same_weights(tmp_path / "parted" / "final", tmp_path / "whole" / "final")


def test_two_runs_of_one_seed_are_equal_and_of_another_are_not(make_recipe, tmp_path):
    configs = [
        make_recipe(output=str(tmp_path / name), seed=seed, max_steps=3)
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    for config in configs:
        run_to_end(config)
    first, second, third = (without_speed(read_log(config)) for config in configs)
    assert first == second
    assert first != third


def test_a_finished_run_can_be_resumed_and_prolonged(make_recipe):
    config = make_recipe(max_steps=3)
    run_to_end(config)
    final = run_to_end(config, resume=True)
    assert [line["step"] for line in read_log(config)] == [1, 2, 3]
    assert run_to_end(replace(config, max_steps=4), resume=True) == final
    assert [line["step"] for line in read_log(config)] == [1, 2, 3, 4]
    assert json.loads((final.parent / "recipe.json").read_text())["max_steps"] == 4


def test_a_refused_start_changes_nothing(make_recipe):
    config = make_recipe(max_steps=3)
    run_to_end(config)
    output = Path(config.output)
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    for refused, resume in (
        (config, False),
        (replace(config, seed=5), True),
        (replace(config, data=replace(config.data, manifest="nowhere")), True),
    ):
        with pytest.raises((TrainingError, InputError)):
            make_trainer(refused, resume)
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before


def test_two_runs_in_one_folder_are_refused(make_recipe):
    trainer, _ = make_trainer(make_recipe())
    with pytest.raises(TrainingError, match="in use by another run"):
        make_trainer(make_recipe())
    trainer.close()
    make_trainer(make_recipe())[0].close()


def test_a_run_that_died_before_its_first_checkpoint_starts_afresh(make_recipe):
    config = make_recipe(checkpoint_every=5)
    run_until(config, 2)
    run_to_end(config)
    assert [line["step"] for line in read_log(config)] == [1, 2, 3, 4, 5, 6]


def test_another_preset_under_the_same_name_is_refused(make_recipe, monkeypatch):
    config = make_recipe(max_steps=3)
    run_to_end(config)
    other = replace(preset("toy"), quantizer=replace(preset("toy").quantizer, codebook_size=8))
    monkeypatch.setitem(PRESETS, "toy", lambda: other)
    with pytest.raises(TrainingError, match="another model than the recipe names"):
        make_trainer(config, resume=True)


def test_sigterm_saves_and_stops_and_the_former_handler_comes_back(make_recipe, tmp_path):
    whole = make_recipe(output=str(tmp_path / "whole"), checkpoint_every=100)
    parted = replace(whole, output=str(tmp_path / "parted"))
    run_to_end(whole)

    def terminate_at_two(line: str) -> None:
        if line.startswith("step 2/"):
            os.kill(os.getpid(), signal.SIGTERM)

    former = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        assert CodecTrainer(parted, report=terminate_at_two).run().name == "step-000002"
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, former)
    assert not (tmp_path / "parted" / "final").exists()
    run_to_end(parted, resume=True)
    assert_same_weights(tmp_path / "parted" / "final", tmp_path / "whole" / "final")


def test_a_stop_before_the_first_step_leaves_a_run_to_resume(make_recipe):
    config = make_recipe(max_steps=1)
    trainer, _ = make_trainer(config)
    trainer.stopping = True
    assert trainer.run().name == "step-000000"
    assert run_to_end(config, resume=True).name == "final"


def test_a_run_outside_the_main_thread_leaves_signals_alone(make_recipe):
    trainer, _ = make_trainer(make_recipe(max_steps=1))
    thread = threading.Thread(target=trainer.run)
    thread.start()
    thread.join()
    assert (trainer.output / "final").is_dir()


def test_a_loss_that_is_not_finite_stops_the_run_and_names_step_and_files(make_recipe):
    config = make_recipe()
    trainer, _ = make_trainer(config)
    total = trainer.task.total
    spoiled = lambda losses: total(losses) * (float("nan") if trainer.step == 4 else 1.0)  # noqa: E731
    trainer.task.total = spoiled
    with pytest.raises(TrainingError, match="step 5 is not finite") as caught:
        trainer.run()
    for name in trainer.data.batch(4).names:
        assert name in str(caught.value)
    assert "total nan" in str(caught.value)
    assert all(torch.isfinite(parameter).all() for parameter in trainer.task.parameters())
    assert [line["step"] for line in read_log(config)] == [1, 2, 3, 4]
    assert run_to_end(config, resume=True).name == "final"


@pytest.fixture
def damaged(tmp_path) -> str:
    """A manifest of three clips, one of them with a NaN, and no validation clips."""
    folder = tmp_path / "damaged"
    folder.mkdir()
    for index in range(3):
        samples = np.full(9600, 0.1, np.float32)
        samples[5] = np.nan if index == 1 else 0.1
        soundfile.write(folder / f"{index}.wav", samples, 24_000, subtype="FLOAT")
    lines = [json.dumps({"path": f"{index}.wav"}) for index in range(3)]
    (folder / "manifest.jsonl").write_text("\n".join(lines))
    return str(folder / "manifest.jsonl")


def with_data(config: TrainingConfig, **changes) -> TrainingConfig:
    return replace(config, data=replace(config.data, **changes))


def test_too_many_unreadable_clips_stop_the_run(make_recipe, damaged):
    with pytest.raises(TrainingError, match=r"1 of the 3 training clips .* at most 0\.05"):
        make_trainer(with_data(make_recipe(), manifest=damaged))


def test_unreadable_clips_are_skipped_counted_and_named(make_recipe, damaged):
    config = with_data(make_recipe(max_steps=1), manifest=damaged, max_unreadable_share=0.4)
    trainer, lines = make_trainer(config)
    assert any(line.startswith("skipped: ") and "1.wav" in line for line in lines)
    assert "2 training clips, 1 unreadable" in lines
    assert any(line.startswith("no validation") for line in lines)
    assert trainer.run().name == "final"


def test_data_without_a_readable_clip_are_refused(make_recipe, damaged):
    for path in Path(damaged).parent.glob("*.wav"):
        path.write_text("")
    with pytest.raises(TrainingError, match="3 of the 3"):
        make_trainer(with_data(make_recipe(), manifest=damaged, max_unreadable_share=1.0))


def test_domains_left_out_are_reported(make_recipe):
    config = with_data(make_recipe(), domain_weights=(("speech", 1.0),))
    trainer, lines = make_trainer(config)
    trainer.close()
    assert "left out: 1 clips of 'music', no share in data.domain_weights" in lines


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": DataConfig(crop_seconds=0.1)}, r"1\.25 frames; expected .* such as 0\.08"),
        ({"data": DataConfig(crop_seconds=0.01)}, r"such as 0\.08"),
        ({"warm_start": WarmStart(samples=10)}, "warm_start.samples is 10; expected 0, or at"),
        ({"model": "huge"}, "no preset 'huge'"),
        (
            {"spectra": SpectraConfig(mel_windows=8)},
            "spectra.mel_windows is 8; expected at most the 7",
        ),
    ],
)
def test_recipes_that_do_not_fit_their_model_are_refused(make_recipe, changes, message):
    config = make_recipe(**changes)
    with pytest.raises(ConfigError, match=message):
        make_trainer(config)
    assert not Path(config.output).exists()


def test_an_emptied_folder_can_be_used_again(make_recipe):
    config = make_recipe(max_steps=1)
    final = run_to_end(config)
    shutil.rmtree(final.parent)
    assert run_to_end(config) == final


REFITTED = {"warm_start": WarmStart(steps=1, samples=16, refit_every=2), "decoder_only_from": 4}


def test_the_quantizer_is_fitted_again_until_only_the_decoder_trains(make_recipe):
    trainer, lines = make_trainer(make_recipe(max_steps=7, **REFITTED))
    trainer.run()
    steps = [int(line.split()[1].partition("/")[0]) for line in lines if line.startswith("step ")]
    fits = [index for index, line in enumerate(lines) if line.startswith("quantizer fitted")]
    done_before = [sum(line.startswith("step ") for line in lines[:fit]) for fit in fits]
    assert steps == list(range(1, 8))
    assert done_before == [1, 3, 4]


def test_ema_codebooks_are_updated_until_only_the_decoder_trains(make_recipe, monkeypatch):
    monkeypatch.setattr(checkpointing, "_NUM_KEPT", 6)
    config = make_recipe(codebook_decay=0.5, decoder_only_from=4, max_steps=6, checkpoint_every=1)
    config = replace(config, warm_start=WarmStart(steps=1, samples=64))
    run_to_end(config)
    folder = Path(config.output) / "checkpoints"
    seen = {step: weights(folder / f"step-{step:06d}") for step in range(2, 7)}
    name = "quantizer.codebooks"
    fitted = "quantizer.in_projs.bias"
    assert not torch.equal(seen[2][name], seen[3][name])
    assert torch.equal(seen[2][fitted], seen[3][fitted])
    assert torch.equal(seen[5][name], seen[6][name])


@pytest.mark.parametrize("changes", [{"shard": True}, {"warm_start": WarmStart(samples=0)}])
def test_ema_codebooks_are_refused_with_shares_and_without_a_fit(changes):
    with pytest.raises(ConfigError, match=r"codebook_decay is .*; expected 0"):
        TrainingConfig(codebook_decay=0.9, **changes)


def test_ema_codebooks_and_their_mean_agree(make_recipe):
    config = make_recipe(codebook_decay=0.5, ema_decay=0.9, max_steps=5)
    config = replace(config, warm_start=WarmStart(steps=1, samples=64))
    trainer, _ = make_trainer(config)
    final = weights(trainer.run())
    assert torch.equal(final["quantizer.codebooks"], trainer.task.codec.quantizer.codebooks)
    name = "decoder.stages.0.input_proj.weight"
    assert not torch.equal(final[name], trainer.task.codec.state_dict()[name])


def test_only_the_decoder_trains_at_the_end(make_recipe):
    config = make_recipe(max_steps=6, checkpoint_every=5, **REFITTED)
    final = weights(run_to_end(config))
    before = weights(Path(config.output) / "checkpoints" / "step-000005")
    for name, value in final.items():
        assert torch.equal(value, before[name]) == (not name.startswith("decoder")), name


@pytest.mark.parametrize("step", [2, 3, 5])
def test_resume_repeats_fits_and_the_last_part(make_recipe, tmp_path, step):
    straight = make_recipe(max_steps=6, checkpoint_every=1, **REFITTED)
    expected = run_to_end(straight)
    broken = replace(straight, output=str(tmp_path / "broken"))
    run_until(broken, step)
    assert_same_weights(run_to_end(broken, resume=True), expected)
    assert without_speed(read_log(broken)) == without_speed(read_log(straight))


def test_a_mean_follows_a_fitted_quantizer(make_recipe):
    trainer, _ = make_trainer(make_recipe(ema_decay=0.999, max_steps=3))
    for _ in range(3):  # the quantizer is fitted before the third
        trainer.train_step(trainer.data.batch(trainer.step))
    trainer.close()
    mean = trainer.training.mean.whole_state()["quantizer.codebooks"]
    weights = trainer.task.codec.quantizer.codebooks.detach()
    assert torch.allclose(mean, weights, atol=0.05)
