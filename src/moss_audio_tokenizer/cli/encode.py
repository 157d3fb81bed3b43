"""`moss-audio encode` and `decode`: sound files to codes files, and back."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..errors import ModelMismatchError
from . import display, loading, options
from .file_jobs import (
    AUDIO_SUFFIXES,
    CODES_SUFFIXES,
    Job,
    find_inputs,
    is_pipe,
    load_sound,
    make_folders,
    opened,
    plan,
    work_through,
    write_to_pipe,
)

if TYPE_CHECKING:
    import numpy as np

    from ..codes import AudioCodes, Codec, CodecInfo

Deterministic = Annotated[
    bool,
    typer.Option("--deterministic", help="On a GPU: the same codes, bit for bit, in every run."),
]
Format = Annotated[
    Literal["moss", "safetensors", "npz"] | None,
    typer.Option(
        "--format",
        show_default="from OUT, or moss",
        help="File format: moss (bit-packed, smallest), safetensors or npz.",
    ),
]


def encode(
    inputs: options.AudioInputs,
    output: options.Output,
    model: options.Model = "bundled",
    num_quantizers: options.NumQuantizers = None,
    kbps: options.Kbps = None,
    chunk_duration: options.ChunkDuration = None,
    device: options.Device = "cpu",
    backend: options.Backend = None,
    compute_dtype: options.ComputeDtype = "fp32",
    attention: options.Attention = None,
    deterministic: Deterministic = False,
    file_format: Format = None,
    as_json: options.Json = False,
) -> None:
    """Turn sound into codes.

    Any sampling rate and channel count is converted to what the model takes.

    Example: moss-audio encode speech.wav -o speech.moss

    A folder, at 1 kbps: moss-audio encode recordings/ -o codes/ --kbps 1
    """
    from ..audio import SOUND_SUFFIXES

    suffix = file_format
    found = find_inputs(inputs, SOUND_SUFFIXES, "sound files")
    jobs = plan(found, output, CODES_SUFFIXES, suffix)
    with display.progress("loading the model"):
        codec = loading.load_codec(
            model,
            "encoder",
            device,
            backend,
            compute_dtype=compute_dtype,
            attention=attention,
            deterministic=deterministic,
        )
    layers = loading.num_quantizers_of(num_quantizers, kbps, codec.info)
    make_folders(job.output for job in jobs)

    def work(job: Job) -> dict[str, Any]:
        codes, mixed = encode_file(codec, job.source, layers, chunk_duration)
        if is_pipe(job.output):
            write_to_pipe(_file_bytes(codes, suffix or "moss"))
            return _codes_facts(codes)
        codes.save(job.output)
        return _codes_facts(codes) | {"bytes": job.output.stat().st_size} | mixed

    work_through(jobs, "encoding", work, as_json)


def encode_file(
    codec: "Codec", path: Path, num_quantizers: int | None, chunk_duration: float | None
) -> "tuple[AudioCodes, dict[str, Any]]":
    """The codes of a sound file, with all that decoding them takes, and what was mixed for it."""
    from ..codes import AudioCodes

    audio, mixed = load_sound(path, codec.info)
    codes = codec.encode(audio, num_quantizers=num_quantizers, chunk_duration=chunk_duration)
    return AudioCodes.of_codec(codec.info, codes, audio.shape[1]), mixed


def _file_bytes(codes: "AudioCodes", file_format: str) -> bytes:
    """The bytes of a codes file."""
    with TemporaryDirectory(prefix="moss-audio-") as folder:
        path = Path(folder) / f"codes.{file_format}"
        codes.save(path)
        return path.read_bytes()


def _codes_facts(codes: "AudioCodes") -> dict[str, Any]:
    return {
        "num_quantizers": codes.num_quantizers,
        "num_frames": codes.num_frames,
        "duration_seconds": codes.duration_seconds,
        "kbps": codes.bitrate / 1000,
    }


CodesInputs = Annotated[
    list[Path],
    typer.Argument(
        metavar="IN...",
        readable=False,
        help="Codes files (.moss, .safetensors, .npz), folders of them, or - for standard input.",
    ),
]
Force = Annotated[
    bool, typer.Option("--force", help="Decode even codes that another model made (mostly noise).")
]
FileFormat = Annotated[
    Literal["wav", "flac"] | None,
    typer.Option("--format", show_default="from OUT, or wav", help="File format: wav or flac."),
]


def decode(
    inputs: CodesInputs,
    output: options.Output,
    model: options.Model = "bundled",
    num_quantizers: options.NumQuantizers = None,
    kbps: options.Kbps = None,
    chunk_duration: options.ChunkDuration = None,
    device: options.Device = "cpu",
    backend: options.Backend = None,
    compute_dtype: options.ComputeDtype = "fp32",
    attention: options.Attention = None,
    force: Force = False,
    file_format: FileFormat = None,
    as_json: options.Json = False,
) -> None:
    """Turn codes back into sound, as long as the original was.

    Example: moss-audio decode speech.moss -o speech.wav
    """
    suffix = file_format
    found = find_inputs(inputs, [suffix[1:] for suffix in CODES_SUFFIXES], "codes files")
    jobs = plan(found, output, AUDIO_SUFFIXES, suffix)
    with display.progress("loading the model"):
        codec = loading.load_codec(
            model,
            "decoder",
            device,
            backend=backend,
            compute_dtype=compute_dtype,
            attention=attention,
        )
    layers = loading.num_quantizers_of(num_quantizers, kbps, codec.info)
    make_folders(job.output for job in jobs)

    def work(job: Job) -> dict[str, Any]:
        codes = _load_first(job, layers)
        if not force:
            check_same_model(codes, codec.info, job)
        audio = decode_codes(codec, codes, chunk_duration)
        return _write_audio(job, codes, audio, codec.info, suffix or "wav")

    work_through(jobs, "decoding", work, as_json)


def _load_first(job: Job, num_quantizers: int | None) -> "AudioCodes":
    codes = load_codes(job.source)
    return codes if num_quantizers is None else codes.first(num_quantizers)


def load_codes(path: Path) -> "AudioCodes":
    """The codes of a file, or of one that comes through a pipe."""
    from ..codes import AudioCodes

    source = opened(path)
    if isinstance(source, Path):
        return AudioCodes.load(source)
    data = source.getvalue()
    # By content, for a pipe has no name: a zip archive, a file of MOSS's, or safetensors.
    suffix = {b"PK": ".npz", b"MO": ".moss"}.get(data[:2], ".safetensors")
    with TemporaryDirectory(prefix="moss-audio-") as folder:
        copy = Path(folder) / f"standard input{suffix}"
        copy.write_bytes(data)
        return AudioCodes.load(copy)


def check_same_model(codes: "AudioCodes", info: "CodecInfo", job: Job) -> None:
    """Refuse codes of another model: they would decode to noise without any other sign."""
    if codes.model and codes.model != info.identity:
        made, here = f"model {codes.model}", f"model {info.identity}"
    elif _rates(codes) != _rates(info):
        made, here = (
            f"a model of {rate} Hz, {step} samples a frame and codebooks of {size} entries"
            for rate, step, size in (_rates(codes), _rates(info))
        )
    else:
        return
    raise ModelMismatchError(
        f"{job.source} was made by {made}, not by {here}; "
        "give its --model, or --force to decode it all the same"
    )


def _rates(side: "AudioCodes | CodecInfo") -> tuple[int, int, int]:
    return side.sampling_rate, side.downsample_rate, side.codebook_size


def decode_codes(codec: "Codec", codes: "AudioCodes", chunk_duration: float | None) -> "np.ndarray":
    """Audio of codes, (channels, samples), without the padding of the last frame."""
    audio = codec.decode(codes.codes, chunk_duration=chunk_duration)
    # Under --force the codec may have other rates; what counts then is the share of the frames.
    share = codes.num_samples / (codes.num_frames * codes.downsample_rate)
    return audio[:, : round(share * audio.shape[1])]


def _write_audio(
    job: Job, codes: "AudioCodes", audio: "np.ndarray", info: "CodecInfo", file_format: str
) -> dict[str, Any]:
    from ..audio import encode_audio, save_audio

    facts = _audio_facts(codes, audio, info)
    if is_pipe(job.output):
        write_to_pipe(encode_audio(audio, info.sampling_rate, f".{file_format}"))
        return facts
    save_audio(job.output, audio, info.sampling_rate)
    return facts | {"bytes": job.output.stat().st_size}


def _audio_facts(codes: "AudioCodes", audio: "np.ndarray", info: "CodecInfo") -> dict[str, Any]:
    return {
        "num_quantizers": codes.num_quantizers,
        "sampling_rate": info.sampling_rate,
        "num_samples": audio.shape[1],
        "duration_seconds": audio.shape[1] / info.sampling_rate,
        "kbps": codes.bitrate / 1000,
    }
