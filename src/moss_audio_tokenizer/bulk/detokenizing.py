"""Shards of codes back to sound: a file a clip, and a manifest of them all.

Owns names and order of what is written. Names are numbers: what a shard calls its clips came from
elsewhere, and is only repeated in the manifest.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..audio import save_audio
from ..codes import Codec
from ..codes.shards import CodedClip, read_shards
from ..errors import (
    AudioFileError,
    BulkError,
    CodesError,
    CodesFileError,
    InputError,
    ModelMismatchError,
    one_line,
)
from ..files import write_file
from .codec_choice import CodecChoice, use_one_thread
from .job_engines import Outcome, RayOptions, Report, Tick, check_engine, count_clips, run_job

AUDIO_FORMATS = ("flac", "wav")
MANIFEST_NAME = "manifest.jsonl"
ERRORS_NAME = "errors.jsonl"
_KEYS = ("text", "task", "speaker", "language")


@dataclass(frozen=True)
class DetokenizeJob:
    """The clips of shards.

    Attributes:
        source: folder of the shards.
        output: folder to write to.
        choice: the codec to decode with.
        num_quantizers: layers to decode; 0 for all.
        audio_format: "flac" or "wav".
    """

    source: str
    output: Path
    choice: CodecChoice
    num_quantizers: int = 0
    audio_format: str = "flac"

    def open(self) -> Codec:
        """The decoder, on one thread on a CPU."""
        use_one_thread()
        return self.choice.open("decoder")

    def do(self, opened: Codec, name: str) -> Outcome:
        """Write the clips of a shard that are not there yet, and its part of the manifest."""
        clips = read_shards(self.source, names=[name])
        folder = self.output / "audio" / name
        folder.mkdir(parents=True, exist_ok=True)
        lines, errors = [], []
        for number in range(len(clips)):
            path = folder / f"{number:06d}.{self.audio_format}"
            try:
                lines.append(self._write(opened, clips[number], path))
            except (CodesFileError, CodesError) as error:  # one damaged clip costs itself
                text = one_line(error)
                errors.append({"shard": name, "clip": number, "error": text})
            count_clips(1)
        self._write_lines(self._part(name, "errors.jsonl"), map(json.dumps, errors))
        self._write_lines(self._part(name), lines)
        return {"name": name, "clips": len(clips), "counted": len(clips)}

    def _write(self, opened: Codec, clip: CodedClip, path: Path) -> str:
        """Write a clip's sound, if it is not there yet; returns its line of the manifest."""
        rate = opened.info.sampling_rate
        if not path.exists():  # complete, if it is there
            codes = clip.codes.first(self.num_quantizers) if self.num_quantizers else clip.codes
            save_audio(path, opened.decode(codes.codes)[:, : codes.num_samples], rate)
        return _line(clip, path.relative_to(self.output), rate)

    def _write_lines(self, path: Path, lines: Iterable[str]) -> None:
        write_file(path, "".join(f"{line}\n" for line in lines), AudioFileError)

    def is_done(self, name: str) -> bool:
        """Whether a shard's part of the manifest, which is written last, is there."""
        return self._part(name).exists()

    def merge(self, names: Sequence[str]) -> tuple[int, int]:
        """Write the manifest of all shards and the list of errors.

        Returns:
            The number of clips, and of errors.

        Raises:
            CodesFileError: no clip at all can be read.
        """
        lines = [line for name in names for line in self._lines(self._part(name))]
        errors = [line for name in names for line in self._lines(self._part(name, "errors.jsonl"))]
        self._write_lines(self.output / ERRORS_NAME, errors)
        self._write_lines(self.output / MANIFEST_NAME, lines)
        if errors and not lines:
            first = json.loads(errors[0])["error"]
            raise CodesFileError(f"none of the {len(errors)} clips can be read, the first: {first}")
        return len(lines), len(errors)

    def _lines(self, path: Path) -> list[str]:
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    def _part(self, name: str, ending: str = "jsonl") -> Path:
        return self.output / "audio" / f"{name}.{ending}"


def detokenize(
    source: str | Path,
    output: str | Path,
    choice: CodecChoice | None = None,
    num_quantizers: int = 0,
    audio_format: str = "flac",
    splits: Sequence[str] = (),
    engine: str = "local",
    workers: int = 2,
    resume: bool = False,
    ray_options: RayOptions | None = None,
    advance: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Write the sound of shards as ``audio/SHARD/NUMBER.flac`` and ``manifest.jsonl``.

    Args:
        source: folder that `tokenize` wrote.
        output: a folder that is empty or not there; with ``resume``, that of an earlier call.
        choice: the codec (default: the bundled model, on the CPU).
        num_quantizers: layers to decode; 0 for all.
        audio_format: "flac" or "wav".
        splits: the splits to write; empty for all.
        engine: "local" or "ray".
        workers: number of processes or, with Ray, the most actors.
        resume: continue a call that was interrupted.
        ray_options: the cluster and resources of the actors.
        advance: called with the clips done and the number of clips.

    Raises:
        InputError: the shards or the folder cannot be used.
        ModelMismatchError: another model made the codes.
        CodesFileError: a shard is missing, or no clip at all can be read; a clip that is damaged
            alone is listed in ``errors.jsonl``.
        BulkError, AudioFileError: workers die again and again, or the folder cannot be written.
    """
    check_engine(engine)
    if audio_format not in AUDIO_FORMATS:
        raise InputError(f"got format {audio_format!r}; expected {', '.join(AUDIO_FORMATS)}")
    shards = read_shards(source, splits)
    job = DetokenizeJob(
        str(Path(source).absolute()),
        Path(output).absolute(),
        choice or CodecChoice(),
        num_quantizers,
        audio_format,
    )
    _check(shards.head.identity, shards.head.num_quantizers, num_quantizers, job.choice)
    _claim(job.output, resume)
    counts = {manifest["name"]: manifest["clips"] for manifest in shards.manifests}
    missing = [name for name in counts if not job.is_done(name)]
    report, tick = _reporter(len(shards), sum(counts[name] for name in missing), advance)
    run_job(job, missing, engine, workers, report, ray_options, tick)
    clips, errors = job.merge(list(counts))
    return {
        "clips": clips,
        "errors": errors,
        "hours": sum(manifest["seconds"] for manifest in shards.manifests) / 3600,
        "manifest": str(job.output / MANIFEST_NAME),
    }


def _reporter(
    total: int, missing: int, advance: Callable[[int, int], None] | None
) -> tuple[Report, Tick]:
    """What counts the clips of finished shards, and of shards that are under way."""
    done = total - missing

    def report(outcome: Outcome) -> None:
        nonlocal done
        done += outcome["clips"]
        tick(0)

    def tick(clips_under_way: int) -> None:
        if advance is not None:
            advance(done + clips_under_way, total)

    return report, tick


def _check(model: str, layers: int, wanted: int, choice: CodecChoice) -> None:
    """Refuse codes of another model, which would decode to noise, and too many layers."""
    if not 0 <= wanted <= layers:
        raise CodesError(f"got {wanted} quantizers; expected 1 to {layers}, which the shards have")
    here = choice.open("decoder").info.identity
    if model and model != here:
        raise ModelMismatchError(
            f"the shards were made by model {model}, not by {here}; give their model"
        )


def _claim(output: Path, resume: bool) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
        if any(output.iterdir()) and not resume:
            raise InputError(
                f"{str(output)!r} is not empty; continue with --resume, or name another folder"
            )
        (output / "audio").mkdir(exist_ok=True)
    except OSError as error:
        raise BulkError(f"cannot write in {str(output)!r}: {error.strerror}") from error


def _line(clip: CodedClip, path: Path, rate: int) -> str:
    item = {
        "path": path.as_posix(),
        "original": clip.name,
        "domain": clip.domain,
        "split": clip.split,
        "seconds": round(clip.codes.num_samples / rate, 6),
        "sample_rate": rate,
        "channels": clip.codes.num_channels,
        **{key: getattr(clip, key) for key in _KEYS if getattr(clip, key)},
    }
    return json.dumps(item, ensure_ascii=False)
