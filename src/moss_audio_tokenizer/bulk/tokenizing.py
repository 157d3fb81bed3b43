"""Tokenizing a data set: the plan, the shards that are missing, and the summary.

Owns the order of steps, so that a run that was killed at any moment resumes to the same result, and
the figures of how far a run is.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from ..codes import CodecInfo
from ..codes.shards import head_values, require_format
from ..errors import BulkError, CodesError, InputError
from ..sources.recordings import find_recordings
from .codec_choice import CodecChoice
from .job_engines import Outcome, RayOptions, Report, Tick, check_engine, run_job
from .shard_plan import Tokenizing, plan_shards
from .shard_work import TokenizeJob
from .tokenizing_folder import RunFolder

_FIGURES = ("wall_seconds", "model_seconds", "cpu_seconds", "model_cpu_seconds")


@dataclass
class Progress:
    """The sums of a run, added to shard by shard.

    Attributes:
        shards: number of shards of the run.
        clips: number of clips of the run.
        clips_done: clips of finished shards, those of earlier calls included.
        clips_under_way: clips that are done in shards that are not finished.
        earlier_seconds: seconds of audio that earlier calls have done.
        done_seconds: seconds of audio that this call has done.
        shards_done: finished shards, those of earlier calls included.
        clips_before: clips that earlier calls have done.
    """

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

    def add(self, outcome: Outcome) -> None:
        """A shard is done."""
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


def tokenize(
    settings: Tokenizing,
    output: str | Path,
    choice: CodecChoice | None = None,
    engine: str = "local",
    workers: int = 2,
    loaders: int = 1,
    resume: bool = False,
    ray_options: RayOptions | None = None,
    advance: Callable[[Progress], None] | None = None,
) -> dict[str, Any]:
    """Write the codes of a data set as shards, and return the summary with a key ``speed``.

    Args:
        settings: the data set, and what to make of it.
        output: a folder that is empty or not there; with ``resume``, that of a run.
        choice: the codec (default: the bundled model, on the CPU).
        engine: "local" or "ray".
        workers: number of processes or, with Ray, the most actors.
        loaders: threads of each that decode and resample beside the model.
        resume: continue an interrupted run; a complete one stays as it is.
        ray_options: the cluster and resources of the actors.
        advance: called after every shard.

    Raises:
        InputError: the data set, the settings or the folder cannot be used, or no clip can be read.
        CodesError: more layers than the model has.
        BulkError: workers die again and again, or the folder cannot be written.
        CheckpointError, ConfigError, MissingDependencyError: of the model.
    """
    folder, choice = RunFolder(Path(output).absolute()), choice or CodecChoice()
    check_engine(engine)
    require_format(settings.shard_format)
    with folder.claimed(resume):
        info = _checked(choice.open("encoder").info, settings)
        made = {"name": choice.model, "revision": choice.revision(), "dtype": choice.dtype}
        made |= {"device": choice.device.partition(":")[0], "backend": choice.runs_on}
        if choice.attention:
            made |= {"attention": choice.attention}
        plan = _plan(folder, settings, info, made)
        names = [shard["name"] for shard in plan["shards"]]
        missing = [name for name in names if folder.manifest(name) is None]
        progress = _progress(plan, set(missing))
        folder.sweep()
        job = TokenizeJob(folder, choice, settings, made, loaders)
        report, tick = _reporter(progress, advance)
        run_job(job, missing, engine, workers, report, ray_options, tick)
        folder.sweep()  # a worker of a killed run may have lived on for a moment
        return _finish(folder, plan, info, settings) | {"speed": progress.speed}


def _checked(info: CodecInfo, settings: Tokenizing) -> CodecInfo:
    if not 0 <= settings.num_quantizers <= info.num_quantizers:
        raise CodesError(
            f"got {settings.num_quantizers} quantizers; expected 1 to {info.num_quantizers} for "
            "this model"
        )
    return info


def _plan(
    folder: RunFolder, settings: Tokenizing, info: CodecInfo, made: dict[str, Any]
) -> dict[str, Any]:
    """The plan of the folder, or a new one."""
    head = head_values(settings.head_of(info))
    values = {**settings.values, "source": str(Path(settings.source).absolute())}
    values |= {"model": made, "head": head}
    plan = folder.plan()
    if plan is None:
        lines, errors = find_recordings(Path(settings.source), settings.splits, settings.domain)
        return folder.write_plan(plan_shards(lines, settings), values, errors)
    if changed := [key for key in values if plan["settings"].get(key) != values[key]]:
        raise InputError(
            f"the run in {str(folder.path)!r} was begun with another {', '.join(changed)} "
            f"({plan['settings'].get(changed[0])!r}); resume it with the same, or name another "
            "folder"
        )
    return plan


def _progress(plan: dict[str, Any], missing: set[str]) -> Progress:
    earlier = [shard for shard in plan["shards"] if shard["name"] not in missing]
    seconds, clips = (sum(shard[key] for shard in earlier) for key in ("seconds", "clips"))
    return Progress(
        len(plan["shards"]),
        sum(shard["clips"] for shard in plan["shards"]),
        clips_done=clips,
        earlier_seconds=seconds,
        shards_done=len(earlier),
        clips_before=clips,
    )


def _reporter(
    progress: Progress, advance: Callable[[Progress], None] | None
) -> tuple[Report, Tick]:
    def report(outcome: Outcome) -> None:
        progress.add(outcome)
        if advance is not None:
            advance(progress)

    def tick(clips_under_way: int) -> None:
        progress.clips_under_way = clips_under_way
        if advance is not None:
            advance(progress)

    return report, tick


def _finish(
    folder: RunFolder, plan: dict[str, Any], info: CodecInfo, settings: Tokenizing
) -> dict[str, Any]:
    """The summary of all shards, written when the list of errors is."""
    manifests = [_whole(folder, shard["name"]) for shard in plan["shards"]]
    errors = [*plan["errors"], *(error for item in manifests for error in item["errors"])]
    clips = sum(item["clips"] for item in manifests)
    summary = {
        "clips": clips,
        "hours": sum(item["seconds"] for item in manifests) / 3600,
        "errors": len(errors),
        "shards": len(manifests),
        "frames": sum(item["frames"] for item in manifests),
        "bytes": sum(item["bytes"] for item in manifests),
        "kbps": info.bitrate(settings.num_quantizers or None) / 1000,
        "format": settings.shard_format,
        "model": plan["settings"]["model"],
        "head": plan["settings"]["head"],
        "sha256": sha256("\n".join(item["sha256"] for item in manifests).encode()).hexdigest(),
    }
    folder.write_results(summary, errors)
    if not clips:
        first = errors[0]["error"] if errors else "there is none"
        raise InputError(
            f"none of the {len(errors)} recordings of {settings.source} can be used, the first: "
            f"{first}"
        )
    return summary


def _whole(folder: RunFolder, name: str) -> dict[str, Any]:
    manifest = folder.manifest(name)
    if manifest is None:
        raise BulkError(
            f"shard {name} in {str(folder.path)!r} is gone or damaged; continue with --resume"
        )
    return manifest


def _share(model: float, whole: float) -> float:
    return round(1 - model / whole, 4) if whole else 0.0
