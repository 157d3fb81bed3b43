"""Recipes are configurations that fit their models."""

import itertools
import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from toy_speech import write_codes
from transformers import Qwen3Config

from moss_audio_tokenizer import MossAudioTokenizerModel
from moss_audio_tokenizer.codes import CodecInfo
from moss_audio_tokenizer.llm import make_text
from moss_audio_tokenizer.speech.tokens import LETTERS, PieceText
from moss_audio_tokenizer.training.codec import codec_trainer
from moss_audio_tokenizer.training.codec.codec_state import codec_config
from moss_audio_tokenizer.training.codec.codec_trainer import CodecTrainer
from moss_audio_tokenizer.training.recipes import ALIASES, RECIPES, recipe, trainer_for
from moss_audio_tokenizer.training.run_config import override
from moss_audio_tokenizer.training.speech.asr_task import AsrTrainer
from moss_audio_tokenizer.training.speech.tts_trainer import TtsTrainer
from moss_audio_tokenizer.tts import CodeLoss

BY_KIND = {
    kind: [name for name, make in RECIPES.items() if make().kind == kind]
    for kind in ("asr", "codec", "tts")
}
LANGUAGE = [*BY_KIND["asr"], *BY_KIND["tts"]]


def test_every_recipe_is_of_a_kind():
    assert sorted(name for names in BY_KIND.values() for name in names) == sorted(RECIPES)
    assert BY_KIND["asr"] == ["asr", "asr_general", "asr_one_gpu", "asr_tiny"]
    assert BY_KIND["tts"] == ["tts", "tts_general", "tts_one_gpu", "tts_tiny"]


@pytest.mark.parametrize("name", BY_KIND["codec"])
def test_every_recipe_fits_its_model(name):
    config = recipe(name)
    if config.train.checkpoint:
        config = override(config, ["train.checkpoint=bundled"])
    assert codec_config(config).sampling_rate >= 24_000
    if config.adversarial.start:
        assert config.adversarial.start < config.max_steps


@pytest.mark.parametrize(("former", "name"), ALIASES.items())
def test_former_names_are_known(former, name):
    assert recipe(former) == recipe(name)


SHORTER = (
    "device=cpu",
    "threads=1",
    "peak_tflops=1",
    "train.checkpoint=bundled",
    "validation.clips=0",
    "data.batch_size=2",
    "data.crop_seconds=0.64",
)


@pytest.mark.parametrize("name", ["bundled_stage3", "bundled"])
def test_the_shipped_models_recipes_run_shortened(name, spoken, tmp_path):
    shorter = (*SHORTER, "max_steps=3", "decoder_only_from=2", f"data.manifest={spoken}")
    config = override(recipe(name), [*shorter, f"output={tmp_path / 'run'}"])
    before = MossAudioTokenizerModel.from_pretrained("bundled").codec
    CodecTrainer(config, report=lambda _: None).run()
    after = MossAudioTokenizerModel.from_pretrained(tmp_path / "run/final").codec
    moved = before.quantizer.codebooks != after.quantizer.codebooks
    # Two steps of all parts, and rows that were chosen in them.
    assert 0 < int(moved.any(-1).sum()) <= 2 * 2 * 8 * 32
    assert torch.equal(before.quantizer.in_projs.bias, after.quantizer.in_projs.bias)
    for half in ("encoder", "decoder"):
        parts = (getattr(codec, half).parameters() for codec in (before, after))
        pairs = zip(*parts, strict=True)
        assert not any(torch.equal(left, right) for left, right in pairs)


def test_the_recipe_with_a_low_band_pass_through_runs_shortened(spoken, tmp_path, monkeypatch):
    monkeypatch.setattr(codec_trainer, "_LOW_BAND_ROWS", 64)
    shorter = (*SHORTER, "data.batch_size=16", "max_steps=1", "warm_start.samples=1024")
    lines = []
    files = (f"data.manifest={spoken}", f"output={tmp_path / 'run'}")
    config = override(recipe("bundled_stage2"), [*shorter, *files])
    CodecTrainer(config, report=lines.append).run()
    assert "low band given 22, 36, 64, 120 channels in the stages of the encoder" in lines
    trained = MossAudioTokenizerModel.from_pretrained(tmp_path / "run/final")
    low = 0.1 * torch.sin(2 * torch.pi * 170 * torch.arange(24_000) / 24_000)[None]
    with torch.no_grad():
        decoded = trained.codec.decoder(trained.codec.encoder(low[None, :, : 12 * 1920]))
    error = decoded[0] - low[:, : 12 * 1920]
    assert float(error.square().mean()) < 0.05 * float(low.square().mean())


def test_the_joint_recipe_runs_shortened(spoken, tmp_path):
    settings = recipe("bundled_joint").adversarial
    changed = settings.start - settings.warmup_steps
    assert recipe("bundled_joint").data.batch_change == (changed, 0.5)
    shorter = (*SHORTER[:3], "max_steps=3", "adversarial.start=2", "data.batch_change=(2, 0.5)")
    smaller = ("data.text_seconds=(0.2, 1.2)", "data.batch_seconds=2.0", "data.workers=0")
    discriminators = ("adversarial.crop_seconds=0.16", "semantic.num_layers=1")
    changes = (*shorter, *smaller, *discriminators, "adversarial.discriminators.channel_divisor=16")
    config = override(
        recipe("bundled_joint"),
        [*changes, f"data.manifest={spoken}", f"output={tmp_path / 'run'}"],
    )
    before = MossAudioTokenizerModel.from_pretrained("bundled").codec
    CodecTrainer(config, report=lambda _: None).run()
    after = MossAudioTokenizerModel.from_pretrained(tmp_path / "run/final").codec
    for part in ("encoder", "quantizer", "decoder"):
        states = (getattr(codec, part).state_dict() for codec in (before, after))
        assert any(map(torch.ne, *(map(torch.sum, state.values()) for state in states)))
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    steps = [set(json.loads(line)) for line in lines]
    assert all({"mel", "phase", "stft", "commitment", "semantic"} <= names for names in steps)
    assert all("discriminator" in names for names in steps)
    assert ["adversarial" in names for names in steps] == [False, False, True]
    saved = {path.name for path in (tmp_path / "run/final").iterdir()}
    assert {"discriminators.safetensors", "semantic.safetensors"} < saved


def test_the_papers_run_is_the_papers():
    config = recipe("v1")
    assert (config.max_steps, config.adversarial.start) == (1_020_000, 520_000)
    assert config.data.batch_change == (520_000, 0.5)
    assert config.data.batch_seconds == 5 * 3600
    assert config.optimizer.learning_rate == 1e-4
    weights = config.losses
    found = (weights.semantic, weights.mel, weights.commitment, weights.codebook)
    assert (*found, weights.adversarial, weights.features) == (20, 15, 0.25, 1, 1, 2)


@pytest.fixture
def qwen3(tmp_path) -> str:
    """A folder with the shape of Qwen3-1.7B."""
    Qwen3Config(
        vocab_size=151_936,
        hidden_size=2048,
        intermediate_size=6144,
        num_hidden_layers=28,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=40_960,
        tie_word_embeddings=True,
    ).save_pretrained(tmp_path)
    return str(tmp_path)


def model_of(config) -> nn.Module:
    """The model of a recipe on the codes of the 1.77 B codec, without memory for its weights."""
    info = CodecInfo("0123456789abcdef", 24_000, 1, 1920, 32, 1024)
    text = make_text(config.model.text)
    if config.model.num_pieces:
        pieces = ["".join(three) for three in itertools.product(LETTERS[2:], repeat=3)]
        text = PieceText(LETTERS, pieces[: config.model.num_pieces])
    run = object.__new__({"asr": AsrTrainer, "tts": TtsTrainer}[config.kind])
    run.config, run.text, run.data = config, text, SimpleNamespace(info=info)
    run.processes, run.start_weights = SimpleNamespace(sharded=False), lambda _: None
    run.make_code_loss = CodeLoss
    with torch.device("meta"):
        return run.make_task().model


def millions(module: nn.Module) -> float:
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6


@pytest.mark.parametrize("name", ["asr", "tts"])
def test_the_papers_language_models_are_the_papers(name, qwen3):
    config = override(recipe(name), [f"model.llm={qwen3}", "model.init=random", "model.text=bytes"])
    model = model_of(config)
    backbone = model.language_model if name == "asr" else model.temporal
    tokens = {"asr": 1_000_000, "tts": 1_350_000}
    assert (config.data.batch_tokens, config.data.batch_seconds) == (tokens[name], 0)
    assert millions(backbone) == pytest.approx(1720.6, abs=0.1)
    assert millions(model.code_embedding) == pytest.approx(67.1, abs=0.05)
    if name == "tts":
        assert millions(model.depth.blocks) == pytest.approx(202.9, abs=0.1)
        assert (len(model.depth.blocks), model.config.depth_width) == (4, 1536)
        assert model.config.depth_feedforward == 8960
        rate, steps = config.optimizer.learning_rate, config.max_steps
        assert (rate, steps, config.dropout.probability) == (2e-4, 200_000, 1.0)
    else:
        optimizer = config.optimizer
        assert (optimizer.learning_rate, optimizer.warmup_steps, config.max_steps) == (
            5e-5,
            4000,
            200_000,
        )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("asr_general", 6.3),
        ("asr_one_gpu", 34.1),
        ("asr_tiny", 4.5),
        ("tts_general", 7.8),
        ("tts_one_gpu", 72.1),
        ("tts_tiny", 12.8),
    ],
)
def test_small_language_models_are_as_large_as_they_say(name, expected):
    assert millions(model_of(recipe(name))) == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("name", LANGUAGE)
def test_every_language_recipe_makes_a_step_on_stored_codes(name, tmp_path):
    small = ("llm=random", "text=letters", "width=16", "num_layers=1")
    keys = [f"model.{change}" for change in (*small, "start_from_codec=False")]
    keys += ["data.codec=", "data.languages=()", "data.batch_tokens=0", "data.batch_seconds=3"]
    keys += [f"data.manifest={write_codes(tmp_path)}", f"output={tmp_path / 'run'}", "device=cpu"]
    keys += ["max_steps=1", "peak_tflops=1", "precision=fp32"]
    if name in BY_KIND["tts"]:
        keys += ["depth=toy", "num_quantizers=0", "soft_targets.share=0.0"]
    if name == "asr_general":
        keys += ["model.width=64", "encoder_layers=3"]
    final = trainer_for(override(recipe(name), keys), report=lambda _: None).run()
    assert (final / "model.safetensors").is_file()
    assert (final.parent / "validation.jsonl").is_file()
