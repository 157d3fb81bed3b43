"""CAT-TTS with its losses: cross-entropy of codes and of the end of speech.

Source: the paper's section 3.3. The text encoder is an addition of this project for small data
sets (`tts.text_encoder`); the paper's recipe has none.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt16
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ...asr import Aligner
from ...speech.phonemes import AlignedText
from ...tts import CatTts, CodeLoss, SpokenRow, TtsBatch
from ..data.coded_data import CodedRow
from .speech_config import TtsTrainingConfig
from .speech_trainer import DrawnRows, SpeechTask

# Of the loss of durations, where there is a text encoder.
_DURATION_WEIGHT = 0.3
# Number of codebooks whose drawn codes count in the recognition loss: speech is understood by four.
_DRAWN_CODEBOOKS = 4
# Share of the words that are read letter by letter, so that words without a pronunciation can be.
_SPELLED_SHARE = 0.1


class ClipAlignments:
    """Durations of the phonemes of clips, each clip aligned once.

    Args:
        aligner: finds them.
    """

    def __init__(self, aligner: Aligner) -> None:
        self.aligner = aligner
        # Keyed by text and codes: the same clip may be part of several rows.
        self._known: dict[tuple[str, bytes], AlignedText] = {}

    def align(self, rows: Sequence[CodedRow]) -> list[AlignedText]:
        """Of the last clip of each row; those before it are its prompt."""
        clips = [_last_clip(row) for row in rows]
        fresh = {key: clip for clip in clips if (key := _key(clip)) not in self._known}
        texts, codes = [text for text, _ in fresh.values()], [part for _, part in fresh.values()]
        self._known |= zip(fresh, self.aligner.align(codes, texts), strict=True)
        return [self._known[_key(clip)] for clip in clips]

    def words(self, row: CodedRow) -> str:
        """The words of a row's last clip, which has been aligned, without punctuation."""
        return " ".join(item.word for item in self._known[_key(_last_clip(row))].words)

    def spoken(self, row: CodedRow, aligned: AlignedText, spelled: Sequence[bool]) -> SpokenRow:
        """What a row says, with some words spelled."""
        tokens, durations = aligned.tokens(self.aligner.lexicon, spelled)
        return SpokenRow(tokens, durations, row.num_frames - row.segments[-1].frames)


_Clip = tuple[str, UInt16[np.ndarray, "num_quantizers _"]]


def _key(clip: _Clip) -> tuple[str, bytes]:
    text, codes = clip
    return text, codes.tobytes()


def _last_clip(row: CodedRow) -> _Clip:
    last = row.segments[-1]
    return last.text, np.ascontiguousarray(row.codes[:, row.num_frames - last.frames :])


class TtsTask(SpeechTask):
    """CAT-TTS with its losses.

    Args:
        model: the model under training.
        config: the recipe.
        alignments: durations of the clips' phonemes; None for a model without a text encoder.
        code_loss: how codes count in training; in validation all count alike.
        sharded: whether weights are sharded: every rank then needs a gradient of every output
            layer, of codebooks too that none of its rows keeps.
    """

    def __init__(
        self,
        model: CatTts,
        config: TtsTrainingConfig,
        alignments: ClipAlignments | None = None,
        code_loss: CodeLoss | None = None,
        sharded: bool = False,
    ) -> None:
        super().__init__()
        self.model: CatTts = model
        self.config, self.alignments, self._sharded = config, alignments, sharded
        self._code_loss = code_loss or CodeLoss()

    @property
    def code_loss(self) -> CodeLoss:
        """How codes count now."""
        return self._code_loss if self.training else CodeLoss()

    def num_tokens(self, rows: DrawnRows) -> float:
        """Number of codes that are kept and scored, with the weights of their codebooks."""
        counts = [count for _, count in self._scored_counts(rows.batch.rows)]
        weights = self.code_loss.weight_of_first(self._kept(rows))
        return float((torch.tensor(counts) * weights).sum())

    def forward(self, rows: DrawnRows, num_tokens: float) -> dict[str, Tensor]:
        """Both cross-entropies, and the share of codes that the model ranks first.

        A decision to continue or to end counts as much as a code of the first codebook.
        """
        batch = self._batch(rows)
        output = self.model(batch)
        codes, end = output.codes_loss_sum / num_tokens, output.end_loss_sum / num_tokens
        accuracy = output.num_correct / num_tokens
        losses = {"total": codes + end, "codes": codes, "end": end, "code_accuracy": accuracy}
        if output.duration_loss_sum is not None:
            losses["durations"] = output.duration_loss_sum / num_tokens
            losses["total"] = losses["total"] + _DURATION_WEIGHT * losses["durations"]
        if output.drawn is not None:
            losses["recognition"] = self._recognition_loss(output.drawn, batch, rows) / num_tokens
            weighted = self.config.recognition_weight * losses["recognition"]
            losses["total"] = losses["total"] + weighted
        if self._sharded:
            weights = self.model.depth.exits.parameters()
            losses["total"] = losses["total"] + 0.0 * sum(weight.sum() for weight in weights)
        return losses

    def _batch(self, rows: DrawnRows) -> TtsBatch:
        own, device = rows.batch.rows, self.model.device
        soft = self.code_loss.soft_targets
        return TtsBatch(
            texts=[row.text for row in own],
            audio_codes=self.padded_codes(own, len(soft.vectors) if soft else 0),
            num_frames=[row.num_frames for row in own],
            num_quantizers=self._kept(rows).to(device),
            scored=self._scored(rows).to(device),
            spoken=self._spoken(rows),
            visible=self._visible(rows),
            code_loss=self.code_loss,
            num_drawn=self._num_drawn(),
            # Independent of the draws of `_scored`, `_visible` and `_spoken`.
            draw_seed=rows.seeds[0] + 3,
        )

    def _num_drawn(self) -> int:
        if self.alignments is None or not (self.training and self.config.recognition_weight):
            return 0
        return min(_DRAWN_CODEBOOKS, self.model.config.num_quantizers)

    def _recognition_loss(
        self, drawn: Float[Tensor, "layers _ codes"], batch: TtsBatch, rows: DrawnRows
    ) -> Float[Tensor, ""]:
        """What the aligner's CAT-ASR recognizes in the drawn codes of conditioned rows."""
        spoken, own = batch.spoken or (), rows.batch.rows
        counts = [n - row.first_frame for n, row in zip(batch.num_frames, spoken, strict=True)]
        parts = zip(drawn.split(counts, 1), own, spoken, strict=True)
        heard = [(part, clip) for part, clip, row in parts if row.conditioned]
        if self.alignments is None or not heard:
            return drawn.sum() * 0.0
        padded = pad_sequence([part.transpose(0, 1) for part, _ in heard], batch_first=True)
        texts = [self.alignments.words(clip) for _, clip in heard]
        lengths = [part.shape[1] for part, _ in heard]
        recognizer = self.alignments.aligner.model
        return recognizer.recognition_loss(padded.permute(2, 0, 1, 3), lengths, texts)

    def _kept(self, rows: DrawnRows) -> Int[Tensor, "rows"]:
        """Number of codebooks that each row keeps."""
        if rows.num_quantizers is None:
            return torch.full((len(rows.seeds),), self.model.config.num_quantizers)
        return rows.num_quantizers

    def _first_frames(self, rows: Sequence[CodedRow]) -> list[int]:
        """The first frame of each row that may be scored.

        With a text encoder, clips before the last are its prompt, which is not scored.
        """
        if self.model.text_encoder is None:
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

    def _spoken(self, rows: DrawnRows) -> list[SpokenRow] | None:
        """What the rows say; in training some words are spelled, some rows unconditioned."""
        if self.alignments is None:
            return None
        own, dropout = rows.batch.rows, self.config.place_dropout
        spoken = []
        for row, aligned, seed in zip(own, self.alignments.align(own), rows.seeds, strict=True):
            # Independent of the draws of `_scored` and `_visible`.
            chance = torch.Generator().manual_seed(seed + 2)
            dropped = self.training and bool(torch.rand((), generator=chance) < dropout)
            share = _SPELLED_SHARE if self.training else 0.0
            spelled = (torch.rand(len(aligned.words), generator=chance) < share).tolist()
            found = self.alignments.spoken(row, aligned, spelled)
            spoken.append(replace(found, conditioned=not dropped))
        return spoken
