"""CAT-TTS with its losses: cross-entropy of codes and of the end of speech.

Source: the paper's section 3.3. The text alignment is an addition of this project for small data
sets (`tts.text_alignment`); the paper's recipe has none.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Int, UInt16
from torch import Tensor

from ...asr import Aligner
from ...tts import CatTts, TtsBatch
from ..data.coded_data import CodedRow
from .speech_config import TtsTrainingConfig
from .speech_trainer import DrawnRows, SpeechTask

# Of the loss of token durations, where there is an alignment.
_DURATION_WEIGHT = 4.0


class ClipAlignments:
    """Text alignments of clips, each computed once.

    Args:
        aligner: finds the text token of each frame.
    """

    def __init__(self, aligner: Aligner) -> None:
        self.aligner = aligner
        # Keyed by text and codes: the same clip may be part of several rows.
        self._known: dict[tuple[str, bytes], list[int]] = {}

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


class TtsTask(SpeechTask):
    """CAT-TTS with its losses.

    Args:
        model: the model under training.
        config: the recipe.
        alignments: the clips' alignments; None for a model without an alignment.
        sharded: whether weights are sharded: every rank then needs a gradient of every output
            layer, of codebooks too that none of its rows keeps.
    """

    def __init__(
        self,
        model: CatTts,
        config: TtsTrainingConfig,
        alignments: ClipAlignments | None = None,
        sharded: bool = False,
    ) -> None:
        super().__init__()
        self.model: CatTts = model
        self.config, self.alignments, self._sharded = config, alignments, sharded

    def num_tokens(self, rows: DrawnRows) -> int:
        """Number of codes that are kept and scored."""
        counts = [count for _, count in self._scored_counts(rows.batch.rows)]
        return int((torch.tensor(counts) * self._kept(rows)).sum())

    def forward(self, rows: DrawnRows, num_tokens: float) -> dict[str, Tensor]:
        """Both cross-entropies, and the share of codes that the model ranks first.

        A decision to continue or to end counts as much as a code.
        """
        output = self.model(self._batch(rows))
        codes, end = output.codes_loss_sum / num_tokens, output.end_loss_sum / num_tokens
        accuracy = output.num_correct / num_tokens
        losses = {"total": codes + end, "codes": codes, "end": end, "code_accuracy": accuracy}
        if output.duration_loss_sum is not None:
            losses["place"] = output.duration_loss_sum / num_tokens
            losses["total"] = losses["total"] + _DURATION_WEIGHT * losses["place"]
        if self._sharded:
            weights = self.model.depth.exits.parameters()
            losses["total"] = losses["total"] + 0.0 * sum(weight.sum() for weight in weights)
        return losses

    def _batch(self, rows: DrawnRows) -> TtsBatch:
        own, device, alignments = rows.batch.rows, self.model.device, self.alignments
        return TtsBatch(
            texts=[row.text for row in own],
            audio_codes=self.padded_codes(own),
            num_frames=[row.num_frames for row in own],
            num_quantizers=self._kept(rows).to(device),
            scored=self._scored(rows).to(device),
            token_indices=None if alignments is None else alignments.token_indices(own),
            conditioned_from=self._conditioned_from(rows),
            visible=self._visible(rows),
        )

    def _kept(self, rows: DrawnRows) -> Int[Tensor, "rows"]:
        """Number of codebooks that each row keeps."""
        if rows.num_quantizers is None:
            return torch.full((len(rows.seeds),), self.model.config.num_quantizers)
        return rows.num_quantizers

    def _first_frames(self, rows: Sequence[CodedRow]) -> list[int]:
        """The first frame of each row that may be scored.

        With an alignment, clips before the last are its prompt, which is not scored.
        """
        if self.model.guide is None:
            return [0] * len(rows)
        return [row.num_frames - row.segments[-1].frames for row in rows]

    def _scored_counts(self, rows: Sequence[CodedRow]) -> list[tuple[int, int]]:
        """First frame that may be scored, and number of scored frames, of each row."""
        share = self.config.scored_share if self.training else 1.0
        return [
            (start, max(1, round(share * (row.num_frames - start))))
            for row, start in zip(rows, self._first_frames(rows), strict=True)
        ]

    def _scored(self, rows: DrawnRows) -> Bool[Tensor, "rows frames"]:
        """Frames that are scored: a share of each row, at least one frame, drawn by its seed.

        Held-out rows are scored completely.
        """
        own = rows.batch.rows
        scored = torch.zeros(len(own), max(row.num_frames for row in own), dtype=torch.bool)
        for row, (start, count) in enumerate(self._scored_counts(own)):
            random = torch.Generator().manual_seed(rows.seeds[row])
            chosen = torch.randperm(own[row].num_frames - start, generator=random)[:count]
            scored[row, start + chosen] = True
        return scored

    def _visible(self, rows: DrawnRows) -> Bool[Tensor, "rows frames"] | None:
        """Frames that are an input of later frames, drawn by each row's seed."""
        if not (self.training and self.config.frame_dropout):
            return None
        longest = max(row.num_frames for row in rows.batch.rows)
        # Independent of the draws of `_scored`.
        chances = [torch.Generator().manual_seed(seed + 1) for seed in rows.seeds]
        drawn = torch.stack([torch.rand(longest, generator=chance) for chance in chances])
        return (drawn >= self.config.frame_dropout).to(self.model.device)

    def _conditioned_from(self, rows: DrawnRows) -> list[int]:
        """First conditioned frame of each row; the number of frames in unconditioned rows."""
        own = rows.batch.rows
        first, dropout = self._first_frames(own), self.config.place_dropout
        if self.alignments is None or not (self.training and dropout):
            return first
        # Independent of the draws of `_scored` and `_visible`.
        chances = [torch.Generator().manual_seed(seed + 2) for seed in rows.seeds]
        dropped = [torch.rand((), generator=chance) < dropout for chance in chances]
        return [
            row.num_frames if unconditioned else start
            for row, start, unconditioned in zip(own, first, dropped, strict=True)
        ]
