"""Shards of codes back to sound: a file a clip, and a manifest of them all.

Owns names and order of what is written. Names are numbers: what a shard calls its clips came from
elsewhere, and is only repeated in the manifest.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..audio import save_audio
from ..codes import AudioCodes, Codec, CodecInfo
from ..codes.shards import CodedClip, read_shards
from ..errors import AudioFileError, BulkError, CodesError, InputError, ModelMismatchError
from ..files import atomic_path
from .jobs import Outcome
from .opening import Choice, CodecChoice, use_one_thread
from .ray_engine import RayOptions
from .tokenizing import check_engine, run_job

AUDIO_FORMATS = ("flac", "wav")
MANIFEST_NAME = "manifest.jsonl"
_KEYS = ("text", "task", "speaker", "language")


@dataclass(frozen=True)
class DetokenizeJob:
    """The clips of shards.

    Attributes:
        source: folder of the shards.
        output: folder to write to.
        choice: the codec.
        num_quantizers: layers to decode; 0 for all.
        audio_format: "flac" or "wav".
    """

    source: str
    output: Path
    choice: Choice
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
        lines = []
        for number, clip in enumerate(clips):
            path = folder / f"{number:06d}.{self.audio_format}"
            if not path.exists():  # whole, if it is there
                save_audio(path, _sound(opened, clip.codes, self.num_quantizers), _rate(opened))
            lines.append(_line(clip, path.relative_to(self.output), _rate(opened)))
        with atomic_path(self._part(name), error=AudioFileError) as temporary:
            temporary.write_text("".join(lines), encoding="utf-8")
        return {"name": name, "clips": len(lines)}

    def is_done(self, name: str) -> bool:
        """Whether a shard's part of the manifest, which is written last, is there."""
        return self._part(name).exists()

    def merge(self, names: Sequence[str]) -> int:
        """Write the manifest of all shards; returns the number of its lines."""
        parts = [self._part(name).read_text(encoding="utf-8") for name in names]
        with atomic_path(self.output / MANIFEST_NAME, error=AudioFileError) as temporary:
            temporary.write_text("".join(parts), encoding="utf-8")
        return sum(part.count("\n") for part in parts)

    def _part(self, name: str) -> Path:
        return self.output / "audio" / f"{name}.jsonl"


def detokenize(
    source: str | Path,
    output: str | Path,
    choice: Choice | None = None,
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
        splits: which to write; none for all.
        engine: "local" or "ray".
        workers: processes or, with Ray, most actors.
        resume: go on with a call that was interrupted.
        ray_options: where actors run.
        advance: called with clips done and clips in all.

    Raises:
        InputError: the shards or the folder cannot be used.
        ModelMismatchError: another model made the codes.
        CodesFileError: a shard is damaged.
        BulkError, AudioFileError: see `tokenize`; the folder cannot be written.
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
    _check(shards.head.model, shards.head.num_quantizers, num_quantizers, job.choice)
    _claim(job.output, resume)
    names = [manifest["name"] for manifest in shards.manifests]
    missing = [name for name in names if not job.is_done(name)]
    counts = {manifest["name"]: manifest["clips"] for manifest in shards.manifests}
    done = len(shards) - sum(counts[name] for name in missing)

    def report(outcome: Outcome) -> None:
        nonlocal done
        done += outcome["clips"]
        if advance is not None:
            advance(done, len(shards))

    run_job(job, missing, engine, workers, report, ray_options)
    hours = sum(manifest["seconds"] for manifest in shards.manifests) / 3600
    return {"clips": job.merge(names), "hours": hours, "manifest": str(job.output / MANIFEST_NAME)}


def _check(model: str, layers: int, wanted: int, choice: Choice) -> None:
    """Refuse what would be noise: codes of another model; and layers that there are not."""
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
                f"{str(output)!r} is not empty; go on with --resume, or name another folder"
            )
        (output / "audio").mkdir(exist_ok=True)
    except OSError as error:
        raise BulkError(f"cannot write in {str(output)!r}: {error.strerror}") from error


def _sound(codec: Codec, codes: AudioCodes, num_quantizers: int) -> Any:
    kept = codes.first(num_quantizers) if num_quantizers else codes
    return codec.decode(kept.codes)[:, : codes.num_samples]


def _rate(codec: Codec) -> int:
    info: CodecInfo = codec.info
    return info.sampling_rate


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
    return json.dumps(item, ensure_ascii=False) + "\n"
