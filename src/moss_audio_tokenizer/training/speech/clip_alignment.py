"""The text alignment in the training of CAT-TTS: clips are aligned once, by a CAT-ASR model.

An addition of this project for small data sets (`tts.text_alignment`); the paper's recipe has none.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import UInt16

from ...asr import Aligner
from ..data import CodedRow


@dataclass(frozen=True)
class AlignmentTraining:
    """How CAT-TTS is trained on a text alignment.

    Attributes:
        clips: the clips' alignments; None for a model without an alignment.
        duration_weight: weight of the loss of token durations.
        dropout: share of the rows that are not conditioned on the alignment in training, for
            classifier-free guidance.
    """

    clips: "ClipAlignments | None" = None
    duration_weight: float = 1.0
    dropout: float = 0.0


@dataclass
class ClipAlignments:
    """Alignments of clips, each computed once.

    Attributes:
        aligner: finds the text token of each frame.
    """

    aligner: Aligner
    # Keyed by text and codes: the same clip may be part of several rows.
    _known: dict[tuple[str, bytes], list[int]] = field(default_factory=dict)

    def align(self, rows: Sequence[CodedRow]) -> None:
        """Align the last clips of rows that are not aligned yet, as one batch."""
        parts = [_last_clip(row, self._encode) for row in rows]
        fresh = {key: part for part in parts if (key := _key(part)) not in self._known}
        texts, codes = [text for text, _ in fresh.values()], [part for _, part in fresh.values()]
        found = self.aligner.align(codes, texts)
        self._known |= {k: indices.tolist() for k, indices in zip(fresh, found, strict=True)}

    def token_indices(self, rows: Sequence[CodedRow]) -> list[list[int]]:
        """The index of the text token of each frame.

        Earlier clips of a joined row are skipped: they get no alignment condition, and single
        clips recur, where pairs of them hardly ever do.
        """
        self.align(rows)
        return [self._of_row(row) for row in rows]

    def _of_row(self, row: CodedRow) -> list[int]:
        part = _last_clip(row, self._encode)
        known = self._known[_key(part)]
        offset = len(self._encode(row.text)) - len(self._encode(part[0]))
        waiting = [offset] * (row.num_frames - len(known))
        return waiting + [offset + index for index in known]

    def _encode(self, text: str) -> list[int]:
        tokens: list[int] = self.aligner.model.text.encode(text)
        return tokens


def first_scored_frames(rows: Sequence[CodedRow]) -> list[int]:
    """The start of each row's last clip; those before it are its prompt, which is not scored."""
    return [row.num_frames - row.segments[-1].frames for row in rows]


_Clip = tuple[str, UInt16[np.ndarray, "num_quantizers _"]]


def _key(clip: _Clip) -> tuple[str, bytes]:
    text, codes = clip
    return text, codes.tobytes()


def _last_clip(row: CodedRow, encode: Callable[[str], list[int]]) -> _Clip:
    """Text and codes of a row's last clip; the complete row where tokens cross the clips."""
    last, tokens = row.segments[-1], encode(row.text)
    own = encode(last.text)
    if tokens[len(tokens) - len(own) :] != own:
        return row.text, row.codes
    return last.text, np.ascontiguousarray(row.codes[:, row.num_frames - last.frames :])
