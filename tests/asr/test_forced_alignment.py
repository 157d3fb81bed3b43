"""The likeliest alignment, against all there are."""

from itertools import pairwise, product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from moss_audio_tokenizer.asr import Aligner, CatAsr, CatAsrConfig
from moss_audio_tokenizer.errors import ConfigError, InputError
from moss_audio_tokenizer.llm import CharacterText, language_model_config
from moss_audio_tokenizer.speech.phonemes import (
    PHONEMES,
    TICKS,
    AlignedText,
    Lexicon,
    SpokenWord,
    durations_of_words,
    letter_tokens,
    phoneme_tokens,
    phonemes_of,
)
from moss_audio_tokenizer.speech.token_frames import token_steps

TEXT = CharacterText("abc ")
BLANK = 3


def collapsed(path):
    """What a path of classes tells, and the step at which each token begins."""
    ids, steps_of_tokens, before = [], [], BLANK
    for step, label in enumerate(path):
        if label not in (before, BLANK):
            ids.append(label)
            steps_of_tokens.append(step)
        before = label
    return ids, steps_of_tokens


def every_alignment(scores, ids):
    """The best score, over all paths that tell these tokens."""
    paths = product(range(scores.shape[1]), repeat=len(scores))
    fitting = [path for path in paths if collapsed(path)[0] == ids]
    totals = [sum(scores[step, label] for step, label in enumerate(path)) for path in fitting]
    best = int(np.argmax(totals))
    return collapsed(fitting[best])[1]


@given(
    st.integers(0, 10_000),
    st.lists(st.integers(0, 2), min_size=1, max_size=3),
    st.integers(1, 6),
)
def test_tokens_are_steps_of_tokens_where_the_likeliest_path_tells_them(seed, ids, steps):
    scores = np.log(np.random.default_rng(seed).dirichlet(np.ones(4), steps))
    steps_of_tokens = token_steps(scores, ids, BLANK)
    if len(ids) + sum(a == b for a, b in pairwise(ids)) <= steps:
        assert steps_of_tokens.tolist() == every_alignment(scores, ids)
    else:
        assert len(steps_of_tokens) == len(ids)
        assert (np.diff(steps_of_tokens) >= 0).all()
        assert steps_of_tokens.max(initial=0) < steps


LEXICON = Lexicon({"ab": "æb", "c": "si"})


def model() -> CatAsr:
    torch.set_num_threads(1)
    sizes = {"num_quantizers": 2, "codebook_size": 8, "encoder_layers": 3, "encoder_width": 64}
    asr = CatAsr(CatAsrConfig(**sizes), TEXT).eval()
    asr.lexicon = LEXICON
    return asr


def test_phonemes_last_from_middle_to_middle_of_their_steps():
    asr = model()
    codes = np.random.default_rng(0).integers(0, 8, (2, 7))
    (aligned,) = Aligner(asr).align([codes], ["ab c"])
    scores = asr.phoneme_scores(torch.from_numpy(codes)[:, None], [7])[0].double().numpy()
    phonemes = phonemes_of(phoneme_tokens("æb") + phoneme_tokens("si"))
    steps = token_steps(scores, phonemes, len(PHONEMES)).tolist()
    assert (aligned.durations, aligned.pauses) == durations_of_words(steps, [2, 2], 7 * TICKS)
    assert [item.word for item in aligned.words] == ["ab", "c"]


def test_clips_at_once_are_aligned_as_each_alone():
    aligner, random = Aligner(model()), np.random.default_rng(1)
    clips = [random.integers(0, 8, shape) for shape in ((2, 7), (1, 3), (2, 2))]
    texts = ["ab, c.", "c", "ab"]
    together = aligner.align(clips, texts)
    for found, clip, text in zip(together, clips, texts, strict=True):
        assert aligner.align([clip], [text]) == [found]
        ticks = sum(map(sum, found.durations)) + sum(found.pauses)
        assert ticks == TICKS * clip.shape[1]
    assert aligner.align([], []) == []


def test_words_without_a_pronunciation_are_not_aligned():
    aligner = Aligner(model())
    assert aligner.knows("ab, c")
    assert not aligner.knows("abc")
    assert not aligner.knows("...")
    with pytest.raises(InputError, match="lacks 'abc'"):
        aligner.align([np.zeros((2, 3), int)], ["ab abc"])


def test_without_phoneme_scores_nothing_is_aligned():
    language = language_model_config(16, 1, 2, TEXT.num_tokens)
    plain = CatAsr(CatAsrConfig(text_config=language, num_quantizers=2, codebook_size=8), TEXT)
    without = model()
    without.lexicon = None
    for asr in (plain, without):
        with pytest.raises(ConfigError, match="no phoneme scores"):
            Aligner(asr)


def test_spelled_words_share_their_time():
    aligned = AlignedText(
        [SpokenWord("ab", ","), SpokenWord("c", ".")], [[2, 3], [4, 1]], [1, 2, 0]
    )
    said = aligned.tokens(LEXICON, [False, False])
    assert said[0] == LEXICON.tokens("ab, c.")
    assert said[1] == [1, 2, 3, 2, 4, 1, 0]
    tokens, durations = aligned.tokens(LEXICON, [True, False])
    assert tokens[1:3] == letter_tokens("ab")
    assert sum(durations) == sum(said[1])
