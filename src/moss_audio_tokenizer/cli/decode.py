"""`moss-audio decode`: codes files to sound files."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ModelMismatchError
from . import display, loading, options
from .batch import work_through
from .destinations import AUDIO_SUFFIXES, Job, make_folders, plan

if TYPE_CHECKING:
    import numpy as np

    from ..codes import AudioCodes, Codec, CodecInfo


def decode(
    inputs: options.CodesInputs,
    output: options.Output,
    model: options.Model = "bundled",
    num_quantizers: options.NumQuantizers = None,
    chunk_duration: options.ChunkDuration = None,
    device: options.Device = "cpu",
    backend: options.Backend = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Decode even codes that another model made (mostly noise)."),
    ] = False,
    file_format: Annotated[
        options.AudioFormat | None,
        typer.Option("--format", show_default="from OUT, or wav", help="File format: wav or flac."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Turn codes back into sound, as long as the original was.

    Example: moss-audio decode speech.moss -o speech.wav
    """
    suffix = file_format.value if file_format else None
    jobs = plan(inputs, output, AUDIO_SUFFIXES, suffix)
    with display.progress("loading the model"):
        codec = loading.load_codec(model, "decoder", device, backend=backend)
    loading.check_num_quantizers(num_quantizers, codec.info)
    make_folders(job.output for job in jobs)

    def work(job: Job) -> dict[str, Any]:
        codes = _load(job, num_quantizers)
        if not force:
            check_same_model(codes, codec.info, job)
        return _write(job, codes, decode_codes(codec, codes, chunk_duration), codec.info)

    work_through(jobs, "decoding", work, as_json)


def _load(job: Job, num_quantizers: int | None) -> "AudioCodes":
    from ..codes import AudioCodes

    codes = AudioCodes.load(job.source)
    return codes if num_quantizers is None else codes.first(num_quantizers)


def check_same_model(codes: "AudioCodes", info: "CodecInfo", job: Job) -> None:
    """Refuse codes of another model: they would decode to noise without any other sign.

    Raises:
        ModelMismatchError: the identities, or without one the rates, differ.
    """
    if codes.model and codes.model != info.identity:
        made, here = f"model {codes.model}", f"model {info.identity}"
    elif _rates(codes) != _rates(info):
        made, here = (
            f"a model of {rate} Hz, {step} samples a frame and {size} codes a book"
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


def _write(job: Job, codes: "AudioCodes", audio: "np.ndarray", info: "CodecInfo") -> dict[str, Any]:
    from ..audio import save_audio

    save_audio(job.output, audio, info.sampling_rate)
    return {
        "num_quantizers": codes.num_quantizers,
        "sampling_rate": info.sampling_rate,
        "num_samples": audio.shape[1],
        "duration_seconds": audio.shape[1] / info.sampling_rate,
        "kbps": codes.bitrate / 1000,
        "bytes": job.output.stat().st_size,
    }
