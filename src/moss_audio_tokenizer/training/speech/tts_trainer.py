"""Training of CAT-TTS: its model; validation measures losses and speaks a text."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt16
from torch import Tensor

from ...asr import Aligner, CatAsr
from ...errors import ConfigError
from ...hf.torch_codec import TorchCodec
from ...llm import CharacterText, TextCodec
from ...speech.model_facts import find_lexicon, find_speech_model
from ...speech.phonemes import SPOKEN_CHARACTERS, Lexicon
from ...tts import (
    CatTts,
    CatTtsConfig,
    CodeLoss,
    SequenceDropout,
    SoftTargets,
    SpeechSampling,
    generate,
)
from ..data.coded_data import CodedBatch
from ..logging import TensorBoardLog
from .speech_config import DEPTHS, TtsTrainingConfig
from .speech_trainer import DrawnRows, SpeechTrainer, most_positions
from .tts_task import ClipAlignments, TtsTask

_ROWS_AT_ONCE = 16
# Default guidance of models that are trained for it (docs/experiments.md).
_GUIDANCE = 2.0
_TEXT_ENCODER_LAYERS = 3
# Of the speech of a validation.
_MOST_SECONDS = 8.0
# Over which the entropy of soft targets is a mean.
_CALIBRATION_FRAMES = 512


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


class TtsTrainer(SpeechTrainer[TtsTrainingConfig]):
    """A run that trains CAT-TTS; arguments and errors are `Loop`'s."""

    task: TtsTask

    def make_task(self) -> TtsTask:
        """Make the model of the recipe for the codes of the data."""
        run, info = self.config, self.data.info
        shape: dict[str, Any] = DEPTHS[run.depth]
        self._check_codec()
        # With these a text encoder speaks more clearly; the paper's model draws codes.
        known = run.aligner and run.model.start_from_codec and run.data.codec
        vector_dim = self.quantizer.codebooks.shape[-1] if known else 0
        config = CatTtsConfig(
            text_config=self.language_model_config(),
            num_quantizers=self.num_quantizers,
            codebook_size=info.codebook_size,
            code_rank=run.model.code_rank,
            text_encoder_layers=_TEXT_ENCODER_LAYERS if run.aligner else 0,
            code_choice="mean" if vector_dim else "sample",
            code_vector_dim=vector_dim,
            hidden_dropout=run.hidden_dropout,
            guidance=_GUIDANCE if run.aligner and run.place_dropout else 1.0,
            codec=info.identity,
            **shape,
        )
        aligner = self.aligner
        model = CatTts(config, self.text, run.seed, aligner.lexicon if aligner else None)
        self.start_weights(model)
        alignments = None if aligner is None else ClipAlignments(aligner)
        return TtsTask(model, run, alignments, self.make_code_loss(), self.processes.sharded)

    @property
    def num_quantizers(self) -> int:
        """Number of codebooks that the model predicts.

        Raises:
            ConfigError: the codes have fewer than the recipe asks for.
        """
        known, wanted = self.data.info.num_quantizers, self.config.num_quantizers
        if wanted > known:
            raise ConfigError(
                f"num_quantizers is {wanted}, but the codes have {known} codebooks; set it to "
                f"{known} at most, or to 0 for all"
            )
        return wanted or known

    def make_code_loss(self) -> CodeLoss:
        """How codes count in the loss of this run; the same in all processes.

        Raises:
            ConfigError: soft targets are wanted, but the recipe names no codec, or of an entropy
                that the codebooks cannot have.
        """
        run, settings, device = self.config, self.config.soft_targets, self.processes.device
        if not settings.share:
            return CodeLoss(run.half_weight_at)
        vectors = self.code_vectors()[: self.data.info.num_quantizers].float().to(device)
        codes = torch.from_numpy(self._some_frames().astype(np.int64)).to(device)
        soft_targets = SoftTargets.calibrated(
            vectors, settings.share, settings.entropy, codes, self.num_quantizers
        )
        return CodeLoss(run.half_weight_at, soft_targets)

    def code_vectors(self) -> Float[Tensor, "num_quantizers codebook_size latent"]:
        """The vectors of all codes of the recipe's codec.

        Raises:
            ConfigError: it names none.
        """
        if not self.config.data.codec:
            raise ConfigError("soft_targets.share is set, but data.codec is empty; name one")
        return self.quantizer.code_vectors().detach()

    def _some_frames(self) -> UInt16[np.ndarray, "num_quantizers frames"]:
        """Codes of frames of the first step of all processes, evenly spread over its rows."""
        parts = self.processes.gather([row.codes for row in self.data.batch(0).rows])
        codes = np.concatenate([row for part in parts for row in part], axis=1)
        return codes[:, :: -(-codes.shape[1] // _CALIBRATION_FRAMES)]

    def keep_code_vectors(self, model: Any, vectors: Tensor) -> None:
        """Store the codec's vectors in a model that takes codes near their mean."""
        model.keep_code_vectors(vectors)

    def _check_codec(self) -> None:
        """Check that the aligner knows the codes of this run."""
        known, own = self.aligner and self.aligner.model.config.codec, self.data.info.identity
        if self.aligner and known != own:
            raise ConfigError(
                f"the aligner {self.config.aligner!r} reads codes of the codec {known}, and "
                f"data.codec is {own}; train one on these codes"
            )

    @cached_property
    def aligner(self) -> Aligner | None:
        """The recipe's aligner, if there is one.

        Raises:
            CheckpointError: there is no such model.
            ConfigError: it has no phoneme scores.
        """
        folder = self.config.aligner
        if not folder:
            return None
        model: Any = CatAsr.from_pretrained(find_speech_model("asr", folder))
        if folder == "bundled":
            # The installed CAT-ASR shares the file of the installed CAT-TTS.
            model.lexicon = Lexicon.load(find_lexicon(folder))
        return Aligner(model.to(self.processes.device).requires_grad_(False))

    def text_of_recipe(self) -> TextCodec:
        """With an aligner, what a lexicon can pronounce: letters, and signs that make pauses."""
        return CharacterText(SPOKEN_CHARACTERS) if self.aligner else super().text_of_recipe()

    def text_of_data(self) -> TextCodec:
        """With an aligner, no words or pieces: the text encoder has phonemes."""
        return self.text if self.aligner else super().text_of_data()

    def spelled(self, text: str) -> str | None:
        """With an aligner, None for a text with a word that its lexicon lacks."""
        found = super().spelled(text)
        known = self.aligner is None or (found is not None and self.aligner.knows(found))
        return found if known else None

    def draw_num_quantizers(self, rows: int, random: torch.Generator) -> Int[Tensor, "rows"]:
        """Progressive Sequence Dropout."""
        settings = self.config.dropout
        dropout = SequenceDropout(settings.probability, settings.include_full, settings.skew)
        return dropout.draw(rows, self.num_quantizers, random)

    def validate(self) -> SpokenValidation | None:
        """Losses of the held-out clips, and speech of the first text."""
        if not self.valid:
            return None
        model, task = self.full_model(), self.task
        if self.processes.sharded:
            # Ranks have different numbers of rows: a sharded model could not be called by itself.
            task = TtsTask(model, self.config, self.task.alignments, sharded=True)
        losses = {
            count: self._losses_of(task, self._held_out(count))
            for count in self.validated_num_quantizers()
        }
        scalars = losses[max(losses)] | {
            f"codes/{k}": found["codes"] for k, found in losses.items()
        }
        spoken = self.processes.at_first(lambda: self._speak(model))
        return SpokenValidation(scalars, self.valid[0].text, spoken, self.data.info.sampling_rate)

    def _held_out(self, num_quantizers: int) -> list[DrawnRows]:
        """Batches of this process's held-out clips, the same at every validation."""
        rows = sorted(self.valid_of_process(), key=lambda row: row.num_frames)
        parts = [tuple(rows[n : n + _ROWS_AT_ONCE]) for n in range(0, len(rows), _ROWS_AT_ONCE)]
        rate = self.data.info.frame_rate
        return [
            DrawnRows(
                CodedBatch(part, rate), torch.full((len(part),), num_quantizers), (0,) * len(part)
            )
            for part in parts
        ]

    @torch.no_grad()
    def _losses_of(self, task: TtsTask, batches: Iterable[DrawnRows]) -> dict[str, float]:
        """Means over all targets; "score" is the total. Collective: every rank must call this."""
        task.eval()
        sums, tokens = dict[str, float](), 0.0
        for rows in batches:
            tokens += task.num_tokens(rows)
            with self.autocast():
                losses = task(rows, 1.0)
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + float(value)
        task.train()
        parts = self.processes.gather((sums, tokens))
        total = max(1, sum(tokens for _, tokens in parts))
        names = sorted({name for sums, _ in parts for name in sums})
        scalars = {name: sum(sums.get(name, 0.0) for sums, _ in parts) / total for name in names}
        return scalars | {"score": scalars["total"]}

    def _speak(self, model: CatTts) -> Float[np.ndarray, " samples"]:
        """The first text, as far as the positions go; nothing where the recipe names no codec."""
        silence = np.zeros(0, np.float32)
        text, rate = self.valid[0].text, self.data.info.frame_rate
        room = most_positions(model.config.text_config) - len(self.text.encode(text)) - 2
        most = min(round(_MOST_SECONDS * rate), room)
        if not self.config.data.codec or most < 1:
            return silence
        decoder = TorchCodec.from_pretrained(self.config.data.codec, parts="decoder")
        model.eval()
        sampling = SpeechSampling(max_frames=most, seed=self.config.seed)
        codes = generate(model, [text], sampling=sampling).audio_codes[:, 0]
        self.task.train()
        return decoder.decode(codes).mean(0) if codes.size else silence
