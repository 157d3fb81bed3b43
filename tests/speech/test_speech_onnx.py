"""Exported CAT-TTS and CAT-ASR: greedy codes and texts equal those of PyTorch."""

import json
import threading

import numpy as np
import pytest
import torch
from transformers import Qwen3Config

from moss_audio_tokenizer.asr import CatAsr, CatAsrConfig
from moss_audio_tokenizer.codes import CodecInfo
from moss_audio_tokenizer.errors import CheckpointError, InputError
from moss_audio_tokenizer.export.speech_export import export_speech
from moss_audio_tokenizer.llm import CharacterText, language_model_config
from moss_audio_tokenizer.speech.model_facts import is_exported_speech, is_speech_model
from moss_audio_tokenizer.speech.onnx_speech import OnnxAsr, OnnxTts
from moss_audio_tokenizer.speech.phonemes import Lexicon
from moss_audio_tokenizer.speech.sampling import CodeSampler, SpeechSampling
from moss_audio_tokenizer.speech.synthesizer import Synthesizer
from moss_audio_tokenizer.speech.transcriber import Transcriber
from moss_audio_tokenizer.speech.tts_generation import CONTINUE, Prompt, frames, generate
from moss_audio_tokenizer.tts import CatTts, CatTtsConfig

TEXT = CharacterText("abc ")
LAYERS, SIZE = 4, 8
RANDOM = np.random.default_rng(0)
CODES = RANDOM.integers(0, SIZE, (LAYERS, 5))


def language_model(kind: str, width: int = 16):
    if kind == "qwen2":
        return language_model_config(width, 2, 2, TEXT.num_tokens)
    return Qwen3Config(
        vocab_size=TEXT.num_tokens,
        hidden_size=width,
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
        ("qwen3", {"code_rank": 0, "weights": "int8"}),
        ("qwen2", {"adapter_width": 10, "weights": "float16"}),
    ],
    ids=["qwen2", "qwen3-adapter", "int8", "float16"],
)
def tts_pair(request, tmp_path_factory):
    return exported_pair(tmp_path_factory.mktemp("tts"), *request.param)


def exported_pair(folder, kind, changes):
    """A model of PyTorch, and its export."""
    weights = changes.get("weights", "float32")
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
    values |= {name: value for name, value in changes.items() if name != "weights"}
    width = 64 if "text_encoder_layers" in changes else 16
    config = CatTtsConfig(text_config=language_model(kind, width), **values)
    model = strong(CatTts(config, TEXT, 3, Lexicon({"ab": "æb", "c": "si"})))
    model.save_pretrained(folder / "torch")
    export_speech(folder / "torch", folder / "onnx", weights)
    # Weights in fewer bits are others: PyTorch computes with these too.
    same = model if weights == "float32" else CatTts.from_pretrained(folder / "onnx")
    return same, OnnxTts(folder / "onnx")


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


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("qwen2", {"guidance": 2.0}),
        ("qwen3", {"code_rank": 0}),
        ("qwen3", {"guidance": 3.0, "weights": "int8"}),
        ("qwen2", {"guidance": 2.0, "code_vector_dim": 3, "code_choice": "mean"}),
    ],
    ids=["guided", "plain", "int8", "mean"],
)
def test_spoken_phonemes_equal_those_of_pytorch(kind, changes, tmp_path):
    """Durations, conditions and codes; with and without a prompt."""
    pair = exported_pair(tmp_path, kind, changes | {"text_encoder_layers": 2})
    tokens = pair[0].lexicon.tokens("ab c")
    for codes in (None, CODES):
        one, other = (model.encode_text(tokens, codes) for model in pair)
        for name in ("duration_scores", "conditions", "remaining"):
            np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=2e-3)
    greedy = "code_choice" not in changes
    sampling = SpeechSampling(max_frames=12, seed=4, do_sample=not greedy)
    texts, prompts = ["ab c", "c a abca"], [None, Prompt(CODES, "c a")]
    first, second = (generate(model, texts, prompts, sampling) for model in pair)
    assert np.array_equal(first.audio_codes_lengths, second.audio_codes_lengths)
    assert np.array_equal(first.audio_codes, second.audio_codes)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [("code_choice", "median", "code_choice is 'median'"), ("codebook_size", 9, "latent_vectors")],
)
def test_damaged_facts_of_code_vectors_are_refused(field, value, message, tmp_path):
    exported_pair(tmp_path, "qwen2", {"text_encoder_layers": 2, "code_vector_dim": 3})
    (path,) = [
        path for path in tmp_path.rglob("config.json") if (path.parent / "text.onnx").is_file()
    ]
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}), encoding="utf-8")
    with pytest.raises(CheckpointError, match=message):
        OnnxTts(path.parent)


def test_frames_are_streamed(tts_pair):
    _, exported = tts_pair
    assert next(frames(exported, ["ab"])).codes.shape == (LAYERS, 1)


class DecodedSlowly:
    """A codec whose sound is the codes themselves; `threads` are those that it decodes on."""

    info = CodecInfo("", 24_000, 1, LAYERS, LAYERS, SIZE)

    def __init__(self):
        self.threads = set()

    def decode(self, codes):
        return codes.T.reshape(1, -1).astype(np.float32)

    def decoder_stream(self, max_slots):
        return self

    def open(self):
        return 0

    def step(self, steps):
        self.threads.add(threading.current_thread())
        return {slot: self.decode(codes) for slot, codes in steps.items()}


def test_frames_are_generated_while_earlier_ones_are_decoded(tts_pair, monkeypatch):
    """With the codes of complete speech, and until the listener has heard enough."""
    monkeypatch.setattr(CodeSampler, "choice", lambda _, scores, __: np.full(len(scores), CONTINUE))
    codec = DecodedSlowly()
    synthesizer = Synthesizer(tts_pair[1], codec)
    options = {"prompt_codes": CODES, "prompt_text": "c", "max_frames": 6, "seed": 2}
    whole = synthesizer.speak("ab", **options)
    parts = list(synthesizer.stream("ab", **options))
    assert np.array_equal(np.concatenate(parts), whole.samples)
    assert codec.threads == {threading.current_thread()}
    before = threading.active_count()
    stream = synthesizer.stream("ab", **options)
    assert np.array_equal(next(stream), parts[0])
    assert threading.active_count() == before + 1
    del stream
    assert threading.active_count() == before


def test_errors_of_generation_arrive(tts_pair, monkeypatch):
    monkeypatch.setattr(CodeSampler, "code", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        next(Synthesizer(tts_pair[1], DecodedSlowly()).stream("ab"))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (3, 1.0), (0, 0.6), (5, 0.6), (99, 1e-9)])
def test_codes_are_drawn_by_their_probabilities(ties, top_k, top_p):
    """The definition, code by code: filters first, then the cumulative probability."""
    settings = SpeechSampling(top_k=top_k, top_p=top_p, repetition_penalty=1.0)
    sampler, random = CodeSampler(settings, 1), np.random.default_rng(0)
    for draw in (0.0, 0.2, 0.5, 0.8, 0.999):
        scores = random.normal(size=12).astype(np.float32)
        scores = np.round(scores) if ties else scores
        shares = np.exp(scores.astype(np.float64))
        if 0 < top_k < 12:
            shares[scores < sorted(scores)[-top_k]] = 0
        shares /= shares.sum()
        order = sorted(range(12), key=shares.__getitem__)
        totals = np.cumsum(shares[order])
        if top_p < 1:
            shares[
                [i for i, total in zip(order[:-1], totals, strict=False) if total <= 1 - top_p]
            ] = 0
        expected = next(i for i in range(12) if shares[: i + 1].sum() > draw * shares.sum())
        found = sampler.code(scores[None], np.zeros((1, 0), int), np.array([draw], np.float32))
        assert found.tolist() == [expected]


@pytest.fixture(
    scope="module",
    params=[("qwen2", "float32"), ("qwen3", "float32"), ("qwen3", "int8")],
    ids=["qwen2", "qwen3", "int8"],
)
def asr_pair(request, tmp_path_factory):
    kind, weights = request.param
    config = CatAsrConfig(
        text_config=language_model(kind),
        num_quantizers=LAYERS,
        codebook_size=SIZE,
        frame_scores=True,
    )
    model = strong(CatAsr(config, TEXT, seed=3))
    folder = tmp_path_factory.mktemp("asr")
    model.save_pretrained(folder)
    if weights == "float32":
        export_speech(folder, folder)
        return model, OnnxAsr(folder)
    export_speech(folder, folder / "small", weights)
    return CatAsr.from_pretrained(folder / "small"), OnnxAsr(folder / "small")


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


@pytest.fixture(scope="module", params=["float32", "float16", "int8"])
def encoder_pair(request, tmp_path_factory):
    config = CatAsrConfig(
        num_quantizers=LAYERS,
        codebook_size=SIZE,
        code_rank=2,
        encoder_layers=3,
        encoder_width=64,
    )
    model = CatAsr(config, TEXT, seed=3)
    with torch.no_grad():
        # Large enough for the greedy text to have letters, and no end.
        model.frame_encoder.letter_head.weight.mul_(4)
        model.frame_encoder.letter_head.bias.view(3, -1)[:, TEXT.end] = -30
    model.lexicon = Lexicon({"a": "a"})
    folder = tmp_path_factory.mktemp("encoder")
    model.eval().save_pretrained(folder / "torch")
    facts = export_speech(folder / "torch", folder / "onnx", request.param)
    assert facts["graphs"] == ["frames.onnx"]
    return CatAsr.from_pretrained(folder / "onnx"), OnnxAsr(folder / "onnx")


def test_scores_of_an_encoder_equal_those_of_pytorch(encoder_pair):
    first, second = (model.ctc_scores(CODES) for model in encoder_pair)
    assert first.shape == (3 * CODES.shape[1], TEXT.num_tokens + 1)
    np.testing.assert_allclose(first, second, atol=1e-4)


@pytest.mark.parametrize("num_beams", [0, 1, 3])
def test_transcripts_of_an_encoder_equal_those_of_pytorch(encoder_pair, num_beams, codec_info):
    random = np.random.default_rng(0)
    clips = [random.integers(0, SIZE, (LAYERS, count)) for count in (1, 9, 14)]
    first, second = (
        Transcriber(model, codec_info).transcripts(clips, 2, num_beams=num_beams)
        for model in encoder_pair
    )
    assert [item.text for item in first] == [item.text for item in second]
    assert any(item.words for item in first)


def test_exported_encoders_say_what_they_are(encoder_pair, tmp_path):
    loaded, exported = encoder_pair
    assert is_exported_speech(exported.folder)
    assert loaded.lexicon is not None
    loaded.save_pretrained(tmp_path)
    assert is_speech_model(tmp_path)
    assert not is_exported_speech(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {"encoder_layers": 4}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="has no tensor 'frame_encoder"):
        export_speech(tmp_path, tmp_path / "out")


@pytest.fixture
def codec_info():
    class Codec:
        from moss_audio_tokenizer.codes import CodecInfo

        info = CodecInfo("0" * 16, 24_000, 1, 1920, LAYERS, SIZE)

    return Codec()


def test_folders_say_what_they_are(asr_pair, tmp_path):
    folder = asr_pair[1].folder
    assert is_speech_model(folder)
    assert is_exported_speech(folder)
    assert not is_speech_model(tmp_path)
    with pytest.raises(CheckpointError, match="describes no cat-tts model"):
        OnnxTts(folder)
    with pytest.raises(CheckpointError, match="holds no exported speech model"):
        OnnxAsr(tmp_path)


@pytest.mark.parametrize("config", ["[]", "{", '{"model_type": "cat-asr"}'])
def test_damaged_configurations_are_refused(tmp_path, config):
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(CheckpointError, match="holds no exported speech model"):
        OnnxAsr(tmp_path)


def test_language_models_of_other_kinds_are_refused(asr_pair, tmp_path):
    folder = asr_pair[1].folder
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["model_type"] = "gpt2"
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(InputError, match="the language model is 'gpt2'"):
        export_speech(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    config = CatAsrConfig(
        text_config=language_model_config(128, 2, 2, TEXT.num_tokens),
        num_quantizers=LAYERS,
        codebook_size=64,
    )
    folder = tmp_path_factory.mktemp("wide")
    CatAsr(config, TEXT).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("weights", "share"), [("float16", 2), ("int8", 4)])
def test_weights_in_fewer_bits_take_less_and_stay_near(wide, tmp_path, weights, share):
    facts = export_speech(wide, tmp_path / "small", weights)
    size = (wide / "model.safetensors").stat().st_size
    assert facts["bytes"]["model.safetensors"] * share < 1.1 * size
    before = CatAsr.from_pretrained(wide).state_dict()
    after = CatAsr.from_pretrained(tmp_path / "small").state_dict()
    for name, tensor in before.items():
        step = tensor.abs().amax(-1, keepdim=True) / 127
        assert bool(((tensor - after[name]).abs() <= step * 0.5001).all()), name
        assert tensor.ndim > 1 or torch.equal(tensor, after[name])


def test_exported_weights_are_exported_again_in_another_type(wide, tmp_path):
    export_speech(wide, tmp_path / "small", "int8")
    export_speech(tmp_path / "small", tmp_path / "large")
    small, large = (CatAsr.from_pretrained(tmp_path / name) for name in ("small", "large"))
    for name, tensor in small.state_dict().items():
        assert torch.equal(tensor, large.state_dict()[name]), name


def test_wrong_types_of_weights_are_refused(wide, tmp_path):
    with pytest.raises(InputError, match="no weights of type 'int4'; expected float32, float16"):
        export_speech(wide, tmp_path / "out", "int4")
    with pytest.raises(InputError, match="keeps its weights; name a new folder for int8"):
        export_speech(wide, wide, "int8")
    assert not (tmp_path / "out").exists()


def test_weights_that_float16_cannot_hold_are_refused(wide, tmp_path):
    model = CatAsr.from_pretrained(wide)
    with torch.no_grad():
        model.code_embedding.rows[0, 0, 0] = 1e6
    model.save_pretrained(tmp_path / "large")
    with pytest.raises(CheckpointError, match=r"code_embedding.rows .* float16 cannot hold"):
        export_speech(tmp_path / "large", tmp_path / "out", "float16")
    assert not (tmp_path / "out").exists()
