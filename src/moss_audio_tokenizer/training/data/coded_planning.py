"""Plans of codes: which whole clips make up the rows of a step, one or several in a row.

Owns all that is random in a batch of codes but the versions' sound.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from jaxtyping import Float64

from ...errors import TrainingError
from ...manifest import TASKS, ManifestEntry
from .clip_sources import Source
from .data_config import CodesDataConfig
from .planning import Planner

# The rows of so many steps are drawn together, sorted by length and cut into as many batches: rows
# of a batch are then of about one length, with any number of clips in each.
_STEPS_TOGETHER = 16
# A speaker's clips that are looked at for each that may be joined.
_TRIES_A_CLIP = 4


@dataclass(frozen=True)
class CodesRow:
    """The content of one row of codes.

    Attributes:
        clips: indices among all clips, in order; of one source and speaker.
        version: which of `CodesDataConfig.versions` of them.
        seconds: how long it will be.
        size: what it counts for in a step: its seconds, or its tokens.
    """

    clips: tuple[int, ...]
    version: int = 0
    seconds: float = 0.0
    size: float = 0.0


class CodesPlanner(Planner[CodesRow]):
    """Plans of whole clips of codes, one or several of a speaker in a row.

    Args:
        sources: as in `Planner`, as are seed and row_unit.
        config: the recipe's group ``data``.
        seconds_of: the length of a version of a clip.
        frame_rate: frames a second, for `CodesDataConfig.batch_tokens`.
        join_share: the share of the rows for which more than one clip is looked for.
        count_tokens: a function that counts the tokens of a text, for ``batch_tokens`` too.

    Raises:
        TrainingError: no clip can be used.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        config: CodesDataConfig,
        seconds_of: Callable[[ManifestEntry, int], float],
        seed: int,
        row_unit: int = 1,
        frame_rate: float = 12.5,
        join_share: float = 0.5,
        count_tokens: Callable[[str], int] = len,
    ) -> None:
        super().__init__(sources, _masses_of_speech(sources, config), seed, row_unit)
        self._config, self._seconds_of = config, seconds_of
        self._frame_rate, self._join_share = frame_rate, join_share
        self._count_tokens = lru_cache(maxsize=1 << 16)(count_tokens)
        if not len(self.used):
            low, high = config.text_seconds
            raise TrainingError(
                f"none of the {len(self.entries)} readable clips has a text of what is said and "
                f"{low:g} to {high:g} s; set data.text_seconds, or name other data"
            )
        self._companions = self._of_one_voice(sources)
        self._group = lru_cache(maxsize=2)(self._planned_group)

    def plan(self, step: int) -> Sequence[CodesRow]:
        """All rows of a step."""
        group, index = divmod(step, _STEPS_TOGETHER)
        return self._group(group)[index]

    def redraw(self, step: int, index: int, attempt: int) -> CodesRow:
        """Another row in place of row ``index``, which cannot be read."""
        return self._row(np.random.default_rng((self._seed, step, index + 1, attempt)))

    def _of_one_voice(self, sources: Sequence[Source]) -> dict[int, np.ndarray]:
        """For each clip that is used, those of the same source and speaker, itself among them."""
        numbers = [number for number, source in enumerate(sources) for _ in source.entries]
        voices = defaultdict[tuple[int, str], list[int]](list)
        for clip in self.used:
            if speaker := self.entries[clip].speaker:
                voices[numbers[clip], speaker].append(int(clip))
        arrays = [np.array(clips) for clips in voices.values() if len(clips) > 1]
        return {int(clip): clips for clips in arrays for clip in clips}

    def _planned_group(self, group: int) -> list[tuple[CodesRow, ...]]:
        """The rows of some steps, drawn together and cut into batches of equal size."""
        random = np.random.default_rng((self._seed, group))
        rows = self._drawn(random)
        units = [rows[first : first + self._unit] for first in range(0, len(rows), self._unit)]
        ends = np.cumsum([sum(row.size for row in unit) for unit in units])
        batches = []
        for first, last in pairwise(_edges(ends, _STEPS_TOGETHER)):
            batch = [row for unit in units[first:last] for row in unit]
            # Otherwise the rows of one process, or of one pass, would be the shortest of each step.
            batches.append(tuple(batch[index] for index in random.permutation(len(batch))))
        return [batches[index] for index in random.permutation(len(batches))]

    def _drawn(self, random: np.random.Generator) -> list[CodesRow]:
        """Rows for all steps of a group, by length: in units, at least one of these a step."""
        rows: list[CodesRow] = []
        a_step = self._config.batch_tokens or self._config.batch_seconds
        wanted, fewest = _STEPS_TOGETHER * a_step, _STEPS_TOGETHER * self._unit
        size = 0.0
        while size < wanted or len(rows) < fewest or len(rows) % self._unit:
            rows.append(self._row(random))
            size += rows[-1].size
        return sorted(rows, key=lambda row: row.seconds)

    def _row(self, random: np.random.Generator) -> CodesRow:
        clip = self._draw_clip(random.random())
        version = int(random.integers(self._config.versions))
        if self._seconds(clip, version) > self._config.text_seconds[1]:
            version = 0
        clips = [clip]
        if clip in self._companions and random.random() < self._join_share:
            self._join(clips, version, random)
        seconds = sum(self._seconds(one, version) for one in clips)
        return CodesRow(tuple(clips), version, seconds, self._size(clips, seconds))

    def _size(self, clips: Sequence[int], seconds: float) -> float:
        if not self._config.batch_tokens:
            return seconds
        text = sum(self._count_tokens(self.entries[clip].text) for clip in clips)
        return text + seconds * self._frame_rate

    def _join(self, clips: list[int], version: int, random: np.random.Generator) -> None:
        """Add other clips of the voice, as many as are drawn and fit."""
        if self._config.max_join < 2:
            return
        others = self._companions[clips[0]]
        wanted = int(random.integers(2, min(self._config.max_join, len(others)) + 1))
        room = self._config.text_seconds[1] - self._seconds(clips[0], version)
        for draw in random.integers(len(others), size=_TRIES_A_CLIP * wanted):
            other = int(others[draw])
            seconds = self._seconds(other, version)
            if len(clips) < wanted and other not in clips and seconds <= room:
                clips.append(other)
                room -= seconds

    def _seconds(self, clip: int, version: int) -> float:
        return self._seconds_of(self.entries[clip], version)


def is_usable(entry: ManifestEntry, config: CodesDataConfig) -> bool:
    """Whether a clip has a text, the words of one speaker, and a length that is wanted."""
    low, high = config.text_seconds
    return bool(entry.text.strip()) and entry.task == TASKS[0] and low <= entry.seconds <= high


def _masses_of_speech(
    sources: Sequence[Source], config: CodesDataConfig
) -> Float64[np.ndarray, " clips"]:
    """How often each clip is drawn: sources by weight and seconds, clips of one equally often."""
    masses = []
    for source in sources:
        usable = np.array([is_usable(entry, config) for entry in source.entries])
        seconds = sum(entry.seconds for entry in source.entries if is_usable(entry, config))
        masses.append(usable * (source.weight / seconds if seconds else 0.0))
    return np.concatenate(masses)


def _edges(ends: np.ndarray, count: int) -> list[int]:
    """Where to cut a sequence of items, which end at ``ends``, into ``count`` parts, none empty."""
    edges = [0]
    for part in range(1, count):
        wanted = int(np.searchsorted(ends, ends[-1] * part / count)) + 1
        edges.append(min(max(wanted, edges[-1] + 1), len(ends) - (count - part)))
    return [*edges, len(ends)]
