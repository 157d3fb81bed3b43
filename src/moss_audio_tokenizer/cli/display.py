"""What commands print: results on stdout, progress on stderr.

Owns looks and units; knows no command. Progress is drawn only on a terminal, and results are
printed after it has gone, so that neither ever mixes with the other.
"""

import json
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.table import Table

_WIDTH_OF_PIPES = 10_000
# Pages above this open slowly on a phone, and mail servers refuse them.
_LARGE_MEGABYTES = 10
_BYTE_UNITS = ("bytes", "kB", "MB", "GB", "TB")


def print_json(document: Any) -> None:
    """The one document that `--json` promises."""
    text = json.dumps(document, indent=2, ensure_ascii=False)
    if not text.isprintable() and any(0xD800 <= ord(letter) <= 0xDFFF for letter in text):
        text = json.dumps(document, indent=2)
    sys.stdout.write(f"{text}\n")


def print_result(as_json: bool, document: dict[str, Any], shown: Any = None) -> None:
    """One JSON document, or its facts for people; ``shown`` where those are others."""
    if as_json:
        print_json(document)
    else:
        print_facts(document if shown is None else shown)


def note_errors(count: int, what: str, listed: Path) -> None:
    """A line on stderr for items of a data set that were left out, if there are any."""
    if count:
        print_progress_line(f"{count} {what}; {listed} says why")


def print_line(line: str) -> None:
    """A line of result, never wrapped or colored; each line of a text as it is."""
    sys.stdout.write("\n".join(map(printable, line.split("\n"))) + "\n")


def printable(text: str) -> str:
    """A text as one line without control characters: those are escaped.

    File names, texts and tensor names come from elsewhere: they may hold anything.
    """
    if not text.isprintable():
        text = "".join(
            letter if letter.isprintable() or letter == "\t" else _escaped(letter)
            for letter in text
        )
    return text


def _escaped(letter: str) -> str:
    # Bytes of names that are not UTF-8 reach Python as lone surrogates.
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode("ascii")


def print_progress_line(line: str) -> None:
    """A line of progress."""
    sys.stderr.write(f"{printable(line)}\n")
    sys.stderr.flush()


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table for people; the last column is the one that may be long."""
    from rich.text import Text

    table = _plain_table()
    for heading in headings[:-1]:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column(headings[-1], overflow="fold")
    for row in rows:
        # Literal text: file names may hold square brackets, which rich would read as markup.
        table.add_row(*(Text(printable(cell)) for cell in row))
    _print(table)


def print_facts(facts: dict[str, Any]) -> None:
    """Names and values; a nested dictionary becomes an indented section."""
    from rich.text import Text

    table = _plain_table(show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _flat(facts):
        table.add_row(Text(printable(name)), Text(_lines(value)))
    _print(table)


def _lines(text: str) -> str:
    return "\n".join(map(printable, text.split("\n")))


def _flat(facts: dict[str, Any], indent: str = "") -> Iterator[tuple[str, str]]:
    for name, value in facts.items():
        label = indent + str(name).replace("_", " ")
        if isinstance(value, dict):
            yield label, ""
            yield from _flat(value, indent + "  ")
        else:
            yield label, _shown(value)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return "\n".join(_shown(item) for item in value)
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _plain_table(show_header: bool = True) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    return Table(box=SIMPLE_HEAD, show_header=show_header, pad_edge=False, show_edge=False)


def _print(table: "Table") -> None:
    from rich.console import Console

    # In a pipe there is no edge to wrap at: file names stay on one line.
    width = None if sys.stdout.isatty() else _WIDTH_OF_PIPES
    Console(file=sys.stdout, highlight=False, width=width).print(table)


def show_results(text: str, output: Path, as_json: bool, all_failed: bool) -> None:
    """Print the tables of a run, or its summary as JSON; end with 1 if everything failed."""
    if as_json:
        print_line((output / "summary.json").read_text("utf-8").rstrip())
    else:
        # Without the title and the command, which the user has just typed.
        print_tables(text.partition("```\n\n")[2].rstrip())
        print_line(f"\nresults: {output}")
    note_large_page(output / "report.html", "fewer --examples make it smaller")
    if all_failed:
        raise typer.Exit(1)


def print_tables(text: str) -> None:
    """Markdown as it is; on a terminal that is too narrow for a table, its columns instead."""
    width = shutil.get_terminal_size().columns
    fits = max(map(len, text.split("\n"))) <= width
    if fits or not sys.stdout.isatty():
        print_line(text)
        return
    print_line("Intervals are in summary.md; * marks published figures.\n")
    for is_table, lines in groupby(text.split("\n"), key=lambda line: line.startswith("| ")):
        if not is_table:
            print_line("\n".join(lines))
            continue
        heads, _, *rows = ([cell.strip() for cell in line[1:-1].split(" | ")] for line in lines)
        _print_columns(heads, [[_narrow(cell) for cell in row] for row in rows])


def _narrow(cell: str) -> str:
    """A cell without its interval; a published codec by its short name and an asterisk."""
    from ..evaluation.published import short_name

    name, mark, _ = cell.partition(" (published)")
    return f"{short_name(name)}*" if mark else cell.partition(" ± ")[0]


def note_large_page(page: Path, remedy: str) -> None:
    """A line on stderr for a page that is slow to open or too large to send."""
    megabytes = page.stat().st_size / 1e6
    if megabytes > _LARGE_MEGABYTES:
        print_progress_line(
            f"moss-audio: warning: {page} has {megabytes:.0f} MB of sound; {remedy}"
        )


def _print_columns(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table of many narrow columns, the first to the left; each heading has its words stacked."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1, 0, 0))
    for index, heading in enumerate(headings):
        words = re.sub(" ([\N{UPWARDS ARROW}\N{DOWNWARDS ARROW}])", r"\1", printable(heading))
        stacked = Text(words.replace(" ", "\n"))
        justify: Literal["left", "right"] = "right" if index else "left"
        table.add_column(stacked, justify=justify, vertical="bottom", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    _print(table)


@contextmanager
def progress(description: str, total: int | None = None) -> Iterator["Progress"]:
    """A bar on stderr with one task (id 0), gone when done; invisible unless on a terminal.

    Without a total it shows only that work is under way.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        ProgressColumn,
        SpinnerColumn,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns: list[ProgressColumn] = [
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
    ]
    if total is not None:
        columns += [BarColumn(), TaskProgressColumn(), TimeRemainingColumn()]
    if total is not None and total > 1:
        columns.append(TextColumn("{task.completed:.0f}/{task.total:.0f}"))
    with Progress(
        *columns,
        TimeElapsedColumn(),
        console=Console(file=sys.stderr),
        disable=not sys.stderr.isatty(),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    ) as bar:
        bar.add_task(description, total=total)
        yield bar


@contextmanager
def one_of(bar: "Progress", description: str) -> "Iterator[None]":
    """One step of a bar: it moves as a codec works through a clip, and is full behind the block."""
    from ..codes.codec import watched

    task = bar.tasks[0]
    before = task.completed
    bar.update(task.id, description=description)

    def report(done: int, total: int) -> None:
        # Of several passes over a clip the first moves the bar.
        bar.update(task.id, completed=max(task.completed, before + min(1.0, done / total)))

    with watched(report):
        yield
    bar.update(task.id, completed=before + 1)


def follow(bar: "Progress") -> Callable[[int, int], None]:
    """What work calls to move its bar: with how much is done, and of how much."""
    return lambda done, total: bar.update(bar.task_ids[0], completed=done, total=total)


def count_up(bar: "Progress") -> Callable[[int, int], None]:
    """As `follow`, for a bar without an end: it shows the two numbers behind its description."""
    task = bar.tasks[0]
    verb = task.description
    return lambda done, total: bar.update(task.id, description=f"{verb} {done}/{total}")


def command_line() -> str:
    """The command as the user could type it again."""
    return shlex.join(["moss-audio", *sys.argv[1:]])


def seconds(duration: float) -> str:
    """A duration for people, such as "3.20 s"."""
    return f"{duration:.2f} s"


def duration(seconds: float) -> str:
    """A time to wait, such as "12 s", "3 min" or "2.5 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def file_size(count: int) -> str:
    """A size for people, such as "1.2 kB"."""
    size, unit = float(count), _BYTE_UNITS[0]
    for unit in _BYTE_UNITS:
        if size < 1000 or unit == _BYTE_UNITS[-1]:
            break
        size /= 1000
    return f"{count} bytes" if unit == "bytes" else f"{size:.1f} {unit}"
