from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_tts import TEXT, leaning, tiny_tts

from moss_audio_tokenizer.errors import CodesError, InputError
from moss_audio_tokenizer.speech.tts_generation import TtsInput, make_cursor
from moss_audio_tokenizer.tts import Prompt, SpeechSampling, frames, generate
from moss_audio_tokenizer.tts.cat_tts import CONTINUE, END

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


def guided():
    """A model with an alignment that changes its codes clearly."""
    model = tiny_tts(place_inputs=True)
    with torch.no_grad():
        model.guide.tokens.weight.mul_(200.0)
        model.guide.left.weight.mul_(200.0)
    return model


@torch.no_grad()
def slow_guided(model, text, guidance, count):
    """As `slow_greedy`, with guidance, of a text whose tokens each last a frame."""
    conditioned, unconditioned = (
        [*model.prompt(TtsInput(TEXT.encode(text), None))],
        [*model.prompt(TtsInput(TEXT.encode(text), None))],
    )
    spoken, tokens = [], model.spoken_tokens(text)
    for token in tokens[:count]:
        shown = model.guide(torch.tensor(token), torch.tensor(True), torch.tensor(0))
        sides = []
        for steps, sign in (
            (conditioned, model.continuation + shown),
            (unconditioned, model.continuation),
        ):
            state = model.temporal(inputs_embeds=torch.stack(steps)[None]).last_hidden_state[0, -1]
            sides.append([state, sign])
        codes = []
        for layer in range(model.config.num_quantizers):
            scores = [
                model.depth.scores(model.depth(torch.stack(side)[None])[0, -1], layer + 1)
                for side in sides
            ]
            codes.append((scores[1] + guidance * (scores[0] - scores[1])).argmax())
            for side in sides:
                side.append(model.code_embedding.of_layer(codes[-1], layer))
        spoken.append(torch.stack(codes))
        embedded = model.code_embedding(spoken[-1][:, None, None])[0, 0]
        conditioned.append(embedded + shown)
        unconditioned.append(embedded)
    return torch.stack(spoken, -1).numpy()


@pytest.mark.parametrize("guidance", [0.5, 1.0, 3.0])
def test_guidance_moves_codes_along_the_condition(guidance):
    model = guided()
    with torch.no_grad():
        model.guide.durations.bias[0] = 1e4  # a frame for every token
    plain = SpeechSampling(do_sample=False, repetition_penalty=1, max_frames=3, guidance=guidance)
    spoken = generate(model, ["abc"], sampling=plain).audio_codes[:, 0]
    assert np.array_equal(spoken, slow_guided(model, "abc", guidance, 3)[:, : spoken.shape[1]])
    assert spoken.shape[1]


def test_guidance_counts():
    spoken = [
        generate(guided(), ["abc"], sampling=SHORT, do_sample=False, guidance=guidance).audio_codes
        for guidance in (1.0, 8.0)
    ]
    assert spoken[0].shape != spoken[1].shape or not np.array_equal(*spoken)


def test_a_model_has_a_guidance_of_its_own():
    model, asked = guided(), guided()
    model.config.guidance = 8.0
    own = generate(model, ["abc"], sampling=SHORT).audio_codes
    assert np.array_equal(own, generate(asked, ["abc"], sampling=SHORT, guidance=8.0).audio_codes)
    plain = generate(model, ["abc"], sampling=SHORT, guidance=1.0).audio_codes
    assert plain.shape != own.shape or not np.array_equal(plain, own)


def test_a_guided_row_does_not_depend_on_the_others():
    model, sampling = guided(), replace(SHORT, guidance=2.0)
    both = generate(model, ["ab c", "b"], [None, prompt(3)], sampling)
    second = generate(model, ["b"], [prompt(3)], sampling, seed=SHORT.seed + 1)
    length = int(both.audio_codes_lengths[1])
    assert length == int(second.audio_codes_lengths[0])
    assert np.array_equal(both.audio_codes[:, 1, :length], second.audio_codes[:, 0])


def test_a_model_without_an_alignment_cannot_be_guided(tts):
    with pytest.raises(InputError, match="guidance is 2; expected 1"):
        generate(tts, ["a"], sampling=SHORT, guidance=2.0)


def walked(texts, prompts=None, durations=(1, 0, 2), steps=12):
    """The tokens that are said when tokens last so many frames in turn, and where it may end."""
    model = tiny_tts(place_inputs=True)
    cursor = make_cursor(model, texts, prompts or [None] * len(texts))
    said, ends = [], []
    for step in range(steps):
        frame = cursor.step(np.full(len(texts), durations[step % len(durations)]))
        said.append("".join(TEXT.decode([token]) or "." for token in frame.tokens.tolist()))
        ends.append(cursor.may_end.tolist())
    return ["".join(row) for row in zip(*said, strict=True)], [
        list(row) for row in zip(*ends, strict=True)
    ]


def test_the_text_is_gone_through_token_by_token():
    (first, second), (ends, early) = walked(["abcab", "cb"], durations=(1,))
    assert first == "aabbccaabb.."
    assert second == "ccbb........"
    assert ends == [False] * 9 + [True] * 3
    assert early == [False] * 3 + [True] * 9


def test_tokens_last_as_long_as_was_decided_when_they_began():
    (said,), _ = walked(["abc"], durations=(2, 9, 9, 0, 1, 9, 9))
    assert said == "aaabcc......"


def test_a_token_that_comes_twice_begins_twice():
    cursor = make_cursor(tiny_tts(place_inputs=True), ["aa"], [None])
    steps = [cursor.step(np.array([1])) for _ in range(4)]
    assert [bool(step.begins[0]) for step in steps] == [True, False, True, False]
    assert [int(step.remaining[0]) for step in steps] == [1, 0, 1, 0]
    assert len({int(step.tokens[0]) for step in steps}) == 1


def test_speech_begins_behind_the_text_of_the_prompt():
    codes = np.zeros((4, 2), np.int64)
    (said,), _ = walked(["ca b"], [Prompt(codes, "ca")], steps=1)
    assert said == "b"


def test_what_is_said_reaches_the_codes():
    model = tiny_tts(place_inputs=True)
    conditioned = generate(model, ["abc"], sampling=SHORT).audio_codes
    model.guide.tokens.weight.data.neg_()
    assert not np.array_equal(conditioned, generate(model, ["abc"], sampling=SHORT).audio_codes)


def test_speech_does_not_end_before_its_last_token():
    """A model that always wants to end, and may only when its text is said."""
    model = leaning(END, place_inputs=True)
    spoken = generate(model, ["abcabc"], sampling=SHORT)
    assert int(spoken.audio_codes_lengths[0]) >= 5


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
