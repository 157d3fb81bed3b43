"""Where speech models come from: one that is installed with the package, a folder, or a hub id."""

from pathlib import Path

from ..checkpoint.stored_weights import find_checkpoint
from ..errors import CheckpointError

# Folders "tts" and "asr" in it, each with exported graphs, where a release ships them.
BUNDLED_SPEECH = Path(__file__).parent.parent / "bundled_speech"
_KINDS = {"tts": "text to speech", "asr": "speech to text"}


def is_installed(kind: str) -> bool:
    """Whether a model of a kind, "tts" or "asr", is installed with the package."""
    return (BUNDLED_SPEECH / kind / "config.json").is_file()


def find_speech_model(kind: str, name: str) -> Path:
    """The folder of a speech model.

    Args:
        kind: "tts" or "asr".
        name: folder, hub id, or "bundled" for the installed one.

    Raises:
        CheckpointError: there is no such model.
        MissingDependencyError: the hub's library is not installed.
    """
    if name != "bundled":
        return find_checkpoint(name, {})
    if not is_installed(kind):
        raise CheckpointError(
            f"no model for {_KINDS[kind]} is installed; train one with moss-audio train "
            f"{kind}_tiny (docs/speech.md) and name its folder with --model"
        )
    return BUNDLED_SPEECH / kind
