"""Codecs of other packages, with stand-ins for these."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from moss_audio_tokenizer.errors import CheckpointError, InputError, MissingDependencyError
from moss_audio_tokenizer.evaluation.baselines import open_baseline
from moss_audio_tokenizer.evaluation.published import published_codecs

torch = pytest.importorskip("torch")
package_codecs = pytest.importorskip("moss_audio_tokenizer.evaluation.baselines.package_codecs")

PUBLISHED = {
    "SpeechTokenizer": "speechtokenizer",
    "BigCodec": "bigcodec",
    "XY-Tokenizer": "xy-tokenizer",
    "StableCodec": "stable-codec",
    "MiMo-Audio-Tokenizer": "mimo",
    "Qwen3-TTS-Tokenizer": "qwen3-tts",
}


def test_rates_are_those_of_the_paper():
    rows = [row for row in published_codecs(["speech"]) if row.model in PUBLISHED]
    assert {row.model for row in rows} == set(PUBLISHED)
    for row in rows:
        rates = package_codecs.RATES[PUBLISHED[row.model]]
        assert rates.bitrate(row.num_quantizers) == pytest.approx(1000 * row.kbps), row.model


def one_second(codec):
    return 0.1 * np.ones((1, codec.sampling_rate), np.float32)


class FakeSpeechTokenizer:
    @classmethod
    def load_from_checkpoint(cls, config, weights):
        if "absent" in config:
            raise FileNotFoundError(f"no {config}")
        return cls()

    def eval(self):
        return self

    def encode(self, audio):
        assert audio.shape == (1, 1, 16_000)
        return torch.arange(8)[:, None, None].expand(8, 1, 50)

    def decode(self, codes):
        return torch.full((1, 1, 50 * 320), 0.1 * len(codes))


def test_speechtokenizer_uses_its_first_layers(monkeypatch, tmp_path):
    module = SimpleNamespace(SpeechTokenizer=FakeSpeechTokenizer)
    monkeypatch.setitem(sys.modules, "speechtokenizer", module)
    codec = open_baseline(f"speechtokenizer:{tmp_path}@2")
    (clip,) = codec.code(one_second(codec))
    assert (clip.num_quantizers, clip.nominal_kbps, clip.num_bits) == (2, 1.0, 1000)
    assert clip.codes.shape == (2, 50)
    np.testing.assert_allclose(clip.audio, 0.2)
    with pytest.raises(InputError, match="expected 1 to 8"):
        open_baseline(f"speechtokenizer:{tmp_path}@9")
    with pytest.raises(CheckpointError, match="cannot be opened"):
        open_baseline("speechtokenizer:absent")


class FakeStableCodec:
    def __init__(self, model_config_path, ckpt_path, device):
        self.bottleneck = None

    def set_posthoc_bottleneck(self, name):
        self.bottleneck = name

    def encode(self, audio, posthoc_bottleneck):
        assert self.bottleneck == "2x15625_700bps"
        return None, [torch.zeros(1, 25, 1), torch.ones(1, 25, 1)]

    def decode(self, tokens, posthoc_bottleneck):
        return torch.zeros(1, 1, 16_100)


def test_stable_codec_has_its_preset(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "stable_codec", SimpleNamespace(StableCodec=FakeStableCodec))
    codec = open_baseline(f"stable-codec:{tmp_path}")
    (clip,) = codec.code(one_second(codec))
    assert (clip.nominal_kbps, clip.num_bits) == (0.7, 700)
    assert clip.audio.shape == (1, 16_000)


class FakeQwen:
    @classmethod
    def from_pretrained(cls, path, device_map):
        return cls()

    def encode(self, audio, sr):
        assert (audio.shape, sr) == ((24_000,), 24_000)
        return SimpleNamespace(audio_codes=[torch.zeros(13, 16, dtype=torch.long)])

    def decode(self, coded):
        return [np.zeros(24_960, np.float32)], 24_000


def test_qwen3_tts_decodes_all_layers_only(monkeypatch):
    module = SimpleNamespace(Qwen3TTSTokenizer=FakeQwen)
    monkeypatch.setitem(sys.modules, "qwen_tts", module)
    codec = open_baseline("qwen3-tts:some/model")
    (clip,) = codec.code(one_second(codec))
    assert (clip.nominal_kbps, clip.codes.shape) == (2.2, (16, 13))
    few = open_baseline("qwen3-tts:some/model@8")
    with pytest.raises(InputError, match="all of its layers only"):
        few.code(one_second(few))


def mimo_plug_in():
    """What a user writes for a codec without a package."""
    return lambda audio, count: (audio, np.zeros((count, 25), np.int64))


def xy_plug_in():
    return lambda audio, count: (np.zeros((1, 24_000)), np.zeros((8, 13), np.int64))


def test_a_plug_in_has_the_rates_of_its_codec(monkeypatch):
    monkeypatch.setitem(sys.modules, "plug_ins", sys.modules[__name__])
    codec = open_baseline("mimo:plug_ins:mimo_plug_in@4")
    (clip,) = codec.code(one_second(codec))
    assert (clip.nominal_kbps, clip.num_bits) == (0.85, 850)
    xy = open_baseline("xy-tokenizer:plug_ins:xy_plug_in")
    (clip,) = xy.code(one_second(xy))
    assert clip.audio.shape == (1, 16_000)  # made at 24 kHz
    few = open_baseline("xy-tokenizer:plug_ins:xy_plug_in@2")
    with pytest.raises(InputError, match="expected 2 layers"):
        few.code(one_second(few))
    with pytest.raises(InputError, match="bigcodec has no package; give a plug-in"):
        open_baseline("bigcodec:folder")


@pytest.mark.parametrize(
    ("name", "module"),
    [("speechtokenizer:f", "speechtokenizer"), ("stable-codec:f", "stable_codec")],
)
def test_a_missing_package_is_named(name, module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match="pip install"):
        open_baseline(name)


def test_higgs_runs_in_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torchaudio")
    if not hasattr(transformers, "HiggsAudioV2TokenizerModel"):
        pytest.skip("this version of transformers has no Higgs")
    torch.manual_seed(0)
    acoustic = {"encoder_hidden_size": 4, "decoder_hidden_size": 64, "hidden_size": 64}
    semantic = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    semantic |= {"intermediate_size": 16, "conv_dim": [8] * 7, "num_conv_pos_embeddings": 8}
    semantic |= {"num_conv_pos_embedding_groups": 2}
    config = transformers.HiggsAudioV2TokenizerConfig(
        acoustic_model_config={"model_type": "dac", **acoustic},
        semantic_model_config={"model_type": "hubert", **semantic},
        codebook_dim=8,
        codebook_size=32,
        target_bandwidths=[0.75, 1.5],
    )
    transformers.HiggsAudioV2TokenizerModel(config).save_pretrained(tmp_path)
    codec = open_baseline(f"higgs:{tmp_path}@0.75")
    audio = 0.1 * np.random.default_rng(0).standard_normal((1, 24_000)).astype(np.float32)
    (clip,) = codec.code(audio)
    assert len(clip.codes) == clip.num_quantizers
    assert clip.nominal_kbps == pytest.approx(0.75)
    assert clip.audio.shape == (1, pytest.approx(24_000, rel=0.05))
