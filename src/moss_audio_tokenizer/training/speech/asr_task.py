"""Training of CAT-ASR: cross-entropy or CTC of texts; validation measures error rates.

Source: the paper's appendix E.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jiwer
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ...asr import CatAsr, CatAsrConfig
from ...speech.model_facts import find_lexicon
from ...speech.phonemes import Lexicon
from ..logging import TensorBoardLog
from .speech_config import AsrTrainingConfig
from .speech_trainer import DrawnRows, SpeechTask, SpeechTrainer

_ROWS_AT_ONCE = 16
_SHOWN = 8
# Frames that are hidden together: up to 0.32 s, about a syllable or two.
_LONGEST_SPAN = 4


class AsrTask(SpeechTask):
    """CAT-ASR with its loss.

    Args:
        model: the model under training.
        config: the recipe, with the weights of the losses.
    """

    def __init__(self, model: CatAsr, config: AsrTrainingConfig) -> None:
        super().__init__()
        self.model: CatAsr = model
        self.config = config

    def num_tokens(self, rows: DrawnRows) -> int:
        """Number of text tokens, end tokens of a language model included."""
        return sum(len(self.model.targets(row.text)) for row in rows.batch.rows)

    def forward(self, rows: DrawnRows, num_tokens: float) -> dict[str, Tensor]:
        """The loss of the texts, with that of the CTC head or of the phonemes if there is one.

        Of a language model also the share of tokens that it ranks first.
        """
        own, codes = rows.batch.rows, self.padded_codes(rows.batch.rows)
        kept = None if rows.num_quantizers is None else rows.num_quantizers.to(codes.device)
        frames = [row.num_frames for row in own]
        texts = [row.text for row in own]
        output = self.model(codes, frames, texts, kept, self._visible(rows, codes.shape[-1]))
        text = output.loss_sum / num_tokens
        losses = {"total": text, "text": text}
        if output.num_correct is not None:
            losses["token_accuracy"] = output.num_correct / num_tokens
        if output.frame_loss is not None:
            losses["frames"] = output.frame_loss / num_tokens
            losses["total"] = text + self.config.frame_weight * losses["frames"]
        if self.model.lexicon is not None:
            phonemes = self._nothing() if output.phoneme_loss is None else output.phoneme_loss
            losses["phonemes"] = phonemes / num_tokens
            losses["total"] = text + self.config.phoneme_weight * losses["phonemes"]
        return losses

    def _nothing(self) -> Float[Tensor, ""]:
        """Zero, the phoneme loss of a batch without a text whose words the lexicon has.

        With a gradient: processes that share their gradients expect one of every weight.
        """
        encoder: Any = self.model.frame_encoder
        idle = [*encoder.phoneme_norm.parameters(), *encoder.phoneme_head.parameters()]
        return torch.stack([weight.sum() * 0.0 for weight in idle]).sum()

    def _visible(self, rows: DrawnRows, longest: int) -> Bool[Tensor, "rows frames"] | None:
        """Frames that the encoder sees, drawn by each row's seed; None for all."""
        share = self.config.frame_mask
        if not (self.training and share):
            return None
        visible = np.ones((len(rows.seeds), longest), bool)
        for row, own, seed in zip(visible, rows.batch.rows, rows.seeds, strict=True):
            hide_spans(row[: own.num_frames], share, np.random.default_rng(seed))
        return torch.from_numpy(visible).to(self.model.device)


def hide_spans(
    visible: Bool[np.ndarray, " frames"], share: float, random: np.random.Generator
) -> None:
    """Hide spans of 1 to 4 frames, in place: of no frame up to twice the share, drawn evenly.

    Args:
        visible: which frames of a row are seen.
        share: share of the frames to hide, on average; spans may overlap.
        random: source of the draws.
    """
    left = random.random() * 2 * share * len(visible)
    while left > 0:
        length = int(random.integers(1, _LONGEST_SPAN + 1))
        first = int(random.integers(max(1, len(visible) - length + 1)))
        visible[first : first + length] = False
        left -= length


@dataclass(frozen=True)
class TranscribedValidation:
    """Transcripts of held-out clips.

    Attributes:
        scalars: word and character error rates by num_quantizers; "score" is the word error rate
            at the largest.
        lines: text and transcript (at the largest num_quantizers) of some clips.
    """

    scalars: dict[str, float]
    lines: Sequence[tuple[str, str]]

    def show(self, board: TensorBoardLog, step: int) -> None:
        """Log texts above their transcripts."""
        lines = [f"`{text}`\n\n`{transcript}`" for text, transcript in self.lines]
        board.text("readings", "\n\n---\n\n".join(lines), step)
        for text, transcript in self.lines[:2]:
            board.report(f"read {step} {text!r} as {transcript!r}")


class AsrTrainer(SpeechTrainer[AsrTrainingConfig]):
    """A run that trains CAT-ASR; arguments and errors are `Loop`'s."""

    join_share = 0.2

    def make_task(self) -> AsrTask:
        """Make the model of the recipe for the codes of the data."""
        run, info = self.config, self.data.info
        config = CatAsrConfig(
            text_config=None if run.encoder_layers else self.language_model_config(),
            num_quantizers=info.num_quantizers,
            codebook_size=info.codebook_size,
            code_rank=run.model.code_rank,
            frame_scores=run.frame_weight > 0,
            encoder_layers=run.encoder_layers,
            encoder_width=run.model.width,
            encoder_dropout=run.encoder_dropout,
            codec=info.identity,
        )
        model = CatAsr(config, self.text, run.seed)
        model.lexicon = Lexicon.load(find_lexicon(run.lexicon)) if run.lexicon else None
        self.start_weights(model)
        return AsrTask(model, run)

    def draw_num_quantizers(self, rows: int, random: torch.Generator) -> Int[Tensor, "rows"]:
        """The first codebooks, in a random number, for a share of the rows; all for the others."""
        most = self.data.info.num_quantizers
        prefix = torch.randint(1, most + 1, (rows,), generator=random)
        cut = torch.rand(rows, generator=random) < self.config.prefix_share
        return torch.where(cut, prefix, most)

    def validate(self) -> TranscribedValidation | None:
        """Transcribe the held-out clips, which are divided among the processes."""
        if not self.valid:
            return None
        self.task.eval()
        model = self.full_model()
        mine = {count: self._transcribed(model, count) for count in self.validated_num_quantizers()}
        self.task.train()
        parts = self.processes.gather(mine)
        return _summary({count: [pair for part in parts for pair in part[count]] for count in mine})

    def _transcribed(self, model: CatAsr, num_quantizers: int) -> list[tuple[str, str]]:
        """Text and transcript of this process's clips, decoded greedily."""
        rows, pairs = self.valid_of_process(), []
        for first in range(0, len(rows), _ROWS_AT_ONCE):
            own = rows[first : first + _ROWS_AT_ONCE]
            longest = max(len(self.text.encode(row.text)) for row in own)
            codes = [row.codes for row in own]
            found = model.transcribe_codes(codes, num_quantizers, max_tokens=2 * longest + 8)
            pairs += list(zip([row.text for row in own], found, strict=True))
        return pairs


def _summary(read: dict[int, list[tuple[str, str]]]) -> TranscribedValidation:
    scalars = {}
    for count, pairs in read.items():
        texts, transcripts = [text for text, _ in pairs], [found for _, found in pairs]
        scalars[f"wer/{count}"] = float(jiwer.wer(texts, transcripts))
        scalars[f"cer/{count}"] = float(jiwer.cer(texts, transcripts))
    largest = max(read)
    scalars["score"] = scalars[f"wer/{largest}"]
    return TranscribedValidation(scalars, read[largest][:_SHOWN])
