"""Training of CAT-ASR: cross-entropy of texts; validation measures error rates.

Source: the paper's appendix E.
"""

from dataclasses import dataclass, field

import jiwer
import torch
from jaxtyping import Int
from torch import Tensor

from ...asr import CatAsr, CatAsrConfig
from ...llm import load_language_model
from ..data.coded_data import CodedRow
from ..logging import TensorBoardLog
from ..module_task import ModuleTask
from .speech_config import AsrTrainingConfig
from .speech_trainer import (
    DrawnRows,
    LanguageTrainer,
    check_steps,
    language_model_settings,
    padded_codes,
)

_ROWS_AT_ONCE = 16
_SHOWN = 8


class AsrTask(ModuleTask[DrawnRows]):
    """CAT-ASR with its loss.

    Args:
        model: the model under training.
        frame_weight: weight of the CTC loss.
    """

    def __init__(self, model: CatAsr, frame_weight: float = 0.0) -> None:
        super().__init__()
        self.model: CatAsr = model
        self.frame_weight = frame_weight

    def num_tokens(self, rows: DrawnRows) -> int:
        """Number of text tokens, end tokens included."""
        return sum(len(self.model.targets(row.text)) for row in rows.batch.rows)

    def forward(self, rows: DrawnRows, num_tokens: float) -> dict[str, Tensor]:
        """The cross-entropy of the texts, and the share of tokens that the model ranks first."""
        own = rows.batch.rows
        codes = padded_codes(own, self.model.config.num_quantizers, self.model.device)
        kept = None if rows.num_quantizers is None else rows.num_quantizers.to(codes.device)
        frames = [row.num_frames for row in own]
        output = self.model(codes, frames, [row.text for row in own], kept)
        text = output.loss_sum / num_tokens
        losses = {"total": text, "text": text, "token_accuracy": output.num_correct / num_tokens}
        if output.frame_loss is not None:
            losses["frames"] = output.frame_loss / num_tokens
            losses["total"] = text + self.frame_weight * losses["frames"]
        return losses


@dataclass(frozen=True)
class TranscribedValidation:
    """Transcripts of held-out clips.

    Attributes:
        scalars: word and character error rates by num_quantizers; "score" is the word error rate
            at the largest.
        lines: text and transcript (at the largest num_quantizers) of some clips.
    """

    scalars: dict[str, float]
    lines: list[tuple[str, str]] = field(default_factory=list)

    def show(self, board: TensorBoardLog, step: int) -> None:
        """Log texts above their transcripts."""
        lines = [f"`{text}`\n\n`{transcript}`" for text, transcript in self.lines]
        board.text("readings", "\n\n---\n\n".join(lines), step)
        for text, transcript in self.lines[:2]:
            board.report(f"read {step} {text!r} as {transcript!r}")


class AsrTrainer(LanguageTrainer[AsrTrainingConfig]):
    """A run that trains CAT-ASR; arguments and errors are `Loop`'s."""

    def make_task(self) -> AsrTask:
        """Make the model of the recipe for the codes of the data."""
        settings, info = self.config.model, self.data.info
        nested, source = language_model_settings(settings, self.text)
        check_steps(_longest(self), nested, self.config.data.text_seconds[1])
        config = CatAsrConfig(
            text_config=nested,
            num_quantizers=info.num_quantizers,
            codebook_size=info.codebook_size,
            code_rank=settings.code_rank,
            frame_scores=self.config.frame_weight > 0,
            codec=info.identity,
        )
        model = CatAsr(config, self.text, self.config.seed)
        if source:
            model.language_model.load_state_dict(load_language_model(source).state_dict())
        self.start_from_codec(model)
        return AsrTask(model, self.config.frame_weight)

    def draw_num_quantizers(self, rows: int, random: torch.Generator) -> Int[Tensor, "rows"]:
        """The first codebooks, in a random number, for a share of the rows; all for the others."""
        most = self.data.info.num_quantizers
        prefix = torch.randint(1, most + 1, (rows,), generator=random)
        cut = torch.rand(rows, generator=random) < self.config.prefix_share
        return torch.where(cut, prefix, most)

    def passed_weights(self) -> list[Tensor]:
        """Weights of the language model."""
        return list(self.task.model.language_model.parameters())

    def validate(self) -> TranscribedValidation | None:
        """Transcribe the held-out clips, which are divided among the processes."""
        if not self.valid:
            return None
        self.task.eval()
        self._model = self.full_model()
        mine = {count: self._transcribed(count) for count in self.validated_num_quantizers()}
        self.task.train()
        parts = self.processes.gather(mine)
        return _summary({count: [pair for part in parts for pair in part[count]] for count in mine})

    def _transcribed(self, num_quantizers: int) -> list[tuple[str, str]]:
        """Text and transcript of this process's clips."""
        rows, pairs = self.mine(), []
        for first in range(0, len(rows), _ROWS_AT_ONCE):
            own = rows[first : first + _ROWS_AT_ONCE]
            found = self._transcripts(own, num_quantizers)
            pairs += list(zip([row.text for row in own], found, strict=True))
        return pairs

    def _transcripts(self, rows: list[CodedRow], num_quantizers: int) -> list[str]:
        beams = self.config.validation.num_beams
        longest = max(len(self.text.encode(row.text)) for row in rows)
        texts: list[str] = self._model.transcribe_codes(
            [row.codes for row in rows], num_quantizers, beams, max_tokens=2 * longest + 8
        )
        return texts


def _longest(run: AsrTrainer) -> int:
    """Positions of the longest row; those of its text are a guess, from fast speech."""
    seconds = run.config.data.text_seconds[1]
    return round(seconds * (run.data.info.frame_rate + 25))


def _summary(read: dict[int, list[tuple[str, str]]]) -> TranscribedValidation:
    scalars = {}
    for count, pairs in read.items():
        texts, transcripts = [text for text, _ in pairs], [found for _, found in pairs]
        scalars[f"wer/{count}"] = float(jiwer.wer(texts, transcripts))
        scalars[f"cer/{count}"] = float(jiwer.cer(texts, transcripts))
    largest = max(read)
    scalars["score"] = scalars[f"wer/{largest}"]
    return TranscribedValidation(scalars, read[largest][:_SHOWN])
