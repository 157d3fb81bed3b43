"""Training of CAT-TTS: cross-entropy of codes and of the end of speech; validation speaks a text.

Source: the paper's section 3.3.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedConfig

from ...asr import Aligner, CatAsr
from ...codes import Codec
from ...errors import ConfigError
from ...hf.torch_codec import TorchCodec
from ...llm import TextCodec, load_language_model
from ...tts import CatTts, CatTtsConfig, SequenceDropout, SpeechSampling, TtsBatch, generate
from ..data.coded_data import CodedBatch, CodedRow
from ..logging import TensorBoardLog
from ..module_task import ModuleTask
from .clip_alignment import AlignmentTraining, ClipAlignments, first_scored_frames
from .speech_config import TtsTrainingConfig
from .speech_trainer import (
    DrawnRows,
    LanguageTrainer,
    check_steps,
    language_model_settings,
    padded_codes,
)

_ROWS_AT_ONCE = 16
# Of fast speech.
_TOKENS_A_SECOND = 25
# Default guidance of models that are trained for it; 2 was about as intelligible.
_GUIDANCE = 3.0


class TtsTask(ModuleTask[DrawnRows]):
    """CAT-TTS with its losses.

    Args:
        model: the model under training.
        scored_share: share of the frames whose codes are scored in training.
        alignment: the text alignment.
        frame_dropout: share of the frames that later frames do not see in training.
        sharded: whether weights are sharded: every rank then needs a gradient of every output
            layer, of codebooks too that none of its rows keeps.
    """

    def __init__(
        self,
        model: CatTts,
        scored_share: float = 1.0,
        alignment: AlignmentTraining | None = None,
        frame_dropout: float = 0.0,
        sharded: bool = False,
    ) -> None:
        super().__init__()
        self._sharded = sharded
        self.model: CatTts = model
        self.scored_share = scored_share
        self.alignment = alignment or AlignmentTraining()
        self.frame_dropout = frame_dropout

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
            losses["total"] = losses["total"] + self.alignment.duration_weight * losses["place"]
        if self._sharded:
            weights = self.model.depth.exits.parameters()
            losses["total"] = losses["total"] + 0.0 * sum(weight.sum() for weight in weights)
        return losses

    def _batch(self, rows: DrawnRows) -> TtsBatch:
        own, device = rows.batch.rows, self.model.device
        clips = self.alignment.clips
        return TtsBatch(
            texts=[row.text for row in own],
            audio_codes=padded_codes(own, self.model.config.num_quantizers, device),
            num_frames=[row.num_frames for row in own],
            num_quantizers=self._kept(rows).to(device),
            scored=self._scored(rows).to(device),
            token_indices=None if clips is None else clips.token_indices(own),
            conditioned_from=self._conditioned_from(rows),
            visible=self._visible(rows),
        )

    def _kept(self, rows: DrawnRows) -> Int[Tensor, "rows"]:
        """Number of codebooks that each row keeps."""
        if rows.num_quantizers is None:
            return torch.full((len(rows.seeds),), self.model.config.num_quantizers)
        return rows.num_quantizers

    def _scored_counts(self, rows: Sequence[CodedRow]) -> list[tuple[int, int]]:
        """First frame that may be scored, and number of scored frames, of each row."""
        share = self.scored_share if self.training else 1.0
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
        if not (self.training and self.frame_dropout):
            return None
        longest = max(row.num_frames for row in rows.batch.rows)
        # Independent of the draws of `_scored`.
        chances = [torch.Generator().manual_seed(seed + 1) for seed in rows.seeds]
        drawn = torch.stack([torch.rand(longest, generator=chance) for chance in chances])
        return (drawn >= self.frame_dropout).to(self.model.device)

    def _conditioned_from(self, rows: DrawnRows) -> list[int]:
        """First conditioned frame of each row; the number of frames in unconditioned rows."""
        own = rows.batch.rows
        first = self._first_frames(own)
        dropout = self.alignment.dropout
        if not (self.training and dropout):
            return first
        # Independent of the draws of `_scored` and `_visible`.
        chances = [torch.Generator().manual_seed(seed + 2) for seed in rows.seeds]
        dropped = [torch.rand((), generator=chance) < dropout for chance in chances]
        return [
            row.num_frames if unconditioned else start
            for row, start, unconditioned in zip(own, first, dropped, strict=True)
        ]

    def _first_frames(self, rows: Sequence[CodedRow]) -> list[int]:
        """The first frame of each row that may be scored.

        With an alignment, clips before the last are its prompt, which is not scored.
        """
        if self.model.guide is None:
            return [0] * len(rows)
        return first_scored_frames(rows)


@dataclass(frozen=True)
class SpokenValidation:
    """Losses of held-out clips, and speech of a text.

    Attributes:
        scalars: losses at the largest num_quantizers; "score" is the cross-entropy of codes and
            ends, "codes/K" that of codes with K codebooks in use.
        text: text of the speech.
        samples: the speech; may be empty.
        sampling_rate: samples a second.
    """

    scalars: dict[str, float]
    text: str
    samples: Float[np.ndarray, " samples"]
    sampling_rate: int

    def show(self, board: TensorBoardLog, step: int) -> None:
        """Log the speech and its text."""
        if len(self.samples):
            board.audio("speech", self.samples, self.sampling_rate, step)
            board.text("speech", self.text, step)


class TtsTrainer(LanguageTrainer[TtsTrainingConfig]):
    """A run that trains CAT-TTS; arguments and errors are `Loop`'s."""

    def make_task(self) -> TtsTask:
        """Make the model of the recipe for the codes of the data."""
        settings, info = self.config.model, self.data.info
        nested, source = language_model_settings(settings, self.text)
        longest = self.config.data.text_seconds[1]
        check_steps(round(longest * (info.frame_rate + _TOKENS_A_SECOND)), nested, longest)
        _check_speech(self.config, nested, info.frame_rate)
        depth = self.config.depth
        config = CatTtsConfig(
            text_config=nested,
            num_quantizers=info.num_quantizers,
            codebook_size=info.codebook_size,
            code_rank=settings.code_rank,
            depth_width=depth.width,
            depth_layers=depth.num_layers,
            depth_heads=depth.num_heads,
            depth_key_value_heads=depth.num_key_value_heads,
            depth_head_dim=depth.head_dim,
            depth_feedforward=depth.feedforward,
            adapter_width=depth.adapter_width,
            place_inputs=bool(self.config.aligner),
            guidance=_GUIDANCE if self.config.aligner and self.config.place_dropout else 1.0,
            codec=info.identity,
        )
        model = CatTts(config, self.text, self.config.seed)
        if source:
            _take_weights(model, source)
        self.start_from_codec(model)
        self._alignment = self._aligned()
        return self._task_of(model)

    def _task_of(self, model: CatTts) -> TtsTask:
        run = self.config
        return TtsTask(
            model,
            run.scored_share,
            self._alignment,
            run.frame_dropout,
            self.processes.sharded,
        )

    def _aligned(self) -> AlignmentTraining:
        """The alignment of the recipe, whose CAT-ASR must know the codes of this run.

        Raises:
            ConfigError: it does not, or has no CTC head.
        """
        run, folder = self.config, self.config.aligner
        if not folder:
            return AlignmentTraining(None, run.place_weight, run.place_dropout)
        model: Any = CatAsr.from_pretrained(folder)
        if model.config.codec != self.data.info.identity:
            raise ConfigError(
                f"the aligner {folder!r} reads codes of the codec {model.config.codec}, and "
                f"data.codec is {self.data.info.identity}; train one on these codes"
            )
        clips = ClipAlignments(Aligner(model.to(self.processes.device)))
        return AlignmentTraining(clips, run.place_weight, run.place_dropout)

    def text_of_recipe(self) -> TextCodec:
        """Those of the aligner, if there is one: the alignment is one of its tokens."""
        folder = self.config.aligner
        return CatAsr.from_pretrained(folder).text if folder else super().text_of_recipe()

    def text_of_data(self) -> TextCodec:
        """Those of the aligner, which has its words or pieces already."""
        return self.text if self.config.aligner else super().text_of_data()

    def draw_num_quantizers(self, rows: int, random: torch.Generator) -> Int[Tensor, "rows"]:
        """Progressive Sequence Dropout."""
        settings = self.config.dropout
        dropout = SequenceDropout(settings.probability, settings.include_full)
        return dropout.draw(rows, self.data.info.num_quantizers, random)

    def passed_weights(self) -> list[Tensor]:
        """Weights of the temporal Transformer; the depth Transformer is not counted."""
        return list(self.task.model.temporal.parameters())

    def validate(self) -> SpokenValidation | None:
        """Losses of the held-out clips, and speech of the first text."""
        if not self.valid:
            return None
        model = self.full_model()
        # Ranks have different numbers of rows: a sharded model could not be called by itself.
        task = self._task_of(model) if self.processes.sharded else self.task
        losses = {
            count: self.held_out_losses(task, self._held_out(count)).scalars
            for count in self.validated_num_quantizers()
        }
        scalars = {f"codes/{count}": found["codes"] for count, found in losses.items()}
        spoken = self.processes.at_first(lambda: self._speak(model))
        rate = self.data.info.sampling_rate
        return SpokenValidation(losses[max(losses)] | scalars, self.valid[0].text, spoken, rate)

    def _held_out(self, num_quantizers: int) -> list[DrawnRows]:
        """Batches of this process's held-out clips, the same at every validation."""
        rows, rate = sorted(self.mine(), key=lambda row: row.num_frames), self.data.info.frame_rate
        parts = [rows[n : n + _ROWS_AT_ONCE] for n in range(0, len(rows), _ROWS_AT_ONCE)]
        return [
            DrawnRows(
                CodedBatch(tuple(part), rate),
                torch.full((len(part),), num_quantizers),
                (0,) * len(part),
            )
            for part in parts
        ]

    def _speak(self, model: CatTts) -> Float[np.ndarray, " samples"]:
        most = round(self.config.validation.max_seconds * self.data.info.frame_rate)
        decoder = self._decoder() if most else None
        if decoder is None:
            return np.zeros(0, np.float32)
        model.eval()
        sampling = SpeechSampling(max_frames=most, seed=self.config.seed)
        spoken = generate(model, [self.valid[0].text], sampling=sampling)
        self.task.train()
        codes = spoken.audio_codes[:, 0]
        mono: np.ndarray = decoder.decode(codes).mean(0) if codes.size else np.zeros(0, np.float32)
        return mono

    def _decoder(self) -> Codec | None:
        """The decoder of the codec; None where the recipe names no codec."""
        if not self.config.data.codec:
            return None
        return TorchCodec.from_pretrained(self.config.data.codec, parts="decoder")


def _take_weights(model: CatTts, source: str) -> None:
    """Load the weights of a decoder-only model, without its output layer."""
    model.temporal.load_state_dict(load_language_model(source).base_model.state_dict())


def _check_speech(config: TtsTrainingConfig, nested: PreTrainedConfig, frame_rate: float) -> None:
    """Check that validation speech fits the positions of the language model.

    Raises:
        ConfigError: it does not.
    """
    seconds = config.validation.max_seconds
    if not (seconds and config.validation.clips and config.data.codec):
        return
    most = int(getattr(nested, "max_position_embeddings", 1 << 30))
    text = round(config.data.text_seconds[1] * _TOKENS_A_SECOND) + 1
    speech = round(seconds * frame_rate)
    if text + speech > most:
        raise ConfigError(
            f"validation.max_seconds is {seconds:g}: a text of up to {text} steps and {speech} "
            f"frames of speech; expected at most the language model's {most} together: lower it"
        )
