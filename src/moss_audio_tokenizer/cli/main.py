"""The entry point `moss-audio`: its commands, and how errors become exit codes."""

import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from .. import __version__
from .bench import bench
from .data import app as data
from .demo import demo
from .encode import decode, encode
from .evaluate import compare, evaluate
from .evaluate_speech import evaluate_asr, evaluate_tts
from .export import app as export
from .failures import BAD_INPUT, INTERRUPTED, exit_code_of, message_of, print_error, wants_traceback
from .info import info
from .listening import listening_results, listening_test
from .reconstruct import reconstruct
from .serve import serve
from .speech import asr, tts
from .tokenize import detokenize, stats, tokenize
from .train import RecipeCommand, study, train
from .verify import verify

# Typer brings its own copy of click or imports it, depending on the version: so by descent.
_USAGE_ERROR: Any = typer.BadParameter.__mro__[2]


class Commands(TyperGroup):
    """The group of all commands, which ends every error in one line and an exit code."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command and exit."""
        kwargs["standalone_mode"] = False
        try:
            code = super().main(*args, **kwargs) or 0
        except typer.Abort:  # what an older Typer makes of Ctrl-C; a newer one returns 130
            code = INTERRUPTED
        except Exception as error:
            # The outermost frame: unforeseen errors end here too, as one line.
            if wants_traceback() and not isinstance(error, _USAGE_ERROR):
                raise
            code = _explain(error)
        if code == INTERRUPTED:
            sys.stderr.write("moss-audio: interrupted\n")
        sys.exit(code)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find a command, also one of two words; a file of the second's name is ./NAME."""
        both = " ".join(args[:2])
        return super().resolve_command(ctx, [both, *args[2:]] if both in self.commands else args)


def _explain(error: Any) -> int:
    """Print an error as one line; returns the exit code."""
    if isinstance(error, _USAGE_ERROR):
        if message := error.format_message():  # empty: a bare `moss-audio` has shown its help
            print_error(_usage_message(error, message))
        return BAD_INPUT
    print_error(message_of(error))
    return exit_code_of(error)


def _usage_message(error: Any, message: str) -> str:
    command = error.ctx.command_path if getattr(error, "ctx", None) else "moss-audio"
    return f"{' '.join(message.split()).rstrip('.')}; see {command} --help"


_HELP = """A neural audio codec: sound to discrete codes, at 12.5 frames a second, and back.

Hear it: moss-audio reconstruct speech.wav -o out.wav --kbps 1,2,4

Encode and decode: moss-audio encode speech.wav -o speech.moss, then
moss-audio decode speech.moss -o speech-2.wav
"""

app = typer.Typer(
    name="moss-audio",
    cls=Commands,
    help=_HELP,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# The groups of the help, in its order.
_GROUPS: dict[str, dict[str, Callable[..., None]]] = {
    "Use": {"encode": encode, "decode": decode, "reconstruct": reconstruct, "info": info},
    "Data sets": {"tokenize": tokenize, "detokenize": detokenize, "stats": stats},
    "Train": {"train": train, "study": study},
    "Measure": {
        "eval": evaluate,
        "compare": compare,
        "eval asr": evaluate_asr,
        "eval tts": evaluate_tts,
        "verify": verify,
        "bench": bench,
        "listening-test": listening_test,
        "listening-results": listening_results,
    },
    "Serve": {"serve": serve, "demo": demo},
    "Speech": {"tts": tts, "asr": asr},
}
for group, commands in _GROUPS.items():
    for name, command in commands.items():
        kind = RecipeCommand if name == "train" else None
        app.command(name, cls=kind, rich_help_panel=group)(command)
app.add_typer(data, rich_help_panel="Data sets")
app.add_typer(export, name="export", rich_help_panel="Serve")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"moss-audio {__version__}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option(
        "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
    ),
]


@app.callback()
def options_of_all(version: Version = False) -> None:
    """Nothing is done before the command itself."""


def run() -> None:
    """What the command `moss-audio` calls."""
    app(prog_name="moss-audio")
