"""Exported CAT-TTS and CAT-ASR: greedy codes and texts equal those of PyTorch."""

import json

import numpy as np
import pytest
import torch
from transformers import Qwen3Config

from moss_audio_tokenizer.asr import CatAsr, CatAsrConfig
from moss_audio_tokenizer.errors import CheckpointError, InputError
from moss_audio_tokenizer.export.speech import export_speech, is_speech_model
from moss_audio_tokenizer.llm import CharacterText, language_model_config
from moss_audio_tokenizer.speech.onnx_models import OnnxAsr, OnnxTts, is_exported_speech
from moss_audio_tokenizer.speech.sampling import CodeSampler, SpeechSampling
from moss_audio_tokenizer.speech.transcriber import Transcriber
from moss_audio_tokenizer.speech.tts_generation import CONTINUE, Prompt, frames, generate
from moss_audio_tokenizer.tts import CatTts, CatTtsConfig

TEXT = CharacterText("abc ")
LAYERS, SIZE = 4, 8
RANDOM = np.random.default_rng(0)
CODES = RANDOM.integers(0, SIZE, (LAYERS, 5))


def language_model(kind: str):
    if kind == "qwen2":
        return language_model_config(16, 2, 2, TEXT.num_tokens)
    return Qwen3Config(
        vocab_size=TEXT.num_tokens,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        bos_token_id=None,
        eos_token_id=TEXT.end,
        pad_token_id=TEXT.end,
        tie_word_embeddings=False,
    )


def strong(model):
    """Weights that are large enough to decide."""
    torch.set_num_threads(1)
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.copy_(torch.randn(parameter.shape, generator=random) * 0.3)
    return model.eval()


@pytest.fixture(
    scope="module",
    params=[
        ("qwen2", {}),
        ("qwen3", {"adapter_width": 10}),
        ("qwen2", {"place_inputs": True, "guidance": 2.0}),
        ("qwen3", {"place_inputs": True, "code_rank": 0}),
    ],
    ids=["qwen2", "qwen3-adapter", "guided", "aligned"],
)
def tts_pair(request, tmp_path_factory):
    kind, changes = request.param
    values = {
        "num_quantizers": LAYERS,
        "codebook_size": SIZE,
        "code_rank": 2,
        "depth_width": 12,
        "depth_layers": 2,
        "depth_heads": 2,
        "depth_key_value_heads": 1,
        "depth_head_dim": 6,
        "depth_feedforward": 16,
        "adapter_width": 0,
    }
    config = CatTtsConfig(text_config=language_model(kind), **(values | changes))
    model = strong(CatTts(config, TEXT, seed=3))
    folder = tmp_path_factory.mktemp("tts")
    model.save_pretrained(folder / "torch")
    export_speech(folder / "torch", folder / "onnx")
    return model, OnnxTts(folder / "onnx")


@pytest.mark.parametrize("num_quantizers", [0, 2])
@pytest.mark.parametrize("greedy", [True, False])
def test_codes_equal_those_of_pytorch(tts_pair, num_quantizers, greedy, monkeypatch):
    choice, decisions = CodeSampler.choice, []

    def continued(sampler, scores, draw):
        if scores.shape[1] > 2:
            return choice(sampler, scores, draw)
        decisions.append(scores)
        return np.full(len(scores), CONTINUE)

    monkeypatch.setattr(CodeSampler, "choice", continued)
    sampling = SpeechSampling(
        do_sample=not greedy, num_quantizers=num_quantizers, max_frames=12, seed=4
    )
    texts, prompts = ["ab c", "c abca"], [None, Prompt(CODES, "c a")]
    first, second = (generate(model, texts, prompts, sampling) for model in tts_pair)
    assert first.audio_codes.shape[1:] == (2, 12)
    assert np.array_equal(first.audio_codes, second.audio_codes)
    np.testing.assert_allclose(decisions[:12], decisions[12:], atol=1e-3)


def test_frames_are_streamed(tts_pair):
    _, exported = tts_pair
    assert next(frames(exported, ["ab"])).codes.shape == (LAYERS, 1)


@pytest.fixture(scope="module", params=["qwen2", "qwen3"])
def asr_pair(request, tmp_path_factory):
    config = CatAsrConfig(
        text_config=language_model(request.param),
        num_quantizers=LAYERS,
        codebook_size=SIZE,
        frame_scores=True,
    )
    model = strong(CatAsr(config, TEXT, seed=3))
    folder = tmp_path_factory.mktemp("asr")
    model.save_pretrained(folder)
    export_speech(folder, folder)
    return model, OnnxAsr(folder)


@pytest.mark.parametrize("num_beams", [0, 1, 3])
def test_transcripts_equal_those_of_pytorch(asr_pair, num_beams, codec_info):
    clips = [RANDOM.integers(0, SIZE, (LAYERS, count)) for count in (3, 9, 14)]
    first, second = (
        Transcriber(model, codec_info).transcribe_codes(clips, num_beams=num_beams)
        for model in asr_pair
    )
    assert first == second


def test_ctc_scores_equal_those_of_pytorch(asr_pair):
    first, second = (model.ctc_scores(CODES) for model in asr_pair)
    np.testing.assert_allclose(first, second, atol=1e-4)


@pytest.fixture
def codec_info():
    class Codec:
        from moss_audio_tokenizer.codes import CodecInfo

        info = CodecInfo("0" * 16, 24_000, 1, 1920, LAYERS, SIZE)

    return Codec()


def test_folders_say_what_they_are(asr_pair, tmp_path):
    folder = asr_pair[1].folder.folder
    assert is_speech_model(folder)
    assert is_exported_speech(folder)
    assert not is_speech_model(tmp_path)
    with pytest.raises(CheckpointError, match="describes no cat-tts model"):
        OnnxTts(folder)
    with pytest.raises(CheckpointError, match="holds no exported speech model"):
        OnnxAsr(tmp_path)


def test_language_models_of_other_kinds_are_refused(asr_pair, tmp_path):
    folder = asr_pair[1].folder.folder
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["model_type"] = "gpt2"
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(InputError, match="the language model is 'gpt2'"):
        export_speech(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
