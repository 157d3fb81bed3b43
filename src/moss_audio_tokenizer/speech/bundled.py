"""Where speech models come from: one that is installed with the package, a folder, or a hub id."""

from pathlib import Path

from ..checkpoint.hub import find_checkpoint
from ..errors import CheckpointError

# Folders "tts" and "asr" in it, each with exported graphs, where a release ships them.
BUNDLED_SPEECH = Path(__file__).parent.parent / "bundled_speech"
_KINDS = {"tts": "text to speech", "asr": "speech to text"}


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
    folder = BUNDLED_SPEECH / kind
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"no model for {_KINDS[kind]} is installed; train one with moss-audio train "
            f"{kind}_tiny (docs/speech.md) and name its folder with --model"
        )
    return folder
