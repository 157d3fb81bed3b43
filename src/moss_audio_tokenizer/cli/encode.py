"""`moss-audio encode`: sound files to codes files."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import display, loading, options
from .destinations import CODES_SUFFIXES, Job, is_pipe, make_folders, plan
from .file_jobs import find_inputs, opened, work_through, write_to_pipe

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
    kbps: options.Kbps = None,
    chunk_duration: options.ChunkDuration = None,
    device: options.Device = "cpu",
    backend: options.Backend = None,
    compute_dtype: options.ComputeDtype = options.ComputeDtypeName.fp32,
    attention: options.Attention = None,
    deterministic: options.Deterministic = False,
    file_format: Format = None,
    as_json: options.Json = False,
) -> None:
    """Turn sound into codes.

    Any sampling rate and channel count is converted to what the model takes.

    Example: moss-audio encode speech.wav -o speech.moss

    A folder, at 1 kbps: moss-audio encode recordings/ -o codes/ --kbps 1
    """
    from ..audio import SOUND_SUFFIXES

    suffix = file_format.value if file_format else None
    found = find_inputs(inputs, SOUND_SUFFIXES, "sound files")
    jobs = plan(found, output, CODES_SUFFIXES, suffix)
    with display.progress("loading the model"):
        codec = loading.load_codec(
            model,
            "encoder",
            device,
            deterministic,
            backend=backend,
            **loading.computing(compute_dtype, attention),
        )
    layers = loading.num_quantizers_of(num_quantizers, kbps, codec.info)
    make_folders(job.output for job in jobs)

    def work(job: Job) -> dict[str, Any]:
        codes, mixed = encode_file(codec, job.source, layers, chunk_duration)
        if is_pipe(job.output):
            write_to_pipe(_file_bytes(codes, suffix or "moss"))
            return _facts(codes)
        codes.save(job.output)
        return _facts(codes) | {"bytes": job.output.stat().st_size} | mixed

    work_through(jobs, "encoding", work, as_json)


def encode_file(
    codec: "Codec", path: Path, num_quantizers: int | None, chunk_duration: float | None
) -> "tuple[AudioCodes, dict[str, Any]]":
    """The codes of a sound file, with all that decoding them takes, and what was mixed for it.

    Raises:
        AudioFileError, AudioError, InputError: see each message.
    """
    from ..audio import load_with_info
    from ..codes import AudioCodes

    info = codec.info
    audio, sound = load_with_info(opened(path), info.sampling_rate, info.num_channels)
    codes = codec.encode(audio, num_quantizers=num_quantizers, chunk_duration=chunk_duration)
    container = AudioCodes(
        codes,
        info.sampling_rate,
        audio.shape[1],
        downsample_rate=info.downsample_rate,
        num_channels=info.num_channels,
        codebook_size=info.codebook_size,
        model=info.identity,
    )
    mixed = 1 == info.num_channels < sound.num_channels
    return container, {"mixed_channels": sound.num_channels} if mixed else {}


def _file_bytes(codes: "AudioCodes", file_format: str) -> bytes:
    """The bytes of a codes file."""
    with TemporaryDirectory(prefix="moss-audio-") as folder:
        path = Path(folder) / f"codes.{file_format}"
        codes.save(path)
        return path.read_bytes()


def _facts(codes: "AudioCodes") -> dict[str, Any]:
    return {
        "num_quantizers": codes.num_quantizers,
        "num_frames": codes.num_frames,
        "duration_seconds": codes.duration_seconds,
        "kbps": codes.bitrate / 1000,
    }
