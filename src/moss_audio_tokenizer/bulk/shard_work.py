"""One shard, from the plan to its file and its manifest: what every worker of every engine does.

Owns loading in threads beside the model, and the order in which a shard becomes whole: its data,
then its manifest, each by one rename.
"""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ..audio import load_audio
from ..codes import AudioCodes, Codec, CodecInfo
from ..codes.codec import encode_clips
from ..codes.shards import CodedClip, head_values, manifest_path, write_shard
from ..errors import InputError, MossAudioError, one_line
from ..manifest import ManifestEntry
from ..sources.recordings import open_entry
from .codec_choice import CodecChoice, file_digest, use_one_thread
from .job_engines import Outcome, count_clips
from .shard_plan import PlannedClip, PlannedShard, Tokenizing, cut_batches, read_planned
from .tokenizing_folder import RunFolder

_BATCHES_AHEAD = 2
# The sound of a clip, or a line about what is wrong with it.
_Loaded: TypeAlias = np.ndarray | str
# What is written about a model in every shard's manifest.
_Made = dict[str, Any]


@dataclass(frozen=True)
class TokenizeJob:
    """Shards of a data set.

    Attributes:
        folder: folder of the run.
        choice: the codec.
        settings: settings of the run.
        made: the model, as manifests describe it.
        loaders: threads that decode beside the model.
    """

    folder: RunFolder
    choice: CodecChoice
    settings: Tokenizing
    made: _Made
    loaders: int = 1

    def open(self) -> Codec:
        """The encoder, on one thread on a CPU."""
        use_one_thread()
        return self.choice.open("encoder")

    def do(self, opened: Codec, name: str) -> Outcome:
        """Write a shard and its manifest."""
        clock = _Clock()
        planned = read_planned(self.folder.plan_path, name)
        found = self._encoded(opened, planned, clock)
        head = self.settings.head_of(opened.info)
        clips = [
            _coded(clip, head, *item)
            for clip, item in zip(planned.clips, found, strict=True)
            if not isinstance(item, str)
        ]
        errors = [
            {"path": clip.entry.name, "line": None, "error": item}
            for clip, item in zip(planned.clips, found, strict=True)
            if isinstance(item, str)
        ]
        manifest = self._write(planned, head, clips, errors)
        facts = {key: manifest[key] for key in ("name", "clips", "seconds")}
        return facts | clock.figures | {"counted": len(planned.clips)}

    def _encoded(
        self, codec: Codec, planned: PlannedShard, clock: "_Clock"
    ) -> list[tuple[np.ndarray, int] | str]:
        """Codes and number of samples of every clip, or what is wrong with it."""
        found: list[tuple[np.ndarray, int] | str] = [""] * len(planned.clips)
        entries = [clip.entry for clip in planned.clips]
        for positions, sounds in _loaded(entries, planned.batches, codec.info, self.loaders):
            good = []
            for position, sound in zip(positions, sounds, strict=True):
                if isinstance(sound, str):
                    found[position] = sound
                else:
                    good.append((position, sound))
            for position, item in self._codes(codec, good, entries, clock):
                found[position] = item
            count_clips(len(positions))
        return found

    def _codes(
        self,
        codec: Codec,
        good: list[tuple[int, np.ndarray]],
        entries: Sequence[ManifestEntry],
        clock: "_Clock",
    ) -> Iterator[tuple[int, tuple[np.ndarray, int] | str]]:
        """The codes of what is loaded, in batches by the lengths that it turned out to have."""
        lengths = [sound.shape[1] / codec.info.sampling_rate for _, sound in good]
        for batch in cut_batches(lengths, self.settings.batch_seconds):
            positions, sounds = zip(*(good[index] for index in batch), strict=True)
            with clock:
                codes = self._encode(codec, list(sounds))
            for position, sound, item in zip(positions, sounds, codes, strict=True):
                if isinstance(item, Exception):
                    yield position, _line(entries[position], item)
                else:
                    yield position, (item, sound.shape[1])

    def _encode(self, codec: Codec, sounds: list[np.ndarray]) -> list[Any]:
        """Codes of every clip, or the error about it."""
        layers = self.settings.num_quantizers or None
        try:
            return list(encode_clips(codec, sounds, layers, self.settings.batching == "together"))
        except InputError as error:
            if len(sounds) == 1:
                return [error]
            return [item for sound in sounds for item in self._encode(codec, [sound])]

    def _write(
        self,
        planned: PlannedShard,
        head: CodecInfo,
        clips: list[CodedClip],
        errors: list[dict[str, Any]],
    ) -> dict[str, Any]:
        folder, settings = self.folder.shards_path, self.settings
        path = write_shard(folder, planned.name, settings.shard_format, head, clips)
        manifest = {
            "name": planned.name,
            "file": path.name,
            "split": planned.split,
            "clips": len(clips),
            "seconds": round(sum(clip.codes.duration_seconds for clip in clips), 6),
            "frames": sum(clip.codes.num_frames for clip in clips),
            "bytes": sum(file.stat().st_size for file in path.iterdir())
            if path.is_dir()
            else path.stat().st_size,
            "sha256": file_digest(path),
            "head": head_values(head),
            "model": self.made,
            "batching": {"policy": settings.batching, "seconds": settings.batch_seconds},
            "errors": errors,
        }
        self.folder.write_json(manifest_path(folder, planned.name), manifest)
        return manifest


class _Clock:
    """Seconds of a shard, and those of them that the model takes."""

    def __init__(self) -> None:
        self._start, self._cpu_start = time.perf_counter(), time.process_time()
        self._model = self._cpu_model = 0.0

    def __enter__(self) -> None:
        self._entered, self._cpu_entered = time.perf_counter(), time.thread_time()

    def __exit__(self, *_: object) -> None:
        self._model += time.perf_counter() - self._entered
        self._cpu_model += time.thread_time() - self._cpu_entered

    @property
    def figures(self) -> dict[str, float]:
        """Wall and CPU seconds, of all and of the model."""
        return {
            "wall_seconds": time.perf_counter() - self._start,
            "model_seconds": self._model,
            "cpu_seconds": time.process_time() - self._cpu_start,
            "model_cpu_seconds": self._cpu_model,
        }


def _loaded(
    entries: Sequence[ManifestEntry],
    batches: Sequence[tuple[int, ...]],
    info: CodecInfo,
    loaders: int,
) -> Iterator[tuple[tuple[int, ...], list[_Loaded]]]:
    """The clips of every batch, decoded and resampled a few batches ahead of the model."""
    with ThreadPoolExecutor(loaders) as pool:
        ahead = deque[tuple[tuple[int, ...], list[Future[_Loaded]]]]()
        for batch in batches:
            ahead.append(
                (batch, [pool.submit(_load, entries[position], info) for position in batch])
            )
            if len(ahead) > _BATCHES_AHEAD:
                yield _waited(ahead)
        while ahead:
            yield _waited(ahead)


def _waited(
    ahead: deque[tuple[tuple[int, ...], list[Future[_Loaded]]]],
) -> tuple[tuple[int, ...], list[_Loaded]]:
    batch, futures = ahead.popleft()
    return batch, [future.result() for future in futures]


def _load(entry: ManifestEntry, info: CodecInfo) -> _Loaded:
    try:
        with open_entry(entry) as source:
            return load_audio(source, info.sampling_rate, info.num_channels)
    except (MossAudioError, OSError, MemoryError) as error:
        return _line(entry, error)


def _line(entry: ManifestEntry, error: Exception) -> str:
    return one_line(entry.explain(error))


def _coded(clip: PlannedClip, head: CodecInfo, codes: np.ndarray, num_samples: int) -> CodedClip:
    entry = clip.entry
    return CodedClip(
        AudioCodes.of_codec(head, codes, num_samples),
        name=entry.name,
        text=entry.text,
        task=entry.task,
        speaker=entry.speaker,
        language=entry.language,
        domain=entry.domain,
        split=entry.split,
        extra=clip.extra,
    )
