"""`moss-audio listening-test` and `listening-results`: people rate what a comparison made."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError, MossAudioError
from . import display, options
from .failures import BAD_INPUT, message_of, needs_extra, print_error
from .file_jobs import check_outputs, make_folders

if TYPE_CHECKING:
    from ..evaluation.mushra import Session


Run = Annotated[
    Path, typer.Argument(metavar="DIR", readable=False, help="Folder of moss-audio compare.")
]
System = Annotated[
    list[str] | None,
    typer.Option(
        "--system",
        metavar="NAME",
        show_default="all",
        help="Only these versions, as the files below DIR/audio are called (opus_6); several "
        "times for several.",
    ),
]
MidAnchor = Annotated[bool, typer.Option("--mid-anchor", help="Add a version low-passed at 7 kHz.")]
Title = Annotated[str, typer.Option(metavar="T", help="Heading of the page.")]


def listening_test(
    run: Run,
    output: Annotated[Path, options.output_option("HTML", "Page to write.")],
    system: System = None,
    mid_anchor: MidAnchor = False,
    title: Title = "Listening test",
) -> None:
    """Make a page on which people rate versions of clips from 0 to 100 (MUSHRA).

    Example: moss-audio listening-test runs/compare -o test.html
    """
    with needs_extra("eval", "a listening test"):
        from ..evaluation.mushra import build_listening_test
    from ..files import atomic_path

    if output.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"-o {str(output)!r} should end in .html")
    check_outputs([output], [])
    with display.progress("making the page"):
        page = build_listening_test(run, title, system or (), mid_anchor)
    make_folders([output])
    with atomic_path(output) as beside:
        beside.write_text(page, encoding="utf-8")
    display.print_line(f"{output}: open it in a browser; listeners download their results there")


Results = Annotated[
    list[Path],
    typer.Argument(metavar="JSON...", readable=False, help="Files that listeners saved."),
]


def listening_results(results: Results, as_json: options.Json = False) -> None:
    """Show what listeners rated: means with 95% intervals, without those who missed the reference.

    Example: moss-audio listening-results listening-*.json
    """
    with needs_extra("eval", "results of a listening test"):
        from ..evaluation.mushra import aggregate, as_markdown, screen

    sessions, unread = _read(results)
    accepted, left_out = screen(sessions)
    tables = aggregate(accepted)
    if as_json:
        document: dict[str, Any] = {"listeners": [one.listener for one in accepted]}
        document |= {"left_out": [asdict(one) for one in left_out]}
        display.print_json({**document, "systems": [asdict(one) for one in tables]})
    else:
        display.print_line(f"{len(accepted)} of {len(sessions)} listeners\n\n{as_markdown(tables)}")
        for one in left_out:
            display.print_line(f"left out: {one.listener} {one.reason}")
    if unread or not accepted:
        raise typer.Exit(BAD_INPUT)


def _read(paths: list[Path]) -> "tuple[list[Session], bool]":
    """The sessions that can be read; a file that is none costs itself only."""
    from ..evaluation.mushra import read_session

    def read(path: Path) -> "Session | None":
        try:
            return read_session(path)
        except MossAudioError as error:
            print_error(message_of(error))
            return None

    sessions = [session for session in map(read, paths) if session]
    return sessions, len(sessions) < len(paths)
