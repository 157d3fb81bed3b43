"""Options that several commands share, so that they read and behave the same everywhere."""

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class CodesFormat(str, Enum):
    """File formats of codes; each is also the extension."""

    moss = "moss"
    safetensors = "safetensors"
    npz = "npz"


class AudioFormat(str, Enum):
    """File formats that audio is written in; each is also the extension."""

    wav = "wav"
    flac = "flac"


class BackendName(str, Enum):
    """What runs a model."""

    onnx = "onnx"
    torch = "torch"


# Not checked for being readable here: one bad file must not stop the others.
AudioInputs = Annotated[
    list[Path],
    typer.Argument(
        metavar="IN",
        readable=False,
        show_default=False,
        help="Sound files: wav, flac, ogg, opus or mp3.",
    ),
]
CodesInputs = Annotated[
    list[Path],
    typer.Argument(
        metavar="IN",
        readable=False,
        show_default=False,
        help="Codes files: .moss, .safetensors or .npz.",
    ),
]
# A string and not a path: a path forgets the slash at its end, which says "folder".
Output = Annotated[
    str,
    typer.Option(
        "--output",
        "-o",
        metavar="OUT",
        show_default=False,
        help="File to write; or a folder (one that exists, or ends in /), made if missing. "
        "Several inputs need a folder.",
    ),
]
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
NumQuantizers = Annotated[
    int | None,
    typer.Option(
        "--num-quantizers",
        metavar="N",
        min=1,
        show_default="all",
        help="Use only the first N layers of codes: fewer layers, lower bitrate.",
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
Json = Annotated[
    bool, typer.Option("--json", help="Print the result as one JSON document on stdout.")
]

# How speech is drawn, in `tts` and in `eval tts`; see `SpeechSampling`.
Temperature = Annotated[float, typer.Option("--temperature", help="Of codes.")]
TopK = Annotated[
    int, typer.Option("--top-k", min=0, help="Codes that stay in question; 0 for all.")
]
TopP = Annotated[
    float, typer.Option("--top-p", help="Share of the probability that stays in question.")
]
RepetitionPenalty = Annotated[
    float, typer.Option("--repetition-penalty", help="Of codes that were had; 1 for none.")
]
Guidance = Annotated[
    float,
    typer.Option(
        "--guidance",
        metavar="G",
        help="Above 1, codes follow the text's place more clearly, with twice the rows; 0 for "
        "the model's own.",
    ),
]
