"""CAT-TTS: text and frames of codes on one time axis, the codes of a frame on a depth axis.

Owns the sequences, the losses, and the single steps of generation; its loop is
`speech.tts_generation`. Knows nothing of training data or optimizers. Source: the paper's section
3.3 and appendix C.

    temporal input   [text of the prompt and to say][start][frame 1] ... [frame T]
    depth output                            continue, frame 1 ... frame T, end

With a text encoder (`text_encoder`) there is no text on the time axis and no end: each frame's
input carries what is said in it.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ..codes import StreamingCodec
from ..hf.torch_codec import TorchCodec
from ..llm import (
    ByteText,
    CachedRows,
    CodeEmbedding,
    TextCodec,
    code_coordinates,
    made_language_model,
)
from ..llm.folder_model import FolderModel
from ..llm.llm import checked_language_model
from ..model.inputs import require_device
from ..speech.phonemes import TICKS, Lexicon, Schedule
from ..speech.synthesizer import Synthesizer as SpeechSynthesizer
from ..speech.text_conditions import EncodedText
from ..speech.tts_generation import TtsInput
from .depth import DepthCache, DepthTransformer
from .depth_loss import PredictedFrames, loss_of_codes, loss_of_ends
from .drawn_codes import drawn_codes
from .hidden_dropout import HiddenDropout
from .text_encoder import SpokenRow, TextEncoder, padded, voice_of
from .tts_config import CatTtsConfig, TtsBatch, TtsOutput

_STD = 0.02


class CatTts(FolderModel):
    """A TTS model that predicts codes.

    Args:
        config: sizes of the model, whose weights are random; `from_pretrained` loads trained ones.
        text: tokens of texts; those of ``config.text_config`` must be as many or more.
        seed: seed of the random weights.
        lexicon: pronunciations, for a text encoder; words that it lacks are spelled.
    """

    config_class = CatTtsConfig
    base_model_prefix = "temporal"
    main_input_name = "input_ids"

    def __init__(
        self,
        config: CatTtsConfig,
        text: TextCodec | None = None,
        seed: int = 0,
        lexicon: Lexicon | None = None,
    ) -> None:
        super().__init__(config)
        self.lexicon: Lexicon = lexicon or Lexicon({})
        self.text: TextCodec = ByteText() if text is None else text
        self.temporal = made_language_model(
            checked_language_model(config.text_config, self.text), seed
        ).base_model
        self.hidden_dropout = HiddenDropout(config.hidden_dropout)
        if config.hidden_dropout:
            self.hidden_dropout.attach(self.temporal)
        width = self.temporal.get_input_embeddings().embedding_dim
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.code_embedding = CodeEmbedding(
                config.num_quantizers, config.codebook_size, width, config.code_rank
            )
            self.signs = nn.Parameter(torch.randn(2, width) * _STD)
            self.depth = DepthTransformer(config, width)
            self.depth.initialize()
            layers = config.text_encoder_layers
            self.text_encoder: Any = TextEncoder(width, layers) if layers else None
        if config.code_vector_dim:
            shape = (config.num_quantizers, config.codebook_size, config.code_vector_dim)
            # Not trained, but saved with the weights.
            self.latent_vectors = nn.Parameter(torch.zeros(shape), requires_grad=False)

    @property
    def start(self) -> Float[Tensor, "width"]:
        """The vector between text and speech on the time axis."""
        return self.signs[0]

    @property
    def continuation(self) -> Float[Tensor, "width"]:
        """The depth input that stands for the decision to continue."""
        return self.signs[1]

    def forward(self, batch: TtsBatch) -> TtsOutput:
        """Cross-entropy of the kept codes, and of the end of speech."""
        codes = batch.audio_codes[: self.config.num_quantizers]
        counts = torch.tensor(list(batch.num_frames), device=codes.device)
        given = batch.num_quantizers
        kept_of_row = torch.full_like(counts, len(codes)) if given is None else given
        inputs = self.code_embedding(codes, kept_of_row)
        states, conditions, durations = self._temporal_states(batch, inputs)
        if self.text_encoder is None:
            ends_loss, num_ends = loss_of_ends(self.depth, states, counts)
        else:
            ends_loss, num_ends = self._nothing(), 0
        frames = self._predicted(batch, states, conditions, kept_of_row)
        loss, correct = loss_of_codes(self.depth, self.code_embedding, frames, batch.code_loss)
        num_codes = int(frames.kept.sum())
        drawn = self._drawn(batch, states, conditions)
        return TtsOutput(loss, num_codes, ends_loss, num_ends, correct, durations, drawn)

    def _temporal_states(
        self, batch: TtsBatch, inputs: Float[Tensor, "batch frames width"]
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """States of the frames, their conditions, and the loss of the durations."""
        seen = inputs if batch.visible is None else inputs * batch.visible[..., None]
        if self.text_encoder is None:
            states = self._states(batch.texts, seen, batch.num_frames)
            return states, torch.zeros_like(inputs), None
        conditions, durations = self._conditions(batch.spoken or (), inputs)
        return self._spoken_states(seen, conditions), conditions, durations

    def _predicted(
        self, batch: TtsBatch, states: Tensor, conditions: Tensor, kept: Int[Tensor, "batch"]
    ) -> PredictedFrames:
        """The frames whose codes count in the loss."""
        longest, counts = batch.audio_codes.shape[-1], torch.tensor(list(batch.num_frames))
        scored = (torch.arange(longest) < counts[:, None]).to(states.device)
        if batch.scored is not None:
            scored = scored & batch.scored
        known = self.hidden_dropout(conditions[scored])
        return PredictedFrames(
            states[:, :longest][scored],
            (self.continuation + known).to(states.dtype),
            batch.audio_codes[:, scored],
            kept[:, None].expand(-1, longest)[scored],
        )

    def _drawn(self, batch: TtsBatch, states: Tensor, conditions: Tensor) -> Tensor | None:
        """Drawn codes of the frames that say the texts."""
        if not batch.num_drawn:
            return None
        positions = torch.arange(batch.audio_codes.shape[-1])
        prompts = torch.tensor([row.first_frame for row in batch.spoken or ()])
        counts = torch.tensor(list(batch.num_frames))
        said = (positions >= prompts[:, None]) & (positions < counts[:, None])
        hidden = states[:, : len(positions)][said.to(states.device)]
        # Without dropout of the conditions, as when speech is generated.
        first = self.continuation + conditions[said.to(states.device)]
        start = torch.stack((hidden, first.to(hidden.dtype)), 1)
        return drawn_codes(self.depth, self.code_embedding, start, batch.num_drawn, batch.draw_seed)

    def _conditions(
        self, rows: Sequence[SpokenRow], frames: Float[Tensor, "batch frames width"]
    ) -> tuple[Float[Tensor, "batch frames width"], Float[Tensor, ""]]:
        """The condition of each frame, and the loss of the durations."""
        device, encoder = frames.device, self.text_encoder
        prompts = torch.tensor([row.first_frame for row in rows], device=device)
        lengths = torch.tensor([len(row.tokens) for row in rows], device=device)
        tokens = padded([row.tokens for row in rows], 0).to(device)
        states = encoder(tokens, lengths, voice_of(frames.detach(), prompts))
        schedules = [(row.first_frame, Schedule.of(row.durations)) for row in rows]
        conditions = encoder.frame_conditions(states, schedules, frames.shape[1])
        wanted = torch.tensor([row.conditioned for row in rows], device=device)
        return conditions * wanted[:, None, None], encoder.duration_loss_sum(states, rows)

    def _spoken_states(
        self, frames: Tensor, conditions: Tensor
    ) -> Float[Tensor, "batch frames width"]:
        """States behind [start][frames]: state t predicts frame t, and knows what it says."""
        start = self.start.to(frames.dtype).expand(len(frames), 1, -1)
        steps = torch.cat((start, frames[:, :-1]), 1) + conditions.to(frames.dtype)
        # Without a mask: padding lies behind, and attention is causal.
        return self._transformed(steps, None)

    def _transformed(self, steps: Tensor, mask: Tensor | None) -> Tensor:
        """The temporal Transformer's states, with dropout before and behind it."""
        states: Tensor = self.temporal(
            inputs_embeds=self.hidden_dropout(steps), attention_mask=mask, use_cache=False
        ).last_hidden_state
        dropped: Tensor = self.hidden_dropout(states)
        return dropped

    def _nothing(self) -> Float[Tensor, ""]:
        """Zero, with a gradient for what a text encoder leaves idle.

        Processes that share their gradients expect one of every weight.
        """
        idle = [self.temporal.get_input_embeddings().weight, *self.depth.exits[0].parameters()]
        return torch.stack([weight.sum() * 0.0 for weight in idle]).sum()

    def _states(
        self, texts: Sequence[str], frames: Tensor, num_frames: Sequence[int]
    ) -> Float[Tensor, "batch steps width"]:
        """States from the start vector on: state t predicts frame t."""
        batch, longest = frames.shape[:2]
        ids = [self.text.encode(text) for text in texts]
        tokens = torch.tensor([token for row in ids for token in row], dtype=torch.long)
        # Rows are gathered from one pool of vectors: a kernel launch for every row would add up.
        embedded = self.temporal.get_input_embeddings()(tokens.to(self.device))
        pool = torch.cat((self.start[None], embedded, frames.flatten(0, 1)))
        texts_at = torch.arange(1, len(tokens) + 1).split([len(row) for row in ids])
        frames_at = torch.arange(batch * longest).view(batch, longest) + 1 + len(tokens)
        start_at = torch.zeros(1, dtype=torch.long)
        rows = [
            torch.cat((text_at, start_at, frame_at[:count]))
            for text_at, frame_at, count in zip(texts_at, frames_at, num_frames, strict=True)
        ]
        mask = pad_sequence([torch.ones(len(row), dtype=torch.long) for row in rows], True)
        steps = F.embedding(pad_sequence(rows, True).to(self.device), pool)
        states = self._transformed(steps, mask.to(self.device))
        # States behind a row's last frame are not used.
        first = torch.tensor([len(row) for row in ids])
        own = (first[:, None] + torch.arange(longest + 1)).clamp_max(states.shape[1] - 1)
        own = own + torch.arange(batch)[:, None] * states.shape[1]
        return F.embedding(own.to(self.device), states.flatten(0, 1))

    def prompt(self, row: TtsInput) -> Float[Tensor, "steps width"]:
        """[text][start][frames of the prompt]."""
        ids = torch.tensor(row.ids, dtype=torch.long, device=self.device)
        parts = [self.temporal.get_input_embeddings()(ids), self.start[None]]
        if row.codes is not None:
            codes = torch.from_numpy(row.codes)[:, None].to(self.device)
            parts.append(self.code_embedding(codes)[0])
        steps = torch.cat(parts)
        if row.condition is not None:
            steps[-1] += torch.from_numpy(row.condition).to(self.device)
        return steps

    @torch.no_grad()
    def keep_code_vectors(
        self, vectors: Float[Tensor, "num_quantizers codebook_size latent"]
    ) -> None:
        """Store the codec's vectors (`ResidualQuantizer.code_vectors`), if the model holds any."""
        if dim := self.config.code_vector_dim:
            self.latent_vectors.copy_(code_coordinates(vectors[: self.config.num_quantizers], dim))

    @property
    def code_vectors(self) -> Float32[np.ndarray, "num_quantizers codebook_size dim"] | None:
        """Vectors of all codes (`speech.tts_generation.TtsModel`)."""
        return _array(self.latent_vectors) if self.config.code_vector_dim else None

    @torch.no_grad()
    def encode_text(self, tokens: Sequence[int], codes: np.ndarray | None) -> EncodedText:
        """Read phoneme tokens in the voice of a prompt (`speech.tts_generation.TtsModel`)."""
        encoder, count = self.text_encoder, 0 if codes is None else codes.shape[1]
        given = np.zeros((1, 1), np.int64) if codes is None else codes
        frames = self.code_embedding(torch.from_numpy(given)[:, None].to(self.device))
        voice = voice_of(frames, torch.tensor([count], device=self.device))
        ids = torch.tensor([list(tokens)], device=self.device)
        states = encoder(ids, torch.tensor([len(tokens)], device=self.device), voice)
        conditions = encoder.conditions(states)[0].unflatten(-1, (TICKS, -1))
        return EncodedText(
            _array(encoder.durations(states)[0]), _array(conditions), _array(encoder.remaining)
        )

    def decoder(self, inputs: Sequence[TtsInput], guided: bool) -> "TorchTtsDecoder":
        """Start to generate a batch (`speech.tts_generation`)."""
        return TorchTtsDecoder(self, inputs, guided)


class TorchTtsDecoder:
    """A batch of rows, and unconditioned copies of them behind these if it is guided.

    Args:
        model: CAT-TTS.
        inputs: what precedes the first frame of each row.
        guided: whether to add the copies.
    """

    @torch.no_grad()
    def __init__(self, model: CatTts, inputs: Sequence[TtsInput], guided: bool) -> None:
        self._model, self._copies, self._rows = model, 1 + guided, len(inputs)
        self._depth = DepthCache()
        copies = [replace(row, condition=None) for row in inputs] if guided else []
        self._temporal = CachedRows(
            model.temporal, [model.prompt(row) for row in (*inputs, *copies)]
        )

    @torch.no_grad()
    def end_scores(self) -> np.ndarray:
        """Begin a frame: logits of ending and continuing."""
        self._depth = DepthCache()
        outputs = self._model.depth(self._temporal.last[:, None], self._depth)[:, 0]
        return _array(self._model.depth.scores(outputs[: self._rows], 0))

    @torch.no_grad()
    def code_scores(
        self, previous: np.ndarray | None, index: int, condition: np.ndarray | None
    ) -> np.ndarray:
        """Logits of a codebook."""
        if previous is None:
            step = self._model.continuation + self._condition(condition)
        else:
            embedded = self._model.code_embedding.of_layer(self._tensor(previous), index - 1)
            step = embedded.repeat(self._copies, 1)
        outputs = self._model.depth(step[:, None], self._depth)[:, 0]
        return _array(self._model.depth.scores(outputs, index + 1))

    @torch.no_grad()
    def advance(self, codes: np.ndarray, condition: np.ndarray | None) -> None:
        """Feed a complete frame, with the condition of the next, to the temporal Transformer."""
        embedded = self._model.code_embedding(self._tensor(codes)[..., None])[:, 0]
        self._temporal.append(embedded.repeat(self._copies, 1) + self._condition(condition))

    def _condition(self, given: np.ndarray | None) -> Float[Tensor, "rows width"]:
        """Conditions of the rows; zero in the unconditioned copies."""
        condition = torch.zeros_like(self._temporal.last)
        if given is not None:
            condition[: self._rows] = self._tensor(given)
        return condition

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self._model.device)


def _array(scores: Tensor) -> np.ndarray:
    array: np.ndarray = scores.float().cpu().numpy()
    return array


class Synthesizer(SpeechSynthesizer):
    """A `speech.synthesizer.Synthesizer` that loads models of PyTorch."""

    @classmethod
    def from_pretrained(
        cls, path: str | Path, codec: str | Path | StreamingCodec = "bundled", device: str = "cpu"
    ) -> "Synthesizer":
        """Load a model folder with its voices, and a codec by folder, hub id or "bundled".

        Raises:
            CheckpointError: one of them is missing or damaged.
            ModelMismatchError: the model was trained on another codec.
        """
        model: Any = CatTts.from_pretrained(path)
        if isinstance(codec, str | Path):
            codec = TorchCodec.from_pretrained(codec, device=device)
        return cls(model.to(require_device(device)), codec, path)
