"""Plans: which clips, and which parts of them, make up the rows of a step.

Owns all that is random in a batch but the sound itself. A plan is a pure function of the seed and
the step's number, for the rows of all processes together; it opens no file. `AudioPlanner` plans
crops and whole utterances of about one length; codes are planned in `coded_planning.py`.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from jaxtyping import Float64

from ...errors import ConfigError, TrainingError
from .clip_sources import Source
from .data_config import DataConfig

# Utterances of a batch differ in length by no more than this: what is padded costs time.
_BUCKET_RATIO = 1.2
_SAME_KIND_REDRAWS = 10

RowType = TypeVar("RowType")


class Planner(ABC, Generic[RowType]):
    """Plans of every step.

    Args:
        sources: the clips, all with their seconds, numbered in this order.
        masses: how often each clip is drawn; 0 for never.
        seed: the seed that everything random follows from, together with the step.
        row_unit: the number that the rows of a step are a multiple of.

    Attributes:
        entries: the clips by number.
        used: numbers of those that are drawn.
    """

    def __init__(
        self, sources: Sequence[Source], masses: np.ndarray, seed: int, row_unit: int
    ) -> None:
        self.entries = [entry for source in sources for entry in source.entries]
        self.used = np.flatnonzero(masses)
        self._seed, self._unit = seed, row_unit
        if len(self.used):
            self._cumulative = _cumulative(masses[self.used])

    @abstractmethod
    def plan(self, step: int) -> Sequence[RowType]:
        """All rows of a step."""

    @abstractmethod
    def redraw(self, step: int, index: int, attempt: int) -> RowType:
        """Another row in place of row ``index``, which cannot be read."""

    def _draw_clip(self, draw: float) -> int:
        return int(self.used[_pick(self._cumulative, draw)])


@dataclass(frozen=True)
class AudioRow:
    """The content of one row of audio.

    Attributes:
        clip: the index of the clip among all clips.
        whole: whether it is the whole clip, with its text; a crop otherwise.
        num_samples: the length of the crop; for a whole clip, the longest it may have.
        position: where the crop begins, from 0 (the clip's start) to 1.
        level: the level in dBFS (RMS) that it is brought to.
    """

    clip: int
    whole: bool
    num_samples: int
    position: float
    level: float


@dataclass(frozen=True)
class _Bucket:
    """Utterances up to ``num_samples``, drawn by their cumulative shares."""

    num_samples: int
    num_rows: int
    clips: np.ndarray
    cumulative: np.ndarray


class AudioPlanner(Planner[AudioRow]):
    """Plans of crops, and of whole utterances in buckets of about one length.

    Args:
        sources: as in `Planner`, as are seed and row_unit.
        config: the group ``data`` of the recipe.
        sampling_rate: the sampling rate of the rows.
        frame_samples: the number of samples in a frame; rows of whole utterances are padded to a
            multiple of it.

    Attributes:
        left_out: clips of each domain that ``data.domain_weights`` gives no share.

    Raises:
        ConfigError: ``data.batch_size`` is no multiple of ``row_unit``.
        TrainingError: no clip is of a domain with a share, or texts are wanted and there are none.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        config: DataConfig,
        sampling_rate: int,
        frame_samples: int,
        seed: int,
        row_unit: int = 1,
    ) -> None:
        masses, self.left_out = _masses_by_domain(sources, config)
        super().__init__(sources, masses, seed, row_unit)
        self._config, self._rate, self._frame = config, sampling_rate, frame_samples
        self._crop_samples = round(config.crop_seconds * sampling_rate)
        self._lengths = np.rint([entry.seconds * sampling_rate for entry in self.entries])
        if not len(self.used):
            wanted = [name for name, weight in config.domain_weights if weight]
            raise TrainingError(
                f"data.domain_weights gives shares to {wanted}, but the readable clips are of the "
                f"domains {sorted(self.left_out)}; set data.domain_weights"
            )
        self._buckets: list[_Bucket] = []
        self._bucket_shares = np.ones(1)
        if config.text_share:
            self._fill_buckets(sources)
        elif config.batch_size % row_unit:
            raise ConfigError(
                f"data.batch_size is {config.batch_size}; expected a multiple of {row_unit}, the "
                "processes times their micro-batches"
            )

    def plan(self, step: int) -> Sequence[AudioRow]:
        """All rows of a step."""
        bucket, draws = self._draws(step)
        return tuple(self._row(row, bucket) for row in draws)

    def redraw(self, step: int, index: int, attempt: int) -> AudioRow:
        """Another row of the same kind in place of row ``index``, which cannot be read."""
        bucket, planned = self._draws(step)
        draws = np.random.default_rng((self._seed, step, index + 1, attempt)).random(4)
        # A bucket may hold one utterance alone: after some tries, any crop will do.
        draws[0] = planned[index, 0] if attempt < _SAME_KIND_REDRAWS else 1.0
        return self._row(draws, bucket)

    def width(self, rows: Sequence[AudioRow]) -> int:
        """The samples of the longest row; whole utterances make it a whole number of frames."""
        longest = max(
            int(self._lengths[row.clip]) if row.whole else row.num_samples for row in rows
        )
        return whole_frames(longest, self._frame) if self._buckets else longest

    def _draws(self, step: int) -> tuple[_Bucket | None, np.ndarray]:
        """The bucket of a step, and for each row: its kind, clip, position and level."""
        random = np.random.default_rng((self._seed, step))
        which, num_rows, bucket = random.random(), self._config.batch_size, None
        if self._buckets:
            bucket = self._buckets[_pick(self._bucket_shares, which)]
            num_rows = bucket.num_rows
        changed, factor = self._config.batch_change
        if changed and step >= changed:
            num_rows = self._units(round(num_rows * factor))
        return bucket, random.random((num_rows, 4))

    def _units(self, num_rows: int) -> int:
        return max(self._unit, num_rows // self._unit * self._unit)

    def _row(self, draws: np.ndarray, bucket: _Bucket | None) -> AudioRow:
        kind, which, position, level = map(float, draws)
        low, high = self._config.gain_db
        target = low + (high - low) * level
        if bucket is not None and kind < self._config.text_share:
            clip = int(bucket.clips[_pick(bucket.cumulative, which)])
            return AudioRow(clip, True, bucket.num_samples, 0.0, target)
        length = bucket.num_samples if bucket else self._crop_samples
        return AudioRow(self._draw_clip(which), False, length, position, target)

    def _fill_buckets(self, sources: Sequence[Source]) -> None:
        """Sort utterances by length, so that each is drawn by its weight in the long run.

        A step has about the same seconds whichever bucket it draws: buckets are drawn by the
        weight of the seconds in them, and a bucket's utterances by their weight for each second.
        """
        low, high = self._config.text_seconds
        seconds = np.array([entry.seconds for entry in self.entries])
        texts = np.array([bool(entry.text) for entry in self.entries])
        usable = texts & (seconds >= low) & (seconds <= high)
        masses, _ = _masses_by_domain(sources, self._config, usable)
        if not masses.any():
            raise TrainingError(
                f"data.text_share is {self._config.text_share:g}, but no readable clip of a domain "
                f"with a share has a text and {low:g} to {high:g} s; train without texts by "
                "semantic.llm= data.text_share=0, or set data.text_seconds and "
                "data.domain_weights to what there is"
            )
        shares = []
        edges = self._bucket_edges()
        indices = np.searchsorted(edges, self._lengths)
        for index in np.unique(indices[masses > 0]):
            clips = np.flatnonzero((indices == index) & (masses > 0))
            cumulative = _cumulative(masses[clips] / seconds[clips])
            length = int(edges[index])
            num_rows = self._units(int(self._config.batch_seconds * self._rate / length))
            self._buckets.append(_Bucket(length, num_rows, clips, cumulative))
            shares.append(masses[clips].sum())
        self._bucket_shares = _cumulative(np.array(shares))

    def _bucket_edges(self) -> np.ndarray:
        """Upper lengths of the buckets, in samples: whole frames, each a fifth above the last."""
        low, high = (seconds * self._rate for seconds in self._config.text_seconds)
        edges = [whole_frames(int(np.ceil(low)), self._frame)]
        while edges[-1] < high:
            longer = whole_frames(int(edges[-1] * _BUCKET_RATIO), self._frame)
            edges.append(max(longer, edges[-1] + self._frame))
        return np.array(edges)


def whole_frames(num_samples: int, frame_samples: int) -> int:
    """A number of samples, rounded up to whole frames."""
    return -(-num_samples // frame_samples) * frame_samples


def _masses_by_domain(
    sources: Sequence[Source], config: DataConfig, usable: np.ndarray | None = None
) -> tuple[Float64[np.ndarray, " clips"], dict[str, int]]:
    """Each clip's share: of its source by weight, its domain by weight, and then by its length.

    Also the number of clips of every domain without a share.
    """
    wanted = dict(config.domain_weights)
    masses, left_out, first = [], Counter[str](), 0
    for source in sources:
        count = len(source.entries)
        own = np.ones(count, bool) if usable is None else usable[first : first + count]
        first += count
        domains = np.array([entry.domain for entry in source.entries])
        seconds = np.array([entry.seconds for entry in source.entries]) * own
        totals = {name: seconds[domains == name].sum() for name in sorted(set(domains[own]))}
        present = sum(wanted.get(name, 0.0) for name in totals)
        share = np.zeros(count)
        for name, total in totals.items():
            weight, inside = wanted.get(name, 0.0), (domains == name) & own
            if weight:
                share[inside] = source.weight * weight / present * seconds[inside] / total
            else:
                left_out[str(name)] += int(inside.sum())
        masses.append(share)
    return np.concatenate(masses), dict(left_out)


def _cumulative(masses: np.ndarray) -> np.ndarray:
    cumulative: np.ndarray = np.cumsum(masses) / masses.sum()
    cumulative[-1] = 1.0
    return cumulative


def _pick(cumulative: np.ndarray, draw: float) -> int:
    return int(np.searchsorted(cumulative, draw, side="right"))
