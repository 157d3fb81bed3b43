"""Built-in voices of CAT-TTS: named prompts in a model's folder.

A voice is a file of codes, ``voices/NAME.moss``, and its transcript, ``voices/NAME.txt``. The first
by the alphabet is the default. ``moss-audio encode`` and a text editor make a voice. Owns the
names, and reading and checking a voice; knows no model.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from ..codes import AudioCodes, CodecInfo
from ..errors import CheckpointError, InputError, ModelMismatchError

VOICES_FOLDER = "voices"
# Shorter than the names that a server gives to uploaded recordings.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,30}")
# Words that stand for a voice in requests.
_RESERVED = ("default", "none")
_MAX_TRANSCRIPT_BYTES = 4096


@dataclass(frozen=True)
class BuiltInVoice:
    """A named prompt.

    Attributes:
        name: its name.
        codes: codes of its recording.
        text: transcript of its recording.
    """

    name: str
    codes: Int64[np.ndarray, "num_quantizers frames"]
    text: str


class BuiltInVoices:
    """The voices in a model's folder; each is read when it is asked for.

    Args:
        folder: folder of the model; None for no voices.

    Attributes:
        names: names by the alphabet; empty if there are no voices.

    Raises:
        CheckpointError: a file of codes has no usable name.
    """

    def __init__(self, folder: str | Path | None) -> None:
        self._folder = Path(folder or "") / VOICES_FOLDER
        found = () if folder is None else self._folder.glob("*.moss")
        self.names = tuple(sorted(path.stem for path in found))
        for name in self.names:
            if not _NAME.fullmatch(name) or name in _RESERVED:
                raise CheckpointError(
                    f"{str(self._folder / name)!r} cannot be a voice's name; expected up to 31 "
                    f"letters, digits, '-' and '_', and not {' or '.join(_RESERVED)}"
                )

    def check(self, name: str) -> None:
        """Check that there is a voice of a name; an empty name stands for the default.

        Raises:
            InputError: there is none.
        """
        if not name or name in self.names:
            return
        if not self.names:
            raise InputError(
                f"there is no voice {name[:60]!r}: this model has no built-in voices; give a "
                "prompt recording and its text instead"
            )
        raise InputError(f"there is no voice {name[:60]!r}; expected {', '.join(self.names)}")

    def find(self, name: str, codec: CodecInfo) -> BuiltInVoice | None:
        """Read a voice.

        Args:
            name: its name; empty for the default.
            codec: the codec whose codes it must hold.

        Returns:
            The voice; None for the default of a model without voices.

        Raises:
            CheckpointError: its transcript is missing, empty, too long or no UTF-8.
            CodesFileError: its codes cannot be read.
            InputError: there is no such voice.
            ModelMismatchError: its codes are another codec's.
        """
        self.check(name)
        if not self.names:
            return None
        name = name or self.names[0]
        stored = AudioCodes.load(self._folder / f"{name}.moss")
        if stored.model != codec.identity:
            raise ModelMismatchError(
                f"the voice {name!r} holds codes of the codec {stored.model or '(unknown)'}, and "
                f"this one is {codec.identity}; encode its recording with this codec"
            )
        return BuiltInVoice(name, stored.codes, _transcript(self._folder / f"{name}.txt"))


def _transcript(path: Path) -> str:
    """The transcript of a voice, on one line."""
    try:
        with path.open("rb") as file:
            text = " ".join(file.read(_MAX_TRANSCRIPT_BYTES + 1).decode("utf-8").split())
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"the voice {path.stem!r} has no transcript that can be read ({type(error).__name__}); "
            f"write what is said in its recording into {str(path)!r}, in UTF-8"
        ) from error
    if not text or path.stat().st_size > _MAX_TRANSCRIPT_BYTES:
        raise CheckpointError(
            f"{str(path)!r} has {path.stat().st_size} bytes; expected the words of the voice's "
            f"recording, up to {_MAX_TRANSCRIPT_BYTES} bytes"
        )
    return text
