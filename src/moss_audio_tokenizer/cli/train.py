"""`moss-audio train` and `study`: a recipe, some keys changed, and a run or several.

Owns nothing of training: recipes, keys and the loop are `training`'s.
"""

from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from ..errors import InputError, TrainingError
from . import display
from .failures import needs_extra

if TYPE_CHECKING:
    from ..training.loop import Loop
    from ..training.run_config import RunConfig


class RecipeCommand(TyperCommand):
    """A command whose help ends with the recipes that there are."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help; only now are the recipes imported."""
        from ..training.recipes import RECIPES

        lines = [f"{name}: {_summary(make)}" for name, make in RECIPES.items()]
        self.epilog = "\n\n".join(["Recipes:", *lines])
        super().format_help(ctx, formatter)


def _summary(function: Any) -> str:
    """The first line of a docstring, without its period."""
    return (function.__doc__ or "").strip().partition("\n")[0].rstrip(".:")


RecipeChanges = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Changes to the recipe. output=DIR and data.manifest=PATH are needed; "
        "max_steps=N, seed=N and data.batch_size=N are often useful.",
    ),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Continue from the newest checkpoint in output=DIR.")
]
Show = Annotated[
    bool,
    typer.Option("--show", help="Print all keys of the recipe and their values; do not train."),
]


def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="Name of a recipe (see below).")],
    assignments: RecipeChanges = None,
    resume: Resume = False,
    show: Show = False,
) -> None:
    """Train a model; progress on stderr, the folder of the trained model on stdout.

    Example: moss-audio train decoder output=runs/voice data.manifest=recordings/

    All keys of a recipe: moss-audio train decoder --show
    """
    with needs_extra("train", "training"):
        from ..training.recipes import recipe as find_recipe
        from ..training.run_config import override, recipe_lines

    config = override(find_recipe(recipe), assignments or [])
    if show:
        display.print_line("\n".join(recipe_lines(config)))
        return
    trainer = _prepare(config, resume)
    display.print_line(str(trainer.run()))


def _prepare(config: "RunConfig", resume: bool) -> "Loop[Any, Any]":
    """A trainer that is ready to run."""
    with needs_extra("train", "training"):
        from ..training.recipes import trainer_for

        try:
            return trainer_for(config, resume, report=display.print_progress_line)
        except TrainingError as error:
            raise InputError(str(error)) from error


Study = Annotated[
    str,
    typer.Argument(
        metavar="STUDY", help="batch, end_to_end, reading_depth, sequence_dropout or width."
    ),
]
RunChanges = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="output=DIR and data.manifest=PATH are needed; other keys change every run.",
    ),
]


def study(name: Study, assignments: RunChanges = None) -> None:
    """Compare small training runs that differ in one thing; a second call continues the first.

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
