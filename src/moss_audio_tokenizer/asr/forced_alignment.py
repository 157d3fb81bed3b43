"""Forced alignment: how long each phoneme of a text lasts, by the CTC scores of a CAT-ASR model."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int64, Integer

from ..errors import ConfigError, InputError
from ..speech.model_facts import check_codes
from ..speech.phonemes import (
    PHONEMES,
    AlignedText,
    durations_of_words,
    phonemes_of,
    split_words,
)
from ..speech.token_frames import token_steps
from .cat_asr import CatAsr


class Aligner:
    """Aligns texts with codes.

    Args:
        model: a CAT-ASR with phoneme scores.

    Attributes:
        lexicon: the model's pronunciations.

    Raises:
        ConfigError: the model has no phoneme scores.
    """

    def __init__(self, model: CatAsr) -> None:
        if model.frame_encoder is None or not model.lexicon:
            raise ConfigError(
                "this CAT-ASR has no phoneme scores to align by; train one by the recipe "
                "asr_general with lexicon=FILE"
            )
        self.model, self.lexicon = model, model.lexicon

    def knows(self, text: str) -> bool:
        """Whether the text has words, each with a pronunciation."""
        try:
            return all(self.lexicon.pronounce(item.word) for item in split_words(text))
        except InputError:
            return False

    def align(
        self, clips: Sequence[Integer[np.ndarray, "num_quantizers _"]], texts: Sequence[str]
    ) -> list[AlignedText]:
        """The durations of the phonemes and pauses of each text in its clip.

        Args:
            clips: codes of each clip.
            texts: what is said in each.

        Raises:
            InputError: a text has no word, or one without a pronunciation.
        """
        given = [check_codes(codes, self.model.facts) for codes in clips]
        if not given:
            return []
        # One batch is faster on a GPU; on a CPU, clips by themselves give reproducible bits.
        at_once = [given] if self.model.device.type == "cuda" else [[codes] for codes in given]
        scores = [of_one for group in at_once for of_one in self._scores(group)]
        return [self._aligned(*pair) for pair in zip(scores, texts, strict=True)]

    def _aligned(self, scores: Float[np.ndarray, "steps classes"], text: str) -> AlignedText:
        words = split_words(text)
        tokens = [self.lexicon.pronounce(item.word) for item in words]
        if not all(tokens):
            lacking = next(w.word for w, own in zip(words, tokens, strict=True) if not own)
            raise InputError(
                f"the lexicon of this model lacks {lacking!r}, so {text[:60]!r} cannot be aligned; "
                "leave the clip out"
            )
        phonemes = phonemes_of([token for own in tokens for token in own])
        steps = token_steps(scores, phonemes, len(PHONEMES)).tolist()
        return AlignedText(words, *durations_of_words(steps, list(map(len, tokens)), len(scores)))

    @torch.no_grad()
    def _scores(
        self, clips: Sequence[Int64[np.ndarray, "num_quantizers _"]]
    ) -> list[Float[np.ndarray, "_ classes"]]:
        """Phoneme log-probabilities of clips in one batch."""
        layers, counts = ([codes.shape[axis] for codes in clips] for axis in (0, 1))
        padded = np.zeros((max(layers), len(clips), max(counts)), np.int64)
        for row, codes in enumerate(clips):
            padded[: len(codes), row, : codes.shape[1]] = codes
        device = self.model.device
        given = torch.from_numpy(padded).to(device), counts, torch.tensor(layers, device=device)
        found = self.model.phoneme_scores(*given).double().cpu().numpy()
        steps = found.shape[1] // max(counts)
        return [of_one[: count * steps] for of_one, count in zip(found, counts, strict=True)]
