"""Speech synthesis, measured in the manner of Seed-TTS-Eval: what is understood, and whose voice.

Every text is synthesized at every number of quantizers, stored as FLAC, transcribed by ASR models
and compared with the voice of its prompt. Systems are behind a protocol, scoring models are
functions.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import nan
from pathlib import Path

import numpy as np

from ...audio import load_audio, resample, save_audio
from ...errors import InputError, MissingDependencyError, MossAudioError
from ...metrics.signals import MEASURED_RATE
from ..artifacts import slug
from ..scoring_models import EmbedSpeaker, Transcribe, cosine
from ..text_normalization import normalizer
from .asr_eval import chosen_quantizer_counts
from .speech_rows import SpeechRow, Transcript
from .systems import Sound, SynthesizedSpeech, TtsRequest, TtsSystem
from .test_set import SpeechItem


@dataclass(frozen=True)
class TtsPlan:
    """What to synthesize, and the scoring models.

    Attributes:
        items: texts and prompts.
        transcribers: ASR models by name.
        embed: speaker model; None for none.
        quantizer_counts: numbers of quantizers; empty for powers of two.
        seed: of the first item; the seeds of the others follow.
        batch_size: texts that are synthesized together.
        text_normalization: one of `text_normalization.NORMALIZATIONS`.

    Raises:
        InputError: there are no texts, no scoring model, or no such normalization.
    """

    items: Sequence[SpeechItem]
    transcribers: Mapping[str, Transcribe]
    embed: EmbedSpeaker | None = None
    quantizer_counts: Sequence[int] = ()
    seed: int = 0
    batch_size: int = 4
    text_normalization: str = "plain"

    def __post_init__(self) -> None:
        if not self.items or self.batch_size < 1:
            raise InputError(
                f"{len(self.items)} texts in batches of {self.batch_size}; expected 1 or more each"
            )
        if not self.transcribers and self.embed is None:
            raise InputError("no scoring model is given; name an ASR model or a speaker model")
        normalizer(self.text_normalization)


def run_tts(
    systems: Mapping[str, TtsSystem],
    plan: TtsPlan,
    folder: Path,
    on_progress: Callable[[int, int], None],
) -> list[SpeechRow]:
    """Rows of every text, by system, from few quantizers to many.

    Args:
        systems: by label.
        plan: what to say.
        folder: of the results; speech goes below it.
        on_progress: called with the number of speeches done and of all.

    Raises:
        CodesError: a depth that a system does not have.
        MissingDependencyError: a package is not installed.
    """
    quantizer_counts = {
        label: chosen_quantizer_counts(plan.quantizer_counts, label, one.num_quantizers)
        for label, one in systems.items()
    }
    total = len(plan.items) * sum(map(len, quantizer_counts.values()))
    rows: list[SpeechRow] = []
    on_progress(0, total)
    for label, system in systems.items():
        for depth in quantizer_counts[label]:
            for fresh in _batches(system, label, depth, plan, folder):
                rows += fresh
                on_progress(len(rows), total)
    return rows


def _batches(
    system: TtsSystem, label: str, depth: int, plan: TtsPlan, folder: Path
) -> Iterator[list[SpeechRow]]:
    for start in range(0, len(plan.items), plan.batch_size):
        items = plan.items[start : start + plan.batch_size]
        try:
            wanted = [_wanted(item) for item in items]
            speeches = system.speak(wanted, depth, plan.seed + start)
        except MissingDependencyError:
            raise
        except MossAudioError as error:
            # One text that cannot be said must not cost the others of its batch.
            if len(items) > 1:
                for index in range(len(items)):
                    yield from _batches(system, label, depth, _alone(plan, start + index), folder)
            else:
                yield [_failed(items[0], label, depth, error)]
            continue
        yield [
            _row(item, one, speech, plan, (label, depth), folder)
            for item, one, speech in zip(items, wanted, speeches, strict=True)
        ]


def _alone(plan: TtsPlan, index: int) -> TtsPlan:
    """One item, with the seed that it has among the others."""
    seed = plan.seed + index
    item = plan.items[index]
    return replace(plan, items=[item], seed=seed, batch_size=1)


def _wanted(item: SpeechItem) -> TtsRequest:
    if item.prompt is None:
        return TtsRequest(item.text)
    # At a rate that carries every band a codec of speech has.
    rate = 48_000
    return TtsRequest(item.text, (load_audio(item.prompt, rate, 1)[0], rate), item.prompt_text)


def _failed(item: SpeechItem, label: str, depth: int, error: Exception) -> SpeechRow:
    return SpeechRow(item.name, item.text, label, depth, prompt=item.prompt_name, error=str(error))


def _row(
    item: SpeechItem,
    wanted: TtsRequest,
    speech: SynthesizedSpeech,
    plan: TtsPlan,
    whose: tuple[str, int],
    folder: Path,
) -> SpeechRow:
    label, depth = whose
    silent = not speech.samples.size
    measured = _measured((speech.samples, speech.sampling_rate))
    normalize = normalizer(plan.text_normalization, item.language)
    transcripts = {
        name: Transcript.compared(
            item.text, "" if silent else transcribe(measured, MEASURED_RATE), normalize
        )
        for name, transcribe in plan.transcribers.items()
    }
    similarity = nan
    if plan.embed and wanted.prompt_audio and not silent:
        voices = (
            plan.embed(one, MEASURED_RATE) for one in (_measured(wanted.prompt_audio), measured)
        )
        similarity = cosine(*voices)
    audio = "" if silent else _stored(folder, label, item, depth, speech)
    seconds = round(len(speech.samples) / speech.sampling_rate, 3)
    return SpeechRow(
        *(item.name, item.text, label, depth, transcripts, similarity, item.prompt_name, audio),
        seconds=seconds,
        finished=speech.finished,
    )


def _measured(sound: Sound) -> np.ndarray:
    samples, rate = sound
    if not len(samples):
        return np.zeros(0)
    return resample(np.asarray(samples, np.float32)[None], rate, MEASURED_RATE)[0].astype(
        np.float64
    )


def _stored(
    folder: Path, label: str, item: SpeechItem, depth: int, speech: SynthesizedSpeech
) -> str:
    """The speech as a file; returns its path below the folder."""
    digest = hashlib.sha256(item.name.encode()).hexdigest()[:8]
    name = f"{slug(Path(item.name).stem)[:60]}-{digest}-{depth}.flac"
    path = folder / "audio" / slug(label) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    save_audio(path, speech.samples[None], speech.sampling_rate)
    return str(path.relative_to(folder).as_posix())
