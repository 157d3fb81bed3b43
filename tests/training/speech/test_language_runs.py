"""Runs of CAT-ASR and CAT-TTS: what they learn, leave behind, resume, and refuse."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from jiwer import cer as character_error_rate
from toy_run import read_log, run_until
from toy_speech import HELD_OUT, KINDS, LAYERS, TEXTS, language_config, say, write_codes

from moss_audio_tokenizer.asr import CatAsr
from moss_audio_tokenizer.errors import TrainingError
from moss_audio_tokenizer.training.checkpointing import OPTIMIZER_NAME, read_tensors
from moss_audio_tokenizer.training.recipes import trainer_for
from moss_audio_tokenizer.training.run_config import override
from moss_audio_tokenizer.training.run_folder import RESUMABLE_KEYS
from moss_audio_tokenizer.tts import CatTts, TtsBatch

MODELS = {"asr": CatAsr, "tts": CatTts}


@pytest.fixture(scope="module")
def codes(tmp_path_factory) -> str:
    """A manifest of stored codes."""
    return write_codes(tmp_path_factory.mktemp("codes"))


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


@pytest.fixture
def config(kind, tmp_path, codes):
    return language_config(kind, tmp_path / "run", codes)


@pytest.fixture
def opened():
    """Open a run that is closed after the test."""
    trainers = []

    def make(config, resume=False, report=lambda _: None):
        trainers.append(trainer_for(config, resume, report))
        return trainers[-1]

    yield make
    for trainer in trainers:
        trainer.close()


def train(config, resume: bool = False) -> Path:
    return trainer_for(config, resume, lambda _: None).run()


def test_in_16_bits_a_cpu_attends_by_products_and_the_model_forgets_that(config, kind):
    folder = train(replace(config, precision="bf16", max_steps=2))
    losses = [line["total"] for line in read_log(folder.parent)]
    assert len(losses) == 2
    assert np.isfinite(losses).all()
    assert "eager" not in (folder / "config.json").read_text()
    kept = MODELS[kind].from_pretrained(folder)
    nested = kept.language_model if kind == "asr" else kept.temporal
    assert nested.config._attn_implementation == "sdpa"


def test_cudnn_which_plans_for_every_shape_does_not_attend_in_training(config, opened, monkeypatch):
    trainer, seen = opened(replace(config, max_steps=1)), []
    forward = type(trainer.task).forward

    def looked_at(*arguments):
        seen.append(torch.backends.cuda.cudnn_sdp_enabled())
        return forward(*arguments)

    monkeypatch.setattr(type(trainer.task), "forward", looked_at)
    before = torch.backends.cuda.cudnn_sdp_enabled()
    trainer.train_step(next(trainer.batches(0)))
    assert seen == [False]
    assert torch.backends.cuda.cudnn_sdp_enabled() == before


def test_one_batch_is_learned_by_heart(config, opened):
    trainer = opened(replace(config, max_steps=60))
    batch = next(trainer.batches(0))
    losses = [trainer.train_step(batch)["total"] for _ in range(60)]
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.3 * losses[0]


def test_a_run_leaves_logs_checkpoints_and_a_model_to_load(kind, config):
    final = train(config)
    output = Path(config.output)
    steps, validations = read_log(output), read_log(output, "validation.jsonl")
    assert [line["step"] for line in steps] == list(range(1, 9))
    assert [line["step"] for line in validations] == [4, 8]
    rates = {"asr": {"text", "token_accuracy"}, "tts": {"codes", "end", "code_accuracy"}}[kind]
    assert steps[0].keys() == {"step", "total", "gradient_norm", "learning_rate"} | rates
    depths = {"asr": ("wer/1", "wer/3", "cer/1", "cer/3"), "tts": ("codes/1", "codes/3")}[kind]
    losses = {"tts": {"total", *rates}, "asr": set()}[kind]
    assert validations[0].keys() == {"step", "score", *depths} | losses
    best = {"asr": "wer/3", "tts": "total"}[kind]
    assert all(line["score"] == line[best] for line in validations)
    loaded = MODELS[kind].from_pretrained(final)
    newest = MODELS[kind].from_pretrained(output / "checkpoints" / "step-000008")
    assert loaded.text.encode("ab c") == newest.text.encode("ab c")
    assert same_weights(loaded, newest)
    assert loaded.config.codec == "0123456789abcdef"


def same_weights(first, second) -> bool:
    ours, theirs = dict(first.named_parameters()), dict(second.named_parameters())
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


def test_an_asr_model_that_was_trained_long_enough_transcribes(tmp_path, codes):
    config = language_config("asr", tmp_path / "run", codes, max_steps=300, prefix_share=0.0)
    keys = ("validation.every=300", "checkpoint_every=300", "data.max_join=1", "model.width=32")
    # So that no seed and no processor's rounding decides.
    keys += ("optimizer.learning_rate=0.005", "optimizer.decay_fraction=0.7")
    model = CatAsr.from_pretrained(train(override(config, keys)))
    read = model.transcribe_codes([say(text) for text in TEXTS])
    assert character_error_rate(list(TEXTS), read) < 0.1


@pytest.mark.parametrize("broken_at", [4, 6])
def test_a_resumed_run_continues_bit_for_bit(kind, config, tmp_path, broken_at):
    final = train(config)
    parted = replace(config, output=str(tmp_path / "parted"))
    run_until(trainer_for(parted, report=lambda _: None), broken_at)
    resumed = train(parted, resume=True)
    for name in ("metrics.jsonl", "validation.jsonl"):
        assert read_log(tmp_path / "parted", name) == read_log(tmp_path / "run", name)
    assert same_weights(*(MODELS[kind].from_pretrained(path) for path in (final, resumed)))
    whole, pieces = (
        read_tensors(tmp_path / name / "checkpoints" / "step-000008", OPTIMIZER_NAME)
        for name in ("run", "parted")
    )
    assert all(torch.equal(value, pieces[name]) for name, value in whole.items())


def test_passes_change_no_gradient(config, tmp_path, opened):
    config = override(config, ["data.row_multiple=2"])
    whole = opened(config)
    parted = opened(replace(config, output=str(tmp_path / "parted"), accumulate=2))
    pairs = zip(whole.batches(0), parted.batches(0), strict=True)
    first, second = next(pair for pair in pairs if num_lengths(pair[0]) > 1)
    assert first.names == second.names
    scalars, others = whole.optimize(first), parted.optimize(second)
    assert scalars == pytest.approx(others, rel=1e-4)
    gradients = dict(parted.task.model.named_parameters())
    for name, parameter in whole.task.model.named_parameters():
        torch.testing.assert_close(
            parameter.grad, gradients[name].grad, rtol=1e-3, atol=1e-6, msg=name
        )


def num_lengths(rows) -> int:
    """How many lengths there are among the rows of a batch."""
    return len({row.num_frames for row in rows.batch.rows})


def test_without_held_out_clips_nothing_is_validated(config):
    train(override(config, ["validation.clips=0", "max_steps=2"]))
    assert not (Path(config.output) / "validation.jsonl").exists()


def test_losses_by_depth_are_those_of_fewer_layers(tmp_path, codes, opened):
    config = language_config("tts", tmp_path / "run", codes, scored_share=0.2)
    trainer = opened(override(config, ["validation.num_quantizers=(1,2,8)"]))
    found = trainer.validate().scalars
    rows, model = trainer.valid, trainer.task.model
    frames = [row.num_frames for row in rows]
    for depth in (1, 2, LAYERS):
        given = trainer.task.padded_codes(rows)[:depth]
        with torch.no_grad():
            output = model(TtsBatch([row.text for row in rows], given, frames))
        expected = float(output.codes_loss_sum) / output.num_codes
        assert found[f"codes/{depth}"] == pytest.approx(expected, rel=1e-4)
        assert output.num_codes == depth * sum(frames)
    assert found["codes"] == found[f"codes/{LAYERS}"]
    assert found["score"] == found["total"] == pytest.approx(found["codes"] + found["end"])
    assert trainer.task.training


def test_held_out_clips_are_read_at_every_depth(tmp_path, codes, opened, monkeypatch):
    trainer = opened(language_config("asr", tmp_path / "run", codes))
    heard = []

    def read(clips, depth, max_tokens):
        heard.append((len(clips), depth))
        return ["aba", "bc", "acba"] if depth == LAYERS else ["abc", "bc", ""]

    monkeypatch.setattr(trainer.task.model, "transcribe_codes", read)
    readings = trainer.validate()
    assert heard == [(3, 1), (3, LAYERS)]
    assert readings.scalars["wer/1"] == pytest.approx(2 / 3)
    assert readings.scalars["cer/1"] == pytest.approx(5 / 9)
    assert readings.scalars["wer/3"] == readings.scalars["score"] == 0
    assert readings.lines == [(text, text) for text in HELD_OUT]


def test_chance_follows_from_seed_and_step(config, opened, tmp_path):
    first = opened(config)
    second = opened(replace(config, output=str(tmp_path / "second")))
    later = [batch for batch, _ in zip(second.batches(5), range(2), strict=False)]
    steps = [batch for batch, _ in zip(first.batches(0), range(7), strict=False)]
    for one, other in zip(steps[5:], later, strict=True):
        assert (one.names, one.seeds) == (other.names, other.seeds)
        assert torch.equal(one.num_quantizers, other.num_quantizers)
    drawn = torch.cat([batch.num_quantizers for batch in steps])
    assert set(drawn.tolist()) == set(range(1, LAYERS + 1))


@pytest.mark.parametrize(("kind", "key"), [("asr", "prefix_share"), ("tts", "dropout.probability")])
def test_without_dropout_every_row_keeps_all_layers(kind, key, tmp_path, codes, opened):
    trainer = opened(override(language_config(kind, tmp_path / "run", codes), [f"{key}=0"]))
    drawn = [batch.num_quantizers for batch, _ in zip(trainer.batches(0), range(6), strict=False)]
    assert set(torch.cat(drawn).tolist()) == {LAYERS}


def test_what_may_change_on_resume_are_keys_of_every_kind(config):
    keys = flat_keys(config)
    unknown = {key for key in RESUMABLE_KEYS if not any(name.startswith(key) for name in keys)}
    # Codes are made and read in the loop, without processes of their own; two keys are gone.
    assert unknown == {"data.workers", "log_every", "keep_checkpoints"}


def flat_keys(config, prefix: str = "") -> list[str]:
    """Dotted names of all fields."""
    fields = config.__dataclass_fields__
    groups = {name: getattr(config, name) for name in fields}
    return [
        key
        for name, value in groups.items()
        for key in (
            flat_keys(value, f"{prefix}{name}.")
            if hasattr(value, "__dataclass_fields__")
            else [prefix + name]
        )
    ]


def test_a_run_goes_on_with_other_validations_and_a_longer_end(kind, config):
    run_until(trainer_for(config, report=lambda _: None), 5)
    keys = ("max_steps=9", "validation.every=3", "validation.num_quantizers=(2,)", "threads=1")
    more = override(config, [*keys, "validation.clips=1", "data.cache_hours=0.0"])
    more = override(more, ["data.max_unreadable_share=0.5"])
    train(more, resume=True)
    measured = read_log(Path(config.output), "validation.jsonl")
    assert [line["step"] for line in measured] == [4, 6, 9]
    assert {"asr": "wer/2", "tts": "codes/2"}[kind] in measured[-1]


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("asr", "model.text=bytes"),
        ("tts", "model.text=bytes"),
        ("asr", "model.code_rank=0"),
        ("asr", "data.max_join=1"),
        ("tts", "data.versions=2"),
        ("asr", "prefix_share=0.1"),
        ("tts", "scored_share=0.1"),
        ("tts", "dropout.probability=0.1"),
        ("tts", "depth=tiny"),
    ],
)
def test_a_run_does_not_go_on_as_another(kind, change, tmp_path, codes):
    config = language_config(kind, tmp_path / "run", codes)
    run_until(trainer_for(config, report=lambda _: None), 4)
    key = change.partition("=")[0]
    with pytest.raises(TrainingError, match=rf"not that of the run .*: {key} was .* and is"):
        trainer_for(override(config, [change]), resume=True)


def test_an_asr_run_is_not_resumed_as_a_tts_run(tmp_path, codes):
    run_until(trainer_for(language_config("asr", tmp_path / "run", codes), False, print), 4)
    with pytest.raises(TrainingError, match=r"holds a run of kind 'asr'.*kind 'tts'"):
        trainer_for(language_config("tts", tmp_path / "run", codes), resume=True)
