import math
from dataclasses import replace

import pytest
import torch

from moss_audio_tokenizer.config import preset
from moss_audio_tokenizer.errors import ConfigError
from moss_audio_tokenizer.model.codec import Codec
from moss_audio_tokenizer.training.codec.codec_config import CodecOptimizerConfig, TrainingConfig
from moss_audio_tokenizer.training.optim import learning_rate_at, make_optimizer

SETTINGS = CodecOptimizerConfig(learning_rate=1.0, warmup_steps=4, decay_fraction=0.5)


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 0.25), (1, 0.5), (3, 1.0), (4, 1.0), (10, 1.0), (15, 0.5), (19, 0.1), (20, 0.0)],
)
def test_the_rate_warms_up_stays_and_decays(step, expected):
    assert learning_rate_at(step, 20, SETTINGS) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("step", "fraction", "expected"),
    [(3, 0.5, 1.0), (10, 0.5, 1.0), (15, 0.5, 0.5), (20, 0.5, 0.0), (4, 1.0, 1.0), (12, 1.0, 0.5)],
)
def test_a_cosine_spares_the_warm_up(step, fraction, expected):
    settings = replace(SETTINGS, schedule="cosine", decay_fraction=fraction)
    assert learning_rate_at(step, 20, settings) == pytest.approx(expected)


def test_a_cosine_falls_slowly_at_first_and_at_last():
    settings = replace(SETTINGS, schedule="cosine")
    rates = [learning_rate_at(step, 20, settings) for step in (11, 15, 19)]
    assert rates == pytest.approx([(1 + math.cos(math.pi * x)) / 2 for x in (0.1, 0.5, 0.9)])


def test_without_decay_the_rate_stays_to_the_last_step():
    settings = CodecOptimizerConfig(learning_rate=2.0, warmup_steps=0, decay_fraction=0.0)
    assert [learning_rate_at(step, 5, settings) for step in (0, 4)] == [2.0, 2.0]


def test_no_rate_is_ever_negative():
    assert learning_rate_at(30, 20, SETTINGS) == 0.0


def test_the_optimizer_has_every_parameter_and_the_settings():
    module = torch.nn.Linear(2, 2)
    group = make_optimizer(module, CodecOptimizerConfig(weight_decay=0.5)).param_groups[0]
    assert len(group["params"]) == 2
    assert (group["betas"], group["weight_decay"]) == ((0.8, 0.99), 0.5)


def peakedness(matrix: torch.Tensor) -> float:
    """The largest singular value beside their root mean square: 2 for square noise."""
    values = torch.linalg.svdvals(matrix)
    return float(values.max() / values.square().mean().sqrt())


def test_muon_takes_the_matrices_of_blocks_and_adamw_all_else():
    codec = Codec(preset("tiny"))
    codec.initialize(torch.Generator().manual_seed(0))
    optimizer = make_optimizer(codec, CodecOptimizerConfig(weight_decay=0.0), "muon")
    before = {name: parameter.detach().clone() for name, parameter in codec.named_parameters()}
    random = torch.Generator().manual_seed(1)
    for parameter in codec.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=random)
    optimizer.step()
    for name, parameter in codec.named_parameters():
        change = parameter.detach() - before[name]
        assert change.abs().sum() > 0
        if ".layers." in name and parameter.ndim == 2:
            assert set(optimizer.state[parameter]) == {"momentum_buffer"}
            assert peakedness(change) < 1.4
        else:
            assert set(optimizer.state[parameter]) == {"step", "exp_avg", "exp_avg_sq"}
    groups = [item for group in optimizer.param_groups for item in group["params"]]
    assert len(groups) == len(set(groups)) == len(before)
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in codec.parameters())


def test_muon_is_refused_for_weights_in_shares_and_for_language_models():
    muon = CodecOptimizerConfig(kind="muon")
    with pytest.raises(ConfigError, match=r"shard.*False with optimizer\.kind=muon"):
        TrainingConfig(shard=True, optimizer=muon)
    with pytest.raises(ConfigError, match="for a codec's blocks; expected 'adamw'"):
        make_optimizer(torch.nn.Linear(2, 2), muon, "muon")


def test_another_kind_of_optimizer_is_refused():
    with pytest.raises(ConfigError, match="'adamw' or 'muon'"):
        CodecOptimizerConfig(kind="sgd")
