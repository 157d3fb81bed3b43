"""The quantizer of folded tables against the modules that it was folded from."""

import pytest
import torch

from moss_audio_tokenizer.config import QuantizerConfig
from moss_audio_tokenizer.model.quantizer import ResidualQuantizer
from moss_audio_tokenizer.runtime.folded_quantizer import FoldedQuantizer, fold_quantizer

LAYERS = 5
KINDS = pytest.mark.parametrize("kind", ["rlfq", "rvq"])
# With both outer projections, without them, and without those of each layer.
SIZES = pytest.mark.parametrize("sizes", [{}, {"input_dim": 10, "output_dim": 10}, {"rvq_dim": 4}])


def make_quantizer(kind="rlfq", **sizes):
    given = {"input_dim": 12, "rvq_dim": 10, "output_dim": 14, "num_quantizers": LAYERS}
    config = QuantizerConfig(
        **(given | {"codebook_size": 32, "codebook_dim": 4} | sizes), quantizer_type=kind
    )
    random = torch.Generator().manual_seed(3)
    quantizer = ResidualQuantizer(config).requires_grad_(requires_grad=False)
    for parameter in quantizer.parameters():
        parameter.copy_(0.6 * torch.randn(parameter.shape, generator=random))
    return quantizer


def hidden_of(quantizer, frames=200):
    random = torch.Generator().manual_seed(4)
    return 4 * torch.randn(2, frames, quantizer.config.input_dim, generator=random)


def codes_of(layers=LAYERS, frames=200):
    random = torch.Generator().manual_seed(5)
    return torch.randint(32, (layers, 2, frames), generator=random)


@KINDS
@SIZES
@pytest.mark.parametrize("layers", [1, 2, LAYERS])
def test_equals_the_modules(kind, sizes, layers):
    quantizer = make_quantizer(kind, **sizes)
    folded = fold_quantizer(quantizer)
    hidden, codes = hidden_of(quantizer), codes_of(layers)
    expected = quantizer.encode(hidden, layers)
    assert torch.equal(folded.encode(hidden, layers), expected)
    assert min(len(set(layer.flatten().tolist())) for layer in expected) >= 10  # they do vary
    torch.testing.assert_close(folded.decode(codes), quantizer.decode(codes), atol=1e-5, rtol=1e-5)


def test_only_a_quantizer_with_projections_is_folded():
    assert isinstance(fold_quantizer(make_quantizer()), FoldedQuantizer)
    assert isinstance(fold_quantizer(make_quantizer(rvq_dim=4)), ResidualQuantizer)


@KINDS
@SIZES
def test_later_changes_of_the_modules_do_not_show(kind, sizes):
    quantizer = make_quantizer(kind, **sizes)
    folded = fold_quantizer(quantizer)
    hidden, codes = hidden_of(quantizer), codes_of()
    expected = folded.encode(hidden, LAYERS), folded.decode(codes)
    for parameter in quantizer.parameters():
        parameter.add_(0.5)
    assert torch.equal(folded.encode(hidden, LAYERS), expected[0])
    assert torch.equal(folded.decode(codes), expected[1])
    assert not torch.equal(quantizer.encode(hidden), expected[0])


@SIZES
def test_in_float32_whatever_surrounds_it(sizes):
    folded = fold_quantizer(make_quantizer(**sizes))
    hidden, codes = hidden_of(make_quantizer(**sizes)).bfloat16(), codes_of()
    expected = folded.encode(hidden.float(), LAYERS), folded.decode(codes)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(folded.encode(hidden, LAYERS), expected[0])
        assert torch.equal(folded.decode(codes), expected[1])


def test_what_it_is_given_stays_as_it_was():
    quantizer = make_quantizer()
    folded = fold_quantizer(quantizer)
    hidden, codes = hidden_of(quantizer), codes_of()
    before = hidden.clone(), codes.clone()
    first = folded.encode(hidden, LAYERS)
    assert torch.equal(folded.encode(hidden, LAYERS), first)
    folded.decode(codes)
    assert torch.equal(hidden, before[0])
    assert torch.equal(codes, before[1])
