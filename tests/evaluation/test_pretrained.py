"""Tiny random models of transformers, from folders: codecs to compare with, models that score."""

import numpy as np
import pytest

from moss_audio_tokenizer.errors import CheckpointError, InputError
from moss_audio_tokenizer.evaluation.baselines import open_baseline
from moss_audio_tokenizer.evaluation.scoring_models.scores import ScoringModelNames, ScoringModels

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


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


def small_wav2vec(**more):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    convolutions = {"conv_dim": (8, 8), "conv_kernel": (10, 8), "conv_stride": (8, 8)}
    rest = {"intermediate_size": 16, "num_feat_extract_layers": 2, "vocab_size": 12}
    positions = {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
    return transformers.Wav2Vec2Config(**(sizes | convolutions | rest | positions | more))


@pytest.fixture
def voice():
    time = np.arange(16_000) / 16_000
    return 0.1 * np.sin(2 * np.pi * 150 * time) * np.sin(9 * time)


def saved(folder, model):
    model.save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(folder)
    return str(folder)


def test_speaker_similarity_by_a_model_of_transformers(tmp_path, voice):
    pooled = {"tdnn_dim": (8, 8), "tdnn_kernel": (3, 1), "tdnn_dilation": (1, 1)}
    config = small_wav2vec(**pooled, xvector_output_dim=8)
    path = saved(tmp_path, transformers.Wav2Vec2ForXVector(config))
    scoring_models = ScoringModels(ScoringModelNames(speaker_model=path))
    noise = 0.1 * np.random.default_rng(0).standard_normal(16_000)
    assert scoring_models.score(voice, voice, "").values["speaker_similarity"] == pytest.approx(1.0)
    assert scoring_models.score(voice, noise, "").values["speaker_similarity"] < 0.9999


def test_opinion_scores_by_a_model_of_one_output(tmp_path, voice):
    model = transformers.Wav2Vec2ForSequenceClassification(small_wav2vec(num_labels=1))
    path = saved(tmp_path, model)
    scoring_models = ScoringModels(ScoringModelNames(opinion_model=path))
    samples = torch.from_numpy(voice.astype(np.float32))
    prepared = (samples - samples.mean()) / torch.sqrt(samples.var(correction=0) + 1e-7)
    with torch.inference_mode():
        expected = float(model.eval()(prepared[None]).logits)
    found = scoring_models.score(voice, voice, "").values["opinion_score"]
    assert found == pytest.approx(expected, abs=1e-4)


def test_a_model_of_several_outputs_gives_no_score(tmp_path):
    model = transformers.Wav2Vec2ForSequenceClassification(small_wav2vec(num_labels=3))
    with pytest.raises(CheckpointError, match="3 outputs"):
        ScoringModels(ScoringModelNames(opinion_model=saved(tmp_path, model)))


def test_a_recogniser_of_transformers(tmp_path, voice):
    import json

    letters = {letter: index for index, letter in enumerate(["<pad>", "<s>", "</s>", "<unk>", "|"])}
    letters |= {letter: 5 + index for index, letter in enumerate("abcdefg")}
    (tmp_path / "vocab.json").write_text(json.dumps(letters), encoding="utf-8")
    tokenizer = transformers.Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json"))
    model = transformers.Wav2Vec2ForCTC(small_wav2vec())
    path = saved(tmp_path, model)
    tokenizer.save_pretrained(path)
    scores = ScoringModels(ScoringModelNames(asr_model=path)).score(voice, voice, "a bad cab")
    assert set(scores.transcript) <= set("abcdefg |</unks>")
    assert scores.values["wer"] > 0
    assert scores.num_words == 3


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

    home = "moss_audio_tokenizer.evaluation.baselines.neural_codecs"
    monkeypatch.setattr(f"{home}.load_feature_extractor", lambda path: prepare)
    xcodec2(tmp_path)
    codec = open_baseline(f"xcodec2:{tmp_path}")
    (coded_clip,) = codec.code(0.1 * np.ones((1, 15_900), np.float32))
    assert (codec.codebook_size, coded_clip.num_quantizers) == (65_536, 1)
    assert (coded_clip.nominal_kbps, coded_clip.num_bits) == (0.8, 50 * 16)
    assert (coded_clip.audio.shape, coded_clip.codes.shape) == ((1, 15_900), (1, 50))
    with pytest.raises(InputError, match="one bitrate"):
        open_baseline(f"xcodec2:{tmp_path}@3")
