"""Tokenizing a data set: the plan, the shards that are missing, and the summary.

Owns the order of steps, so that a run that was killed at any moment resumes to the same result.
"""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ..codes import CodecInfo
from ..codes.shards import ShardHead, require_format
from ..errors import BulkError, CodesError, InputError
from ..sources.recordings import find_recordings
from .codec_choice import Choice, CodecChoice
from .engines import Job, Outcome, Report, Tick, run_locally
from .progress import Progress
from .ray_engine import RayOptions, run_on_ray
from .run_folder import RunFolder
from .shard_plan import Tokenizing, plan_shards
from .shard_work import TokenizeJob

ENGINES = ("local", "ray")


def tokenize(
    settings: Tokenizing,
    output: str | Path,
    choice: Choice | None = None,
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
        if attention := getattr(choice, "attention", None):
            made |= {"attention": attention}
        plan = _plan(folder, settings, info, made)
        names = [shard["name"] for shard in plan["shards"]]
        missing = [name for name in names if folder.manifest(name) is None]
        progress = _progress(plan, set(missing))
        folder.sweep()
        job = TokenizeJob(folder, choice, settings, made, loaders)
        report, tick = _reporter(plan, progress, advance)
        run_job(job, missing, engine, workers, report, ray_options, tick)
        folder.sweep()  # a worker of a killed run may have lived on for a moment
        return _finish(folder, plan, info, settings) | {"speed": progress.speed}


def check_engine(engine: str) -> None:
    """Check the name of an engine.

    Raises:
        InputError: there is no such engine.
    """
    if engine not in ENGINES:
        raise InputError(f"got engine {engine!r}; expected {', '.join(ENGINES)}")


def run_job(
    job: Job,
    names: list[str],
    engine: str,
    workers: int,
    report: Report,
    ray_options: RayOptions | None = None,
    tick: Tick | None = None,
) -> None:
    """Do the tasks of a job on an engine, as `run_locally` or `run_on_ray` does."""
    if not names:
        return
    if engine == "ray":
        run_on_ray(job, names, workers, report, ray_options or RayOptions())
    else:
        run_locally(job, names, workers, report, tick)


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
    head = ShardHead.of(info, settings.num_quantizers or None).values
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
    total = sum(shard["seconds"] for shard in plan["shards"])
    seconds, clips = (sum(shard[key] for shard in earlier) for key in ("seconds", "clips"))
    return Progress(
        total,
        len(plan["shards"]),
        sum(shard["clips"] for shard in plan["shards"]),
        clips_done=clips,
        earlier_seconds=seconds,
        shards_done=len(earlier),
        clips_before=clips,
    )


def _reporter(
    plan: dict[str, Any], progress: Progress, advance: Callable[[Progress], None] | None
) -> tuple[Report, Tick]:
    planned = {shard["name"]: shard["seconds"] for shard in plan["shards"]}

    def report(outcome: Outcome) -> None:
        progress.add(outcome, planned[outcome["name"]])
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
        "sha256": _digest(item["sha256"] for item in manifests),
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


def _digest(digests: Iterable[str]) -> str:
    """One hash for the contents of all shards, in order."""
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()
