"""CAT-ASR: a decoder-only model over [frames of codes][start of text][text][end].

Owns the sequences, the cross-entropy on the text alone, and decoding; a frame is the sum of the
embeddings of its codes. Knows nothing of audio, training data or optimizers.
Source: the paper's appendix E.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ..errors import InputError
from ..llm import (
    ByteText,
    CodeEmbedding,
    TextCodec,
    check_codes,
    made_language_model,
)
from ..llm.folder import FolderModel
from ..llm.llm import checked_language_model
from .config import CatAsrConfig

_STD = 0.02
MOST_BEAMS = 64


@dataclass
class AsrOutput:
    """Losses of one batch.

    Attributes:
        loss_sum: cross-entropy, summed over the target tokens.
        num_tokens: number of target tokens, end tokens included.
        num_correct: number of target tokens that the model ranks first.
        frame_loss: CTC loss of the texts by the frames, summed over rows (Graves et al. 2006);
            None without a CTC head.
    """

    loss_sum: Float[Tensor, ""]
    num_tokens: int
    num_correct: Float[Tensor, ""]
    frame_loss: Float[Tensor, ""] | None = None


class CatAsr(FolderModel):
    """An ASR model on codes.

    Args:
        config: sizes of the model, whose weights are random; `from_pretrained` loads trained ones.
        text: tokens of texts; those of ``config.text_config`` must be as many or more.
        seed: seed of the random weights.
    """

    config_class = CatAsrConfig
    base_model_prefix = "language_model"
    main_input_name = "audio_codes"

    def __init__(self, config: CatAsrConfig, text: TextCodec | None = None, seed: int = 0) -> None:
        super().__init__(config)
        self.text: TextCodec = ByteText() if text is None else text
        self.language_model = made_language_model(
            checked_language_model(config.text_config, self.text), seed
        )
        width = self.language_model.get_input_embeddings().embedding_dim
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.code_embedding = CodeEmbedding(
                config.num_quantizers, config.codebook_size, width, config.code_rank
            )
            self.start_of_text = nn.Parameter(torch.randn(width) * _STD)
            # The classes are the text tokens and the blank of CTC.
            self.frame_head = (
                nn.Linear(width, self.text.num_tokens + 1) if config.frame_scores else None
            )

    def targets(self, text: str) -> list[int]:
        """The ids to predict: the text's tokens and the end token."""
        return [*self.text.encode(text), self.text.end]

    def forward(
        self,
        audio_codes: Int[Tensor, "num_quantizers batch frames"],
        num_frames: Sequence[int],
        texts: Sequence[str],
        kept: Int[Tensor, "batch"] | None = None,
    ) -> AsrOutput:
        """Cross-entropy of the texts.

        Args:
            audio_codes: codes, right-padded.
            num_frames: number of frames of each row without padding.
            texts: transcript of each row.
            kept: number of codebooks that the model sees of each row; None for all.
        """
        targets = [self.targets(text) for text in texts]
        prompts = self._prompts(audio_codes, num_frames, kept)
        states = self._states(prompts, targets)
        predicting = [
            row[len(prompt) - 1 : len(prompt) - 1 + len(ids)]
            for row, prompt, ids in zip(states, prompts, targets, strict=True)
        ]
        logits = self.language_model.get_output_embeddings()(torch.cat(predicting)).float()
        wanted = torch.tensor([token for ids in targets for token in ids], device=logits.device)
        return AsrOutput(
            loss_sum=F.cross_entropy(logits, wanted, reduction="sum"),
            num_tokens=len(wanted),
            num_correct=(logits.detach().argmax(-1) == wanted).sum().float(),
            frame_loss=self._frame_loss(states, prompts, targets),
        )

    def _frame_loss(
        self, states: Tensor, prompts: list[Tensor], targets: list[list[int]]
    ) -> Tensor | None:
        """CTC loss of the texts, over the states of the frames and the start-of-text vector."""
        if self.frame_head is None:
            return None
        longest = max(map(len, prompts))
        scores = self.frame_head(states[:, :longest]).float().log_softmax(-1)
        lengths = torch.tensor([len(ids) - 1 for ids in targets])
        return F.ctc_loss(
            scores.transpose(0, 1),
            torch.tensor([token for ids in targets for token in ids[:-1]], device=scores.device),
            torch.tensor([len(prompt) for prompt in prompts]),
            lengths,
            blank=self.text.num_tokens,
            reduction="sum",
            # A text with more tokens than frames has no alignment.
            zero_infinity=True,
        )

    def _prompts(
        self, audio_codes: Tensor, num_frames: Sequence[int], kept: Tensor | None
    ) -> list[Float[Tensor, "steps width"]]:
        """[frames][start of text] of each row."""
        frames = self.code_embedding(audio_codes, kept)
        return [
            torch.cat((row[:count], self.start_of_text[None].to(row.dtype)))
            for row, count in zip(frames, num_frames, strict=True)
        ]

    def _states(
        self, prompts: list[Tensor], targets: list[list[int]]
    ) -> Float[Tensor, "batch steps width"]:
        """The model's states over [prompt][text], right-padded."""
        embed = self.language_model.get_input_embeddings()
        known = [torch.tensor(ids[:-1], dtype=torch.long, device=self.device) for ids in targets]
        rows = [
            torch.cat((prompt, embed(ids).to(prompt.dtype)))
            for prompt, ids in zip(prompts, known, strict=True)
        ]
        mask = pad_sequence([torch.ones(len(row), device=self.device) for row in rows], True)
        states: Tensor = self.language_model.base_model(
            inputs_embeds=pad_sequence(rows, batch_first=True),
            attention_mask=mask.long(),
            use_cache=False,
        ).last_hidden_state
        return states

    @torch.no_grad()
    def frame_scores(
        self,
        audio_codes: Int[Tensor, "num_quantizers batch frames"],
        num_frames: Sequence[int] | None = None,
        kept: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, "batch steps classes"]:
        """CTC log-probabilities of the text tokens and, last, the blank.

        There is one step more than frames: the start-of-text vector behind them.

        Args:
            audio_codes: codes, right-padded.
            num_frames: number of frames of each row without padding (default: all). Later steps
                than the start-of-text vector are undefined.
            kept: number of codebooks that the model sees of each row; None for all.
        """
        if self.frame_head is None:
            raise InputError("this model has no frame scores: it was trained without frame_weight")
        batch, frames = audio_codes.shape[1:]
        counts = [frames] * batch if num_frames is None else num_frames
        # Without a mask: padding lies behind, and attention is causal.
        prompts = pad_sequence(self._prompts(audio_codes, counts, kept), batch_first=True)
        states = self.language_model.base_model(inputs_embeds=prompts).last_hidden_state
        scores: Tensor = self.frame_head(states).float().log_softmax(-1)
        return scores

    @torch.no_grad()
    def transcribe_codes(
        self,
        clips: Sequence[Int[np.ndarray, "num_quantizers _"]],
        num_quantizers: int | None = None,
        num_beams: int = 1,
        max_tokens: int = 256,
    ) -> list[str]:
        """Transcripts of clips, computed as one batch.

        Args:
            clips: codes of each clip, of any number of frames.
            num_quantizers: number of codebooks to read (default: all that a clip and the model
                have).
            num_beams: 1 decodes greedily; 0 decodes the CTC head, which is fastest and uses no
                language model; 64 at most.
            max_tokens: most tokens of a transcript.

        Raises:
            CodesError: there are no frames, or codebooks or codes that the model does not have.
            InputError: a number out of range, or no CTC head.
        """
        if not 0 <= num_beams <= MOST_BEAMS or max_tokens < 1:
            raise InputError(
                f"num_beams is {num_beams} and max_tokens {max_tokens}; expected 0 to "
                f"{MOST_BEAMS}, and 1 or more"
            )
        if not clips:
            return []
        if not num_beams:
            given = [self._checked(clip, num_quantizers) for clip in clips]
            self._require_room(max(codes.shape[-1] for codes in given) + 1)
            return [self._greedy_ctc(codes) for codes in given]
        prompts = [
            self._prompts(codes, [codes.shape[-1]], None)[0]
            for codes in (self._checked(clip, num_quantizers) for clip in clips)
        ]
        self._require_room(max(map(len, prompts)) + max_tokens)
        ids = self._generate(prompts, num_beams, max_tokens)
        return [self.text.decode(row) for row in ids.tolist()]

    def _require_room(self, steps: int) -> None:
        """Raise for input beyond the language model's positions."""
        most = int(getattr(self.language_model.config, "max_position_embeddings", steps))
        if steps > most:
            raise InputError(
                f"the longest clip and its text take {steps} steps, and this model has {most}; "
                "cut the recording"
            )

    def _greedy_ctc(self, codes: Int[Tensor, "num_quantizers 1 frames"]) -> str:
        """Greedy CTC decoding: drops blanks and repeats."""
        best = self.frame_scores(codes)[0].argmax(-1).tolist()
        blank = self.text.num_tokens
        tokens = [
            token
            for token, before in zip(best, [blank, *best], strict=False)
            if token not in (before, blank)
        ]
        return self.text.decode(tokens)

    def _generate(
        self, prompts: list[Tensor], num_beams: int, max_tokens: int
    ) -> Int[Tensor, "batch tokens"]:
        """Decode by transformers, on left-padded prompts."""
        longest = max(map(len, prompts))
        rows = [F.pad(prompt, (0, 0, longest - len(prompt), 0)) for prompt in prompts]
        mask = [
            F.pad(prompt.new_ones(len(prompt)), (longest - len(prompt), 0)) for prompt in prompts
        ]
        found: Tensor = self.language_model.generate(
            inputs_embeds=torch.stack(rows),
            attention_mask=torch.stack(mask).long(),
            do_sample=False,
            num_beams=num_beams,
            max_new_tokens=max_tokens,
            eos_token_id=self.text.end,
            pad_token_id=self.text.end,
            suppress_tokens=self._unused,
        )
        return found

    @property
    def _unused(self) -> list[int] | None:
        """Ids of the language model that are not text tokens."""
        ids = range(self.text.num_tokens, self.language_model.config.vocab_size)
        return list(ids) or None

    def _checked(
        self, clip: np.ndarray, num_quantizers: int | None
    ) -> Int[Tensor, "num_quantizers 1 frames"]:
        codes = check_codes(clip, self.config, num_quantizers)
        return torch.from_numpy(codes).to(self.device)[:, None]
