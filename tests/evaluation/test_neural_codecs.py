"""Neural codecs: tiny random models of transformers, and stand-ins for other packages."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from moss_audio_tokenizer.errors import CheckpointError, InputError, MissingDependencyError
from moss_audio_tokenizer.evaluation.baselines import open_baseline
from moss_audio_tokenizer.evaluation.published import published_codecs

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
neural_codecs = pytest.importorskip("moss_audio_tokenizer.evaluation.baselines.neural_codecs")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def encodec(folder):
    sizes = {"hidden_size": 16, "num_filters": 4, "codebook_size": 1024, "num_lstm_layers": 1}
    config = transformers.EncodecConfig(**sizes, target_bandwidths=[1.5, 6.0])
    transformers.EncodecModel(config).save_pretrained(folder)


def dac(folder):
    sizes = {"encoder_hidden_size": 4, "decoder_hidden_size": 32, "n_codebooks": 3}
    config = transformers.DacConfig(**sizes, downsampling_ratios=[4, 4, 5, 4], codebook_size=64)
    transformers.DacModel(config).save_pretrained(folder)


def mimi(folder):
    sizes = {"hidden_size": 16, "num_filters": 4, "codebook_size": 32, "codebook_dim": 8}
    layers = {"num_hidden_layers": 1, "intermediate_size": 32, "num_attention_heads": 2}
    more = {"vector_quantization_hidden_dimension": 8, "upsample_groups": 16, "head_dim": 8}
    config = transformers.MimiConfig(
        **(sizes | layers | more), num_key_value_heads=2, num_quantizers=4
    )
    transformers.MimiModel(config).save_pretrained(folder)


MAKERS = {"encodec": encodec, "dac": dac, "mimi": mimi}
# Setting, layers, nominal kbps: layers x bits x frames a second.
EXPECTED = {
    "encodec": [("@1.5", 2, 1.5), ("@6", 8, 6.0), ("", 8, 6.0)],
    "dac": [("@1", 1, 6 * 50 / 1000), ("", 3, 3 * 6 * 50 / 1000)],
    "mimi": [("@2", 2, 2 * 5 * 12.5 / 1000), ("", 4, 4 * 5 * 12.5 / 1000)],
}
CASES = [(kind, *case) for kind, cases in EXPECTED.items() for case in cases]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}

    def folder(kind):
        if kind not in made:
            torch.manual_seed(0)
            made[kind] = tmp_path_factory.mktemp(kind)
            MAKERS[kind](made[kind])
        return made[kind]

    return folder


@pytest.mark.parametrize(("kind", "setting", "layers", "kbps"), CASES)
def test_a_neural_codec_has_its_layers_and_bits(folders, kind, setting, layers, kbps):
    name = f"{kind}:{folders(kind)}{setting}"
    codec = open_baseline(name)
    samples = codec.sampling_rate  # one second
    audio = 0.1 * np.random.default_rng(0).standard_normal((1, samples)).astype(np.float32)
    (coded_clip,) = codec.code(audio)
    assert (codec.name, codec.quantizer_counts, coded_clip.num_quantizers) == (
        name,
        (layers,),
        layers,
    )
    assert coded_clip.nominal_kbps == pytest.approx(kbps)
    assert coded_clip.num_bits == pytest.approx(1000 * kbps, rel=0.09)
    assert coded_clip.codes.shape[0] == layers
    assert coded_clip.codes.max() < codec.codebook_size
    # Up to an incomplete frame at the end.
    assert coded_clip.audio.shape == (1, pytest.approx(samples, rel=0.02))
    assert np.isfinite(coded_clip.audio).all()


def test_a_codec_answers_as_transformers_does(folders):
    model = transformers.MimiModel.from_pretrained(folders("mimi")).eval()
    audio = 0.1 * torch.randn(1, 1, 24_000)
    with torch.inference_mode():
        expected = model(audio, num_quantizers=2)
    (coded_clip,) = open_baseline(f"mimi:{folders('mimi')}@2").code(audio[0].numpy())
    np.testing.assert_array_equal(coded_clip.codes, expected.audio_codes[0].numpy())
    np.testing.assert_allclose(coded_clip.audio, expected.audio_values[0].numpy(), atol=1e-5)


def test_other_weights_are_another_version(folders, tmp_path):
    first = open_baseline(f"dac:{folders('dac')}")
    torch.manual_seed(5)
    dac(tmp_path)
    assert open_baseline(f"dac:{tmp_path}").identity != first.identity
    assert open_baseline(f"dac:{folders('dac')}@1").identity == first.identity


@pytest.mark.parametrize(
    ("kind", "setting", "message"),
    [
        ("encodec", "@2", "expected one of 1.5, 6"),
        ("dac", "@4", "expected one of 1, 2, 3"),
        ("mimi", "@0", "expected one of 1, 2, 3, 4"),
    ],
)
def test_a_setting_that_the_codec_lacks_is_refused(folders, kind, setting, message):
    with pytest.raises(InputError, match=message):
        open_baseline(f"{kind}:{folders(kind)}{setting}")


@pytest.mark.parametrize("kind", ["encodec", "dac", "mimi", "xcodec2"])
def test_a_folder_without_a_model_is_refused(kind, tmp_path):
    with pytest.raises(CheckpointError, match="safetensors"):
        open_baseline(f"{kind}:{tmp_path}")
    with pytest.raises(InputError, match="expected a folder"):
        open_baseline(kind)


def test_a_pickle_is_never_read(tmp_path, folders):
    config = folders("dac") / "config.json"
    (tmp_path / "config.json").write_bytes(config.read_bytes())
    model = transformers.DacModel.from_pretrained(folders("dac"))
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="safetensors"):
        open_baseline(f"dac:{tmp_path}")


def xcodec2(folder):
    semantic = {"model_type": "wav2vec2-bert", "feature_projection_input_dim": 160}
    semantic |= {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes = {"hidden_size": 32, "intermediate_size": 16, "num_hidden_layers": 1, "head_dim": 16}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "encoder_hidden_size": 4}
    config = transformers.Xcodec2Config(
        **(sizes | heads),
        quantization_dim=64,
        semantic_model_config=semantic | {"intermediate_size": 16, "output_hidden_size": 32},
    )
    transformers.Xcodec2Model(config).save_pretrained(folder)


def test_x_codec_2_has_one_layer_of_65536(tmp_path, monkeypatch):
    """Its own preparation of samples needs torchaudio: a stand-in has the same shapes."""

    def prepare(sound, sampling_rate, return_tensors):
        frames = -(-len(sound) // 320)
        padded = torch.from_numpy(np.pad(sound, (0, 320 * frames - len(sound))))
        return {"input_values": padded[None, None], "input_features": torch.ones(1, frames, 160)}

    monkeypatch.setattr(neural_codecs, "load_feature_extractor", lambda path: prepare)
    xcodec2(tmp_path)
    codec = open_baseline(f"xcodec2:{tmp_path}")
    (coded_clip,) = codec.code(0.1 * np.ones((1, 15_900), np.float32))
    assert (codec.codebook_size, coded_clip.num_quantizers) == (65_536, 1)
    assert (coded_clip.nominal_kbps, coded_clip.num_bits) == (0.8, 50 * 16)
    assert (coded_clip.audio.shape, coded_clip.codes.shape) == ((1, 15_900), (1, 50))
    with pytest.raises(InputError, match="expected one of 1"):
        open_baseline(f"xcodec2:{tmp_path}@3")


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
        rates = neural_codecs.RATES[PUBLISHED[row.model]]
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
    with pytest.raises(InputError, match="expected one of 1, 2, 3, 4, 5, 6, 7, 8"):
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
