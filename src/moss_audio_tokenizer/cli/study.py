"""`moss-audio study`: a comparison of training runs, with its table and plot.

Owns nothing of training: studies, keys and the loop are `training`'s.
"""

from typing import Annotated

import typer

from ..errors import InputError, TrainingError
from . import display
from .failures import needs_extra


def study(
    name: Annotated[
        str,
        typer.Argument(
            metavar="STUDY",
            show_default=False,
            help="batch, end_to_end, reading_depth, sequence_dropout or width.",
        ),
    ],
    assignments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            show_default=False,
            help="output=DIR and data.manifest=PATH are needed; other keys change every run.",
        ),
    ] = None,
) -> None:
    """Compare small training runs that differ in one thing; what is done already is kept.

    Example: moss-audio study width output=runs/width data.manifest=data/manifest.jsonl
    """
    with needs_extra("train", "training"):
        from ..training.studies import run_study
    keys = list(assignments or [])
    outputs = [key.removeprefix("output=") for key in keys if key.startswith("output=")]
    others = [key for key in keys if not key.startswith("output=")]
    try:
        folder = run_study(name, "".join(outputs[-1:]), others, display.print_progress_line)
    except TrainingError as error:
        raise InputError(str(error)) from error
    display.print_line(str(folder))
