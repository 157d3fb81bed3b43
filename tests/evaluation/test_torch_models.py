"""Scoring models in PyTorch, small and random: of transformers, and from converted folders."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from moss_audio_tokenizer.errors import CheckpointError
from moss_audio_tokenizer.evaluation.scoring_models import (
    ScoringModelNames,
    ScoringModels,
    cosine,
    load_opinion_model,
    load_speaker_model,
)

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": [8, 8],
    "conv_kernel": [10, 8],
    "conv_stride": [5, 64],
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}
WAVLM = {
    "model_type": "wavlm-speaker-verification",
    "wavlm": TINY | {"do_stable_layer_norm": True, "feat_extract_norm": "layer"},
    "channels": 32,
    "bottleneck": 8,
    "embedding_size": 12,
}
UTMOS = {
    "model_type": "utmos22-strong",
    "wav2vec2": TINY,
    "condition_size": 4,
    "hidden_size": 8,
    "projection_size": 6,
}


def converter():
    path = Path(__file__).parents[2] / "recipes" / "convert_scoring_models.py"
    spec = importlib.util.spec_from_file_location("convert_scoring_models", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def written(folder, config, build):
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = build(config)
    folder.mkdir()
    save_file(model.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    return model


@pytest.fixture
def models():
    from moss_audio_tokenizer.evaluation.scoring_models import torch_models

    return torch_models


@pytest.fixture
def sound():
    return 0.1 * np.random.default_rng(0).standard_normal(16_000)


def test_a_converted_speaker_model_embeds(tmp_path, models, sound):
    written(tmp_path / "wavlm", WAVLM, models.SpeakerVerification)
    embed = load_speaker_model(f"wavlm:{tmp_path / 'wavlm'}")
    assert embed(sound, 16_000).shape == (12,)
    # The wave is normalized first: loudness does not count.
    assert cosine(embed(sound, 16_000), embed(0.1 * sound, 16_000)) == pytest.approx(1.0, abs=1e-3)


def test_a_converted_opinion_model_rates(tmp_path, models, sound):
    model = written(tmp_path / "utmos", UTMOS, models.Utmos22)
    rate = load_opinion_model(f"utmos:{tmp_path / 'utmos'}")
    value = rate(sound, 16_000)
    with torch.no_grad():
        expected = model.eval()(torch.from_numpy(sound).float()[None])
    assert value == pytest.approx(float(expected))


def test_what_is_not_converted_is_refused_in_one_line(tmp_path, models):
    written(tmp_path / "utmos", UTMOS, models.Utmos22)
    for folder in (tmp_path / "utmos", tmp_path / "absent"):
        with pytest.raises(CheckpointError, match=r"convert_scoring_models\.py") as caught:
            load_speaker_model(f"wavlm:{folder}")
        assert "\n" not in str(caught.value)


def test_damaged_weights_are_refused_in_one_line(tmp_path, models):
    written(tmp_path / "utmos", UTMOS, models.Utmos22)
    weights = tmp_path / "utmos" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"convert_scoring_models\.py") as caught:
        load_opinion_model(f"utmos:{tmp_path / 'utmos'}")
    assert "\n" not in str(caught.value)


def test_published_names_become_those_of_the_model(models):
    """The names of a checkpoint of UniSpeech, made from those of transformers by hand."""
    model = models.SpeakerVerification(WAVLM)
    published = {}
    by_hand = [
        ("wavlm.masked_spec_embed", "feature_extract.model.mask_emb"),
        ("feature_projection.projection.", "post_extract_proj."),
        ("feature_projection.layer_norm.", "layer_norm."),
        ("pos_conv_embed.conv.parametrizations.weight.original0", "pos_conv.0.weight_g"),
        ("pos_conv_embed.conv.parametrizations.weight.original1", "pos_conv.0.weight_v"),
        ("pos_conv_embed.conv.bias", "pos_conv.0.bias"),
        (".attention.gru_rel_pos_linear.", ".self_attn.grep_linear."),
        (".attention.gru_rel_pos_const", ".self_attn.grep_a"),
        (".attention.rel_attn_embed.", ".self_attn.relative_attention_bias."),
        (".attention.", ".self_attn."),
        (".feed_forward.intermediate_dense.", ".fc1."),
        (".feed_forward.output_dense.", ".fc2."),
        ("wavlm.", "feature_extract.model."),
    ]
    for name, tensor in model.state_dict().items():
        other = name
        for ours, theirs in by_hand:
            other = other.replace(ours, theirs)
        if ".encoder.layers." in other and ".final_" not in other:
            other = other.replace(".layer_norm.", ".self_attn_layer_norm.")
        if ".conv_layers." in other:
            other = other.replace(".conv.", ".0.").replace(".layer_norm.", ".2.1.")
        published[other] = tensor
    published["loss_calculator.projection.weight"] = torch.zeros(1)
    found = converter().renamed("wavlm", published)
    assert set(found) == set(model.state_dict())


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
    letters = {letter: index for index, letter in enumerate(["<pad>", "<s>", "</s>", "<unk>", "|"])}
    letters |= {letter: 5 + index for index, letter in enumerate("abcdefg")}
    (tmp_path / "vocab.json").write_text(json.dumps(letters), encoding="utf-8")
    tokenizer = transformers.Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json"))
    model = transformers.Wav2Vec2ForCTC(small_wav2vec())
    path = saved(tmp_path, model)
    tokenizer.save_pretrained(path)
    scores = ScoringModels(ScoringModelNames(asr_model=path)).score(voice, voice, "a bad cab")
    assert set(scores.transcript.read) <= set("abcdefg |</unks>")
    assert scores.values["wer"] > 0
    assert scores.transcript.num_words == 3
