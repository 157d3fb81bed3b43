"""Studies: runs that differ in one thing, at a scale of minutes, with a table and a plot of them.

In the package because `moss-audio study` is one of its commands. Sources: the paper's figures 4
(training everything or the decoder alone), 5 (width by bitrate), 6 (batch size) and 3 (Progressive
Sequence Dropout).
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from matplotlib.backends.backend_agg import FigureCanvasAgg

from ..errors import ConfigError, TrainingError
from ..files import atomic_path, write_file
from .checkpointing import newest_run
from .codec.codec_config import (
    CodecOptimizerConfig,
    LossWeights,
    TrainingConfig,
    ValidationConfig,
    WarmStart,
)
from .data.data_config import DataConfig
from .recipes import trainer_for
from .run_config import RunConfig, override
from .run_folder import VALIDATION_NAME, changed_keys
from .speech.speech_config import (
    BitratesValidation,
    DropoutConfig,
    SoftTargetsConfig,
    SpeechTrainingConfig,
)
from .speech.speech_recipes import asr_tiny, tts_general
from .study_measures import MEMORY_KEY, Rows, Study, plot, step_memory, table

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
_MEMORY_NAME = "step_memory.json"
SpeechConfig = TypeVar("SpeechConfig", bound=SpeechTrainingConfig)


def _codec() -> TrainingConfig:
    """A codec that leaves chance in minutes, if all speech is by one voice."""
    return TrainingConfig(
        model="study-64",
        max_steps=600,
        quantizer_dropout=1.0,
        precision="fp32",
        checkpoint_every=300,
        keep_best=False,
        data=DataConfig(crop_seconds=0.64, batch_size=8),
        losses=LossWeights(phase=15.0),
        optimizer=CodecOptimizerConfig(
            kind="muon", learning_rate=1e-3, warmup_steps=50, decay_fraction=0.4
        ),
        warm_start=WarmStart(steps=200, samples=4096),
        validation=ValidationConfig(every=100, clips=12, num_quantizers=DEPTHS),
    )


def end_to_end() -> Study:
    """The paper's Figure 4."""
    base = replace(_codec(), max_steps=900)
    runs = {"everything": base, "decoder alone": replace(base, decoder_only_from=400)}
    question = "After the quantizer's start, does it pay to train encoder and quantizer further?"
    return Study(question, runs, "steps", CODEC_MEASURES, DEPTHS, seeds=(0, 1, 2))


def width() -> Study:
    """The paper's Figure 5, with batches of 16: with smaller ones no width leaves chance."""
    base = _with_batch(16)
    runs = {f"width {size}": replace(base, model=f"study-{size}") for size in (32, 64, 128, 256)}
    question = "What does width buy, and at which bitrate?"
    return Study(question, runs, "depth", CODEC_MEASURES, DEPTHS)


def batch() -> Study:
    """The paper's Figure 6."""
    runs = {f"batch {size}": _with_batch(size) for size in (1, 2, 4, 8, 16, 32)}
    question = "What does a larger batch buy at as many steps?"
    return Study(question, runs, "steps", CODEC_MEASURES, DEPTHS)


def _with_batch(size: int) -> TrainingConfig:
    base = _codec()
    return replace(base, data=replace(base.data, batch_size=size))


def _small(recipe: SpeechConfig, steps: int, warmup_steps: int, clips: int) -> SpeechConfig:
    """A recipe of speech with a small language model."""
    return replace(
        recipe,
        max_steps=steps,
        precision="fp32",
        checkpoint_every=250,
        keep_best=False,
        model=replace(recipe.model, width=128, num_layers=3),
        data=replace(recipe.data, batch_seconds=24.0),
        optimizer=replace(recipe.optimizer, warmup_steps=warmup_steps),
        validation=BitratesValidation(steps, clips, LANGUAGE_DEPTHS),
    )


def sequence_dropout() -> Study:
    """The paper's Figure 3, by a model with a text encoder, which soonest says intelligible words.

    `moss-audio eval tts` measures what the paper shows: word error rate and speaker similarity of
    the final models, by number of quantizers.
    """
    base = _small(tts_general(), 3000, 150, 32)
    base = replace(base, model=replace(base.model, width=192), depth="tiny", aligner="bundled")
    # All codebooks, and all numbers of them, count alike, as in the paper. The text encoder, and
    # with it place_dropout and frame_dropout, stay.
    base = replace(
        base,
        num_quantizers=0,
        dropout=DropoutConfig(skew=1.0),
        scored_share=0.5,
        hidden_dropout=0.0,
        soft_targets=SoftTargetsConfig(share=0.0),
        half_weight_at=0.0,
        recognition_weight=0.0,
    )
    runs = {
        f"p {share:g}": replace(base, dropout=replace(base.dropout, probability=share))
        for share in (0.0, 0.25, 0.5, 1.0)
    }
    question = "Does a TTS model that is trained on random prefixes of the layers know all of them?"
    return Study(question, runs, "depth", TTS_MEASURES, LANGUAGE_DEPTHS, memory=True)


def reading_depth() -> Study:
    """One ASR model for all bitrates, or for the highest alone."""
    base = _small(asr_tiny(), 1000, 100, 48)
    base = replace(base, data=replace(base.data, versions=2))
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


def run_study(
    name: str, output: str, assignments: list[str], report: Callable[[str], None] = print
) -> Path:
    """Make all runs of a study below ``output``, then its table and its plot.

    Finished runs are kept, and unfinished ones resumed.

    Args:
        name: the name of one of `STUDIES`.
        output: the folder of the study.
        assignments: ``key=value`` for every run, such as ``data.manifest=PATH``.
        report: a function that is called with lines of progress.

    Returns:
        The folder, with ``study.md``, ``study.json`` and ``study.png``.

    Raises:
        ConfigError: there is no such study, or no such key.
        TrainingError: a run cannot be made.
    """
    if name not in STUDIES:
        raise ConfigError(f"no study {name!r}; there are {', '.join(STUDIES)}")
    if not output:
        raise TrainingError("no output folder; set output=DIR")
    study, folder = STUDIES[name](), Path(output)
    rows: dict[str, list[Rows]] = {label: [] for label in study.runs}
    for label, config in _configured(study, folder, assignments):
        report(f"== {label}" + (f", seed {config.seed}" if len(study.seeds) > 1 else ""))
        rows[label].append(_run(config, study.memory, report))
    _write(folder, name, study, rows)
    return folder


def _configured(study: Study, folder: Path, assignments: list[str]) -> list[tuple[str, RunConfig]]:
    """The runs with the caller's keys, all of them before the first begins."""
    changed = []
    for seed in study.seeds:
        for label, recipe in study.runs.items():
            name = label.replace(" ", "-") + (f"-seed-{seed}" if len(study.seeds) > 1 else "")
            seeded = replace(recipe, seed=seed) if len(study.seeds) > 1 else recipe
            changed.append((label, name, override(seeded, assignments)))
    if len({config for _, _, config in changed}) < len(changed):
        raise ConfigError(
            f"with {', '.join(assignments)} runs of the study would be the same; leave out the key "
            "that they differ in"
        )
    return [(label, replace(config, output=str(folder / name))) for label, name, config in changed]


def _run(config: RunConfig, memory: bool, report: Callable[[str], None]) -> Rows:
    """The validations of a run, which is made, finished or read.

    Args:
        config: the recipe.
        memory: whether to measure the memory of a step, too.
        report: a function that is called with lines of progress.
    """
    own = Path(config.output)
    if not (own / "final").is_dir():
        trainer = trainer_for(config, newest_run(own) is not None, report)
        # Of a fresh run alone: a resumed one holds the state of its optimizer already.
        if memory and not (own / _MEMORY_NAME).is_file():
            measured = json.dumps({MEMORY_KEY: step_memory(trainer)})
            write_file(own / _MEMORY_NAME, measured)
        trainer.run()
    elif changed_keys(own, config):
        raise TrainingError(f"{own} was made with other keys; give those, or another output=DIR")
    if not (own / "final").is_dir():
        raise TrainingError("stopped; give the same command again to continue")
    rows = _json_lines(own / VALIDATION_NAME)
    if memory:
        rows[-1] |= _json_lines(own / _MEMORY_NAME)[0]
    return rows


def _json_lines(path: Path) -> Rows:
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path} cannot be read ({error}); remove {path.parent}") from error
    if not rows:
        raise TrainingError(f"{path} is empty: a study needs clips of the split 'valid'")
    return rows


def _write(folder: Path, name: str, study: Study, rows: dict[str, list[Rows]]) -> None:
    summary = {"study": name, "question": study.question, "runs": rows}
    texts = {"study.json": json.dumps(summary, indent=1) + "\n", "study.md": table(study, rows)}
    for file, text in texts.items():
        write_file(folder / file, text, TrainingError)
    with atomic_path(folder / "study.png", error=TrainingError) as beside:
        FigureCanvasAgg(plot(study, rows)).print_png(str(beside))
