"""What a data set holds: seconds, levels and damage of its clips, and the summary of them.

Owns the measures and the tables; writes no file.
"""

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from ...manifest import ManifestEntry

# Three consecutive full-scale samples count as clipping.
_FULL_SCALE = 0.999
_CLIPPED_RUN = 3
_SILENCE_DBFS = -60.0
_SILENCE_WINDOW_SECONDS = 0.02
_FLOOR_DBFS = -120.0
_LISTED_NAMES = 100


@dataclass(frozen=True)
class Measures:
    """One recording.

    Attributes:
        sampling_rate: as recorded.
        channels: as recorded.
        seconds: its length.
        loudness_dbfs: RMS level over all of it.
        clipped: whether some samples on end are at full scale.
        silent_share: share of windows of 20 ms below -60 dBFS.
        digest: the digest of the samples, in any file format.
    """

    sampling_rate: int
    channels: int
    seconds: float
    loudness_dbfs: float
    clipped: bool
    silent_share: float
    digest: str


def measure(samples: Float[np.ndarray, "channels samples"], sampling_rate: int) -> Measures:
    """The measures of a recording."""
    squares = np.square(samples, dtype=np.float64).mean(axis=0)
    window = min(len(squares), max(1, round(_SILENCE_WINDOW_SECONDS * sampling_rate)))
    whole = squares[: len(squares) // window * window].reshape(-1, window).mean(axis=1)
    return Measures(
        sampling_rate=sampling_rate,
        channels=len(samples),
        seconds=samples.shape[1] / sampling_rate,
        loudness_dbfs=float(_decibels(squares.mean())),
        clipped=_is_clipped(samples),
        silent_share=float(np.mean(_decibels(whole) < _SILENCE_DBFS)),
        digest=_digest(samples, sampling_rate),
    )


def _digest(samples: np.ndarray, sampling_rate: int) -> str:
    digest = hashlib.sha256(f"{sampling_rate} {samples.shape}".encode())
    digest.update(np.ascontiguousarray(samples).tobytes())
    return digest.hexdigest()


def _decibels(power: Any) -> np.ndarray:
    return np.asarray(10 * np.log10(np.maximum(power, 10 ** (_FLOOR_DBFS / 10))))


def _is_clipped(samples: np.ndarray) -> bool:
    full = np.abs(samples) >= _FULL_SCALE
    runs = full[:, : full.shape[1] - _CLIPPED_RUN + 1].copy()
    for shift in range(1, _CLIPPED_RUN):
        runs &= full[:, shift : shift + runs.shape[1]]
    return bool(runs.any())


@dataclass
class _Sum:
    clips: int = 0
    seconds: float = 0.0
    transcribed: int = 0
    transcribed_seconds: float = 0.0

    def add(self, seconds: float, has_text: bool) -> None:
        self.clips += 1
        self.seconds += seconds
        self.transcribed += has_text
        self.transcribed_seconds += seconds * has_text

    def facts(self) -> dict[str, Any]:
        return {
            "clips": self.clips,
            "hours": self.seconds / 3600,
            "transcribed_clips": self.transcribed,
            "transcribed_hours": self.transcribed_seconds / 3600,
        }


@dataclass
class Survey:
    """The sums over a data set; clips are added one by one."""

    _total: _Sum = field(default_factory=_Sum)
    _groups: dict[tuple[str, str, str], _Sum] = field(default_factory=dict)
    _counts: dict[str, Counter[str]] = field(default_factory=dict)
    _loudness: list[float] = field(default_factory=list)
    _silent_seconds: float = 0.0
    _clipped: list[str] = field(default_factory=list)
    _silent: list[str] = field(default_factory=list)
    _first: dict[str, tuple[str, str]] = field(default_factory=dict)
    _duplicates: list[list[str]] = field(default_factory=list)
    _across_splits: int = 0

    def add(self, entry: ManifestEntry, found: Measures) -> bool:
        """Add a clip; whether the same samples have been added before."""
        has_text = bool(entry.text)
        group = self._groups.setdefault((entry.split, entry.domain, entry.language), _Sum())
        for total in (self._total, group):
            total.add(found.seconds, has_text)
        for name in ("sampling_rate", "channels"):
            self._counts.setdefault(name, Counter())[str(getattr(found, name))] += 1
        if has_text:
            self._counts.setdefault("task", Counter())[entry.task] += 1
        self._loudness.append(found.loudness_dbfs)
        self._silent_seconds += found.silent_share * found.seconds
        if found.clipped:
            self._clipped.append(entry.name)
        if found.silent_share == 1.0:
            self._silent.append(entry.name)
        return self._is_duplicate(entry, found.digest)

    def _is_duplicate(self, entry: ManifestEntry, digest: str) -> bool:
        name, split = self._first.setdefault(digest, (entry.name, entry.split))
        if name == entry.name:
            return False
        self._duplicates.append([name, entry.name])
        self._across_splits += split != entry.split
        return True

    def facts(self) -> dict[str, Any]:
        """All of it, as plain values."""
        return {
            **self._total.facts(),
            "groups": [
                {"split": split, "domain": domain, "language": language or None, **group.facts()}
                for (split, domain, language), group in sorted(self._groups.items())
            ],
            "sampling_rates": _sorted(self._counts.get("sampling_rate")),
            "channels": _sorted(self._counts.get("channels")),
            "tasks": _sorted(self._counts.get("task")),
            "loudness_dbfs": self._percentiles(),
            "silent_share": self._silent_seconds / max(self._total.seconds, 1e-9),
            "silent_clips": _listed(self._silent),
            "clipped_clips": _listed(self._clipped),
            "duplicates": {
                **_listed(self._duplicates),
                "across_splits": self._across_splits,
            },
        }

    def _percentiles(self) -> dict[str, float]:
        shares = (5, 50, 95)
        values = np.percentile(self._loudness, shares) if self._loudness else (0.0,) * 3
        return {f"p{share}": round(float(v), 2) for share, v in zip(shares, values, strict=True)}


def _sorted(counts: Counter[str] | None) -> dict[str, int]:
    return dict(sorted((counts or {}).items(), key=lambda item: (len(item[0]), item[0])))


def _listed(names: list[Any]) -> dict[str, Any]:
    """How many there are, and the first of them by name."""
    return {"count": len(names), "first": names[:_LISTED_NAMES]}


GROUP_HEADINGS = ("clips", "hours", "with text", "split", "domain", "language")


def group_rows(summary: dict[str, Any]) -> list[tuple[str, ...]]:
    """The groups of a summary as rows of text under GROUP_HEADINGS."""
    return [
        (
            f"{group['clips']:,}",
            f"{group['hours']:.2f}",
            f"{group['transcribed_clips'] / group['clips']:.0%}",
            group["split"],
            group["domain"],
            group["language"] or "-",
        )
        for group in summary["groups"]
    ]


def markdown(summary: dict[str, Any]) -> str:
    """A summary as a page of Markdown."""
    rows = [GROUP_HEADINGS, ("---",) * len(GROUP_HEADINGS), *group_rows(summary)]
    table = "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows)
    return f"# Data set\n\n{table}\n\n" + "".join(
        f"- {name}: {value}\n" for name, value in totals(summary).items()
    )


def totals(summary: dict[str, Any]) -> dict[str, Any]:
    """What a summary says of the whole, by names for people."""
    loudness = summary["loudness_dbfs"]
    return {
        "clips": f"{summary['clips']:,}",
        "hours": f"{summary['hours']:.3f}",
        "shards": len(summary["shards"]),
        "errors": summary["errors"],
        "sampling rates": _counted(summary["sampling_rates"]),
        "channels": _counted(summary["channels"]),
        "loudness (5, 50, 95 %)": " / ".join(f"{value:.1f}" for value in loudness.values())
        + " dBFS",
        "clipped clips": summary["clipped_clips"]["count"],
        "silence": f"{summary['silent_share']:.1%}, {summary['silent_clips']['count']} clips whole",
        "duplicates": f"{summary['duplicates']['count']}, "
        f"{summary['duplicates']['across_splits']} of them across splits",
    }


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in counts.items())
