"""CAT-TTS: text and frames of codes on one time axis, and the codes within a frame in depth.

Owns the sequences, the losses, and one step of either Transformer; generation is
`generation.py`'s. Knows nothing of audio, training data or optimisers.
Source: the paper's section 3.3 and appendix C; training.md section 7.

    time    [text of the prompt and to say][start][frame 1] ... [frame T]
    output                                  goes on, frame 1 ... frame T, ends
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ..language import ByteText, CodeEmbedding, TextCodec, made_language_model
from ..language.folder import FolderModel
from ..language.nested import checked_language_model
from .config import CatTtsConfig
from .depth import DepthTransformer
from .guide import PlaceGuide, Places

_STD = 0.02
ENDS, GOES_ON = 0, 1
_DEPTH_GROUPS = 4


@dataclass
class TtsOutput:
    """Of one batch.

    Attributes:
        codes_loss_sum: cross-entropy, summed over the codes that were kept.
        num_codes: so many.
        end_loss_sum: cross-entropy of going on or ending, summed over frames and ends.
        num_ends: so many.
        num_correct: codes that the model ranks first.
        place_loss_sum: cross-entropy of how long tokens last, summed over those that begin where
            frames are told theirs; None in a model that is told none, and where nobody knows.
    """

    codes_loss_sum: Float[Tensor, ""]
    num_codes: int
    end_loss_sum: Float[Tensor, ""]
    num_ends: int
    num_correct: Float[Tensor, ""]
    place_loss_sum: Float[Tensor, ""] | None = None


class CatTts(FolderModel):
    """Speech from text, in codes.

    Args:
        config: what to build, with fresh weights; `from_pretrained` loads trained ones.
        text: its tokens; those of ``config.text_config`` must be as many or more.
        seed: of fresh weights.
    """

    config_class = CatTtsConfig
    base_model_prefix = "temporal"
    main_input_name = "input_ids"

    def __init__(self, config: CatTtsConfig, text: TextCodec | None = None, seed: int = 0) -> None:
        super().__init__(config)
        self.text: TextCodec = ByteText() if text is None else text
        self.temporal = made_language_model(
            checked_language_model(config.text_config, self.text), seed
        ).base_model
        width = self.temporal.get_input_embeddings().embedding_dim
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.code_embedding = CodeEmbedding(
                config.num_quantizers, config.codebook_size, width, config.code_rank
            )
            self.signs = nn.Parameter(torch.randn(2, width) * _STD)
            self.depth = DepthTransformer(config, width)
            self.depth.initialise()
            self.guide = PlaceGuide(self.text.num_tokens, width) if config.place_inputs else None

    @property
    def start(self) -> Float[Tensor, "width"]:
        """What stands between text and speech."""
        return self.signs[0]

    @property
    def goes_on(self) -> Float[Tensor, "width"]:
        """What tells the depth Transformer that there is a frame."""
        return self.signs[1]

    def forward(
        self,
        texts: Sequence[str],
        audio_codes: Int[Tensor, "num_quantizers batch frames"],
        num_frames: Sequence[int],
        depths: Int[Tensor, "batch"] | None = None,
        scored: Bool[Tensor, "batch frames"] | None = None,
        places: Sequence[Sequence[int]] | None = None,
        told_from: Sequence[int] | None = None,
        heard: Bool[Tensor, "batch frames"] | None = None,
    ) -> TtsOutput:
        """Cross-entropy of the kept codes, and of where speech ends.

        Args:
            texts: what is said in each row.
            audio_codes: right-padded.
            num_frames: of each row that are no padding.
            depths: layers kept of each row (`SequenceDropout`); all by default.
            scored: frames whose codes are scored; all that are no padding by default.
            places: for each frame of each row the number of the token that is being said; that
                of the end behind them.
            told_from: frame of each row from which on a model with ``place_inputs`` is told; the
                first by default.
            heard: frames whose codes lead on; all by default. Of the others only the place does,
                where it is told.
        """
        layers, _, frames = audio_codes.shape
        counts = torch.tensor(list(num_frames), device=audio_codes.device)
        valid = torch.arange(frames, device=audio_codes.device) < counts[:, None]
        depths = torch.full_like(counts, layers) if depths is None else depths
        inputs = self.code_embedding(audio_codes, depths)
        if heard is not None:
            inputs = inputs * heard[..., None]
        known = self._places(texts, places, told_from)
        shown = self._shown(known, inputs)
        states = self._states(texts, inputs + shown, num_frames)
        ends_loss, num_ends = self._ends(states, counts)
        chosen = valid if scored is None else valid & scored
        hidden = states[:, :-1][chosen]
        kept = depths[:, None].expand(-1, frames)[chosen]
        signs = self.goes_on + shown[chosen]
        loss, correct = self._codes(hidden, signs, audio_codes[:, chosen], kept)
        placed = self._placed(states[:, :-1], known)
        return TtsOutput(loss, int(kept.sum()), ends_loss, num_ends, correct, placed)

    def spoken(self, text: str) -> list[int]:
        """The tokens that are said, and that of the end."""
        return [*self.text.encode(text), self.text.end]

    def _places(
        self,
        texts: Sequence[str],
        places: Sequence[Sequence[int]] | None,
        told_from: Sequence[int] | None,
    ) -> Places | None:
        if self.guide is None or places is None:
            return None
        tokens = [self.spoken(text) for text in texts]
        return Places.of_rows(places, tokens, told_from or [0] * len(texts)).to(self.device)

    def _shown(self, known: Places | None, like: Tensor) -> Float[Tensor, "batch frames width"]:
        if self.guide is None or known is None:
            return torch.zeros_like(like)
        return self.guide.of_places(known)

    def _placed(self, states: Tensor, known: Places | None) -> Tensor | None:
        if self.guide is None or known is None:
            return None
        return self.guide.loss_sum(states, known)

    def _states(
        self, texts: Sequence[str], frames: Tensor, num_frames: Sequence[int]
    ) -> Float[Tensor, "batch steps width"]:
        """States from the start sign on: that of place t predicts frame t."""
        batch, longest = frames.shape[:2]
        ids = [self.text.encode(text) for text in texts]
        tokens = torch.tensor([token for row in ids for token in row], dtype=torch.long)
        # All vectors in one pool, from which rows are gathered: row by row, launches add up.
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
        states: Tensor = self.temporal(
            inputs_embeds=F.embedding(pad_sequence(rows, True).to(self.device), pool),
            attention_mask=mask.to(self.device),
            use_cache=False,
        ).last_hidden_state
        # What lies behind a row's last frame means nothing.
        first = torch.tensor([len(row) for row in ids])
        own = (first[:, None] + torch.arange(longest + 1)).clamp_max(states.shape[1] - 1)
        own = own + torch.arange(batch)[:, None] * states.shape[1]
        return F.embedding(own.to(self.device), states.flatten(0, 1))

    def prompt(self, text: str) -> Float[Tensor, "steps width"]:
        """[text][start]."""
        ids = torch.tensor(self.text.encode(text), dtype=torch.long, device=self.device)
        return torch.cat((self.temporal.get_input_embeddings()(ids), self.start[None]))

    def _ends(self, states: Tensor, counts: Tensor) -> tuple[Tensor, int]:
        """Before every frame speech goes on; after the last it ends."""
        places = torch.arange(states.shape[1], device=states.device)
        looked_at = places <= counts[:, None]
        hidden = self.depth(states[looked_at][:, None])[:, 0]
        wanted = torch.where(places < counts[:, None], GOES_ON, ENDS)[looked_at]
        loss = F.cross_entropy(self.depth.scores(hidden, 0), wanted, reduction="sum")
        return loss, len(wanted)

    def _codes(
        self, hidden: Tensor, signs: Tensor, codes: Tensor, kept: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy of the first ``kept`` codes of each frame, and how many come first."""
        kept, order = kept.sort(descending=True, stable=True)
        # On the CPU at once: a GPU would be waited for in every layer.
        kept = kept.cpu()
        codes, parts = codes[:, order], []
        # Frames of about one depth together: nothing is computed beyond the deepest of a group.
        for group in torch.arange(len(order)).tensor_split(_DEPTH_GROUPS):
            if len(group):
                span = slice(int(group[0]), int(group[-1]) + 1)
                own = order[span]
                deepest = int(kept[span.start])
                parts.append(self._deepened(hidden[own], signs[own], codes[:, span], deepest))
        loss, correct = hidden.sum() * 0.0, hidden.new_zeros(())
        for layer in range(int(kept.max()) if len(kept) else 0):
            outputs = torch.cat([part[:, layer + 1] for part in parts if part.shape[1] > layer + 1])
            rows = int((kept > layer).sum())
            scores = self.depth.scores(outputs[:rows], layer + 1)
            loss = loss + F.cross_entropy(scores, codes[layer, :rows], reduction="sum")
            correct = correct + (scores.detach().argmax(-1) == codes[layer, :rows]).sum()
        return loss, correct

    def _deepened(
        self, hidden: Tensor, signs: Tensor, codes: Tensor, deepest: int
    ) -> Float[Tensor, "rows steps inner"]:
        """The depth Transformer's states of frames, to the layer ``deepest`` of them."""
        said = self.code_embedding.of_layers(codes[: max(0, deepest - 1)])
        inputs = torch.cat((hidden[:, None], signs[:, None], said.transpose(0, 1)), 1)
        states: Tensor = self.depth(inputs)
        return states
