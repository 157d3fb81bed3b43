"""What the commands that measure have in common: options, and results on the terminal."""

import shutil
import sys
from itertools import groupby
from pathlib import Path
from typing import Annotated

import typer

from . import display

LARGE_MEGABYTES = 10
"""Pages above this open slowly on a phone, and mail servers refuse them."""

Manifest = Annotated[
    Path,
    typer.Argument(metavar="MANIFEST", readable=False, help="JSON lines, a clip each."),
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


def show_results(text: str, output: Path, as_json: bool, all_failed: bool) -> None:
    """Print the tables of a run, or its summary as JSON; end with 1 if everything failed."""
    if as_json:
        display.print_line((output / "summary.json").read_text("utf-8").rstrip())
    else:
        # Without the title and the command, which the user has just typed.
        print_tables(text.partition("```\n\n")[2].rstrip())
        display.print_line(f"\nresults: {output}")
    warn_of_size(output / "report.html", "fewer --examples make it smaller")
    if all_failed:
        raise typer.Exit(1)


def print_tables(text: str) -> None:
    """Markdown as it is; on a terminal that is too narrow for a table, its columns instead."""
    width = shutil.get_terminal_size().columns
    fits = max(map(len, text.split("\n"))) <= width
    if fits or not sys.stdout.isatty():
        display.print_line(text)
        return
    display.print_line("Intervals are in summary.md; * marks published figures.\n")
    for is_table, lines in groupby(text.split("\n"), key=lambda line: line.startswith("| ")):
        if not is_table:
            display.print_line("\n".join(lines))
            continue
        heads, _, *rows = ([cell.strip() for cell in line[1:-1].split(" | ")] for line in lines)
        display.print_columns(heads, [[_narrow(cell) for cell in row] for row in rows])


def _narrow(cell: str) -> str:
    """A cell without its interval; a published codec by its short name and an asterisk."""
    from ..evaluation.published import short_name

    name, mark, _ = cell.partition(" (published)")
    return f"{short_name(name)}*" if mark else cell.partition(" ± ")[0]


def warn_of_size(page: Path, remedy: str) -> None:
    """A line on stderr for a page that is slow to open or too large to send."""
    megabytes = page.stat().st_size / 1e6
    if megabytes > LARGE_MEGABYTES:
        display.print_progress_line(
            f"moss-audio: warning: {page} has {megabytes:.0f} MB of sound; {remedy}"
        )
