"""The training data of a language model on codes: the batch of every step, and held-out rows.

Owns the way from a recipe to rows of codes with their texts. Sound is encoded when it is first
drawn. PyTorch is imported only to open a codec.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import UInt16

from ...codes import Codec, CodecInfo
from ...errors import ConfigError
from ...manifest import ManifestEntry
from .clip_sources import (
    Source,
    StoredCodes,
    check_model,
    find_clips,
    find_sources,
    spread_evenly,
    with_lengths,
)
from .coded_clips import ClipReader, Variations
from .coded_planning import CodesPlanner, CodesRow, is_usable
from .data_config import CodesDataConfig
from .training_data import TrainingData, part_of

# An upper bound of the characters said in a second; the fastest speech in English has about 30.
_MOST_CHARACTERS_A_SECOND = 60
_SPARE_CHARACTERS = 20


@dataclass(frozen=True)
class Segment:
    """A clip in a row: its text, and how many frames it has."""

    text: str
    frames: int


@dataclass(frozen=True, eq=False)
class CodedRow:
    """Codes of one clip, or of several of one speaker, one after another.

    Attributes:
        codes: the codes of the codebooks in use.
        segments: the clips, in order; one alone can be cut off as a prompt.
        speaker: whose voice it is; empty where that is not known.
        name: what the manifests call the clips.
    """

    codes: UInt16[np.ndarray, "num_quantizers frames"]
    segments: tuple[Segment, ...]
    speaker: str
    name: str

    @property
    def text(self) -> str:
        """What is said, with a blank between clips."""
        return " ".join(segment.text for segment in self.segments)

    @property
    def num_frames(self) -> int:
        """Frames of all clips."""
        return int(self.codes.shape[1])


@dataclass(frozen=True, eq=False)
class CodedBatch:
    """Rows of unequal lengths.

    Attributes:
        rows: the rows, in no particular order.
        frame_rate: frames a second.
    """

    rows: tuple[CodedRow, ...]
    frame_rate: float

    @property
    def names(self) -> tuple[str, ...]:
        """The name of every row."""
        return tuple(row.name for row in self.rows)

    @property
    def audio_seconds(self) -> float:
        """Seconds of audio of all rows together."""
        return sum(row.num_frames for row in self.rows) / self.frame_rate

    def part(self, index: int, count: int) -> "CodedBatch":
        """The rows of part ``index`` of ``count`` equal ones, in order.

        Raises:
            TrainingError: the rows cannot be shared out equally.
        """
        own = part_of(len(self.rows), index, count, "data.row_multiple")
        return CodedBatch(self.rows[own], self.frame_rate)


class CodedData(TrainingData[CodesRow, CodedBatch]):
    """Batches of codes of one process of a run.

    Args:
        config: as in `TrainingData`, which has rank, world and report too.
        seed: the seed that a batch follows from, together with step and rank.
        codec: a codec to encode with in place of ``data.codec``.
        device: the device of ``data.codec``.
        join_share: the share of the rows for which more than one clip is looked for.
        spell: a function that gives a text as the model can say it; None or an empty text leaves
            the clip out.
        count_tokens: a function that counts the tokens of a text, for ``batch_tokens``.

    Attributes:
        info: what the codes are, with the number of codebooks of every row.
        num_clips: training clips that there are, with a text or not.
        num_used: those that are drawn.

    Raises:
        InputError: a source cannot be read, or has no split "train".
        ConfigError: there is sound and no codec.
        CheckpointError: ``data.codec`` cannot be opened.
        CodesFileError: a shard of codes is damaged.
        ModelMismatchError: stored codes are another model's.
        TrainingError: too many clips cannot be read, or none can be used.
    """

    def __init__(
        self,
        config: CodesDataConfig,
        seed: int,
        rank: int = 0,
        world: int = 1,
        report: Callable[[str], None] = print,
        codec: Codec | None = None,
        device: str = "cpu",
        join_share: float = 0.5,
        spell: Callable[[str], str | None] = str,
        count_tokens: Callable[[str], int] = len,
    ) -> None:
        super().__init__(config, rank, world, report)
        self.config, self._spell, self._stored = config, spell, StoredCodes()
        sources = find_sources(config, "train", report, self._stored.read_entries)
        self.num_clips = sum(len(source.entries) for source in sources)
        if codec is None and config.codec:
            codec = _opened(config.codec, device)
        self.info = self._described(sources, codec)
        variations = Variations(config, seed, self._stored.holds)
        room = config.cache_hours * 3600
        self._reader = ClipReader(self.info, self._stored, codec, variations, room)
        measured = self._skipped.measured(sources, self._stored.seconds)
        spelled = [replace(source, entries=self._spelled(source.entries)) for source in measured]
        unit, rate = world * config.row_multiple, self.info.frame_rate
        self._planner = CodesPlanner(
            spelled, config, variations.seconds, seed, unit, rate, join_share, count_tokens
        )
        self.num_used = len(self._planner.used)

    def _described(self, sources: Sequence[Source], codec: Codec | None) -> CodecInfo:
        """What all codes are, with the codebooks that every source has."""
        found = {source.path: self._stored.described(source.entries) for source in sources}
        infos = [codec.info] if codec else []
        for path, info in found.items():
            if info is not None:
                infos.append(info)
                check_model(info, infos[0], path)
        if not infos:
            raise ConfigError(
                f"data.codec is empty, and {', '.join(found)} has no readable codes; set "
                "data.codec to the model that is to encode sound"
            )
        return replace(infos[0], num_quantizers=min(info.num_quantizers for info in infos))

    def _spelled(self, entries: Sequence[ManifestEntry]) -> list[ManifestEntry]:
        """The clips with their texts as the model can say them; without text where it cannot.

        Nor do texts stay that are too long to be said in their clip's time: rows of a batch are
        padded to the longest text, so one such clip costs all of them.
        """
        spelled = [replace(entry, text=self._spell(entry.text) or "") for entry in entries]
        if lost := _without_text(entries, spelled):
            self._report(
                f"left out: {len(lost)} clips whose text the model cannot say, such as "
                f"{lost[0].text!r}"
            )
        checked = [replace(entry, text="") if _is_too_long(entry) else entry for entry in spelled]
        if lost := _without_text(spelled, checked):
            self._report(
                f"left out: {len(lost)} clips whose text is longer than their sound can say, such "
                f"as {lost[0].name or lost[0].path}: {len(lost[0].text)} characters in "
                f"{lost[0].seconds:g} s"
            )
        return checked

    @property
    def texts(self) -> list[str]:
        """The texts of all clips that are drawn."""
        return [self._planner.entries[clip].text for clip in self._planner.used]

    def batch(self, step: int) -> CodedBatch:
        """This process's rows of a step.

        Raises:
            ModelMismatchError: stored codes are another model's.
            TrainingError: too many clips cannot be read.
        """
        first, planned = self._own(self._planner.plan(step))
        rows = [
            self._replaced(step, index, row, self._make(row))[1]
            for index, row in enumerate(planned, first)
        ]
        return CodedBatch(tuple(rows), self.info.frame_rate)

    def clips(self) -> Generator[CodedRow]:
        """Every clip that is drawn, as it is and by itself; a loop over them fills the cache."""
        for clip in self._planner.used:
            made = self._make(CodesRow((int(clip),)))
            if isinstance(made, CodedRow):
                yield made

    def valid(self, count: int) -> list[CodedRow]:
        """Clips of the split "valid" as they are, spread evenly over it; none where there are none.

        Args:
            count: how many at most; those that cannot be read are reported and left out.

        Raises:
            InputError, TrainingError: as `clip_sources.find_clips` does.
        """
        found = find_clips(self.config, "valid", self._report, self._stored.read_entries)
        known, unknown = with_lengths(found, self._stored.seconds)
        for _, reason in unknown:
            self._report(f"skipped: {reason}")
        usable = [entry for entry in self._spelled(known) if is_usable(entry, self.config)]
        rows = []
        for entry in spread_evenly(usable, count):
            codes = self._reader.codes(entry, 0)
            if isinstance(codes, str):
                self._report(f"skipped: {codes}")
            else:
                rows.append(_row([entry], [codes]))
        return rows

    def _make(self, row: CodesRow) -> CodedRow | str:
        entries = [self._planner.entries[clip] for clip in row.clips]
        parts = []
        for clip, entry in zip(row.clips, entries, strict=True):
            name = entry.location
            codes = self.unreadable.get(name) or self._reader.codes(entry, row.version)
            self._skipped.note(clip, name, codes if isinstance(codes, str) else None)
            if isinstance(codes, str):
                return codes
            parts.append(codes)
        return _row(entries, parts)


def _without_text(
    before: Sequence[ManifestEntry], after: Sequence[ManifestEntry]
) -> list[ManifestEntry]:
    """The clips that have lost their text."""
    return [was for was, now in zip(before, after, strict=True) if was.text and not now.text]


def _is_too_long(entry: ManifestEntry) -> bool:
    return len(entry.text) > _MOST_CHARACTERS_A_SECOND * entry.seconds + _SPARE_CHARACTERS


def _row(entries: Sequence[ManifestEntry], parts: Sequence[np.ndarray]) -> CodedRow:
    texts = [" ".join(entry.text.split()) for entry in entries]
    return CodedRow(
        np.concatenate(parts, axis=1),
        tuple(Segment(text, part.shape[1]) for text, part in zip(texts, parts, strict=True)),
        entries[0].speaker,
        " + ".join(entry.name or str(entry.path) for entry in entries),
    )


def _opened(model: str, device: str) -> Codec:
    from ...hf.torch_codec import TorchCodec

    return TorchCodec.from_pretrained(model, parts="encoder", device=device)
