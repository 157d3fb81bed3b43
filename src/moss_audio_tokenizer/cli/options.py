"""Options that several commands share, so that they read and behave the same everywhere.

Owns names, aliases and help of shared options. The descriptive name comes first, then shorter
aliases, then the letter: ``--num-quantizers --layers -n``. Commands own what they do with values.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer

from ..errors import InputError

BackendName = Literal["onnx", "torch"]
ComputeDtypeName = Literal["fp32", "bf16", "fp16"]
AttentionName = Literal["sdpa", "flash_attention_2", "flex_attention"]


def output_option(metavar: str, text: str) -> Any:
    """The option ``-o`` of a command, with its own help."""
    return typer.Option("--output", "-o", metavar=metavar, readable=False, help=text)


def at_least(minimum: float, text: str, **more: Any) -> Any:
    """An option that takes numbers from ``minimum`` on, named as its parameter."""
    return typer.Option(min=minimum, help=text, **more)


SOUND_FORMATS = (
    "wav, flac, ogg, opus, mp3 and aiff; m4a, aac, mp4, webm, mka and wma with ffmpeg or the "
    "formats extra"
)

# Not checked for being readable here: one bad file must not stop the others.
AudioInputs = Annotated[
    list[Path],
    typer.Argument(
        metavar="IN...",
        readable=False,
        help=f"Sound files, folders of them, or - for standard input: {SOUND_FORMATS}.",
    ),
]
ShardsFolder = Annotated[
    Path, typer.Argument(metavar="DIR", help="Folder that moss-audio tokenize wrote.")
]
# A string and not a path: a path forgets the slash at its end, which says "folder".
Output = Annotated[
    str,
    output_option(
        "OUT",
        "File to write; a folder (one that exists, or ends in /), made if missing; or - for "
        "standard output. Several inputs need a folder.",
    ),
]
OutputFolder = Annotated[Path, output_option("DIR", "Folder to write.")]
NewFolder = Annotated[
    Path, output_option("DIR", "Folder to write; it must not exist yet, or be empty.")
]
Json = Annotated[
    bool, typer.Option("--json", help="Print the result as one JSON document on stdout.")
]

# How a model is found and run.
Model = Annotated[
    str,
    typer.Option(
        "--model", metavar="M", help="Model folder, Hugging Face id, or 'bundled' (no download)."
    ),
]
Device = Annotated[
    str, typer.Option("--device", metavar="D", help="Where to compute: cpu, cuda, cuda:1, ...")
]
Backend = Annotated[
    BackendName | None,
    typer.Option(
        "--backend",
        show_default="onnx for exported models and 'bundled' on the cpu, else torch",
        help="What runs the model; torch needs the torch extra. Both give the same codes.",
    ),
]
ComputeDtype = Annotated[
    ComputeDtypeName,
    typer.Option(
        "--compute-dtype",
        "--dtype",
        help="Precision to compute in; bf16 and fp16 need --backend torch, and are for GPUs.",
    ),
]
Attention = Annotated[
    AttentionName | None,
    typer.Option(
        "--attention",
        show_default="what config.json says",
        help="Implementation of attention, with --backend torch; where flash_attention_2 cannot "
        "run, sdpa does.",
    ),
]
ChunkDuration = Annotated[
    float | None,
    typer.Option(
        "--chunk-duration",
        metavar="S",
        show_default="whole clip",
        help="Work through a clip S seconds at a time (a multiple of the frame): less memory, "
        "same result.",
    ),
]

# How many layers of codes.
NumQuantizers = Annotated[
    int | None,
    typer.Option(
        "--num-quantizers",
        "--layers",
        "-n",
        metavar="N",
        min=1,
        show_default="all",
        help="Use only the first N layers of codes. In the released and bundled models 1 layer "
        "is 0.125 kbps and there are 32.",
    ),
]
Kbps = Annotated[
    float | None,
    typer.Option(
        "--kbps",
        metavar="K",
        help="Bitrate instead of -n: as many layers as fit in K kilobits a second.",
    ),
]
SeveralNumQuantizers = Annotated[
    list[str] | None,
    typer.Option(
        "--num-quantizers",
        "--layers",
        "-n",
        metavar="N,N,...",
        show_default="all",
        help="Use only the first N layers of codes; several to compare, as -n 8,16,32. In the "
        "released and bundled models 1 layer is 0.125 kbps and there are 32.",
    ),
]
SeveralKbps = Annotated[
    list[str] | None,
    typer.Option(
        "--kbps",
        metavar="K,K,...",
        help="Bitrates instead of -n, as --kbps 1,2,4: as many layers as fit in K kilobits a "
        "second.",
    ),
]

# Whole data sets.
Splits = Annotated[
    list[str] | None,
    typer.Option(
        "--split", metavar="SPLIT", show_default="all", help="Use only this split; repeatable."
    ),
]
Domain = Annotated[
    str,
    typer.Option(
        "--domain",
        metavar="NAME",
        help="Domain of recordings that do not state one: speech, music, sound, ...",
    ),
]
Engine = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="ENGINE",
        help="local (processes), or ray (a cluster; needs the ray extra).",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        metavar="N",
        min=1,
        show_default="one a core, or one with --device cuda",
        help="Processes, or Ray actors; each loads the model.",
    ),
]
Threads = Annotated[
    int, typer.Option("--workers", metavar="N", min=1, help="Clips to work on at the same time.")
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Continue an interrupted run in the output folder.")
]
RayAddress = Annotated[
    str,
    typer.Option(
        "--ray-address",
        metavar="A",
        show_default="a new cluster here",
        help="Address of a Ray cluster; auto for the cluster that this machine belongs to.",
    ),
]
Gpus = Annotated[
    float | None,
    typer.Option(
        "--gpus",
        metavar="G",
        min=0.0,
        show_default="1 with --device cuda, else 0",
        help="GPUs of each Ray actor; a fraction lets several share one.",
    ),
]

# What `eval`, `compare`, `eval asr` and `eval tts` have in common.
Manifest = Annotated[
    Path, typer.Argument(metavar="MANIFEST", readable=False, help="JSON lines, a clip each.")
]
Split = Annotated[
    str | None, typer.Option("--split", metavar="S", show_default="all", help="Only this split.")
]
Limit = Annotated[
    int | None,
    typer.Option("--limit", metavar="N", min=1, show_default="all", help="Only the first N clips."),
]
TextNormalization = Annotated[
    str,
    typer.Option(
        "--text-normalization",
        metavar="NAME",
        help="How texts are compared for error rates: plain, whisper or seed-tts.",
    ),
]
ResultsFolder = Annotated[
    Path, output_option("DIR", "Folder of the results; an interrupted run resumes there.")
]

Prompts = Annotated[
    Path | None,
    typer.Option(
        "--prompts",
        metavar="MANIFEST",
        readable=False,
        show_default="none",
        help="For speech synthesis: recordings, with texts, of the voices to imitate: one of the "
        "same speaker, where the text's is known, else the next in turn.",
    ),
]

# Speech models, and how `tts` and `eval tts` sample; see `SpeechSampling`.
LanguageModel = Annotated[
    str,
    typer.Option(
        "--model", metavar="M", show_default=False, help="Folder or Hugging Face id of the model."
    ),
]
Codec = Annotated[
    str, typer.Option("--codec", metavar="C", help="Codec that the model was trained on.")
]
Beams = Annotated[
    int | None,
    typer.Option(
        "--num-beams",
        "--beams",
        metavar="N",
        min=0,
        max=128,
        help="Beams of the search: 1 is greedy, 0 uses the CTC output of the frames alone; by "
        "default the model's best.",
    ),
]
OpinionModel = Annotated[
    str,
    typer.Option(
        "--opinion-model",
        metavar="NAME",
        show_default="none",
        help="Opinion scores by dnsmos, utmos:FOLDER, a folder or hf:NAME for transformers, or "
        "MODULE:FUNCTION.",
    ),
]
Seed = Annotated[
    int, typer.Option("--seed", min=0, help="Random seed; the same seed gives the same output.")
]
Temperature = Annotated[
    float | None,
    typer.Option(
        "--temperature",
        help="Sampling temperature: lower is steadier, higher more varied; by default the "
        "model's own. With --code-choice mean it flattens what the mean is weighted by.",
    ),
]
TopK = Annotated[
    int,
    typer.Option(
        "--top-k", min=0, help="Of drawn codes: sample from the k likeliest; 0 samples from all."
    ),
]
TopP = Annotated[
    float,
    typer.Option(
        "--top-p",
        help="Of drawn codes: sample from the likeliest that make up this share of probability.",
    ),
]
RepetitionPenalty = Annotated[
    float,
    typer.Option(
        "--repetition-penalty", help="Of drawn codes: penalty on repeated ones; 1 turns it off."
    ),
]
Guidance = Annotated[
    float,
    typer.Option(
        "--guidance",
        metavar="G",
        help="Guidance scale: above 1 follows the text more closely and computes twice as much; "
        "0 uses the model's own.",
    ),
]
CodeChoice = Annotated[
    Literal["sample", "mean"] | None,
    typer.Option(
        "--code-choice",
        show_default="the model's own",
        help="sample draws codes by their probabilities; mean takes the code nearest to the mean "
        "of their vectors, which is clearer, and does not depend on the seed.",
    ),
]

_Number = TypeVar("_Number", int, float)


def numbers(values: Sequence[str] | None, kind: type[_Number], option: str) -> list[_Number]:
    """Different numbers above 0 of an option that may be repeated or hold several, ascending.

    Args:
        values: what the user wrote after each mention of the option, such as ["8,16", "32"].
        kind: int or float.
        option: its name, for the message.

    Raises:
        InputError: a value is not such a number.
    """
    words = [word for value in values or () for word in value.split(",")]
    try:
        found = {kind(word) for word in words}
    except ValueError:
        found = {kind(0)}
    if not all(0 < number < float("inf") for number in found):  # NaN neither
        raise InputError(
            f"{option} is {','.join(values or ())!r}; expected one or more numbers above 0 with "
            "commas between them, such as 8,16,32"
        )
    return sorted(found)


def quantizer_counts(values: Sequence[str] | None) -> tuple[int, ...]:
    """The numbers of ``--num-quantizers``, ascending; empty for the command's default."""
    return tuple(numbers(values, int, "--num-quantizers"))
