"""Plans: which clips, and which parts of them, make up the batch of a step.

Owns all that is random in a batch but the sound itself. A plan is a pure function of the seed and
the step's number, for the rows of all processes together; it opens no file.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from ...errors import ConfigError, TrainingError
from .clip_sources import Source
from .data_config import DataConfig

# Utterances of a batch differ in length by no more than this: what is padded costs time.
_BUCKET_RATIO = 1.2

_SAME_KIND_REDRAWS = 10


@dataclass(frozen=True)
class Row:
    """The content of one row of a batch.

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
class Plan:
    """The rows of a step, of all processes, and the samples that the longest of them has."""

    rows: tuple[Row, ...]
    width: int


@dataclass(frozen=True)
class _Bucket:
    """Utterances up to ``num_samples``, drawn by their cumulative shares."""

    num_samples: int
    num_rows: int
    clips: np.ndarray
    cumulative: np.ndarray


class Planner:
    """Plans of every step.

    Args:
        sources: the clips, all with their seconds, numbered in this order.
        config: the group ``data`` of the recipe.
        sampling_rate: the sampling rate of the rows.
        frame_samples: the number of samples in a frame; rows of whole utterances are padded to a
            multiple of it.
        seed: the seed that everything random follows from, together with the step.
        row_unit: the number that the rows of a step are a multiple of.

    Attributes:
        entries: the clips by number.
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
        self.entries = [entry for source in sources for entry in source.entries]
        self._config, self._seed, self._unit = config, seed, row_unit
        self._rate, self._frame = sampling_rate, frame_samples
        self._crop_samples = round(config.crop_seconds * sampling_rate)
        self._lengths = np.rint([entry.seconds * sampling_rate for entry in self.entries])
        masses, self.left_out = _masses(sources, config, np.ones(len(self.entries), bool))
        self.used = np.flatnonzero(masses)
        if not len(self.used):
            raise _no_domain(config, self.left_out)
        self._crops = _cumulative(masses[self.used])
        self._buckets: list[_Bucket] = []
        self._bucket_shares = np.ones(1)
        if config.text_share:
            self._fill_buckets(sources)
        elif config.batch_size % row_unit:
            raise ConfigError(
                f"data.batch_size is {config.batch_size}; expected a multiple of {row_unit}, the "
                "processes times their micro-batches"
            )

    def plan(self, step: int) -> Plan:
        """All rows of a step."""
        random = np.random.default_rng((self._seed, step))
        bucket = self._bucket(random.random())
        num_rows = self._num_rows_at(step, bucket)
        rows = tuple(self._row(draws, bucket) for draws in random.random((num_rows, 4)))
        return Plan(rows, self._width(rows))

    def redraw(self, step: int, index: int, attempt: int) -> Row:
        """Another row of the same kind in place of row ``index``, which cannot be read."""
        random = np.random.default_rng((self._seed, step))
        bucket = self._bucket(random.random())
        num_rows = self._num_rows_at(step, bucket)
        kind = random.random((num_rows, 4))[index, 0]
        draws = np.random.default_rng((self._seed, step, index + 1, attempt)).random(4)
        # A bucket may hold one utterance alone: after some tries, any crop will do.
        return self._row((kind if attempt < _SAME_KIND_REDRAWS else 1.0, *draws[1:]), bucket)

    def _num_rows_at(self, step: int, bucket: _Bucket | None) -> int:
        num_rows = bucket.num_rows if bucket else self._config.batch_size
        changed, factor = self._config.batch_change
        if not changed or step < changed:
            return num_rows
        return max(self._unit, round(num_rows * factor) // self._unit * self._unit)

    def _bucket(self, draw: float) -> _Bucket | None:
        if not self._buckets:
            return None
        return self._buckets[_pick(self._bucket_shares, draw)]

    def _row(self, draws: Sequence[float] | np.ndarray, bucket: _Bucket | None) -> Row:
        kind, which, position, level = (float(draw) for draw in draws)
        low, high = self._config.gain_db
        target = low + (high - low) * level
        if bucket is not None and kind < self._config.text_share:
            clip = int(bucket.clips[_pick(bucket.cumulative, which)])
            return Row(clip, True, bucket.num_samples, 0.0, target)
        length = bucket.num_samples if bucket else self._crop_samples
        return Row(int(self.used[_pick(self._crops, which)]), False, length, position, target)

    def _width(self, rows: Sequence[Row]) -> int:
        """The longest row; whole utterances make it a whole number of frames."""
        longest = max(
            int(self._lengths[row.clip]) if row.whole else row.num_samples for row in rows
        )
        return whole_frames(longest, self._frame) if self._buckets else longest

    def _fill_buckets(self, sources: Sequence[Source]) -> None:
        """Sort utterances by length, so that each is drawn by its weight in the long run.

        A step has about the same seconds whichever bucket it draws: buckets are drawn by the
        weight of the seconds in them, and a bucket's utterances by their weight for each second.
        """
        low, high = self._config.text_seconds
        seconds = np.array([entry.seconds for entry in self.entries])
        texts = np.array([bool(entry.text) for entry in self.entries])
        masses, _ = _masses(sources, self._config, texts & (seconds >= low) & (seconds <= high))
        if not masses.any():
            raise TrainingError(
                f"data.text_share is {self._config.text_share:g}, but no readable clip of a domain "
                f"with a share has a text and {low:g} to {high:g} s; train without texts by "
                "semantic.llm= data.text_share=0, or set data.text_seconds and "
                "data.domain_weights to what there is"
            )
        shares = []
        edges = self._edges()
        indices = np.searchsorted(edges, self._lengths)
        for index in np.unique(indices[masses > 0]):
            clips = np.flatnonzero((indices == index) & (masses > 0))
            cumulative = _cumulative(masses[clips] / seconds[clips])
            length = int(edges[index])
            self._buckets.append(_Bucket(length, self._num_rows(length), clips, cumulative))
            shares.append(masses[clips].sum())
        self._bucket_shares = _cumulative(np.array(shares))

    def _edges(self) -> np.ndarray:
        """Upper lengths of the buckets, in samples: whole frames, each a fifth above the last."""
        low, high = (seconds * self._rate for seconds in self._config.text_seconds)
        edges = [whole_frames(int(np.ceil(low)), self._frame)]
        while edges[-1] < high:
            longer = whole_frames(int(edges[-1] * _BUCKET_RATIO), self._frame)
            edges.append(max(longer, edges[-1] + self._frame))
        return np.array(edges)

    def _num_rows(self, num_samples: int) -> int:
        wanted = int(self._config.batch_seconds * self._rate / num_samples)
        return max(self._unit, wanted // self._unit * self._unit)


def whole_frames(num_samples: int, frame_samples: int) -> int:
    """A number of samples, rounded up to whole frames."""
    return -(-num_samples // frame_samples) * frame_samples


def _masses(
    sources: Sequence[Source], config: DataConfig, usable: np.ndarray
) -> tuple[Float64[np.ndarray, " clips"], dict[str, int]]:
    """Each clip's share: of its source by weight, its domain by weight, and then by its length.

    Also the number of clips of every domain without a share.
    """
    wanted = dict(config.domain_weights)
    masses, left_out, first = [], Counter[str](), 0
    for source in sources:
        own = usable[first : first + len(source.entries)]
        first += len(source.entries)
        domains = np.array([entry.domain for entry in source.entries])
        seconds = np.array([entry.seconds for entry in source.entries]) * own
        totals = {name: seconds[domains == name].sum() for name in sorted(set(domains[own]))}
        present = sum(wanted.get(name, 0.0) for name in totals)
        share = np.zeros(len(own))
        for name, total in totals.items():
            weight = wanted.get(name, 0.0)
            inside = (domains == name) & own
            if weight:
                share[inside] = source.weight * weight / present * seconds[inside] / total
            else:
                left_out[str(name)] += int(inside.sum())
        masses.append(share)
    return np.concatenate(masses), dict(left_out)


def _no_domain(config: DataConfig, left_out: dict[str, int]) -> TrainingError:
    wanted = [name for name, weight in config.domain_weights if weight]
    return TrainingError(
        f"data.domain_weights gives shares to {wanted}, but the readable clips are of the domains "
        f"{sorted(left_out)}; set data.domain_weights"
    )


def _cumulative(masses: np.ndarray) -> np.ndarray:
    cumulative: np.ndarray = np.cumsum(masses) / masses.sum()
    cumulative[-1] = 1.0
    return cumulative


def _pick(cumulative: np.ndarray, draw: float) -> int:
    return int(np.searchsorted(cumulative, draw, side="right"))
