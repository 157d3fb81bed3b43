import pytest
import torch

from moss_audio_tokenizer.config import preset
from moss_audio_tokenizer.errors import ConfigError
from moss_audio_tokenizer.llm import CodeEmbedding
from moss_audio_tokenizer.model.codec import Codec


def codes(layers: int = 4, batch: int = 3, frames: int = 5) -> torch.Tensor:
    return torch.randint(0, 8, (layers, batch, frames), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("rank", [0, 2])
def test_a_frame_is_the_sum_of_its_layers_in_use(rank):
    embedding = CodeEmbedding(4, 8, 6, rank)
    given, depths = codes(), torch.tensor([1, 4, 2])
    sums = embedding(given, depths)
    for row, depth in enumerate(depths.tolist()):
        own = sum(embedding.tables[layer][given[layer, row]] for layer in range(depth))
        torch.testing.assert_close(sums[row], own)


def test_fewer_layers_are_the_same_as_a_depth():
    embedding = CodeEmbedding(4, 8, 6, 2)
    given = codes()
    torch.testing.assert_close(embedding(given[:2]), embedding(given, torch.tensor([2, 2, 2])))


@pytest.mark.parametrize("rank", [0, 2])
def test_one_layer_alone(rank):
    embedding = CodeEmbedding(4, 8, 6, rank)
    given = codes()[2]
    torch.testing.assert_close(embedding.of_layer(given, 2), embedding.tables[2][given])


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("layers", [0, 1, 3])
def test_layers_at_once_are_those_one_by_one(rank, layers):
    embedding = CodeEmbedding(4, 8, 6, rank)
    given = codes()[:layers, 0]
    found = embedding.of_layers(given)
    assert found.shape == (layers, 5, 6)
    for layer in range(layers):
        torch.testing.assert_close(found[layer], embedding.of_layer(given[layer], layer))


@pytest.mark.parametrize(("size", "width"), [(8, 16), (16, 8)])
def test_a_rank_beyond_any_tables_is_refused_before_anything_is_made(size, width):
    vectors = torch.randn(4, size, 12, generator=torch.Generator().manual_seed(1))
    CodeEmbedding(4, size, width, 8).start_from(vectors)
    for rank in (9, 1 << 62):
        with pytest.raises(ConfigError, match=rf"code_rank is {rank}; expected at most 8 .*full"):
            CodeEmbedding(4, size, width, rank)


def distances(vectors: torch.Tensor) -> torch.Tensor:
    return (vectors[:, :, None] - vectors[:, None]).norm(dim=-1)


@pytest.mark.parametrize("rank", [0, 8])
def test_a_start_from_the_codec_keeps_distances(rank):
    codec = Codec(preset("tiny"))
    codec.initialize(torch.Generator().manual_seed(0))
    vectors = codec.quantizer.code_vectors().detach()
    layers, size, latent = vectors.shape
    embedding = CodeEmbedding(
        layers, size, latent + 3, min(rank, codec.quantizer.codebooks.shape[-1])
    )
    embedding.start_from(vectors)
    before = distances(vectors)
    after = distances(embedding.tables).detach()
    scale = after.sum() / before.sum()
    torch.testing.assert_close(after, before * scale, rtol=1e-3, atol=1e-4 * float(after.max()))


def test_what_codes_add_is_what_the_quantizer_decodes():
    codec = Codec(preset("tiny"))
    codec.initialize(torch.Generator().manual_seed(0))
    quantizer = codec.quantizer
    vectors = quantizer.code_vectors()
    first, second = (torch.tensor([[[a]], [[b]]]) for a, b in ((0, 3), (5, 3)))
    moved = quantizer.decode(second) - quantizer.decode(first)
    torch.testing.assert_close(moved[0, 0], vectors[0, 5] - vectors[0, 0], rtol=1e-4, atol=1e-5)
