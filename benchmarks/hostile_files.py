"""Mutated bytes for every reader of files: clean errors, tracebacks, hangs, crashes and memory.

    python benchmarks/hostile_files.py --count 1000 [--reader wav --reader moss ...]

Each reader runs in a process of its own, with a bound on its memory; a crash is counted and the
process started again behind the input that caused it. An input is a valid file in which some bytes
are changed, cut off, repeated or put in; in half of the JSON files values are replaced, or keys
removed or renamed. Any exception but the package's own is a traceback. Each reader reads the valid
file first.
"""

import argparse
import io
import json
import multiprocessing
import os
import resource
import tarfile
import tempfile
import time
import traceback
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from hostile_models import MODEL_READERS, Reader

HANG_SECONDS = 5.0
MEMORY_BYTES = 4 << 30


def sound(layout: str, subtype: str) -> bytes:
    """A second of a tone."""
    import soundfile

    data = io.BytesIO()
    samples = 0.5 * np.sin(np.arange(16_000) / 7)
    soundfile.write(data, samples, 16_000, subtype, format=layout)
    return data.getvalue()


def contained(muxer: str, codec: str) -> bytes:
    """The same in a container, by PyAV."""
    import av

    data = io.BytesIO()
    with av.open(data, "w", format=muxer) as container:
        stream = container.add_stream(codec, rate=48_000, layout="mono")
        stream.bit_rate = 64_000
        samples = (0.5 * np.sin(np.arange(48_000) / 20)).astype(np.float32)[None]
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate = 48_000
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    return data.getvalue()


def codes_file(suffix: str) -> bytes:
    """Codes of two seconds."""
    from moss_audio_tokenizer.codes import AudioCodes

    codes = np.random.default_rng(0).integers(0, 1024, (8, 25))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"x{suffix}"
        AudioCodes(codes, 24_000, 48_000, downsample_rate=1920).save(path)
        return path.read_bytes()


def manifest() -> bytes:
    """Lines of a manifest."""
    rows = [{"path": f"{i}.wav", "text": "a b", "speaker": i, "seconds": 1.5} for i in range(20)]
    return "\n".join(map(json.dumps, rows)).encode()


def tar() -> bytes:
    """A WebDataset shard of four clips."""
    data, wav = io.BytesIO(), sound("WAV", "PCM_16")
    with tarfile.open(fileobj=data, mode="w") as archive:
        for number in range(4):
            for ending, content in (("wav", wav), ("json", b'{"text": "a", "speaker": 3}')):
                member = tarfile.TarInfo(f"{number}.{ending}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return data.getvalue()


def table(kind: str) -> bytes:
    """A table of four clips, in Parquet or Arrow."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = pa.table(
        {"audio": [{"bytes": sound("WAV", "PCM_16"), "path": "x"}] * 4, "text": list("abcd")}
    )
    data = io.BytesIO()
    if kind == "parquet":
        pq.write_table(rows, data)
    else:
        with pa.ipc.new_stream(data, rows.schema) as stream:
            stream.write_table(rows)
    return data.getvalue()


def shard(kind: str) -> bytes:
    """A shard of codes of six clips."""
    from moss_audio_tokenizer.codes import AudioCodes, CodecInfo
    from moss_audio_tokenizer.codes.shards import CodedClip, write_shard

    head = CodecInfo("0123456789abcdef", 24_000, 1, 1920, 8, 1024)
    random = np.random.default_rng(0)
    codes = [AudioCodes.of_codec(head, random.integers(0, 1024, (8, 5)), 9000) for _ in range(6)]
    clips = [CodedClip(own, name=str(number)) for number, own in enumerate(codes)]
    with tempfile.TemporaryDirectory() as folder:
        return write_shard(Path(folder), "train-000000", kind, head, clips).read_bytes()


def read_sound(path: Path) -> None:
    """All of it, a crop, and its length."""
    from moss_audio_tokenizer.audio import audio_info, load_audio, load_crop

    load_audio(path, 24_000, 1, max_seconds=600)
    load_crop(path, 0.5, 2400, 24_000, 1)
    audio_info(path)


def read_codes(path: Path) -> None:
    """Codes of any format."""
    from moss_audio_tokenizer.codes import AudioCodes

    AudioCodes.load(path)


def read_manifest(path: Path) -> None:
    """All lines, also wrong ones."""
    from moss_audio_tokenizer.manifest import manifest_lines

    list(manifest_lines(path))


def read_data_set(path: Path) -> None:
    """The folder that the file is in, and all sound that it names."""
    from moss_audio_tokenizer.audio import load_audio
    from moss_audio_tokenizer.errors import MossAudioError
    from moss_audio_tokenizer.sources.recordings import find_recordings, open_entry

    for index in path.parent.glob("*.index.json"):
        index.unlink()
    lines, _ = find_recordings(path.parent, (), "speech")
    for line in lines:
        with suppress(MossAudioError, OSError), open_entry(line.entry) as source:
            load_audio(source, 24_000, 1, max_seconds=60)


def read_shard(path: Path) -> None:
    """A shard of codes beside its manifest, which is right."""
    from moss_audio_tokenizer.codes.shards import manifest_path, read_shards

    head = {"sampling_rate": 24_000, "downsample_rate": 1920, "num_channels": 1}
    head |= {"codebook_size": 1024, "num_quantizers": 8, "model": "0123456789abcdef"}
    head["axis_order"] = ["num_quantizers", "frames"]
    facts = {"name": "x", "file": path.name, "split": "train", "clips": 6, "seconds": 1.0}
    manifest_path(path.parent, "x").write_text(json.dumps(facts | {"head": head}))
    shards = read_shards(path.parent)
    list(shards.facts())
    list(shards)


def read_shard_manifest(path: Path) -> None:
    """The manifest of a shard that is not looked at."""
    from moss_audio_tokenizer.codes.shards import read_shards

    path.with_name("x.parquet").write_bytes(b"")
    path.rename(path.with_name("_x.json"))
    read_shards(path.parent)


def shard_manifest() -> bytes:
    """The manifest of a shard."""
    head = {"sampling_rate": 24_000, "downsample_rate": 1920, "num_channels": 1}
    head |= {"codebook_size": 1024, "num_quantizers": 8, "model": "0123456789abcdef"}
    head["axis_order"] = ["num_quantizers", "frames"]
    facts = {"name": "x", "file": "x.parquet", "split": "train", "clips": 6, "seconds": 1.0}
    return json.dumps(facts | {"head": head}).encode()


READERS: dict[str, Reader] = {
    "wav": (lambda: sound("WAV", "PCM_16"), read_sound, "x.wav"),
    "flac": (lambda: sound("FLAC", "PCM_16"), read_sound, "x.flac"),
    "vorbis": (lambda: sound("OGG", "VORBIS"), read_sound, "x.ogg"),
    "opus": (lambda: sound("OGG", "OPUS"), read_sound, "x.opus"),
    "mp3": (lambda: sound("MP3", "MPEG_LAYER_III"), read_sound, "x.mp3"),
    "aiff": (lambda: sound("AIFF", "PCM_16"), read_sound, "x.aiff"),
    "w64": (lambda: sound("W64", "PCM_16"), read_sound, "x.w64"),
    "rf64": (lambda: sound("RF64", "PCM_16"), read_sound, "x.rf64"),
    "m4a": (lambda: contained("ipod", "aac"), read_sound, "x.m4a"),
    "webm": (lambda: contained("webm", "libopus"), read_sound, "x.webm"),
    "wma": (lambda: contained("asf", "wmav2"), read_sound, "x.wma"),
    "moss": (lambda: codes_file(".moss"), read_codes, "x.moss"),
    "npz": (lambda: codes_file(".npz"), read_codes, "x.npz"),
    "safetensors": (lambda: codes_file(".safetensors"), read_codes, "x.safetensors"),
    "manifest": (manifest, read_manifest, "x.jsonl"),
    "tar": (tar, read_data_set, "x.tar"),
    "parquet": (lambda: table("parquet"), read_data_set, "x.parquet"),
    "arrow": (lambda: table("arrow"), read_data_set, "x.arrow"),
    "shard-parquet": (lambda: shard("parquet"), read_shard, "x.parquet"),
    "shard-tar": (lambda: shard("webdataset"), read_shard, "x.tar"),
    "shard-manifest": (shard_manifest, read_shard_manifest, "y.json"),
    **MODEL_READERS,
}


HOSTILE_VALUES: list[Any] = [
    *(None, True, -1, 0, 1, 2**31, 2**63, 10**400, 0.5, -1e308, float("nan"), float("inf")),
    *("", "x", "\0", "../../x", "x" * 100_000, "\ud800", [], [[]], {}, {"a": {}}, [1, 2, 3]),
]


def mutated_json(value: Any, random: np.random.Generator) -> Any:
    """A JSON value in which one value, somewhere, is replaced, removed or renamed."""
    if not isinstance(value, dict | list) or not value or random.random() < 0.1:
        return HOSTILE_VALUES[random.integers(len(HOSTILE_VALUES))]
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    key = list(copy)[random.integers(len(copy))] if isinstance(copy, dict) else 0
    key = int(random.integers(len(copy))) if isinstance(copy, list) else key
    if (kind := random.random()) < 0.1:
        del copy[key]
    elif kind < 0.15 and isinstance(copy, dict):
        copy[f"{key}x"] = copy.pop(key)
    else:
        copy[key] = mutated_json(copy[key], random)
    return copy


def mutated(data: bytes, seed: int) -> bytes:
    """A file with something wrong in it: bytes changed, cut off, repeated or put in."""
    random = np.random.default_rng(seed)
    if data.startswith(b"{") and random.random() < 0.5:
        with suppress(ValueError):  # lines of JSON are mutated as bytes
            value = json.loads(data)
            for _ in range(random.integers(1, 4)):
                value = mutated_json(value, random)
            return json.dumps(value).encode()
    altered = bytearray(data)
    end = len(data) if random.random() < 0.4 else min(len(data), 400)
    for _ in range(random.integers(1, 6)):
        altered[random.integers(0, end)] = random.choice(
            [0, 1, 127, 128, 255, random.integers(256)]
        )
    kind, place = random.random(), int(random.integers(0, len(altered)))
    if kind < 0.2:
        del altered[place:]
    elif kind < 0.3:
        altered[place:place] = altered[: random.integers(0, len(altered))]
    elif kind < 0.4:
        altered[place:place] = random.bytes(int(random.integers(1, 100)))
    return bytes(altered)


def work(name: str, first: int, count: int, results: Any) -> None:
    """Read the inputs of one reader from a seed on, and say what became of each."""
    from moss_audio_tokenizer.errors import MossAudioError

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what libraries print
    make, read, file_name = READERS[name]
    data = make()
    results.put((first, "started", "", 0.0, 0))
    with tempfile.TemporaryDirectory() as folder:  # imports what is needed, too
        (path := Path(folder) / file_name).write_bytes(data)
        read(path)
    for seed in range(first, count):
        results.put((seed, "started", "", 0.0, 0))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / file_name
            path.write_bytes(mutated(data, seed))
            began, place = time.perf_counter(), ""
            try:
                read(path)
                outcome = "read"
            except MossAudioError as error:
                outcome = "error" if "\n" not in str(error) else "long"
            except BaseException as error:
                last = traceback.extract_tb(error.__traceback__)[-1]
                outcome, place = (
                    "traceback",
                    f"{type(error).__name__} {last.filename}:{last.lineno}",
                )
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        results.put((seed, outcome, place, time.perf_counter() - began, peak))


def run(name: str, count: int) -> dict[str, Any]:
    """Read all inputs of a reader; a process that dies is counted and started again."""
    counts, places, slowest, peak, seed = Counter[str](), Counter[str](), 0.0, 0, 0
    context = multiprocessing.get_context("spawn")
    while seed < count:
        results = context.SimpleQueue()
        process = context.Process(target=work, args=(name, seed, count, results))
        process.start()
        current, began = seed, time.monotonic()
        while process.is_alive() or not results.empty():
            if results.empty():
                if time.monotonic() - began > 60:
                    process.kill()
                    counts["hang"] += 1
                    break
                time.sleep(0.002)
                continue
            current, outcome, place, seconds, memory = results.get()
            began = time.monotonic()
            if outcome != "started":
                counts[outcome] += 1
                counts["slow"] += seconds > HANG_SECONDS
                places[place] += 1
                slowest, peak, seed = max(slowest, seconds), max(peak, memory), current + 1
        process.join()
        if seed < count:
            counts["crash"] += bool(process.exitcode) and seed == current
            seed = current + 1
    places.pop("", None)
    facts = {
        key: counts[key] for key in ("read", "error", "long", "traceback", "slow", "hang", "crash")
    }
    return facts | {"slowest_s": round(slowest, 2), "peak_mb": peak >> 20, "places": dict(places)}


def main() -> None:
    """Print a row for each reader."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=1000, help="inputs for each reader")
    parser.add_argument("--reader", action="append", choices=READERS, help="only this one")
    wanted = parser.parse_args()
    for name in wanted.reader or READERS:
        print(name, json.dumps(run(name, wanted.count)), flush=True)


if __name__ == "__main__":
    main()
