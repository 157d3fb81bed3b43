import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_tts import TEXT, spoken_tts, tiny_tts

from moss_audio_tokenizer.errors import CheckpointError, ConfigError
from moss_audio_tokenizer.speech.phonemes import TICKS
from moss_audio_tokenizer.speech.tts_generation import CONTINUE, END
from moss_audio_tokenizer.tts import (
    CatTts,
    CatTtsConfig,
    SequenceDropout,
    SpokenRow,
    TtsBatch,
    TtsOutput,
)

DRAWN_ROWS = 20_000


def codes(layers: int = 4, batch: int = 2, frames: int = 3) -> torch.Tensor:
    return torch.randint(
        0, 8, (layers, batch, frames), generator=torch.Generator().manual_seed(batch)
    )


def losses(model: CatTts, *given, **changes) -> TtsOutput:
    return model(TtsBatch(*given, **changes))


@torch.no_grad()
def slow_losses(model: CatTts, text: str, row: torch.Tensor, depth: int) -> tuple[float, float]:
    """One row of (num_quantizers, frames): a whole pass for every code and every end."""
    embed, tables = model.temporal.get_input_embeddings(), model.code_embedding.tables
    steps = [*embed(torch.tensor(TEXT.encode(text))), model.start]
    codes_loss = end_loss = 0.0
    for frame in range(row.shape[1] + 1):
        hidden = model.temporal(inputs_embeds=torch.stack(steps)[None]).last_hidden_state[0, -1]
        inputs = [hidden, model.continuation]
        last = frame == row.shape[1]
        scores = model.depth.scores(model.depth(torch.stack(inputs[:1])[None])[0, -1], 0)
        end_loss += float(F.cross_entropy(scores, torch.tensor(END if last else CONTINUE)))
        if last:
            break
        for layer in range(depth):
            output = model.depth(torch.stack(inputs)[None])[0, -1]
            code = row[layer, frame]
            scores = model.depth.scores(output, layer + 1)
            codes_loss += float(F.cross_entropy(scores, code))
            inputs.append(tables[layer][code])
        steps.append(sum(tables[layer][row[layer, frame]] for layer in range(depth)))
    return codes_loss, end_loss


@pytest.mark.parametrize("adapter_width", [0, 10])
@torch.no_grad()
def test_the_losses_are_those_of_every_code_by_itself(adapter_width):
    model, given = tiny_tts(adapter_width=adapter_width), codes()
    output = losses(model, ["ab c", "b"], given, [2, 3], torch.tensor([3, 4]))
    first = slow_losses(model, "ab c", given[:, 0, :2], 3)
    second = slow_losses(model, "b", given[:, 1], 4)
    assert float(output.codes_loss_sum) == pytest.approx(first[0] + second[0], rel=1e-5)
    assert float(output.end_loss_sum) == pytest.approx(first[1] + second[1], rel=1e-5)
    assert (output.num_codes, output.num_ends) == (2 * 3 + 3 * 4, 3 + 4)


@torch.no_grad()
def test_frames_that_are_not_scored_are_only_inputs(tts):
    given = codes()
    scored = torch.tensor([[True, False, True], [False, True, True]])
    parts = [losses(tts, ["ab", "b"], given, [2, 3], scored=mask) for mask in (scored, ~scored)]
    whole = losses(tts, ["ab", "b"], given, [2, 3])
    assert sum(part.num_codes for part in parts) == whole.num_codes == 5 * 4
    total = sum(part.codes_loss_sum for part in parts)
    torch.testing.assert_close(total, whole.codes_loss_sum)
    torch.testing.assert_close(parts[0].end_loss_sum, whole.end_loss_sum)


@torch.no_grad()
def test_no_frame_scored_is_no_loss(tts):
    output = losses(tts, ["ab", "b"], codes(), [2, 3], scored=torch.zeros(2, 3, dtype=torch.bool))
    assert output.num_codes == 0
    assert float(output.codes_loss_sum) == 0


@torch.no_grad()
def test_dropped_layers_are_not_seen(tts):
    given, depths = codes(), torch.tensor([2, 4])
    changed = given.clone()
    changed[2:, 0] = 0
    before, after = (
        losses(tts, ["a", "b"], c, [3, 3], depths).codes_loss_sum for c in (given, changed)
    )
    assert torch.equal(before, after)


@torch.no_grad()
def test_a_model_without_a_text_encoder_ignores_what_is_said(tts):
    spoken = [SpokenRow([0, 5, 0], [2, 2, 2]), SpokenRow([0], [9])]
    other = losses(tts, ["ab", "b"], codes(), [2, 3], spoken=spoken)
    assert other.duration_loss_sum is None
    assert torch.equal(
        other.codes_loss_sum, losses(tts, ["ab", "b"], codes(), [2, 3]).codes_loss_sum
    )


def slow_conditions(model: CatTts, tokens, durations, voice) -> torch.Tensor:
    """Tick by tick."""
    encoder = model.text_encoder
    states = encoder(torch.tensor([tokens]), torch.tensor([len(tokens)]), voice)[0]
    said = [(token, left) for token, count in enumerate(durations) for left in range(count)[::-1]]
    frames = []
    for first in range(0, len(said), TICKS):
        total = torch.zeros(64)
        for tick, (token, left) in enumerate(said[first : first + TICKS]):
            rows = encoder.conditions(states[token]).view(TICKS, 64)
            total = total + rows[tick] + encoder.remaining[tick, min(left, 15)]
        frames.append(total)
    return torch.stack(frames)


@torch.no_grad()
def test_both_transformers_are_conditioned_on_the_phonemes_of_a_frame():
    model, given = spoken_tts(), codes(batch=1)
    tokens, durations = [3, 20, 30, 3], [0, 1, 4, 1]
    row = SpokenRow(tokens, durations, first_frame=1)
    scored = torch.tensor([[False, True, True]])
    output = losses(model, ["ab"], given, [3], scored=scored, spoken=[row])
    prompt = model.code_embedding(given)[:, :1]
    voice = F.layer_norm(prompt[:, 0], (64,))
    conditions = slow_conditions(model, tokens, durations, voice)
    frames = model.code_embedding(given)[0]
    loss, steps = 0.0, [model.start, frames[0] + conditions[0], frames[1] + conditions[1]]
    for frame in (1, 2):
        hidden = model.temporal(inputs_embeds=torch.stack(steps[: frame + 1])[None])
        inputs = [hidden.last_hidden_state[0, -1], model.continuation + conditions[frame - 1]]
        for layer in range(4):
            output_state = model.depth(torch.stack(inputs)[None])[0, -1]
            code = given[layer, 0, frame]
            loss += float(F.cross_entropy(model.depth.scores(output_state, layer + 1), code))
            inputs.append(model.code_embedding.tables[layer][code])
    assert float(output.codes_loss_sum) == pytest.approx(loss, rel=1e-5)
    states = model.text_encoder(torch.tensor([tokens]), torch.tensor([4]), voice)[0]
    expected = F.cross_entropy(
        model.text_encoder.durations(states), torch.tensor(durations), reduction="sum"
    )
    torch.testing.assert_close(output.duration_loss_sum, expected)


@torch.no_grad()
def test_a_row_with_a_text_encoder_does_not_depend_on_the_others():
    model, given = spoken_tts(), codes()
    rows = [SpokenRow([3, 20, 3], [1, 1, 1], 1), SpokenRow([3, 40, 41, 42, 3], [2, 2, 2, 2, 1])]
    both = losses(model, ["a", "b"], given, [2, 3], spoken=rows)
    alone = [
        losses(model, ["a"], given[:, [0], :2], [2], spoken=rows[:1]),
        losses(model, ["b"], given[:, [1]], [3], spoken=rows[1:]),
    ]
    for name in ("codes_loss_sum", "duration_loss_sum"):
        parts = sum(getattr(part, name) for part in alone)
        torch.testing.assert_close(getattr(both, name), parts, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_an_unconditioned_row_does_not_depend_on_its_text():
    model, given = spoken_tts(), codes(batch=1)
    rows = [SpokenRow([3, token, 3], [3, 3, 3], conditioned=False) for token in (20, 40)]
    first, second = (losses(model, ["a"], given, [3], spoken=[row]) for row in rows)
    assert torch.equal(first.codes_loss_sum, second.codes_loss_sum)
    said = losses(model, ["a"], given, [3], spoken=[SpokenRow([3, 20, 3], [3, 3, 3])])
    assert not torch.equal(first.codes_loss_sum, said.codes_loss_sum)


@torch.no_grad()
def test_masked_frames_are_no_input_of_later_ones(tts):
    given, changed = codes(batch=1), codes(batch=1)
    changed[:, 0, 1] = (changed[:, 0, 1] + 1) % 8
    visible = torch.tensor([[True, False, True]])
    last = torch.tensor([[False, False, True]])
    masked, same = (
        losses(tts, ["ab"], c, [3], scored=last, visible=visible) for c in (given, changed)
    )
    assert torch.equal(masked.codes_loss_sum, same.codes_loss_sum)
    whole, other = (losses(tts, ["ab"], c, [3], scored=last) for c in (given, changed))
    assert not torch.equal(whole.codes_loss_sum, other.codes_loss_sum)


def test_every_weight_learns():
    model = tiny_tts(adapter_width=10)
    output = losses(model, ["ab", "b"], codes(), [2, 3])
    (output.codes_loss_sum + output.end_loss_sum).backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


def test_every_weight_of_a_model_with_a_text_encoder_has_a_gradient():
    """Those of the text on the time axis, and of the end, are idle: theirs is zero."""
    model = spoken_tts()
    rows = [SpokenRow([3, 20, 3], [1, 1, 1], 1), SpokenRow([3, 40, 3], [4, 4, 1])]
    output = losses(model, ["ab", "b"], codes(), [2, 3], spoken=rows)
    (output.codes_loss_sum + output.end_loss_sum + output.duration_loss_sum).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert without == []
    still = {name for name, p in model.named_parameters() if not p.grad.any()}
    idle = ("temporal.embed_tokens.", "depth.exits.0.")
    assert {name for name in still if not name.startswith(idle)} <= {"text_encoder.remaining"}


@torch.no_grad()
def test_half_precision_is_close(tts):
    with torch.autocast("cpu", torch.bfloat16):
        rough = losses(tts, ["ab", "b"], codes(), [2, 3])
    exact = losses(tts, ["ab", "b"], codes(), [2, 3])
    torch.testing.assert_close(rough.codes_loss_sum, exact.codes_loss_sum, rtol=0.05, atol=0)


def test_a_folder_brings_the_model_back(tts, tmp_path):
    tts.save_pretrained(tmp_path / "tts")
    again = CatTts.from_pretrained(tmp_path / "tts")
    with torch.no_grad():
        first, second = (losses(m, ["ab", "b"], codes(), [2, 3]) for m in (tts, again))
    assert torch.equal(first.codes_loss_sum, second.codes_loss_sum)


def test_a_folder_brings_the_pronunciations_back(tmp_path):
    model = spoken_tts()
    model.save_pretrained(tmp_path)
    again = CatTts.from_pretrained(tmp_path)
    assert again.lexicon.tokens("abc") == model.lexicon.tokens("abc")


def test_a_text_encoder_needs_whole_heads():
    with pytest.raises(ConfigError, match="multiple of 64"):
        tiny_tts(text_encoder_layers=1)


def test_a_folder_of_another_model_is_refused(tts, tmp_path):
    from moss_audio_tokenizer.asr import CatAsr

    tts.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="describes no cat-asr model"):
        CatAsr.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "values",
    [
        {"depth_layers": 0},
        {"depth_heads": 3, "depth_key_value_heads": 2},
        {"guidance": 2.0},
        {"guidance": 0.0, "text_encoder_layers": 1},
        {"guidance": "much", "text_encoder_layers": 1},
        {"text_encoder_layers": -1},
    ],
)
def test_configurations_that_cannot_be(values):
    with pytest.raises(ConfigError):
        CatTtsConfig(**values)


def test_the_shape_of_the_published_recipe():
    """Qwen3-1.7B and a depth Transformer of 202.9 M, on the meta device."""
    language = {
        "model_type": "qwen3",
        "hidden_size": 2048,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": 6144,
        "vocab_size": 151_936,
        "tie_word_embeddings": True,
    }
    with torch.device("meta"):
        model = CatTts(CatTtsConfig(text_config=language))
    blocks = sum(p.numel() for p in model.depth.blocks.parameters())
    temporal = sum(p.numel() for p in model.temporal.parameters())
    assert round(temporal / 1e9, 2) == 1.72
    assert abs(blocks / 1e6 - 202.9) < 0.1
    assert np.prod(model.code_embedding.tables.shape) == 32 * 1024 * 2048


def shares(dropout: SequenceDropout) -> torch.Tensor:
    kept = dropout.draw(DRAWN_ROWS, 4, torch.Generator().manual_seed(0))
    return torch.bincount(kept, minlength=5)[1:] / DRAWN_ROWS


@pytest.mark.parametrize(
    ("dropout", "expected"),
    [
        (SequenceDropout(0.0), [0, 0, 0, 1]),
        (SequenceDropout(1.0), [1 / 4, 1 / 4, 1 / 4, 1 / 4]),
        (SequenceDropout(1.0, include_full=False), [1 / 3, 1 / 3, 1 / 3, 0]),
        (SequenceDropout(0.5, include_full=False), [1 / 6, 1 / 6, 1 / 6, 1 / 2]),
        # 4 u^2 is below 1, 2, 3 with the probabilities 1/2, 0.707, 0.866.
        (SequenceDropout(1.0, skew=2.0), [0.5, 0.207, 0.159, 0.134]),
        (SequenceDropout(0.5, include_full=False, skew=2.0), [0.289, 0.120, 0.092, 0.5]),
    ],
)
def test_shares_are_those_of_the_paper(dropout, expected):
    torch.testing.assert_close(shares(dropout), torch.tensor(expected).float(), atol=0.02, rtol=0)


def test_one_layer_alone_stays():
    random = torch.Generator().manual_seed(0)
    for skew in (1.0, 2.0):
        dropout = SequenceDropout(1.0, include_full=False, skew=skew)
        assert dropout.draw(5, 1, random).tolist() == [1] * 5
