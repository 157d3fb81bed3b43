"""The error tree: what its docstring draws is what the classes are."""

import builtins
import inspect
import re

import pytest

from moss_audio_tokenizer import errors
from moss_audio_tokenizer.cli.failures import message_of

ERRORS = {
    name: error
    for name, error in vars(errors).items()
    if inspect.isclass(error) and error.__module__ == errors.__name__
}
# What each is to callers who know only Python's own errors.
STANDARD_BASES = {
    "MossAudioError": "Exception",
    "InputError": "ValueError",
    "AudioError": "ValueError",
    "CodesError": "ValueError",
    "ConfigError": "ValueError",
    "AudioFileError": "OSError",
    "CodesFileError": "OSError",
    "StreamFileError": "OSError",
    "CheckpointError": "ValueError",
    "ModelMismatchError": "ValueError",
    "SlotsFull": "RuntimeError",
    "MissingDependencyError": "ImportError",
    "ServerBusy": "RuntimeError",
    "ServerError": "RuntimeError",
    "TrainingError": "RuntimeError",
    "EvaluationError": "RuntimeError",
    "BulkError": "RuntimeError",
}


def drawn_tree() -> dict[str, str]:
    """The parent of every error drawn in the docstring; the standard error for the root."""
    parents: dict[str, str] = {}
    ancestors: list[tuple[int, str]] = []
    for branch in re.finditer(r"^ {4}([│├└─ ]*)(\w+)", errors.__doc__ or "", re.MULTILINE):
        depth, name = len(branch[1]), branch[2]
        ancestors = [(column, parent) for column, parent in ancestors if column < depth]
        parents[name] = ancestors[-1][1] if ancestors else "Exception"
        ancestors.append((depth, name))
    return parents


def test_docstring_draws_the_real_tree():
    assert drawn_tree() == {name: error.__bases__[0].__name__ for name, error in ERRORS.items()}


def test_standard_bases_in_the_drawing_are_real():
    drawn = dict(re.findall(r"(\w+) \((\w+)\)", errors.__doc__ or ""))
    assert drawn["InputError"] == "ValueError"
    for name, base in drawn.items():
        assert issubclass(ERRORS[name], getattr(builtins, base))


def test_every_error_has_its_standard_base():
    assert set(STANDARD_BASES) == set(ERRORS)
    for name, base in STANDARD_BASES.items():
        assert issubclass(ERRORS[name], getattr(builtins, base)), name


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_the_base_class_catches_every_error_with_its_message(error):
    with pytest.raises(errors.MossAudioError, match="got 3, expected 2"):
        raise error("got 3, expected 2")


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_every_error_says_what_it_is_for(error):
    assert inspect.getdoc(error)


@pytest.mark.parametrize("error", [*ERRORS.values(), KeyError, OSError, UnicodeError], ids=str)
def test_messages_are_bounded(error):
    long = error(f"header is {'x' * 100_000}; expected a number")
    assert len(message_of(long)) < 2100
    assert message_of(long).endswith(("expected a number", "shows where)"))
    if error in ERRORS.values():
        assert str(long).startswith("header is xxx")
        assert len(str(long)) < 2100


def test_messages_about_long_file_names_are_bounded():
    assert len(message_of(FileNotFoundError(2, "No such file", "x" * 100_000))) < 2100
