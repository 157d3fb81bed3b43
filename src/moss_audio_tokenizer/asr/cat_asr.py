"""CAT-ASR: a decoder-only model over [frames of codes][start of text][text][end].

Owns the sequences and the cross-entropy on the text alone; a frame is the sum of the
embeddings of its codes. For little data, a bidirectional encoder over the frames takes the place of
the decoder-only model (`frame_encoder`). Knows nothing of audio, training data or optimizers.
Source: the paper's appendix E.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int64, Integer
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ..checkpoint.stored_weights import find_checkpoint
from ..codes.codec import Codec
from ..errors import InputError
from ..hf.torch_codec import TorchCodec
from ..llm import ByteText, CodeEmbedding, TextCodec, TokenDecoder, made_language_model
from ..llm.folder_model import FolderModel
from ..llm.llm import checked_language_model, text_loss, text_states
from ..model.inputs import require_device
from ..speech.asr_decoding import transcribe_codes
from ..speech.transcriber import Transcriber as SpeechTranscriber
from ..speech.word_language_model import WordLanguageModel
from .asr_config import AsrOutput, CatAsrConfig
from .frame_encoder import FrameEncoder, FrameScores, ctc_loss, ctc_losses

_STD = 0.02


class CatAsr(FolderModel):
    """An ASR model on codes.

    Args:
        config: sizes of the model, whose weights are random; `from_pretrained` loads trained ones.
        text: tokens of texts; those of ``config.text_config`` must be as many or more.
        seed: seed of the random weights.

    Attributes:
        lexicon: pronunciations, for the phoneme loss of an encoder and to align by phonemes; None
            if the model has none.
        word_language_model: of the file word_lm.safetensors in the model's folder; None without.
    """

    config_class = CatAsrConfig
    base_model_prefix = "language_model"
    main_input_name = "audio_codes"

    def __init__(self, config: CatAsrConfig, text: TextCodec | None = None, seed: int = 0) -> None:
        super().__init__(config)
        self.text: TextCodec = ByteText() if text is None else text
        self.lexicon = None
        self.word_language_model: WordLanguageModel | None = None
        self.language_model: Any = None
        self.frame_encoder: FrameEncoder | None = None
        self.frame_head: nn.Linear | None = None
        width = config.encoder_width
        if not config.encoder_layers:
            language = checked_language_model(config.text_config, self.text)
            self.language_model = made_language_model(language, seed)
            width = self.language_model.get_input_embeddings().embedding_dim
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.code_embedding = CodeEmbedding(
                config.num_quantizers, config.codebook_size, width, config.code_rank
            )
            self._make_heads(config, width)

    def _make_heads(self, config: CatAsrConfig, width: int) -> None:
        if config.encoder_layers:
            self.frame_encoder = FrameEncoder(
                width, config.encoder_layers, config.encoder_dropout, self.text.num_tokens
            )
            return
        self.start_of_text = nn.Parameter(torch.randn(width) * _STD)
        if config.frame_scores:
            # The classes are the text tokens and the blank of CTC.
            self.frame_head = nn.Linear(width, self.text.num_tokens + 1)

    @classmethod
    def from_pretrained(cls, path: str | Path, **options: Any) -> Any:  # type: ignore[override]
        """As of `FolderModel`, with the word language model if the folder has one."""
        folder = Path(find_checkpoint(path, options))
        model = super().from_pretrained(folder)
        model.word_language_model = WordLanguageModel.find(folder)
        return model

    @property
    def base_model(self) -> Any:
        """The Transformer that all frames pass: the language model, or the encoder."""
        return self.language_model if self.frame_encoder is None else self.frame_encoder

    def targets(self, text: str) -> list[int]:
        """The ids to predict: the text's tokens and, for a language model, the end token."""
        ids = self.text.encode(text)
        return ids if self.language_model is None else [*ids, self.text.end]

    def forward(
        self,
        audio_codes: Int[Tensor, "num_quantizers batch frames"],
        num_frames: Sequence[int],
        texts: Sequence[str],
        kept: Int[Tensor, "batch"] | None = None,
        visible: Bool[Tensor, "batch frames"] | None = None,
    ) -> AsrOutput:
        """Cross-entropy of the texts, or their CTC loss by an encoder.

        Args:
            audio_codes: codes, right-padded.
            num_frames: number of frames of each row without padding.
            texts: transcript of each row.
            kept: number of codebooks that the model sees of each row; None for all.
            visible: frames that an encoder sees; None for all.
        """
        targets = [self.targets(text) for text in texts]
        if self.frame_encoder is not None:
            scores = self._encoder_scores(audio_codes, num_frames, kept, visible)
            phonemes = [self.lexicon.phonemes(text) if self.lexicon else [] for text in texts]
            letter_loss, phoneme_loss = ctc_losses(scores, num_frames, targets, phonemes)
            return AsrOutput(letter_loss, sum(map(len, targets)), phoneme_loss=phoneme_loss)
        prompts = self._prompts(audio_codes, num_frames, kept)
        states = text_states(self.language_model, prompts, targets)
        loss = text_loss(self.language_model, states, prompts, targets)
        return AsrOutput(**vars(loss), frame_loss=self._frame_loss(states, prompts, targets))

    def recognition_loss(
        self,
        choices: Float[Tensor, "num_quantizers batch frames codebook_size"],
        num_frames: Sequence[int],
        texts: Sequence[str],
    ) -> Float[Tensor, ""]:
        """CTC losses of letters and phonemes in codes through which a gradient passes.

        Args:
            choices: codes of the first codebooks as one-hot rows, right-padded with zeros.
            num_frames: number of frames of each row without padding.
            texts: what is said in each row, in words that the lexicon has.

        Raises:
            InputError: the model has no encoder.
        """
        tables = self.code_embedding.tables[: len(choices)].to(choices.dtype)
        frames = torch.einsum("lbtc,lcw->btw", choices, tables)
        scores = self._scores_of(frames, num_frames)
        targets = [self.targets(text) for text in texts]
        phonemes = [self.lexicon.phonemes(text) if self.lexicon else [] for text in texts]
        letter_loss, phoneme_loss = ctc_losses(scores, num_frames, targets, phonemes)
        return letter_loss if phoneme_loss is None else letter_loss + phoneme_loss

    def _frame_loss(
        self, states: Tensor, prompts: list[Tensor], targets: list[list[int]]
    ) -> Tensor | None:
        """CTC loss of the texts, over the states of the frames and the start-of-text vector."""
        if self.frame_head is None:
            return None
        longest = max(map(len, prompts))
        scores = self.frame_head(states[:, :longest]).float().log_softmax(-1)
        steps = [len(prompt) for prompt in prompts]
        return ctc_loss(scores, steps, [ids[:-1] for ids in targets])

    def _encoder_scores(
        self,
        audio_codes: Tensor,
        num_frames: Sequence[int],
        kept: Tensor | None,
        visible: Tensor | None = None,
    ) -> FrameScores:
        """Scores of both heads of the encoder."""
        return self._scores_of(self.code_embedding(audio_codes, kept), num_frames, visible)

    def _scores_of(
        self, frames: Tensor, num_frames: Sequence[int], visible: Tensor | None = None
    ) -> FrameScores:
        """Scores of both heads by embedded frames.

        Raises:
            InputError: the model has none.
        """
        if self.frame_encoder is None:
            raise InputError(
                "this model has no phoneme scores: it was trained without encoder_layers"
            )
        return self.frame_encoder(frames, num_frames, visible)

    def _prompts(
        self, audio_codes: Tensor, num_frames: Sequence[int], kept: Tensor | None
    ) -> list[Float[Tensor, "steps width"]]:
        """[frames][start of text] of each row."""
        frames = self.code_embedding(audio_codes, kept)
        return [
            torch.cat((row[:count], self.start_of_text[None].to(row.dtype)))
            for row, count in zip(frames, num_frames, strict=True)
        ]

    @torch.no_grad()
    def frame_scores(
        self,
        audio_codes: Int[Tensor, "num_quantizers batch frames"],
        num_frames: Sequence[int] | None = None,
        kept: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, "batch steps classes"]:
        """CTC log-probabilities of the text tokens and, last, the blank.

        An encoder has `TICKS` steps a frame. With a language model there is one step more than
        frames: the start-of-text vector behind them.

        Args:
            audio_codes: codes, right-padded.
            num_frames: number of frames of each row without padding (default: all). Later steps
                are undefined.
            kept: number of codebooks that the model sees of each row; None for all.
        """
        batch, frames = audio_codes.shape[1:]
        counts = [frames] * batch if num_frames is None else num_frames
        if self.frame_encoder is not None:
            return self._encoder_scores(audio_codes, counts, kept).letters
        if self.frame_head is None:
            raise InputError("this model has no frame scores: it was trained without frame_weight")
        # Without a mask: padding lies behind, and attention is causal.
        prompts = pad_sequence(self._prompts(audio_codes, counts, kept), batch_first=True)
        states = self.language_model.base_model(inputs_embeds=prompts).last_hidden_state
        return self.frame_head(states).float().log_softmax(-1)

    @torch.no_grad()
    def phoneme_scores(
        self,
        audio_codes: Int[Tensor, "num_quantizers batch frames"],
        num_frames: Sequence[int],
        kept: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, "batch steps phonemes"]:
        """CTC log-probabilities of `PHONEMES` and, last, the blank; `TICKS` steps a frame.

        Args:
            audio_codes: codes, right-padded.
            num_frames: number of frames of each row without padding. Later steps are undefined.
            kept: number of codebooks that the model sees of each row; None for all.

        Raises:
            InputError: the model has no encoder.
        """
        return self._encoder_scores(audio_codes, num_frames, kept).phonemes

    def ctc_scores(
        self, codes: Int64[np.ndarray, "num_quantizers frames"]
    ) -> Float[np.ndarray, "steps classes"]:
        """CTC log-probabilities of one clip, as decoding needs them."""
        given = torch.from_numpy(codes).to(self.device)[:, None]
        return self.frame_scores(given)[0].cpu().numpy()

    def decoder(self, clips: Sequence[Int64[np.ndarray, "num_quantizers _"]]) -> TokenDecoder:
        """Read the frames of clips as one batch, an `asr_decoding.AsrDecoder`.

        Raises:
            InputError: the model has no language model.
        """
        if self.language_model is None:
            raise InputError("this model has no language model to decode by; use its CTC scores")
        given = [torch.from_numpy(codes).to(self.device)[:, None] for codes in clips]
        with torch.no_grad():
            prompts = [self._prompts(codes, [codes.shape[-1]], None)[0] for codes in given]
        return TokenDecoder(self.language_model, self.text.num_tokens, prompts)

    def transcribe_codes(
        self,
        clips: Sequence[Integer[np.ndarray, "num_quantizers _"]],
        num_quantizers: int | None = None,
        num_beams: int | None = None,
        max_tokens: int = 256,
    ) -> list[str]:
        """Transcripts of clips; arguments and errors as of `asr_decoding.transcribe_codes`."""
        return transcribe_codes(self, clips, num_quantizers, num_beams, max_tokens)


class Transcriber(SpeechTranscriber):
    """A `speech.transcriber.Transcriber` that loads models of PyTorch."""

    @classmethod
    def from_pretrained(
        cls, path: str | Path, codec: str | Path | Codec = "bundled", device: str = "cpu"
    ) -> "Transcriber":
        """Load a model folder, and a codec by folder, hub id or "bundled".

        Raises:
            CheckpointError: one of them is missing or damaged.
            ModelMismatchError: the model was trained on another codec.
        """
        model: Any = CatAsr.from_pretrained(path)
        if isinstance(codec, str | Path):
            codec = TorchCodec.from_pretrained(codec, parts="encoder", device=device)
        return cls(model.to(require_device(device)), codec)
