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


def model(**changes) -> CatAsr:
    torch.set_num_threads(1)
    language = language_model_config(16, 1, 2, TEXT.num_tokens)
    config = CatAsrConfig(text_config=language, num_quantizers=2, codebook_size=8, **changes)
    return CatAsr(config, TEXT).eval()


def test_frames_have_the_number_of_the_token_that_is_being_said():
    asr = model(frame_scores=True)
    codes = np.random.default_rng(0).integers(0, 8, (2, 7))
    (indices,) = Aligner(asr).align([codes], ["ab"])
    scores = asr.frame_scores(torch.from_numpy(codes)[:, None])[0].double().numpy()
    first, second = token_steps(scores, TEXT.encode("ab"), TEXT.num_tokens)
    expected = [0 if t <= first else 1 if t <= second else 2 for t in range(7)]
    assert indices.tolist() == expected


def test_nothing_said_is_the_end_from_the_start():
    (indices,) = Aligner(model(frame_scores=True)).align([np.zeros((2, 3), int)], [""])
    assert indices.tolist() == [0, 0, 0]


def test_clips_at_once_are_aligned_as_each_alone():
    aligner, random = Aligner(model(frame_scores=True)), np.random.default_rng(1)
    clips = [random.integers(0, 8, shape) for shape in ((2, 7), (1, 3), (2, 1))]
    texts = ["ab", "c", ""]
    together = aligner.align(clips, texts)
    for indices, clip, text in zip(together, clips, texts, strict=True):
        (alone,) = aligner.align([clip], [text])
        assert indices.tolist() == alone.tolist()
    assert aligner.align([], []) == []


def test_without_frame_scores_nothing_is_aligned():
    with pytest.raises(ConfigError, match="frame_weight above 0"):
        Aligner(model())
    with pytest.raises(InputError, match="no frame scores"):
        model().frame_scores(torch.zeros(2, 1, 3, dtype=torch.long))
