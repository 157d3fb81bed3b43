"""Soft targets, weights of codebooks, and dropout of hidden states of CAT-TTS."""

from itertools import pairwise
from math import log
from types import SimpleNamespace

import pytest
import torch
from tiny_tts import spoken_tts, tiny_tts

from moss_audio_tokenizer.errors import ConfigError
from moss_audio_tokenizer.tts import CatTts, CodeLoss, SoftTargets, SpokenRow, TtsBatch
from moss_audio_tokenizer.tts.hidden_dropout import HiddenDropout

# On a line: the first codebook has 0 and 2, the second -1 and 1; the third is not predicted.
LINE = torch.tensor([[[0.0], [2.0]], [[-1.0], [1.0]], [[0.0], [-0.5]]])


def codes(*sizes: int) -> torch.Tensor:
    """Random codes of eight entries."""
    return torch.randint(0, 8, sizes, generator=torch.Generator().manual_seed(3))


def test_a_target_is_spread_by_the_distance_to_the_residual():
    soft = SoftTargets(LINE, 0.5, (1.0, 3.0))
    # Residuals: 2 - 1 + 0 and 0 + 1 - 0.5 for the first codebook, -1 for the second.
    first, second = soft.spreads(torch.tensor([[1, 0], [0, 1], [0, 1]]), [2, 1])
    squared = torch.tensor([[1.0, 1.0], [0.25, 2.25]])
    torch.testing.assert_close(first, (-squared / 2).softmax(-1))
    torch.testing.assert_close(second, (-3 * torch.tensor([[0.0, 4.0]]) / 2).softmax(-1))


def test_a_soft_targets_loss_is_that_of_code_and_spread():
    scores, spread = torch.tensor([[0.0, log(3)]]), torch.tensor([[0.75, 0.25]])
    loss = CodeLoss(soft_targets=SoftTargets(LINE, 0.4, (1.0,)))
    expected = 0.6 * log(4 / 3) + 0.4 * (0.75 * log(4) + 0.25 * log(4 / 3))
    assert float(loss.of_codebook(scores, torch.tensor([1]), spread)) == pytest.approx(expected)


def test_soft_targets_of_all_codebooks_have_the_wanted_entropy():
    vectors = torch.randn(3, 8, 5, generator=torch.Generator().manual_seed(0)) * 30
    vectors[1] /= 1000
    given = codes(3, 200)
    soft = SoftTargets.calibrated(vectors, 0.5, 1.5, given, 2)
    spreads = list(soft.spreads(given, [200, 200]))
    assert len(spreads) == len(soft.scales) == 2
    for spread in spreads:
        entropy = -(spread * spread.log().clamp_min(-100)).sum(-1).mean()
        assert float(entropy) == pytest.approx(1.5, abs=1e-4)


@pytest.mark.parametrize("entropy", [0.0, 2.08])
def test_an_entropy_that_the_codes_cannot_have_is_refused(entropy):
    with pytest.raises(ConfigError, match=r"^soft_targets.entropy is .* below 2\.08 nats, the .*$"):
        SoftTargets.calibrated(torch.ones(1, 8, 2), 0.5, entropy, codes(1, 2), 1)


def test_weights_fall_to_half():
    loss = CodeLoss(half_weight_at=4)
    assert [loss.weight(layer) for layer in (0, 4, 12)] == [1, 1 / 2, 1 / 4]
    together = [1, 1 + 4 / 5 + 4 / 6]
    torch.testing.assert_close(
        loss.weight_of_first(torch.tensor([1, 3])), torch.tensor(together).double()
    )
    assert CodeLoss().weight_of_first(torch.tensor([3, 7])).tolist() == [3, 7]


@torch.no_grad()
def losses(model: CatTts, given: torch.Tensor, kept: int, loss: CodeLoss) -> float:
    """Of the first ``kept`` codebooks, which no input shows: each can be taken by itself."""
    hidden, counts = torch.zeros(2, 3, dtype=torch.bool), torch.tensor([kept, kept])
    batch = TtsBatch(["ab", "b"], given, [3, 3], counts, visible=hidden, code_loss=loss)
    return float(model(batch).codes_loss_sum)


def test_codebooks_count_by_their_weights(tts):
    given = codes(4, 2, 3)
    parts = pairwise(losses(tts, given, kept, CodeLoss()) if kept else 0.0 for kept in range(5))
    expected = sum((next_sum - sum_) / (1 + at / 4) for at, (sum_, next_sum) in enumerate(parts))
    found = losses(tts, given, 4, CodeLoss(half_weight_at=4))
    assert found == pytest.approx(expected, rel=1e-4)


def test_what_is_spread_without_width_is_the_nearest_code(tts):
    given = codes(6, 2, 3)
    vectors = torch.randn(6, 8, 5, generator=torch.Generator().manual_seed(1))
    soft = SoftTargets(vectors, 1.0, (1e6,) * 4)
    found = losses(tts, given, 1, CodeLoss(soft_targets=soft))
    (nearest,) = soft.spreads(given.flatten(1), [6])
    given[0] = nearest.argmax(-1).view(2, 3)
    assert found == pytest.approx(losses(tts, given, 1, CodeLoss()), rel=1e-4)


def two_rows() -> TtsBatch:
    """Two rows, with what is said in them."""
    spoken = [SpokenRow([3, 20, 3], [2, 5, 2]), SpokenRow([3, 9], [4, 2])]
    return TtsBatch(["ab", "b"], codes(4, 2, 3), [3, 2], spoken=spoken)


@pytest.mark.parametrize("make", [tiny_tts, spoken_tts])
@torch.no_grad()
def test_dropout_is_in_training_alone_and_follows_the_seed(make):
    plain, model = make(), make(hidden_dropout=0.5)
    # That of the text encoder is another.
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout) and not isinstance(part, HiddenDropout):
            part.p = 0.0
    rows = two_rows()
    expected = float(plain(rows).codes_loss_sum)
    assert float(model(rows).codes_loss_sum) == expected
    model.train()
    losses = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        losses.append(float(model(rows).codes_loss_sum))
    assert losses[0] == losses[1] != losses[2]
    assert expected not in losses


def test_dropout_is_on_inputs_layers_and_states(monkeypatch):
    model, shapes = spoken_tts(hidden_dropout=0.5).train(), []
    drop = HiddenDropout.forward
    monkeypatch.setattr(
        HiddenDropout, "forward", lambda own, x: shapes.append(x.shape) or drop(own, x)
    )
    model(two_rows())
    # Inputs, attention and feed-forward layer of one block, and states; conditions of 5 frames.
    assert shapes == [(2, 3, 64)] * 4 + [(5, 64)]


@pytest.mark.parametrize("value", [1.0, -0.1, "0.1", True])
def test_a_probability_that_is_none_is_refused(value):
    with pytest.raises(ConfigError, match=r"^hidden_dropout is .*; expected 0 up to 1$"):
        tiny_tts(hidden_dropout=value)


def test_a_language_model_of_another_build_is_refused():
    for other in (SimpleNamespace(), SimpleNamespace(layers=[SimpleNamespace(mlp=None)])):
        with pytest.raises(ConfigError, match=r"hidden_dropout is 0\.1, but a .*such as Qwen2$"):
            HiddenDropout(0.1).attach(other)
