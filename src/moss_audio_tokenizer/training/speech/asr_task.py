"""Training CAT-ASR: cross-entropy of texts, and how well held-out clips are read.

Source: appendix E of the paper.
"""

from dataclasses import dataclass, field

import jiwer
import torch
from jaxtyping import Int
from torch import Tensor

from ...asr import CatAsr, CatAsrConfig
from ...llm import load_language_model
from ..data import CodedRow
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
        model: what trains.
        frame_weight: of the loss by the frames themselves.
    """

    def __init__(self, model: CatAsr, frame_weight: float = 0.0) -> None:
        super().__init__()
        self.model: CatAsr = model
        self.frame_weight = frame_weight

    def num_tokens(self, rows: DrawnRows) -> int:
        """Of all texts, their ends included."""
        return sum(len(self.model.targets(row.text)) for row in rows.batch.rows)

    def forward(self, rows: DrawnRows, num_tokens: float) -> dict[str, Tensor]:
        """The cross-entropy of the texts, and the share of tokens that come first."""
        own = rows.batch.rows
        codes = padded_codes(own, self.model.config.num_quantizers, self.model.device)
        depths = None if rows.depths is None else rows.depths.to(codes.device)
        frames = [row.num_frames for row in own]
        output = self.model(codes, frames, [row.text for row in own], depths)
        text = output.loss_sum / num_tokens
        losses = {"total": text, "text": text, "token_accuracy": output.num_correct / num_tokens}
        if output.frame_loss is not None:
            losses["frames"] = output.frame_loss / num_tokens
            losses["total"] = text + self.frame_weight * losses["frames"]
        return losses


@dataclass(frozen=True)
class Readings:
    """What a validation read.

    Attributes:
        scalars: word and character error rates by depth; "score" is the word error rate at the
            largest.
        lines: (text, what was read at the largest depth) of some clips.
    """

    scalars: dict[str, float]
    lines: list[tuple[str, str]] = field(default_factory=list)

    def show(self, board: TensorBoardLog, step: int) -> None:
        """Texts above what was read."""
        lines = [f"`{text}`\n\n`{read}`" for text, read in self.lines]
        board.text("readings", "\n\n---\n\n".join(lines), step)
        for text, read in self.lines[:2]:
            board.report(f"read {step} {text!r} as {read!r}")


class AsrTrainer(LanguageTrainer[AsrTrainingConfig]):
    """A run that trains CAT-ASR; arguments and errors are `Loop`'s."""

    def make_task(self) -> AsrTask:
        """A model in the shape that recipe and data ask for."""
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

    def draw_depths(self, rows: int, random: torch.Generator) -> Int[Tensor, "rows"]:
        """A random prefix for a share of the rows, all layers for the others."""
        layers = self.data.info.num_quantizers
        prefix = torch.randint(1, layers + 1, (rows,), generator=random)
        cut = torch.rand(rows, generator=random) < self.config.prefix_share
        return torch.where(cut, prefix, layers)

    def passed_weights(self) -> list[Tensor]:
        """The language model's."""
        return list(self.task.model.language_model.parameters())

    def validate(self) -> Readings | None:
        """Read the held-out clips, shared out to the processes."""
        if not self.valid:
            return None
        depths = self.validated_depths()
        self.task.eval()
        self._model = self.full_model()
        mine = {depth: self._read(depth) for depth in depths}
        self.task.train()
        parts = self.processes.gather(mine)
        return _summary({d: [pair for part in parts for pair in part[d]] for d in depths})

    def _read(self, depth: int) -> list[tuple[str, str]]:
        rows, pairs = self.mine(), []
        for first in range(0, len(rows), _ROWS_AT_ONCE):
            own = rows[first : first + _ROWS_AT_ONCE]
            pairs += list(zip([r.text for r in own], self._texts(own, depth), strict=True))
        return pairs

    def _texts(self, rows: list[CodedRow], depth: int) -> list[str]:
        beams = self.config.validation.num_beams
        longest = max(len(self.text.encode(row.text)) for row in rows)
        texts: list[str] = self._model.transcribe_codes(
            [row.codes for row in rows], depth, beams, max_tokens=2 * longest + 8
        )
        return texts


def _longest(run: AsrTrainer) -> int:
    """Steps of the longest row; of its text, only a guess: 25 tokens a second are fast speech."""
    seconds = run.config.data.text_seconds[1]
    return round(seconds * (run.data.info.frame_rate + 25))


def _summary(read: dict[int, list[tuple[str, str]]]) -> Readings:
    scalars = {}
    for depth, pairs in read.items():
        texts, readings = [text for text, _ in pairs], [reading for _, reading in pairs]
        scalars[f"wer/{depth}"] = float(jiwer.wer(texts, readings))
        scalars[f"cer/{depth}"] = float(jiwer.cer(texts, readings))
    largest = max(read)
    scalars["score"] = scalars[f"wer/{largest}"]
    return Readings(scalars, read[largest][:_SHOWN])
