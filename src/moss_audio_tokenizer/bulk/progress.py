"""How far a run is: hours done, hours left, audio hours an hour.

Owns the sums; how they look is the command line's.
"""

import time
from dataclasses import dataclass, field

from .jobs import Outcome

_FIGURES = ("wall_seconds", "model_seconds", "cpu_seconds", "model_cpu_seconds")


@dataclass
class Progress:
    """The sums of a run, added to shard by shard.

    Attributes:
        total_seconds: of audio, as planned.
        shards: of the run.
        earlier_seconds: of audio that was done before this call.
        done_seconds: and in it.
        shards_done: of the run, those from before included.
    """

    total_seconds: float
    shards: int
    earlier_seconds: float = 0.0
    done_seconds: float = 0.0
    shards_done: int = 0
    figures: dict[str, float] = field(default_factory=lambda: dict.fromkeys(_FIGURES, 0.0))
    _start: float = field(default_factory=time.perf_counter)

    def add(self, outcome: Outcome, planned_seconds: float) -> None:
        """A shard is done; what was planned for it was perhaps a guess."""
        self.total_seconds += outcome["seconds"] - planned_seconds
        self.done_seconds += outcome["seconds"]
        self.shards_done += 1
        for key in _FIGURES:
            self.figures[key] += outcome[key]

    @property
    def elapsed_seconds(self) -> float:
        """Since the call began."""
        return time.perf_counter() - self._start

    @property
    def hours_done(self) -> float:
        """Of audio."""
        return (self.earlier_seconds + self.done_seconds) / 3600

    @property
    def hours_left(self) -> float:
        """Of audio."""
        return max(0.0, self.total_seconds / 3600 - self.hours_done)

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
