"""`moss-audio data`: what there is to do with data sets before training.

Owns options and looks; the work is `training.data.preparing`'s and `training.data.speaking`'s.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError
from . import display, options
from .failures import needs_extra

app = typer.Typer(
    name="data",
    help="Prepare data sets for training, or make one of synthetic speech.\n\n"
    "Example: moss-audio data prepare recordings/ -o shards",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def options_of_all() -> None:
    """Nothing is done before the command itself."""


SoundDataSet = Annotated[
    str,
    typer.Argument(
        metavar="MANIFEST_OR_FOLDER", help="JSON-lines manifest, or a folder of sound files."
    ),
]
Folder = Annotated[
    Path | None,
    typer.Argument(
        metavar="[FOLDER]",
        readable=False,
        help="Folder of a public test set, if the first argument is its name (librispeech, "
        "aishell2, audioset, musdb or seed-tts-eval); -o is then the manifest to write.",
    ),
]
AudioFormat = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help="flac (16 bits), opus, or copy for the files as they are.",
    ),
]
SamplingRate = Annotated[
    int | None,
    typer.Option(
        metavar="R",
        min=8000,
        max=192_000,
        show_default="each file's",
        help="Resample to R samples a second.",
    ),
]
Channels = Annotated[
    int | None,
    typer.Option(
        metavar="C", min=1, max=2, show_default="each file's", help="Convert to 1 or 2 channels."
    ),
]
ShardSize = Annotated[float, typer.Option(metavar="MB", help="Largest size of a shard.")]
DropDuplicates = Annotated[
    bool,
    typer.Option(
        "--drop-duplicates", help="Leave out recordings with the same samples as an earlier one."
    ),
]


@app.command()
def prepare(
    source: SoundDataSet,
    output: options.NewFolder,
    folder: Folder = None,
    split: options.Splits = None,
    audio_format: AudioFormat = "flac",
    sampling_rate: SamplingRate = None,
    channels: Channels = None,
    shard_seconds: Annotated[float, typer.Option(metavar="S", help="Length of a shard.")] = 3600.0,
    shard_size: ShardSize = 1000.0,
    drop_duplicates: DropDuplicates = False,
    domain: options.Domain = "speech",
    workers: options.Threads = 2,
    as_json: options.Json = False,
) -> None:
    """Decode and measure every recording, and write WebDataset shards of those that are whole.

    Example: moss-audio data prepare recordings/ -o shards --sampling-rate 24000
    """
    if folder is not None:
        _prepare_test_set(source, folder, output, as_json)
        return
    with needs_extra("train", "preparing data"):
        from ..training.data.preparing import Preparation, prepare

    wanted = Preparation(
        source,
        tuple(split or ()),
        audio_format,
        sampling_rate or 0,
        channels or 0,
        shard_seconds,
        shard_size,
        drop_duplicates,
        domain,
    )
    with display.progress("preparing") as bar:
        summary = prepare(wanted, output, workers, display.count_up(bar))
    _show(summary, output, as_json)


def _prepare_test_set(name: str, folder: Path, output: Path, as_json: bool) -> None:
    """The manifest of a public test set, for `moss-audio compare` and `eval`."""
    from ..evaluation.datasets import write_manifest

    if output.is_dir():
        raise InputError(f"-o {str(output)!r} is a folder; name the manifest, such as clips.jsonl")
    found = write_manifest(name, folder, output)
    facts = {"manifest": str(output), "clips": found.num_clips, "absent": len(found.absent)}
    document = {**facts, "absent_names": list(found.absent)}
    display.print_result(as_json, document, facts)


Texts = Annotated[Path | None, typer.Option(metavar="FILE", help="What to say, a text a line.")]
Spelling = Annotated[
    int | None,
    options.at_least(
        1, "Make up N texts of spelled letters, numbers, dates and commands.", metavar="N"
    ),
]
Voice = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME", show_default="accents of English", help="A voice of espeak-ng; repeatable."
    ),
]
Speakers = Annotated[
    int | None,
    options.at_least(
        1, "Different speakers.", metavar="N", show_default="60, or all that the voices have"
    ),
]
ValidShare = Annotated[float, typer.Option(metavar="X", help="Share of clips for validation.")]


@app.command()
def speak(
    output: options.NewFolder,
    texts: Texts = None,
    spelling: Spelling = None,
    voice: Voice = None,
    speakers: Speakers = None,
    valid_share: ValidShare = 0.02,
    seed: options.Seed = 0,
    workers: options.Threads = 2,
    as_json: options.Json = False,
) -> None:
    """Have espeak-ng say texts in many voices, and write the clips and their manifest.

    Example: moss-audio data speak --spelling 6000 -o data/spelled
    """
    with needs_extra("train", "making speech"):
        from ..training.data.speaking import VOICES, Speaking, speak
        from ..training.data.spelling import pronunciation
        from ..training.data.spelling import spelling as made_up

    if (texts is None) == (spelling is None):
        raise typer.BadParameter("give one of --texts and --spelling")
    said = made_up(spelling, seed) if spelling else _lines(texts)
    wanted = Speaking(seed, speakers, tuple(voice or VOICES), valid_share)
    with display.progress("speaking", total=len(said)) as bar:
        summary = speak(
            said,
            wanted,
            output,
            pronunciation if spelling else None,
            workers,
            lambda done: bar.update(bar.task_ids[0], completed=done),
        )
    display.print_result(as_json, summary)


def _lines(path: Path | None) -> list[str]:
    """The lines of a text that hold something."""
    try:
        text = Path(path or "").read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as text ({error}); expected UTF-8") from error
    return [line for line in text.splitlines() if line.strip()]


def _show(summary: dict[str, Any], output: Path, as_json: bool) -> None:
    from ..training.data.preparing import ERRORS_NAME
    from ..training.data.survey import GROUP_HEADINGS, group_rows, totals

    if as_json:
        display.print_json(summary)
    else:
        display.print_table(GROUP_HEADINGS, group_rows(summary))
        display.print_facts(totals(summary))
    display.note_errors(summary["errors"], "recordings could not be used", output / ERRORS_NAME)
