"""`moss-audio listening-test` and `listening-results`: people rate what a comparison made."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError, MossAudioError
from . import display, options
from .failures import BAD_INPUT, message_of, needs_extra, print_error
from .file_jobs import check_outputs, make_folders

if TYPE_CHECKING:
    from ..evaluation.listening_results import Session
    from ..evaluation.pages import Report


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
    from ..files import write_file

    if output.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"-o {str(output)!r} should end in .html")
    check_outputs([output], [])
    with display.progress("making the page"):
        page = build_listening_test(run, title, system or (), mid_anchor)
    make_folders([output])
    write_file(output, page)
    display.print_line(f"{output}: open it in a browser; listeners download their results there")


Results = Annotated[
    list[Path],
    typer.Argument(metavar="JSON...", readable=False, help="Files that listeners saved."),
]
Page = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        readable=False,
        show_default="none",
        help="Folder for a page with the figure of scores by bitrate, as the paper's Figure 7.",
    ),
]


def listening_results(results: Results, output: Page = None, as_json: options.Json = False) -> None:
    """Show what listeners rated: means with 95% intervals, without those who missed the reference.

    Example: moss-audio listening-results listening-*.json -o runs/figure7
    """
    with needs_extra("eval", "results of a listening test"):
        from ..evaluation import listening_results as of_listeners

    sessions, unread = _read(results)
    accepted, left_out = of_listeners.screen(sessions)
    tables = of_listeners.aggregate(accepted)
    report = of_listeners.listening_report(accepted, left_out, tables, display.command_line())
    document = of_listeners.results_document(accepted, left_out, tables)
    if output and accepted:
        of_listeners.write_report(output, report, document)
    if as_json:
        display.print_json(document)
    else:
        _print(report, output if accepted else None)
    if unread or not accepted:
        raise typer.Exit(BAD_INPUT)


def _print(report: "Report", output: Path | None) -> None:
    display.print_line(f"{report.scope}\n")
    if text := report.markdown().partition("```\n\n")[2].rstrip():
        display.print_tables(text)
    if output:
        display.print_line(f"\nresults: {output}")


def _read(paths: list[Path]) -> "tuple[list[Session], bool]":
    """The sessions that can be read; a damaged file costs itself only."""
    from ..evaluation.listening_results import read_session

    def read(path: Path) -> "Session | None":
        try:
            return read_session(path)
        except MossAudioError as error:
            print_error(message_of(error))
            return None

    sessions = [session for session in map(read, paths) if session]
    return sessions, len(sessions) < len(paths)
