"""`moss-audio encode`: sound files to codes files."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import display, loading, options
from .batch import work_through
from .destinations import CODES_SUFFIXES, Job, make_folders, plan

if TYPE_CHECKING:
    from ..codes import AudioCodes, Codec

Format = Annotated[
    options.CodesFormat | None,
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
    chunk_duration: options.ChunkDuration = None,
    device: options.Device = "cpu",
    backend: options.Backend = None,
    deterministic: options.Deterministic = False,
    file_format: Format = None,
    as_json: options.Json = False,
) -> None:
    """Turn sound into codes.

    Any sampling rate and channel count is converted to what the model takes.

    Example: moss-audio encode speech.wav -o speech.moss
    """
    suffix = file_format.value if file_format else None
    jobs = plan(inputs, output, CODES_SUFFIXES, suffix)
    with display.progress("loading the model"):
        codec = loading.load_codec(model, "encoder", device, deterministic, backend=backend)
    loading.check_num_quantizers(num_quantizers, codec.info)
    make_folders(job.output for job in jobs)

    def work(job: Job) -> dict[str, Any]:
        codes = encode_file(codec, job.source, num_quantizers, chunk_duration)
        codes.save(job.output)
        return _facts(codes) | {"bytes": job.output.stat().st_size}

    work_through(jobs, "encoding", work, as_json)


def encode_file(
    codec: "Codec", path: Path, num_quantizers: int | None, chunk_duration: float | None
) -> "AudioCodes":
    """The codes of a sound file, with all that decoding them takes.

    Raises:
        AudioFileError, AudioError, InputError: see each message.
    """
    from ..audio import load_audio
    from ..codes import AudioCodes

    info = codec.info
    audio = load_audio(path, info.sampling_rate, info.num_channels)
    codes = codec.encode(audio, num_quantizers=num_quantizers, chunk_duration=chunk_duration)
    return AudioCodes(
        codes,
        info.sampling_rate,
        audio.shape[1],
        downsample_rate=info.downsample_rate,
        num_channels=info.num_channels,
        codebook_size=info.codebook_size,
        model=info.identity,
    )


def _facts(codes: "AudioCodes") -> dict[str, Any]:
    return {
        "num_quantizers": codes.num_quantizers,
        "num_frames": codes.num_frames,
        "duration_seconds": codes.duration_seconds,
        "kbps": codes.bitrate / 1000,
    }
