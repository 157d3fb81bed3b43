"""From sound to text: a CAT-ASR model with the codec whose codes it reads.

Owns recordings of any length, silence, and the times of words; decoding is `asr_decoding`'s.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np
from jaxtyping import Float, Integer

from ..codes.codec import Codec
from .asr_decoding import AsrModel, transcribe_codes
from .model_facts import check_codec, check_codes, encode_recording
from .token_frames import Word, greedy_tokens, word_times

# Clips of similar length are decoded together, so many at once.
_BATCH = 16
# Longer recordings are decoded in chunks that overlap.
_CHUNK_SECONDS, _OVERLAP_SECONDS = 20.0, 4.0
# Below this level there is no speech: -60 dB of full scale.
_SILENCE = 1e-3


@dataclass(frozen=True)
class Transcript:
    """What was said in a recording.

    Attributes:
        text: transcript; empty for silence.
        words: words with their times; empty for a model without a CTC head.
        duration_seconds: length of the codes; 0 for silence, which is not encoded.
    """

    text: str
    words: tuple[Word, ...]
    duration_seconds: float


class Transcriber:
    """Transcribes recordings and codes.

    Args:
        model: a CAT-ASR model, of PyTorch or onnxruntime.
        codec: the codec that it was trained on.

    Raises:
        ModelMismatchError: the model was trained on another codec.
    """

    def __init__(self, model: AsrModel, codec: Codec) -> None:
        self.model, self.codec = model, codec
        check_codec(model.facts, codec.info)

    def transcribe(
        self,
        clips: Sequence[tuple[Float[np.ndarray, "..."], int]],
        num_quantizers: int | None = None,
        num_beams: int | None = None,
    ) -> list[str]:
        """Transcripts of recordings; those of silence are empty.

        Args:
            clips: samples and sampling rate of each.
            num_quantizers: number of codebooks to read (default: all).
            num_beams: beams of the search (`asr_decoding.transcribe_codes`).

        Raises:
            AudioError: samples that cannot be encoded.
            CodesError, InputError: as of `asr_decoding.transcribe_codes`.
        """
        codes = [
            self.encode(samples, rate, num_quantizers) if is_audible(samples) else None
            for samples, rate in clips
        ]
        return [item.text for item in self.transcripts(codes, num_quantizers, num_beams)]

    def encode(
        self, samples: Float[np.ndarray, "..."], sampling_rate: int, num_quantizers: int | None
    ) -> Integer[np.ndarray, "num_quantizers frames"]:
        """Codes of one recording, of any rate and channels."""
        return encode_recording(self.codec, samples, sampling_rate, num_quantizers)

    def transcribe_codes(
        self,
        clips: Sequence[Integer[np.ndarray, "num_quantizers _"]],
        num_quantizers: int | None = None,
        num_beams: int | None = None,
    ) -> list[str]:
        """Transcripts of clips of codes."""
        return [item.text for item in self.transcripts(clips, num_quantizers, num_beams)]

    def transcripts(
        self,
        clips: Sequence[Integer[np.ndarray, "num_quantizers _"] | None],
        num_quantizers: int | None = None,
        num_beams: int | None = None,
    ) -> list[Transcript]:
        """Transcripts with the times of words.

        Args:
            clips: codes of each clip, of any length; None for silence.
            num_quantizers: number of codebooks to read (default: all).
            num_beams: beams of the search (`asr_decoding.transcribe_codes`).
        """
        audible = [np.asarray(clip) for clip in clips if clip is not None]
        found = iter(self._transcripts(audible, num_quantizers, num_beams))
        return [Transcript("", (), 0.0) if clip is None else next(found) for clip in clips]

    def _transcripts(
        self, clips: Sequence[np.ndarray], num_quantizers: int | None, num_beams: int | None
    ) -> list[Transcript]:
        """Transcripts of clips; long ones in chunks."""
        given = [check_codes(clip, self.model.facts, num_quantizers) for clip in clips]
        chunks = [self._chunks(codes) for codes in given]
        flat = [codes for own in chunks for _, codes in own]
        texts = iter(self._texts(flat, num_beams))
        found = [[(start, codes, next(texts)) for start, codes in own] for own in chunks]
        return [self._joined(own, codes.shape[1]) for own, codes in zip(found, given, strict=True)]

    def _chunks(self, codes: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """First frame and codes of each chunk."""
        rate = self.codec.info.frame_rate
        size, overlap = round(_CHUNK_SECONDS * rate), round(_OVERLAP_SECONDS * rate)
        if codes.shape[1] <= size + overlap:
            return [(0, codes)]
        starts = range(0, codes.shape[1] - overlap, size - overlap)
        return [(start, codes[:, start : start + size]) for start in starts]

    def _texts(self, clips: Sequence[np.ndarray], num_beams: int | None) -> list[str]:
        """Transcripts of chunks; those of similar length are decoded together."""
        order = sorted(range(len(clips)), key=lambda index: clips[index].shape[-1])
        texts = [""] * len(clips)
        for first in range(0, len(order), _BATCH):
            own = order[first : first + _BATCH]
            found = transcribe_codes(self.model, [clips[i] for i in own], None, num_beams)
            for index, text in zip(own, found, strict=True):
                texts[index] = text
        return texts

    def _joined(self, chunks: Sequence[tuple[int, np.ndarray, str]], frames: int) -> Transcript:
        """One transcript of chunks that overlap."""
        rate = self.codec.info.frame_rate
        if not self.model.facts.has_frame_scores:
            words = chunks[0][2].split()
            for _, _, text in chunks[1:]:
                words = join_words(words, text.split())
            text = chunks[0][2] if len(chunks) == 1 else " ".join(words)
            return Transcript(text, (), frames / rate)
        timed: list[Word] = []
        for start, codes, text in chunks:
            cut = start / rate + (_OVERLAP_SECONDS / 2 if start else 0.0)
            own = self._words(codes, text, start / rate)
            timed = [word for word in timed if word.end_seconds <= cut]
            timed += [word for word in own if word.end_seconds > cut or not start]
        text = " ".join(word.text for word in timed)
        whole = chunks[0][2] if len(chunks) == 1 and timed else text
        return Transcript(whole, tuple(timed), frames / rate)

    def _words(self, codes: np.ndarray, text: str, start: float) -> list[Word]:
        """Words with their times; none where the frames emit no token, as in noise."""
        scores, facts = self.model.ctc_scores(codes), self.model.facts
        if not text.strip() or not greedy_tokens(scores, self.model.text.num_tokens):
            return []
        rate = self.codec.info.frame_rate * facts.steps_per_frame
        return word_times(
            text, scores, self.model.text, rate, start, causal=facts.has_language_model
        )


def is_audible(samples: Float[np.ndarray, "..."]) -> bool:
    """Whether a recording is louder than silence somewhere; true for samples to be refused."""
    values = np.asarray(samples)
    return not values.size or not bool(np.abs(values).max() < _SILENCE)


def join_words(before: list[str], after: list[str]) -> list[str]:
    """Words of two chunks that overlap: what both have at their border is kept once."""
    size = min(len(before), len(after), 40)
    tail, head = before[len(before) - size :], after[:size]
    match = SequenceMatcher(None, tail, head, autojunk=False).find_longest_match()
    if not match.size:
        return before + after
    return before[: len(before) - size + match.a + match.size] + after[match.b + match.size :]
