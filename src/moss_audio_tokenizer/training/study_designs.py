"""The studies: sets of configurations that differ in one thing, at a scale of minutes.

In the package because `moss-audio study` is one of its commands; `studies.py` runs them.
Sources: the paper's figures 4 (training everything or the decoder alone), 5 (width by bitrate)
and 6 (batch size), and its section 4.3 (Progressive Sequence Dropout).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from .codec.codec_config import (
    CodecOptimizerConfig,
    DataConfig,
    TrainingConfig,
    ValidationConfig,
    WarmStart,
)
from .run_config import RunConfig
from .speech.speech_config import (
    AsrTrainingConfig,
    AsrValidation,
    DepthConfig,
    TtsTrainingConfig,
    TtsValidation,
)
from .speech.speech_recipes import asr_tiny, tts_tiny

DEPTHS = (1, 2, 4, 8)
CODEC_MEASURES = {
    "speech/mel_distance": "mel distance of speech (lower is better)",
    "speech/stoi": "STOI of speech (higher is better)",
}
LANGUAGE_DEPTHS = (1, 2, 4, 8, 16, 32)
TTS_MEASURES = {"codes": "cross-entropy of held-out codes in nats (lower is better)"}
ASR_MEASURES = {
    "wer": "word error rate (lower is better)",
    "cer": "character error rate (lower is better)",
}


@dataclass(frozen=True)
class Study:
    """Runs that differ in one thing.

    Attributes:
        question: the question that they answer.
        runs: the recipes, by what is different in them.
        against: the x axis: "steps" plots the most layers over training, "depth" the end of
            training over the number of layers.
        measures: the title of each measure, by its name in validation.jsonl without the number
            of layers.
        depths: the numbers of quantizer layers that every run validates with, smallest first.
    """

    question: str
    runs: Mapping[str, RunConfig]
    against: str
    measures: Mapping[str, str]
    depths: tuple[int, ...]


def _base() -> TrainingConfig:
    return TrainingConfig(
        model="study-64",
        max_steps=900,
        quantizer_dropout=1.0,
        precision="fp32",
        checkpoint_every=300,
        log_every=100,
        keep_checkpoints=1,
        keep_best=False,
        data=DataConfig(crop_seconds=0.64, batch_size=6),
        optimizer=CodecOptimizerConfig(learning_rate=1e-3, warmup_steps=50, decay_fraction=0.3),
        warm_start=WarmStart(steps=300, samples=4096),
        validation=ValidationConfig(every=150, clips=12, max_seconds=3.0, num_quantizers=DEPTHS),
    )


def end_to_end() -> Study:
    """The paper's Figure 4."""
    base = _base()
    runs = {"everything": base, "decoder alone": replace(base, decoder_only_from=300)}
    question = "After the quantizer's start, does it pay to train encoder and quantizer on?"
    return Study(question, runs, "steps", CODEC_MEASURES, DEPTHS)


def width() -> Study:
    """The paper's Figure 5."""
    runs = {f"width {size}": replace(_base(), model=f"study-{size}") for size in (32, 64, 128)}
    question = "What does width buy, and at which bitrate?"
    return Study(question, runs, "depth", CODEC_MEASURES, DEPTHS)


def batch() -> Study:
    """The paper's Figure 6."""
    base = _base()
    runs = {
        f"batch {size}": replace(base, data=replace(base.data, batch_size=size))
        for size in (2, 6, 18)
    }
    question = "What does a larger batch buy at as many steps?"
    return Study(question, runs, "steps", CODEC_MEASURES, DEPTHS)


def _small_tts() -> TtsTrainingConfig:
    recipe, steps = tts_tiny(), 600
    return replace(
        recipe,
        max_steps=steps,
        precision="fp32",
        checkpoint_every=200,
        log_every=50,
        keep_checkpoints=1,
        keep_best=False,
        model=replace(recipe.model, width=128, num_layers=3),
        depth=DepthConfig(128, 2, 2, 2, 64, 256, 0),
        data=replace(recipe.data, batch_seconds=24.0),
        optimizer=replace(recipe.optimizer, warmup_steps=50),
        validation=TtsValidation(steps, 32, LANGUAGE_DEPTHS, max_seconds=0.0),
    )


def sequence_dropout() -> Study:
    """Progressive Sequence Dropout, the paper's section 4.3."""
    base = _small_tts()
    runs = {
        label: replace(base, dropout=replace(base.dropout, probability=share))
        for label, share in (("all layers", 0.0), ("sequence dropout", 1.0))
    }
    question = "Does a TTS model that is trained on random prefixes of the layers know all of them?"
    return Study(question, runs, "depth", TTS_MEASURES, LANGUAGE_DEPTHS)


def _small_asr() -> AsrTrainingConfig:
    recipe, steps = asr_tiny(), 1000
    return replace(
        recipe,
        max_steps=steps,
        precision="fp32",
        checkpoint_every=250,
        log_every=50,
        keep_checkpoints=1,
        keep_best=False,
        model=replace(recipe.model, width=128, num_layers=3),
        data=replace(recipe.data, batch_seconds=24.0, versions=2),
        optimizer=replace(recipe.optimizer, warmup_steps=100),
        validation=AsrValidation(steps, 48, LANGUAGE_DEPTHS),
    )


def reading_depth() -> Study:
    """One ASR model for all bitrates, or for the highest alone."""
    base = _small_asr()
    runs = {
        label: replace(base, prefix_share=share)
        for label, share in (("all layers", 0.0), ("random prefixes", 1.0))
    }
    question = "Does an ASR model trained on random prefixes of the layers work at any bitrate?"
    return Study(question, runs, "depth", ASR_MEASURES, LANGUAGE_DEPTHS)


STUDIES: dict[str, Callable[[], Study]] = {
    "batch": batch,
    "end_to_end": end_to_end,
    "reading_depth": reading_depth,
    "sequence_dropout": sequence_dropout,
    "width": width,
}
