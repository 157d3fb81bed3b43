import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from moss_audio_tokenizer.config import preset
from moss_audio_tokenizer.errors import ConfigError
from moss_audio_tokenizer.training.codec.codec_config import (
    CodecOptimizerConfig,
    DiscriminatorConfig,
    SpectraConfig,
    TrainingConfig,
    ValidationConfig,
    WarmStart,
)
from moss_audio_tokenizer.training.codec.codec_state import codec_config
from moss_audio_tokenizer.training.codec.discriminators import Discriminators
from moss_audio_tokenizer.training.data.data_config import DataConfig
from moss_audio_tokenizer.training.recipes import RECIPES, recipe
from moss_audio_tokenizer.training.run_config import as_dict, override, recipe_lines
from moss_audio_tokenizer.training.speech.speech_config import (
    LanguageModelConfig,
    TtsTrainingConfig,
)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_of_a_codec_names_a_preset(name):
    config = recipe(name)
    if isinstance(config, TrainingConfig):
        assert preset(config.model).sampling_rate > 0


def test_the_smoke_recipe_has_every_stage():
    smoke = recipe("smoke")
    stages = (smoke.warm_start.steps, smoke.adversarial.start, smoke.max_steps)
    assert (stages, smoke.model) == ((20, 45, 60), "tiny")


def test_an_unknown_recipe_is_refused_with_those_there_are():
    with pytest.raises(ConfigError, match=r"no recipe 'huge'.*bundled.*smoke"):
        recipe("huge")


def test_override_reaches_nested_keys_and_leaves_the_rest():
    config = override(TrainingConfig(), ["max_steps=5", "data.batch_size=3", "output=a=b"])
    assert (config.max_steps, config.data.batch_size, config.output) == (5, 3, "a=b")
    assert replace(config, max_steps=20_000, output="", data=DataConfig()) == TrainingConfig()


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("data.domain_weights=(('speech', 1), ('music', 0.5))", (("speech", 1.0), ("music", 0.5))),
        ("data.domain_weights=[['speech', 1]]", (("speech", 1.0),)),
        ("data.gain_db=[-30, -20]", (-30.0, -20.0)),
        ("data.manifest=12", "12"),
        ("validation.num_quantizers=(1, 2)", (1, 2)),
        ("optimizer.learning_rate=1", 1.0),
    ],
)
def test_values_are_parsed_by_the_type_of_their_field(assignment, expected):
    group, _, name = assignment.partition("=")[0].partition(".")
    value = getattr(getattr(override(TrainingConfig(), [assignment]), group), name)
    assert value == expected
    assert repr(value) == repr(expected)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("max_steps", "expected key=value"),
        ("steps=3", r"unknown key 'steps'.*max_steps"),
        ("max_step=3", r"unknown key 'max_step'; did you mean max_steps\?"),
        ("batch_size=3", r"did you mean data\.batch_size\?"),
        ("data.batchsize=3", r"did you mean data\.batch_size\?"),
        ("adversarial.discriminator.windows=3", r"adversarial\.discriminators\.windows\?"),
        (f"optimizer.learning_rate=1{'0' * 400}", "expected a finite number"),
        ("data.rows=3", r"unknown key 'data\.rows'.*batch_size"),
        ("max_steps.data=3", "single value"),
        ("data=3", r"set one of data\.manifest"),
        ("max_steps=many", "max_steps is 'many'; expected a whole number"),
        ("max_steps=2.5", "expected a whole number"),
        ("max_steps=True", "expected a whole number"),
        ("max_steps=0", "max_steps is 0; expected at least 1"),
        ("optimizer.learning_rate=fast", "expected a finite number"),
        ("optimizer.learning_rate=1e999", "expected a finite number"),
        ("data.domain_weights=speech", r"expected a sequence .* of: \(text, a finite number\)"),
        ("data.domain_weights=(('speech',),)", "expected 2 values"),
        ("data.domain_weights=((1, 1),)", "expected text"),
        ("data.domain_weights=(('a', 1), ('a', 2))", "a domain once"),
        ("data.domain_weights=(('a', -1), ('b', 2))", "0 or more"),
        ("data.gain_db=(-1,)", "expected 2 values"),
        ("validation.num_quantizers=8", "expected a sequence"),
        ("validation.num_quantizers=(8, 0)", "numbers of layers from 1 on"),
        ("max_steps={[]: 1}", "expected a whole number"),
        ("max_steps=" + "(" * 500, "expected a whole number"),
        ("precision=fp16", "expected 'fp32' or 'bf16'"),
        ("seed=-1", "expected 0 to"),
    ],
)
def test_what_cannot_be_set_is_refused(assignment, message):
    with pytest.raises(ConfigError, match=message):
        override(TrainingConfig(), [assignment])


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (DataConfig, {"batch_size": 0}),
        (DataConfig, {"row_multiple": 0}),
        (DataConfig, {"batch_seconds": 0.0}),
        (DataConfig, {"text_share": 1.5}),
        (DataConfig, {"text_seconds": (3.0, 2.0)}),
        (DataConfig, {"text_seconds": (0.0, 2.0)}),
        (DataConfig, {"workers": -1}),
        (DataConfig, {"cache_hours": -1.0}),
        (DataConfig, {"sources": (("a", 0.0),)}),
        (DataConfig, {"sources": (("a", 1.0), ("a", 2.0))}),
        (DataConfig, {"sources": (("a", 1.0),), "manifest": "b"}),
        (DataConfig, {"sources": ("a", 1.0)}),
        (DataConfig, {"crop_seconds": 0.0}),
        (DataConfig, {"crop_seconds": "1"}),
        (DataConfig, {"gain_db": (-10.0, -20.0)}),
        (DataConfig, {"max_unreadable_share": 1.5}),
        (CodecOptimizerConfig, {"betas": (0.9, 1.0)}),
        (CodecOptimizerConfig, {"decay_fraction": 2.0}),
        (CodecOptimizerConfig, {"schedule": "steps"}),
        (WarmStart, {"steps": -1}),
        (WarmStart, {"low_band": -1.0}),
        (SpectraConfig, {"phase_hertz": 0.0}),
        (SpectraConfig, {"mel_windows": -1}),
        (SpectraConfig, {"stft_windows": ()}),
        (SpectraConfig, {"stft_windows": (512, 512)}),
        (SpectraConfig, {"frequency_hertz": (700.0, 100.0)}),
        (ValidationConfig, {"num_quantizers": ()}),
        (ValidationConfig, {"every": 0}),
        (LanguageModelConfig, {"width": 1 << 40}),
        (LanguageModelConfig, {"width": 256.0}),
        (LanguageModelConfig, {"num_layers": 1025}),
        (LanguageModelConfig, {"width": 100}),
        (LanguageModelConfig, {"code_rank": 1 << 40}),
        (LanguageModelConfig, {"code_rank": -1}),
        (LanguageModelConfig, {"num_words": 1 << 40}),
        (TtsTrainingConfig, {"depth": "huge"}),
        (TrainingConfig, {"data": None}),
        (TrainingConfig, {"quantizer_dropout": 1.1}),
    ],
)
def test_configurations_are_checked_when_built(kind, values):
    with pytest.raises(ConfigError, match=rf"{kind.__name__}\.{next(iter(values))}"):
        kind(**values)


def test_a_configuration_is_plain_values_for_json():
    assert as_dict(TrainingConfig())["data"]["batch_size"] == 8


def test_recipes_and_their_keys_load_nothing_heavy():
    program = "import moss_audio_tokenizer.training.recipes, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not {"torch", "numpy", "tensorboard"} & set(done.stdout.split())


@pytest.mark.parametrize("rate", [7, 100, 7999, 192_001])
def test_a_rate_that_no_sound_has_is_refused_with_the_recipe(rate):
    with pytest.raises(ConfigError, match=f"sampling_rate is {rate}; expected 0, or 8,000 to"):
        codec_config(override(recipe("decoder"), [f"train.sampling_rate={rate}"]))


WITHOUT_TEXT = ["semantic.llm=", "data.text_share=0", "adversarial.discriminators.windows=(4096,)"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["adversarial.crop_seconds=0.01"], r"adversarial\.crop_seconds gives .* 240 samples"),
        (["adversarial.discriminators.periods=(2, 9001)"], "at least 9001"),
        (["adversarial.discriminators.windows=(16384,)"], "at least 10240"),
        (["data.text_seconds=(0.01, 1)"], r"data\.text_seconds gives discriminators 240 samples"),
        ([*WITHOUT_TEXT, "data.crop_seconds=0.08"], r"data\.crop_seconds gives .* 1920 samples"),
    ],
)
def test_audio_too_short_for_discriminators_is_refused_with_the_recipe(changes, message):
    smoke = recipe("smoke")
    codec_config(smoke)
    with pytest.raises(ConfigError, match=message):
        codec_config(override(smoke, changes))
    codec_config(override(smoke, [*changes, "adversarial.start=0"]))


@pytest.mark.parametrize("periods", [(2,), (7, 11)])
@pytest.mark.parametrize("windows", [(), (32,), (64, 512)])
def test_discriminators_take_what_the_recipe_lets_through(periods, windows):
    config = DiscriminatorConfig(periods, windows, channel_divisor=32)
    for samples in range(config.least_samples, config.least_samples + 9):
        assert len(Discriminators(config)(torch.zeros(1, samples))) == len(periods + windows)


CHECKPOINT = "train.checkpoint=bundled"


@pytest.mark.parametrize(
    "assignments",
    [
        [CHECKPOINT],
        [CHECKPOINT, "warm_start.samples=0", "warm_start.steps=5"],
        [CHECKPOINT, "warm_start.low_band=700", "warm_start.steps=5"],
        [CHECKPOINT, "warm_start.low_band=700", "train.parts=decoder"],
    ],
)
def test_a_checkpoint_keeps_its_quantizer_unless_its_hidden_states_change(assignments):
    with pytest.raises(ConfigError, match="warm_start is"):
        override(TrainingConfig(), assignments)
    override(TrainingConfig(), [CHECKPOINT, "warm_start.low_band=700"])


@pytest.mark.parametrize("name", RECIPES)
def test_the_lines_of_a_recipe_make_the_same_recipe(name):
    config = recipe(name)
    lines = recipe_lines(config)
    assert override(type(config)(), lines) == config
    assert len({line.partition("=")[0] for line in lines}) == len(lines)
