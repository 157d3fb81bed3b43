"""The training data of a language model on codes: the batch of every step, and held-out rows.

Owns the way from a recipe to rows of codes with their texts. Sound is encoded when it is first
drawn. A batch is a pure function of the seed, the step's number and the process's rank. PyTorch is
imported only to open a codec.
"""

import itertools
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace

import numpy as np

from ...codes import Codec, CodecInfo
from ...errors import ConfigError, TrainingError
from ...manifest import ManifestEntry
from ...sources.recordings import location
from .batches import CodedBatch, CodedRow, Segment
from .clip_sources import (
    Source,
    StoredCodes,
    check_model,
    find_clips,
    find_sources,
    measured_sources,
    spread_evenly,
    with_lengths,
)
from .coded_clips import ClipReader, Variations
from .coded_planning import PlannedRow, RowPlanner, is_usable
from .data_config import CodesDataConfig
from .unreadable import Unreadable

_MOST_REDRAWS = 100
# An upper bound of the characters said in a second; the fastest speech in English has about 30.
_MOST_CHARACTERS_A_SECOND = 60
_SPARE_CHARACTERS = 20


class CodedData:
    """Batches of one process of a run.

    Args:
        config: the recipe's group ``data``.
        seed: the seed that a batch follows from, together with step and rank.
        rank: the rank of this process.
        world: the number of processes, which divide the rows of a step among them.
        report: a function that is called with a line about every file that is skipped.
        codec: a codec to encode with in place of ``data.codec``.
        device: the device of ``data.codec``.
        spell: a function that gives a text as the model can say it; None or an empty text leaves
            the clip out.
        count_tokens: a function that counts the tokens of a text, for ``batch_tokens``.

    Attributes:
        info: what the codes are, with the number of layers of every row.
        num_clips: training clips that there are, with a text or not.
        num_used: those that are drawn.
        unreadable: for each file that could not be read so far, what is wrong with it.

    Raises:
        InputError: a source cannot be read, or has no split "train".
        ConfigError: there is sound and no codec, or more layers are wanted than there are.
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
        spell: Callable[[str], str | None] = str,
        count_tokens: Callable[[str], int] = len,
    ) -> None:
        self._spell = spell
        self.config, self._rank, self._world, self._report = config, rank, world, report
        where = ", ".join(path for path, _ in config.weighted_paths)
        self._skipped = Unreadable(where, config.max_unreadable_share, report)
        self.unreadable = self._skipped.reasons
        self._stored = StoredCodes()
        sources = find_sources(config, "train", report, self._stored.read_entries)
        self.num_clips = sum(len(source.entries) for source in sources)
        if codec is None and config.codec:
            codec = _opened(config.codec, device)
        self.info = self._described(sources, codec)
        self._variations = Variations(config, seed, self._stored.holds)
        room = config.cache_hours * 3600
        self._reader = ClipReader(self.info, self._stored, codec, self._variations, room)
        unit = world * config.row_multiple
        measured = measured_sources(sources, self._skipped, self._stored.seconds)
        spelled = [replace(source, entries=self._spelled(source.entries)) for source in measured]
        rate = self.info.frame_rate
        self._planner = RowPlanner(
            spelled, config, self._variations, seed, unit, rate, count_tokens
        )
        self.num_used = len(self._planner.used)

    def _described(self, sources: Sequence[Source], codec: Codec | None) -> CodecInfo:
        """What all codes are; with the layers that are wanted, or that every source has."""
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
        there = min(info.num_quantizers for info in infos)
        wanted = self.config.num_quantizers or there
        if wanted > there:
            raise ConfigError(
                f"data.num_quantizers is {wanted}; expected at most the {there} layers that all "
                "sources have"
            )
        return replace(infos[0], num_quantizers=wanted)

    def _spelled(self, entries: Sequence[ManifestEntry]) -> list[ManifestEntry]:
        """The clips with their texts as the model can say them; without text where it cannot."""
        spelled = [replace(entry, text=self._spell(entry.text) or "") for entry in entries]
        pairs = zip(entries, spelled, strict=True)
        lost = [was.text for was, now in pairs if was.text and not now.text]
        if lost:
            self._report(
                f"left out: {len(lost)} clips whose text the model cannot say, such as {lost[0]!r}"
            )
        return self._plausible(spelled)

    def _plausible(self, entries: Sequence[ManifestEntry]) -> list[ManifestEntry]:
        """The clips; without text where it is too long to be said in the clip's time.

        Rows of a batch are padded to the longest text, so one such clip costs all of them.
        """
        checked = [
            replace(entry, text="") if _is_too_long(entry.text, entry.seconds) else entry
            for entry in entries
        ]
        pairs = zip(entries, checked, strict=True)
        lost = [was for was, now in pairs if was.text and not now.text]
        if lost:
            self._report(
                f"left out: {len(lost)} clips whose text is longer than their sound can say, such "
                f"as {lost[0].name or lost[0].path}: {len(lost[0].text)} characters in "
                f"{lost[0].seconds:g} s"
            )
        return checked

    @property
    def texts(self) -> list[str]:
        """Of all clips that are drawn."""
        return [self._planner.entries[clip].text for clip in self._planner.used]

    def batch(self, step: int) -> CodedBatch:
        """This process's rows of a step.

        Raises:
            ModelMismatchError: stored codes are another model's.
            TrainingError: too many clips cannot be read.
        """
        planned = self._planner.plan(step)
        count = len(planned) // self._world
        first = self._rank * count
        rows = [
            self._replaced(step, index, planned[index]) for index in range(first, first + count)
        ]
        return CodedBatch(tuple(rows), self.info.frame_rate)

    def batches(self, first_step: int) -> Generator[CodedBatch]:
        """The batches of ``first_step`` and all after it; see `batch`."""
        yield from map(self.batch, itertools.count(first_step))

    def clips(self) -> Generator[CodedRow]:
        """Every clip that is drawn, as it is and by itself; a loop over them fills the cache."""
        for clip in self._planner.used:
            made = self._made(PlannedRow((int(clip),), 0, 0.0, 0.0))
            if isinstance(made, CodedRow):
                yield made

    def valid(self, count: int) -> list[CodedRow]:
        """Clips of the split "valid" as they are, spread evenly over it; none where there are none.

        Args:
            count: how many at most; those that cannot be read are reported and left out.

        Raises:
            InputError, TrainingError: see `sources.find_clips`.
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

    def _replaced(self, step: int, index: int, planned: PlannedRow) -> CodedRow:
        """A row; another one when a file of it cannot be read."""
        for attempt in range(_MOST_REDRAWS):
            made = self._made(planned)
            if isinstance(made, CodedRow):
                return made
            planned = self._planner.redraw(step, index, attempt)
        raise TrainingError(
            f"{_MOST_REDRAWS} rows drawn for row {index} of step {step + 1} hold clips that cannot "
            f"be read, the last of them being: {made}; repair the data"
        )

    def _made(self, planned: PlannedRow) -> CodedRow | str:
        """A row, or what is wrong with a file of it."""
        entries = [self._planner.entries[clip] for clip in planned.clips]
        parts = []
        for clip, entry in zip(planned.clips, entries, strict=True):
            name = location(entry)
            codes = self.unreadable.get(name) or self._reader.codes(entry, planned.version)
            self._skipped.note(clip, name, codes if isinstance(codes, str) else None)
            if isinstance(codes, str):
                return codes
            parts.append(codes)
        return _row(entries, parts)


def _is_too_long(text: str, seconds: float) -> bool:
    return len(text) > _MOST_CHARACTERS_A_SECOND * seconds + _SPARE_CHARACTERS


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
