"""How far a run is: hours done, hours left, audio hours an hour.

Owns the sums; how they look is the command line's.
"""

import time
from dataclasses import dataclass, field

from .engines import Outcome

_FIGURES = ("wall_seconds", "model_seconds", "cpu_seconds", "model_cpu_seconds")


@dataclass
class Progress:
    """The sums of a run, added to shard by shard.

    Attributes:
        total_seconds: seconds of audio, as planned.
        shards: number of shards of the run.
        clips: number of clips of the run.
        clips_done: clips of finished shards, those of earlier calls included.
        clips_under_way: clips that are done in shards that are not finished.
        earlier_seconds: seconds of audio that earlier calls have done.
        done_seconds: seconds of audio that this call has done.
        shards_done: finished shards, those of earlier calls included.
        clips_before: clips that earlier calls have done.
    """

    total_seconds: float
    shards: int
    clips: int = 0
    clips_done: int = 0
    clips_under_way: int = 0
    earlier_seconds: float = 0.0
    done_seconds: float = 0.0
    shards_done: int = 0
    clips_before: int = 0
    figures: dict[str, float] = field(default_factory=lambda: dict.fromkeys(_FIGURES, 0.0))
    _start: float = field(default_factory=time.perf_counter)

    def add(self, outcome: Outcome, planned_seconds: float) -> None:
        """A shard is done; what was planned for it was perhaps a guess."""
        self.total_seconds += outcome["seconds"] - planned_seconds
        self.done_seconds += outcome["seconds"]
        self.shards_done += 1
        self.clips_done += outcome["counted"]
        for key in _FIGURES:
            self.figures[key] += outcome[key]

    @property
    def elapsed_seconds(self) -> float:
        """Seconds since the call began."""
        return time.perf_counter() - self._start

    @property
    def hours_done(self) -> float:
        """Hours of audio."""
        return (self.earlier_seconds + self.done_seconds) / 3600

    @property
    def hours_left(self) -> float:
        """Hours of audio."""
        return max(0.0, self.total_seconds / 3600 - self.hours_done)

    @property
    def clips_so_far(self) -> int:
        """Clips that are done, in shards that are not finished too."""
        return min(self.clips, self.clips_done + self.clips_under_way)

    @property
    def seconds_left(self) -> float | None:
        """How long the rest will take at the pace of this call; None while that is unknown."""
        done = self.clips_so_far - self.clips_before
        return self.elapsed_seconds / done * (self.clips - self.clips_so_far) if done > 0 else None

    @property
    def hours_per_hour(self) -> float:
        """Audio hours that an hour gets done, of this call."""
        return self.done_seconds / max(self.elapsed_seconds, 1e-9)

    @property
    def speed(self) -> dict[str, float]:
        """Figures of this call: how fast, and what share of the workers' time is not the model."""
        figures = self.figures
        return {
            "elapsed_seconds": round(self.elapsed_seconds, 3),
            "audio_hours_per_hour": round(self.hours_per_hour, 2),
            "audio_seconds_per_cpu_second": round(
                self.done_seconds / max(figures["cpu_seconds"], 1e-9), 2
            ),
            "share_lost": _share(figures["model_seconds"], figures["wall_seconds"]),
            "cpu_share_lost": _share(figures["model_cpu_seconds"], figures["cpu_seconds"]),
        }


def _share(model: float, whole: float) -> float:
    return round(1 - model / whole, 4) if whole else 0.0
