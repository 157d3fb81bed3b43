"""What the reference implementation computed, computed by us.

The folders under tests/golden are cut to a few megabytes; MOSS_GOLDEN_DIR may name a folder with
the full set.
"""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from moss_audio_tokenizer import MossAudioTokenizerModel
from moss_audio_tokenizer.errors import ConfigError

FOLDERS = sorted((Path(__file__).parents[1] / "golden").glob("*/"))
if os.environ.get("MOSS_GOLDEN_DIR"):
    FOLDERS += sorted(Path(os.environ["MOSS_GOLDEN_DIR"]).glob("*/"))


@pytest.fixture(params=FOLDERS, ids=lambda folder: folder.name)
def golden(request):
    vectors = load_file(request.param / "io.safetensors")
    return MossAudioTokenizerModel.from_pretrained(request.param), vectors


def relative_rms(got, expected):
    return float((got - expected).norm() / expected.norm())


def mask_of(vectors):
    samples = torch.arange(vectors["wav"].shape[-1])
    return samples < vectors["lengths"][:, None]


def test_codes_and_hidden_states(golden):
    model, vectors = golden
    encoded = model.encode(vectors["wav"], mask_of(vectors))
    for row, frames in enumerate(vectors["codes_lengths"].tolist()):
        got, expected = encoded.audio_codes[:, row, :frames], vectors["codes"][:, row, :frames]
        assert (got == expected).float().mean() >= 0.999
        hidden = encoded.encoder_hidden_states[row, :, :frames]
        assert relative_rms(hidden, vectors["hidden"][row, :, :frames]) < 1e-4


def test_fewer_layers(golden):
    model, vectors = golden
    encoded = model.encode(vectors["wav"][:1], num_quantizers=3)
    frames = vectors["codes_first3"].shape[-1]
    same = encoded.audio_codes[..., :frames] == vectors["codes_first3"]
    assert same.float().mean() >= 0.999


def test_audio(golden):
    model, vectors = golden
    audio = model.decode(vectors["dec_codes"]).audio
    assert relative_rms(audio, vectors["audio"]) < 1e-4
    rows, _, samples = vectors["audio_first3"].shape
    few = model.decode(vectors["dec_codes"], num_quantizers=3).audio[:rows, :, :samples]
    assert relative_rms(few, vectors["audio_first3"]) < 1e-4


@pytest.mark.parametrize("layout", ["v1", "v2"])
@pytest.mark.parametrize("max_shard_size", ["5GB", "200KB"])
def test_saving_in_either_layout_changes_nothing(golden, tmp_path, layout, max_shard_size):
    model, vectors = golden
    if layout == "v1" and model.config.number_channels == 2:
        with pytest.raises(ConfigError, match="--layout v2"):  # one window for each stage
            model.save_pretrained(tmp_path, layout=layout)
        assert list(tmp_path.iterdir()) == []
        return
    model.save_pretrained(tmp_path, layout=layout, max_shard_size=max_shard_size)
    again = MossAudioTokenizerModel.from_pretrained(tmp_path)
    assert again.config.codec == model.config.codec
    audio = vectors["wav"][:1, :, :9600]
    first, second = model.encode(audio), again.encode(audio)
    assert torch.equal(first.audio_codes, second.audio_codes)
    assert torch.equal(first.encoder_hidden_states, second.encoder_hidden_states)
    codes = vectors["dec_codes"][:, :1, :5]
    assert torch.equal(model.decode(codes).audio, again.decode(codes).audio)
