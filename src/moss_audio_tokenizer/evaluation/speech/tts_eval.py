"""Speech synthesis after Seed-TTS-Eval: what an ASR model understands, and whose voice it is.

Every text is synthesized at every number of quantizers, stored as FLAC, transcribed by ASR models
and compared with the voice of its prompt. Systems are behind a protocol, scoring models are
functions; PyTorch is loaded when a CAT-TTS system is made.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import nan
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ...audio import load_audio, resample, save_audio
from ...errors import InputError, MissingDependencyError, MossAudioError
from ...metrics.signals import MEASURED_RATE
from ...speech.sampling import SpeechSampling
from ...speech.synthesizer import Speech, SpeechRequest
from ..clip_results import content_of, name_slug, slug
from ..datasets import SpeechItem
from ..loading import fingerprint
from ..results_file import Key
from ..scoring_models import EmbedSpeaker, ScoreOpinion, Transcribe, cosine
from ..text_normalization import compare, normalizer
from .speech_rows import (
    Batch,
    OnProgress,
    SpeechRow,
    chosen_quantizer_counts,
    digest_of,
    run_batches,
)

# Carries every band that a codec of speech has.
_PROMPT_RATE = 48_000


class TtsSystem(Protocol):
    """A TTS system under evaluation.

    Attributes:
        identity: which version it is, so that results of another one are not taken for its own.
        num_quantizers: the most quantizers that it predicts.
        kbps_per_quantizer: bitrate of one quantizer's codes.
    """

    identity: str
    num_quantizers: int
    kbps_per_quantizer: float

    def synthesize(
        self, requests: Sequence[SpeechRequest], num_quantizers: int, seed: int
    ) -> list[Speech]:
        """Several texts at once; what row i says depends on ``seed + i`` and on itself alone."""
        ...


class CatTtsSystem:
    """A CAT-TTS model with its codec as a `TtsSystem`.

    Args:
        name: folder of the model, or its id on the hub.
        codec: folder, hub id or "bundled".
        device: where to compute.
        sampling: fields of `SpeechSampling`.

    Raises:
        CheckpointError: the model or the codec cannot be loaded.
        ModelMismatchError: the model was trained on codes of another codec.
        InputError: a sampling setting is out of range.
    """

    def __init__(self, name: str, codec: str, device: str, **sampling: Any) -> None:
        from ...tts import Synthesizer

        self._sampling = SpeechSampling(**sampling)
        self._synthesizer = Synthesizer.from_pretrained(name, codec=codec, device=device)
        model: Any = self._synthesizer.model
        info = self._synthesizer.codec.info
        self.identity = f"{fingerprint(model)} {info.identity} {self._sampling}"
        self.num_quantizers = int(model.facts.num_quantizers)
        self.kbps_per_quantizer = info.bitrate(1) / 1000

    def synthesize(
        self, requests: Sequence[SpeechRequest], num_quantizers: int, seed: int
    ) -> list[Speech]:
        """Several texts; row i has the seed ``seed + i``."""
        settings = replace(self._sampling, num_quantizers=num_quantizers, seed=seed)
        return self._synthesizer.speak_many(requests, settings)


@dataclass(frozen=True)
class TtsPlan:
    """What to synthesize, and the scoring models.

    Attributes:
        transcribers: ASR models by name.
        embed: speaker model; None for none.
        rate: opinion model; None for none.
        quantizer_counts: empty for powers of two.
        seed: of the first item; the seeds of the others follow.
        batch_size: texts that are synthesized together.
        settings: what else the results depend on, such as the names of the scoring models and
            how tokens are sampled; a change makes a resumed run measure everything again.

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
    settings: str = ""
    rate: ScoreOpinion | None = None

    def __post_init__(self) -> None:
        if not self.items or self.batch_size < 1:
            raise InputError(
                f"{len(self.items)} texts in batches of {self.batch_size}; expected 1 or more each"
            )
        if not self.transcribers and self.embed is None and self.rate is None:
            raise InputError("no scoring model is given; name an ASR model or a speaker model")
        normalizer(self.text_normalization)


def run_tts(
    systems: Mapping[str, TtsSystem], plan: TtsPlan, folder: Path, on_progress: OnProgress
) -> list[SpeechRow]:
    """Rows of every text, by system, from few quantizers to many.

    Args:
        systems: TTS systems by label.
        plan: what to synthesize.
        folder: of the results and the speech; an interrupted run resumes there.
        on_progress: called with the number of rows done and of all.

    Raises:
        CodesError: a number of quantizers that a system does not have.
        EvaluationError: another run has the folder, or it holds rows of another kind.
    """
    most = {label: one.num_quantizers for label, one in systems.items()}
    counts = chosen_quantizer_counts(plan.quantizer_counts, most)
    runs = [
        _SystemRun(label, system, count, plan, folder)
        for label, system in systems.items()
        for count in counts[label]
    ]
    batches = (batch for run in runs for batch in run.batches())
    return run_batches(batches, folder, list(systems), len(plan.items) * len(runs), on_progress)


@dataclass(frozen=True)
class _SystemRun:
    """One system at one number of quantizers."""

    label: str
    system: TtsSystem
    num_quantizers: int
    plan: TtsPlan
    folder: Path

    def batches(self) -> Iterator[Batch]:
        """All texts, in their order."""
        size = self.plan.batch_size
        for start in range(0, len(self.plan.items), size):
            items = self.plan.items[start : start + size]
            seed = self.plan.seed + start
            origins: dict[Key, str] = {
                (item.name, self.label, self.num_quantizers): self._origin(item, seed + index)
                for index, item in enumerate(items)
            }
            yield Batch(origins, partial(self._rows, items, seed))

    def _origin(self, item: SpeechItem, seed: int) -> str:
        prompt = content_of(item.prompt) if item.prompt else None
        said = item.text, item.language, item.prompt_name, item.prompt_text, prompt
        scored = self.plan.settings, self.plan.text_normalization, list(self.plan.transcribers)
        return digest_of(self.system.identity, seed, said, scored, self.plan.embed is not None)

    def _rows(self, items: Sequence[SpeechItem], seed: int) -> list[SpeechRow]:
        try:
            requests = [_request(item) for item in items]
            speeches = self.system.synthesize(requests, self.num_quantizers, seed)
        except MissingDependencyError:
            raise
        except MossAudioError as error:
            if len(items) == 1:
                return [replace(self._row(items[0]), error=str(error))]
            # One text that fails must not cost the others of its batch; each has its own seed.
            return [
                row for index, item in enumerate(items) for row in self._rows([item], seed + index)
            ]
        return [
            self._scored(item, request, speech)
            for item, request, speech in zip(items, requests, speeches, strict=True)
        ]

    def _row(self, item: SpeechItem) -> SpeechRow:
        whose = item.name, self.label, self.num_quantizers
        return SpeechRow(*whose, text=item.text, prompt=item.prompt_name)

    def _scored(self, item: SpeechItem, request: SpeechRequest, speech: Speech) -> SpeechRow:
        silent = not speech.samples.size
        measured = _measured(speech.samples, speech.sampling_rate)
        normalize = normalizer(self.plan.text_normalization, item.language)
        transcripts = {
            name: compare(
                item.text, "" if silent else transcribe(measured, MEASURED_RATE), normalize
            )
            for name, transcribe in self.plan.transcribers.items()
        }
        similarity = nan
        if self.plan.embed and request.prompt_audio and not silent:
            sounds = _measured(*request.prompt_audio), measured
            similarity = cosine(*(self.plan.embed(one, MEASURED_RATE) for one in sounds))
        return replace(
            self._row(item),
            transcripts=transcripts,
            similarity=similarity,
            opinion=nan
            if silent or not self.plan.rate
            else self.plan.rate(measured, MEASURED_RATE),
            audio="" if silent else self._stored(item, speech),
            seconds=round(len(speech.samples) / speech.sampling_rate, 3),
            finished=speech.finished,
        )

    def _stored(self, item: SpeechItem, speech: Speech) -> str:
        """Writes the speech to a file; returns its path below the folder."""
        name = f"{name_slug(item.name)}-{self.num_quantizers}.flac"
        path = self.folder / "audio" / slug(self.label) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        save_audio(path, speech.samples[None], speech.sampling_rate)
        return path.relative_to(self.folder).as_posix()


def _request(item: SpeechItem) -> SpeechRequest:
    if item.prompt is None:
        return SpeechRequest(item.text)
    prompt = load_audio(item.prompt, _PROMPT_RATE, 1)[0], _PROMPT_RATE
    return SpeechRequest(item.text, prompt, item.prompt_text)


def _measured(samples: np.ndarray, rate: int) -> np.ndarray:
    if not len(samples):
        return np.zeros(0)
    sound = resample(np.asarray(samples, np.float32)[None], rate, MEASURED_RATE)[0]
    return sound.astype(np.float64)
