"""The folded quantizer against the simplest right version, layer by layer on the residual."""

import pytest
import torch
import torch.nn.functional as F

from moss_audio_tokenizer.config import QuantizerConfig
from moss_audio_tokenizer.model.quantizer import ResidualQuantizer

KINDS = ["rlfq", "rvq"]


def make_quantizer(kind="rlfq", **sizes):
    config = QuantizerConfig(
        **(
            {
                "input_dim": 12,
                "rvq_dim": 10,
                "output_dim": 14,
                "num_quantizers": 5,
                "codebook_size": 16,
                "codebook_dim": 4,
            }
            | sizes
        ),
        quantizer_type=kind,
    )
    torch.manual_seed(3)
    quantizer = ResidualQuantizer(config)
    for parameter in quantizer.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return quantizer


def weight(layer):
    """Weight norm by its definition."""
    return layer.gain[..., None] * layer.direction / layer.direction.norm(dim=-1, keepdim=True)


def apply(layer, x, index=None):
    if isinstance(layer, torch.nn.Identity) or layer is None:
        return x
    if index is None:
        return F.linear(x, weight(layer), layer.bias)
    return F.linear(x, weight(layer)[index], layer.bias[index])


def slow_forward(quantizer, hidden, active):
    """the quantizer of docs/codec.md, step by step, for one batch without padding."""
    residual = apply(quantizer.input_proj, hidden)
    total, codes, commitment, codebook = 0, [], 0, 0
    for layer in range(quantizer.config.num_quantizers):
        view = apply(quantizer.in_projs, residual, layer)
        rows = quantizer.codebooks[layer]
        if quantizer.config.quantizer_type == "rlfq":
            distance = torch.cdist(F.normalize(view, dim=-1), F.normalize(rows, dim=-1)[None])
        else:
            distance = torch.cdist(view, rows[None])
        chosen = distance.argmin(-1)
        row = rows[chosen]
        used = (active > layer).float()
        commitment = commitment + ((view - row.detach()) ** 2).mean((1, 2)) * used
        codebook = codebook + ((view.detach() - row) ** 2).mean((1, 2)) * used
        output = apply(quantizer.out_projs, view + (row - view).detach(), layer)
        total = total + output * used[:, None, None]
        residual = residual - output
        codes.append(chosen)
    decoded = apply(quantizer.output_proj, total)
    return decoded, torch.stack(codes), commitment.mean(), codebook.mean()


SIZES = [{}, {"input_dim": 10, "output_dim": 10}, {"rvq_dim": 4}]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", SIZES)
def test_equals_the_slow_version_with_its_gradients(kind, sizes):
    quantizer = make_quantizer(kind, **sizes).double()
    hidden = torch.randn(3, 7, quantizer.config.input_dim).double().requires_grad_()
    active = torch.tensor([5, 2, 1])
    # float() inside the quantizer would hide errors of the formula behind rounding
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "float", lambda tensor: tensor)
        output = quantizer(hidden, active)
    results = [
        (output.hidden, output.codes, output.commitment_loss, output.codebook_loss),
        slow_forward(quantizer, hidden, active),
    ]
    assert torch.equal(results[0][1], results[1][1])
    gradients = []
    for decoded, _, commitment, codebook in results:
        loss = decoded.square().sum() + 0.7 * commitment + 1.3 * codebook
        inputs = [hidden, *quantizer.parameters()]
        gradients.append((loss, *torch.autograd.grad(loss, inputs, allow_unused=True)))
    for fast, slow in zip(*gradients, strict=True):
        assert (fast is None) == (slow is None)
        if fast is not None:
            torch.testing.assert_close(fast, slow, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_encode_and_decode(kind):
    quantizer = make_quantizer(kind)
    hidden = torch.randn(2, 50, 12)
    with torch.no_grad():
        decoded, codes, _, _ = slow_forward(quantizer, hidden, torch.tensor([5, 5]))
        assert (quantizer.encode(hidden) == codes).float().mean() > 0.99
        torch.testing.assert_close(quantizer.decode(codes), decoded)


def test_layers_are_a_prefix():
    quantizer = make_quantizer()
    hidden = torch.randn(2, 9, 12)
    with torch.no_grad():
        codes = quantizer.encode(hidden)
        assert torch.equal(quantizer.encode(hidden, 3), codes[:3])
        active = quantizer(hidden, torch.tensor([3, 3]))
        torch.testing.assert_close(quantizer.decode(codes[:3]), active.hidden)


def test_padding_does_not_enter_the_losses():
    quantizer = make_quantizer()
    hidden = torch.randn(2, 8, 12)
    valid = torch.ones(2, 8)
    valid[1, 5:] = 0
    padded = quantizer(hidden, valid=valid)
    changed = hidden.clone()
    changed[1, 5:] = 100.0
    again = quantizer(changed, valid=valid)
    torch.testing.assert_close(padded.commitment_loss, again.commitment_loss)
    torch.testing.assert_close(padded.codebook_loss, again.codebook_loss)
    alone = [quantizer(hidden[:1]), quantizer(hidden[1:, :5])]
    mean = sum(output.commitment_loss for output in alone) / 2
    torch.testing.assert_close(padded.commitment_loss, mean)


def test_stays_in_float32_under_autocast():
    quantizer = make_quantizer()
    hidden = torch.randn(1, 20, 12)
    with torch.no_grad():
        expected = quantizer.encode(hidden)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(quantizer.encode(hidden), expected)
            assert quantizer.decode(expected).dtype == torch.float32
