from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_tts import TEXT, leaning, spoken_tts

from moss_audio_tokenizer.errors import CodesError, InputError
from moss_audio_tokenizer.speech.sampling import CodeSampler
from moss_audio_tokenizer.speech.tts_generation import CONTINUE, END, TtsInput
from moss_audio_tokenizer.tts import CatTts, Prompt, SpeechSampling, frames, generate

SHORT = SpeechSampling(max_frames=6, seed=5)


def prompt(count: int) -> Prompt:
    random = torch.Generator().manual_seed(count)
    return Prompt(torch.randint(0, 8, (4, count), generator=random).numpy(), "")


@torch.no_grad()
def slow_greedy(model, text, start, depth, count):
    """Frame by frame and code by code, everything from the beginning each time."""
    steps = [*model.prompt(TtsInput(TEXT.encode(text), None))]
    if start is not None:
        steps += [*model.code_embedding(torch.from_numpy(start.codes[:depth, None]))[0]]
    spoken = []
    for _ in range(count):
        hidden = model.temporal(inputs_embeds=torch.stack(steps)[None]).last_hidden_state[0, -1]
        inputs, codes = [hidden, model.continuation], []
        for layer in range(depth):
            output = model.depth(torch.stack(inputs)[None])[0, -1]
            codes.append(model.depth.scores(output, layer + 1).argmax())
            inputs.append(model.code_embedding.of_layer(codes[-1], layer))
        spoken.append(torch.stack(codes))
        steps.append(model.code_embedding(spoken[-1][:, None, None])[0, 0])
    return torch.stack(spoken, -1).numpy()


@pytest.mark.parametrize("depth", [1, 3, 4])
@pytest.mark.parametrize("start", [None, prompt(2)])
def test_caches_change_nothing(depth, start):
    tts = leaning(CONTINUE)
    plain = SpeechSampling(
        do_sample=False, repetition_penalty=1, max_frames=5, num_quantizers=depth
    )
    spoken = generate(tts, ["ab"], [start], plain)
    expected = slow_greedy(tts, "ab", start, depth, 5)
    assert expected.shape == (depth, 5)
    assert np.array_equal(spoken.audio_codes[:, 0], expected)


def test_a_row_does_not_depend_on_the_others(tts):
    both = generate(tts, ["ab c", "b"], [None, prompt(3)], SHORT)
    first = generate(tts, ["ab c"], [None], SHORT)
    second = generate(tts, ["b"], [prompt(3)], SHORT, seed=SHORT.seed + 1)
    for row, alone in enumerate((first, second)):
        length = int(both.audio_codes_lengths[row])
        assert length == int(alone.audio_codes_lengths[0])
        assert np.array_equal(both.audio_codes[:, row, :length], alone.audio_codes[:, 0])


def test_the_seed_decides(tts):
    again = [generate(tts, ["ab"], sampling=SHORT).audio_codes for _ in range(2)]
    other = generate(tts, ["ab"], sampling=SHORT, seed=6).audio_codes
    assert np.array_equal(*again)
    assert again[0].shape != other.shape or not np.array_equal(again[0], other)


def test_layers_that_are_spoken_are_as_many_as_asked_for(tts):
    spoken = generate(tts, ["ab"], [prompt(3)], SHORT, num_quantizers=2)
    assert len(spoken.audio_codes) == 2


@pytest.mark.parametrize("warmth", [0.0, 1.0])
def test_speech_ends_where_the_model_says_so_or_at_the_limit(warmth):
    silent = generate(leaning(END), ["ab"], sampling=SHORT, end_temperature=warmth)
    assert silent.audio_codes.shape == (4, 1, 0)
    assert silent.finished.tolist() == [True]
    endless = generate(leaning(CONTINUE), ["ab"], sampling=SHORT, end_temperature=warmth)
    assert endless.audio_codes_lengths.tolist() == [6]
    assert endless.finished.tolist() == [False]


def test_generated_codes_are_those_of_the_frames(tts):
    spoken = generate(tts, ["ab", "c"], sampling=SHORT)
    count = spoken.audio_codes.shape[-1]
    streamed = [frame.codes for frame in frames(tts, ["ab", "c"], sampling=SHORT)]
    inside = np.arange(count) < spoken.audio_codes_lengths[:, None]
    assert np.array_equal(np.stack(streamed, -1)[..., :count] * inside, spoken.audio_codes)


def test_frames_come_one_by_one(tts):
    steps = frames(tts, ["ab"], None, SHORT)
    assert next(steps).codes.shape == (4, 1)


@pytest.mark.parametrize(
    ("texts", "changes", "message"),
    [
        ([], {}, "0 texts"),
        ([" "], {}, "empty"),
        (["a?"], {}, "got '\\?'"),
        (["a"], {"num_quantizers": 5}, "1 to 4"),
        (["a"], {"max_frames": 5000}, "5000.*4096"),
        (["a"], {"temperature": 0.0}, "temperature"),
        (["a"], {"temperature": 1e-39}, "temperature is 1e-39; expected 0.001 to 100"),
        (["a"], {"end_temperature": 1e-39}, "end_temperature is 1e-39; expected 0, or 0.001"),
        (["a"], {"top_p": 1.5}, "top_p"),
        (["a"], {"guidance": -1.0}, "guidance"),
        (["a"], {"seed": -1}, "seed"),
        (["a"], {"seed": 1.5}, "whole number"),
        (["a"], {"max_frames": 2.5}, "whole number"),
        (["a"], {"guidance": "3"}, "guidance is '3'; expected a number"),
        (["a"], {"temperature": True}, "temperature is True"),
        (["a"], {"volume": 2}, "unknown option"),
        ("ab", {}, "list of texts"),
    ],
)
def test_what_cannot_be_said(tts, texts, changes, message):
    with pytest.raises(InputError, match=message):
        generate(tts, texts, sampling=SpeechSampling(), **changes)


@torch.no_grad()
def slow_guided(model, text, start, guidance):
    """As `slow_greedy`, with guidance."""
    tokens = model.lexicon.tokens(text)
    plan = model.encode_text(tokens, None if start is None else start.codes).frames()
    sides = []
    for on in (True, False):
        first = plan[0] if on else None
        sides.append([*model.prompt(TtsInput([], None if start is None else start.codes, first))])
    spoken = []
    for number, own in enumerate(torch.from_numpy(plan)):
        inputs, codes = [], []
        for steps, shown in zip(sides, (own, 0 * own), strict=True):
            state = model.temporal(inputs_embeds=torch.stack(steps)[None]).last_hidden_state[0, -1]
            inputs.append([state, model.continuation + shown])
        for layer in range(model.config.num_quantizers):
            given, plain = [
                model.depth.scores(model.depth(torch.stack(side)[None])[0, -1], layer + 1)
                for side in inputs
            ]
            codes.append((plain + guidance * (given - plain)).argmax())
            for side in inputs:
                side.append(model.code_embedding.of_layer(codes[-1], layer))
        spoken.append(torch.stack(codes))
        embedded = model.code_embedding(spoken[-1][:, None, None])[0, 0]
        following = torch.from_numpy(plan)[number + 1] if number + 1 < len(plan) else 0 * own
        sides[0].append(embedded + following)
        sides[1].append(embedded)
    return torch.stack(spoken, -1).numpy()


def short_words(model):
    """Every phoneme lasts two ticks."""
    with torch.no_grad():
        model.text_encoder.durations.weight.zero_()
        model.text_encoder.durations.bias[2] = 1e4
    return model


PLAIN = SpeechSampling(do_sample=False, repetition_penalty=1, max_frames=20)


@pytest.mark.parametrize("start", [None, prompt(2)])
@pytest.mark.parametrize("guidance", [0.5, 1.0, 3.0])
def test_guidance_moves_codes_along_the_condition(guidance, start):
    model = short_words(spoken_tts())
    spoken = generate(model, ["abc c"], [start], PLAIN, guidance=guidance)
    expected = slow_guided(model, "abc c", start, guidance)
    assert np.array_equal(spoken.audio_codes[:, 0], expected)
    # Five phonemes and three boundaries of two ticks, in frames of three.
    assert spoken.audio_codes_lengths.tolist() == [6]
    assert spoken.finished.tolist() == [True]


def test_a_model_has_a_guidance_of_its_own():
    model, asked = spoken_tts(), spoken_tts()
    model.config.guidance = 8.0
    own = generate(model, ["abc"], sampling=SHORT).audio_codes
    assert np.array_equal(own, generate(asked, ["abc"], sampling=SHORT, guidance=8.0).audio_codes)
    plain = generate(model, ["abc"], sampling=SHORT, guidance=1.0).audio_codes
    assert plain.shape == own.shape
    assert not np.array_equal(plain, own)


def test_a_model_has_a_temperature_of_its_own():
    model, asked = spoken_tts(), spoken_tts()
    model.config.code_temperature = 0.1
    own = generate(model, ["abc"], sampling=SHORT).audio_codes
    cold = generate(asked, ["abc"], sampling=SHORT, temperature=0.1).audio_codes
    assert np.array_equal(own, cold)
    assert not np.array_equal(own, generate(asked, ["abc"], sampling=SHORT).audio_codes)


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_a_spoken_row_does_not_depend_on_the_others(guidance):
    model, sampling = short_words(spoken_tts()), replace(SHORT, guidance=guidance)
    both = generate(model, ["abc c ab", "b"], [None, prompt(3)], sampling)
    second = generate(model, ["b"], [prompt(3)], sampling, seed=SHORT.seed + 1)
    length = int(both.audio_codes_lengths[1])
    assert length == int(second.audio_codes_lengths[0]) < int(both.audio_codes_lengths[0])
    assert np.array_equal(both.audio_codes[:, 1, :length], second.audio_codes[:, 0])


def test_speech_that_is_longer_than_the_limit_is_not_finished():
    model = short_words(spoken_tts())
    cut = generate(model, ["abc c"], sampling=SHORT, max_frames=3)
    whole = generate(model, ["abc c"], sampling=SHORT)
    assert cut.finished.tolist() == [False]
    assert np.array_equal(cut.audio_codes, whole.audio_codes[..., :3])


def test_a_model_without_a_text_encoder_cannot_be_guided(tts):
    with pytest.raises(InputError, match="guidance is 2; expected 1"):
        generate(tts, ["a"], sampling=SHORT, guidance=2.0)


def test_the_text_of_the_prompt_is_not_said_again():
    model, start = short_words(spoken_tts()), prompt(3)
    with_text = generate(model, ["ab c"], [Prompt(start.codes, "ab")], SHORT)
    alone = generate(model, ["c"], [start], SHORT)
    assert np.array_equal(with_text.audio_codes, alone.audio_codes)


def test_what_is_said_reaches_the_codes():
    model = spoken_tts()
    conditioned = generate(model, ["abc"], sampling=SHORT).audio_codes
    model.text_encoder.conditions.weight.data.neg_()
    assert not np.array_equal(conditioned, generate(model, ["abc"], sampling=SHORT).audio_codes)


def test_words_without_a_pronunciation_are_spelled():
    model = short_words(spoken_tts())
    assert generate(model, ["cab"], sampling=SHORT).audio_codes.shape[-1] == 4


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (Prompt(np.full((4, 2), 8), "a"), CodesError, "expected 0 .. 7"),
        (Prompt(np.zeros((4, 2)), "a"), CodesError, "whole numbers"),
        (Prompt(np.zeros((2, 2), np.int64), "a"), CodesError, "expected 1 to 2"),
        (Prompt(np.zeros((4, 2), np.int64), "b"), InputError, "does not begin"),
    ],
)
def test_prompts_that_cannot_be_gone_on_from(tts, given, error, message):
    with pytest.raises(error, match=message):
        generate(tts, ["a c"], [given], SHORT)


def knowing_vectors(**changes) -> CatTts:
    """A model that holds random vectors of its codes."""
    model = short_words(spoken_tts(code_vector_dim=3, **changes))
    random = torch.Generator().manual_seed(2)
    model.latent_vectors.data = torch.randn(model.latent_vectors.shape, generator=random)
    return model


@given(st.integers(0, 2**31), st.floats(0.1, 10.0))
def test_the_code_nearest_to_the_mean_has_the_least_expected_error(seed, temperature):
    random = np.random.default_rng(seed)
    scores, vectors = random.normal(0, 3, (2, 7)), random.normal(size=(7, 3))
    settings, history = SpeechSampling(temperature=temperature), np.zeros((2, 1), np.int64)
    chosen = CodeSampler(settings, 2).code(scores, history, np.zeros(2), vectors)
    probabilities = torch.from_numpy(scores / temperature).softmax(-1).numpy()
    distances = np.square(vectors[:, None] - vectors).sum(-1)
    errors = probabilities @ distances
    assert np.allclose(errors[[0, 1], chosen], errors.min(-1), atol=1e-5)


def test_a_model_may_choose_codes_near_the_mean():
    model = knowing_vectors()
    sampled = generate(model, ["abc"], sampling=SHORT).audio_codes
    mean = generate(model, ["abc"], sampling=SHORT, code_choice="mean").audio_codes
    assert not np.array_equal(mean, sampled)
    other = generate(model, ["abc"], sampling=SHORT, code_choice="mean", seed=9).audio_codes
    assert np.array_equal(mean, other)
    model.config.code_choice = "mean"
    assert np.array_equal(generate(model, ["abc"], sampling=SHORT).audio_codes, mean)
    again = generate(model, ["abc"], sampling=SHORT, code_choice="sample").audio_codes
    assert np.array_equal(again, sampled)


def test_vectors_that_were_never_stored_are_not_used():
    with pytest.raises(InputError, match="holds no code vectors"):
        generate(spoken_tts(code_vector_dim=3), ["abc"], sampling=SHORT, code_choice="mean")


def test_a_greedy_choice_comes_before_the_mean():
    model = knowing_vectors(code_choice="mean")
    greedy = generate(model, ["abc"], sampling=PLAIN).audio_codes
    model.config.code_choice = "sample"
    assert np.array_equal(generate(model, ["abc"], sampling=PLAIN).audio_codes, greedy)


def test_kept_vectors_are_as_far_from_each_other_as_the_codecs():
    model = spoken_tts(code_vector_dim=3)
    thin, spread = torch.randn(6, 8, 3), torch.randn(6, 3, 20)
    vectors = thin @ spread + torch.randn(6, 1, 20)
    model.keep_code_vectors(vectors)
    assert model.code_vectors.shape == (4, 8, 3)
    expected = torch.cdist(vectors[:4], vectors[:4])
    kept = torch.from_numpy(model.code_vectors)
    torch.testing.assert_close(torch.cdist(kept, kept), expected, rtol=1e-3, atol=1e-3)


def test_a_model_without_vectors_cannot_choose_near_the_mean(tts):
    with pytest.raises(InputError, match="code_choice is 'mean'; expected 'sample'"):
        generate(tts, ["a"], sampling=SHORT, code_choice="mean")
    with pytest.raises(InputError, match="code_choice is 'median'; expected sample, mean or None"):
        SpeechSampling(code_choice="median")
