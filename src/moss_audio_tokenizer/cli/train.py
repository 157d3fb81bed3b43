"""`moss-audio train`: a recipe, some keys changed, and a run.

Owns nothing of training: recipes, keys and the loop are `training`'s.
"""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError, TrainingError
from . import display
from .failures import needs_extra

if TYPE_CHECKING:
    from ..training.loop import Loop
    from ..training.run_config import RunConfig


def train(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE", show_default=False, help="Name of a recipe, such as bundled."
        ),
    ],
    assignments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            show_default=False,
            help="Changes to the recipe. output=DIR and data.manifest=PATH are needed; "
            "max_steps=N, seed=N and data.batch_size=N are often useful.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest checkpoint in output=DIR.")
    ] = False,
) -> None:
    """Train a model; progress on stderr, the folder of the trained model on stdout.

    Example: moss-audio train envelope output=runs/first data.manifest=data/manifest.jsonl
    """
    with needs_extra("train", "training"):
        from ..training.codec.codec_config import override
        from ..training.recipes import recipe as find_recipe

    config = override(find_recipe(recipe), assignments or [])
    trainer = _prepare(config, resume)
    display.print_line(str(trainer.run()))


def _prepare(config: "RunConfig", resume: bool) -> "Loop[Any, Any]":
    """A trainer that is ready to run.

    Raises:
        InputError: the folder or the data cannot be used: unlike what breaks off a run later,
            the user repairs that by giving something else.
    """
    with needs_extra("train", "training"):
        from ..training.build import trainer_for
    try:
        return trainer_for(config, resume, report=display.print_progress_line)
    except TrainingError as error:
        raise InputError(str(error)) from error
