import numpy as np
import pytest

from moss_audio_tokenizer.codes import CodecInfo
from moss_audio_tokenizer.speech.asr_decoding import repeats, without_repetition
from moss_audio_tokenizer.speech.model_facts import ModelFacts
from moss_audio_tokenizer.speech.token_frames import greedy_tokens, word_times
from moss_audio_tokenizer.speech.tokens import LETTERS, CharacterText
from moss_audio_tokenizer.speech.transcriber import Transcriber, is_audible, join_words

TEXT = CharacterText(LETTERS)
BLANK = TEXT.num_tokens


def test_runaway_cycles_are_reduced_to_one():
    assert without_repetition([5, *[1, 2] * 20]) == [5, 1, 2]
    assert without_repetition([7] * 30) == [7]
    assert not repeats([1, 2] * 5)
    assert not repeats([])
    assert without_repetition([1, 1, 2, 2]) == [1, 1, 2, 2]


def lattice(text: str, frames_a_token: int = 2) -> np.ndarray:
    """Scores that emit a token in every second frame."""
    classes = []
    for token in TEXT.encode(text):
        classes += [BLANK] * (frames_a_token - 1) + [token]
    return np.log(np.eye(BLANK + 1)[[*classes, BLANK]] * 0.9 + 1e-3)


def test_words_have_the_times_at_which_they_are_emitted():
    scores = lattice("ab c")
    assert TEXT.decode(greedy_tokens(scores, BLANK)) == "ab c"
    first, second = word_times("ab c", scores, TEXT, 10.0)
    assert (first.text, first.start_seconds, first.end_seconds) == ("ab", 0.0, 0.6)
    assert (second.text, second.start_seconds, second.end_seconds) == ("c", 0.6, 0.8)
    assert word_times("", scores, TEXT, 10.0) == []


def test_words_of_a_model_that_sees_the_future_last_as_long_as_their_tokens():
    ids = [BLANK, *TEXT.encode("ab"), BLANK, LETTERS.index(" "), BLANK, *TEXT.encode("c"), BLANK]
    scores = np.log(np.eye(BLANK + 1)[ids] * 0.9 + 1e-3)
    first, second = word_times("ab c", scores, TEXT, 10.0, 1.0, causal=False)
    assert (first.text, first.start_seconds, first.end_seconds) == ("ab", 1.1, 1.3)
    assert (second.text, second.start_seconds, second.end_seconds) == ("c", 1.6, 1.7)
    assert word_times("", scores, TEXT, 10.0, causal=False) == []


def test_words_at_the_border_of_chunks_are_kept_once():
    assert join_words(["a", "b", "c", "d"], ["c", "d", "e"]) == ["a", "b", "c", "d", "e"]
    assert join_words(["a"], ["b"]) == ["a", "b"]
    assert join_words([], ["b"]) == ["b"]


@pytest.mark.parametrize(("level", "expected"), [(0.0, False), (1e-4, False), (0.1, True)])
def test_silence_is_told_from_sound(level, expected):
    assert is_audible(np.full(10, level)) is expected


class CountingModel:
    """Emits the letter of each code, by CTC alone: code k is letter k, code 30 nothing."""

    text = TEXT
    facts = ModelFacts(num_quantizers=1, codebook_size=31, has_frame_scores=True)

    word_language_model = None

    def ctc_scores(self, codes):
        given = np.where(codes[0] == 30, BLANK, codes[0])
        return np.log(np.eye(BLANK + 1)[[*given, BLANK]] * 0.9 + 1e-3)


class Codec:
    info = CodecInfo("0" * 16, 24_000, 1, 1920, 1, 31)


def test_long_recordings_lose_no_word_at_the_borders_of_chunks():
    words = [LETTERS[2 + (3 * n) % 26] + LETTERS[2 + (5 * n) % 26] for n in range(400)]
    text, codes = " ".join(words), []
    for token in TEXT.encode(text):
        codes += [30, token]
    transcriber = Transcriber(CountingModel(), Codec())
    (found,) = transcriber.transcripts([np.array([codes])], num_beams=0)
    assert len(codes) > 1000
    assert found.text == text
    assert [word.text for word in found.words] == words
    ends = [word.end_seconds for word in found.words]
    assert ends == sorted(ends)


def test_noise_that_emits_no_token_gives_no_text():
    transcriber = Transcriber(CountingModel(), Codec())
    (found,) = transcriber.transcripts([np.full((1, 50), 30)], num_beams=0)
    assert (found.text, found.words) == ("", ())
