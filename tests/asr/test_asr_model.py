import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import Qwen2Config

from moss_audio_tokenizer.asr import CatAsr, CatAsrConfig
from moss_audio_tokenizer.errors import CheckpointError, CodesError, ConfigError, InputError
from moss_audio_tokenizer.llm import CharacterText, language_model_config

TEXT = CharacterText("abc ")


def fresh(**changes) -> CatAsr:
    torch.set_num_threads(1)
    language = language_model_config(16, 2, 2, TEXT.num_tokens)
    config = CatAsrConfig(text_config=language, num_quantizers=4, codebook_size=8, **changes)
    return CatAsr(config, TEXT, seed=3).eval()


@pytest.fixture(scope="module")
def model() -> CatAsr:
    return fresh(code_rank=2)


def clips(*frames: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 8, (4, count)) for count in frames]


def batch(*frames: int) -> torch.Tensor:
    longest = max(frames)
    rows = [np.pad(clip, ((0, 0), (0, longest - clip.shape[1]))) for clip in clips(*frames)]
    return torch.from_numpy(np.stack(rows, 1))


@torch.no_grad()
def slow_loss(model: CatAsr, codes: torch.Tensor, text: str) -> torch.Tensor:
    """One row by itself, a full forward pass for every token."""
    tables = model.code_embedding.tables
    frames = sum(tables[layer][codes[layer]] for layer in range(len(codes)))
    embed, total = model.language_model.get_input_embeddings(), torch.zeros(())
    ids = [*TEXT.encode(text), TEXT.end]
    for place, wanted in enumerate(ids):
        known = embed(torch.tensor(ids[:place], dtype=torch.long))
        steps = torch.cat((frames, model.start_of_text[None], known))[None]
        logits = model.language_model(inputs_embeds=steps).logits[0, -1]
        total = total + F.cross_entropy(logits, torch.tensor(wanted))
    return total


def test_the_loss_is_that_of_every_row_by_itself(model):
    codes = batch(3, 5)
    output = model(codes, [3, 5], ["ab", "c a"])
    slow = slow_loss(model, codes[:, 0, :3], "ab") + slow_loss(model, codes[:, 1], "c a")
    torch.testing.assert_close(output.loss_sum, slow, rtol=1e-4, atol=1e-4)
    assert output.num_tokens == 3 + 4


def test_layers_beyond_the_depth_are_not_seen(model):
    codes = batch(4, 4)
    changed = codes.clone()
    changed[2:, 0] = 0
    depths = torch.tensor([2, 4])
    first, second = (model(c, [4, 4], ["a", "b"], depths).loss_sum for c in (codes, changed))
    assert torch.equal(first, second)
    changed[1, 0] = (changed[1, 0] + 1) % 8
    assert not torch.equal(first, model(changed, [4, 4], ["a", "b"], depths).loss_sum)


def test_frames_that_tell_the_tokens_themselves():
    model = fresh(frame_scores=True)
    output = model(batch(3, 5), [3, 5], ["ab", "c a"])
    alone = [
        model(torch.from_numpy(clip[:, None]), [clip.shape[1]], [text]).frame_loss
        for clip, text in zip(clips(3, 5), ["ab", "c a"], strict=True)
    ]
    torch.testing.assert_close(output.frame_loss, sum(alone))
    # Three frames and the start of text: two tokens fit, five do not.
    assert float(alone[0].detach()) > 0
    assert float(model(batch(3), [3], ["abcab"]).frame_loss.detach()) == 0
    output.frame_loss.backward()
    assert model.frame_head.weight.grad.abs().sum() > 0


def test_the_frames_loss_sums_over_all_alignments():
    """One token, one frame and the start of text: at either place, or at both."""
    model = fresh(frame_scores=True)
    codes = batch(1)
    with torch.no_grad():
        prompt = model._prompts(codes, [1], None)[0]
        states = model.language_model.base_model(inputs_embeds=prompt[None]).last_hidden_state[0]
        shares = model.frame_head(states).softmax(-1)
        token, nothing = shares[:, TEXT.encode("a")[0]], shares[:, -1]
        total = token[0] * nothing[1] + nothing[0] * token[1] + token[0] * token[1]
        found = model(codes, [1], ["a"]).frame_loss
    torch.testing.assert_close(found, -total.log())


def trained() -> CatAsr:
    """Knows two clips by heart."""
    model = fresh().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        model(batch(3, 5), [3, 5], ["ab", "c a"]).loss_sum.backward()
        optimizer.step()
    return model.eval()


def test_it_learns_to_read_batched_alone_and_with_beams():
    model = trained()
    three, five = clips(3, 5)
    assert model.transcribe_codes([three, five]) == ["ab", "c a"]
    assert model.transcribe_codes([five]) == ["c a"]
    assert model.transcribe_codes([five, three], num_beams=3) == ["c a", "ab"]
    assert model.transcribe_codes([]) == []


def test_fewer_layers_and_clips_of_fewer_layers_are_read_alike(model):
    (clip,) = clips(6)
    by_depth = model.transcribe_codes([clip], num_quantizers=2, max_tokens=8)
    assert model.transcribe_codes([clip[:2]], max_tokens=8) == by_depth


def test_a_folder_brings_the_model_back(model, tmp_path):
    model.save_pretrained(tmp_path / "asr")
    again = CatAsr.from_pretrained(tmp_path / "asr")
    (clip,) = clips(6)
    assert again.transcribe_codes([clip], max_tokens=8) == model.transcribe_codes(
        [clip], max_tokens=8
    )
    assert again.text.decode([0, 1]) == "ab"
    assert isinstance(again.config.text_config, Qwen2Config)
    assert again.config.code_rank == 2


def damage_nothing_there(folder):
    (folder / "model.safetensors").unlink()


def damage_cut(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def damage_config(folder):
    (folder / "config.json").write_text('{"model_type": "cat-tts"}')


def damage_width(folder):
    values = json.loads((folder / "config.json").read_text())
    values["codebook_size"] = 9
    (folder / "config.json").write_text(json.dumps(values))


def damage_text(folder):
    (folder / "text.json").unlink()


def damage_numbers(folder):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors["start_of_text"][0] = float("nan")
    save_file(tensors, path)


def damage_type(folder):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors["start_of_text"] = tensors["start_of_text"].int()
    save_file(tensors, path)


def change(name, **values):
    """A folder with other values in a file."""

    def damage(folder):
        facts = json.loads((folder / name).read_text())
        inner = facts["text_config"] if "inner" in values else facts
        inner |= {key: value for key, value in values.items() if key != "inner"}
        (folder / name).write_text(json.dumps(facts))

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        damage_nothing_there,
        damage_cut,
        damage_config,
        damage_width,
        damage_text,
        damage_numbers,
        damage_type,
        change("config.json", num_quantizers=2.5),
        change("config.json", num_quantizers=True),
        change("config.json", codebook_size=10**18),
        change("config.json", codebook_size=10**6),
        change("config.json", inner=True, hidden_size=-32),
        change("config.json", inner=True, hidden_size=10**9),
        change("config.json", inner=True, num_attention_heads=0),
        change("config.json", inner=True, num_hidden_layers=10**9),
        change("config.json", inner=True, hidden_act="nonsense"),
        change("config.json", inner=True, layer_types=["zzz"]),
        change("config.json", inner=True, vocab_size=3),
        change("config.json", inner=True, model_type="t5"),
        change("text.json", kind="bytes"),
        change("text.json", alphabet=["a", "b"]),
        change("text.json", words="ab"),
        change("text.json", words=[1]),
    ],
)
def test_damaged_folders_are_refused_in_one_line(model, tmp_path, damage):
    model.save_pretrained(tmp_path)
    damage(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        CatAsr.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("clip", "options"),
    [
        (np.zeros((4, 0), np.int64), {}),
        (np.zeros((4,), np.int64), {}),
        (np.zeros((4, 2)), {}),
        (np.full((4, 2), 8), {}),
        (np.full((4, 2), -1), {}),
        (np.zeros((4, 2), np.int64), {"num_quantizers": 5}),
        (np.zeros((4, 2), np.int64), {"num_quantizers": 0}),
        (np.zeros((2, 2), np.int64), {"num_quantizers": 3}),
    ],
)
def test_codes_that_cannot_be_read(model, clip, options):
    with pytest.raises(CodesError, match="expected"):
        model.transcribe_codes([clip], **options)


def test_code_of_others_is_not_asked_for(model, tmp_path):
    model.save_pretrained(tmp_path)
    change("config.json", inner=True, attn_implementation="somebody/kernel")(tmp_path)
    assert CatAsr.from_pretrained(tmp_path).transcribe_codes(clips(3), max_tokens=4)


def test_a_language_model_of_more_tokens_than_the_text_says_only_those(tmp_path):
    language = language_model_config(16, 1, 2, 50)
    model = CatAsr(CatAsrConfig(text_config=language, num_quantizers=4, codebook_size=8), TEXT)
    assert set(model.transcribe_codes(clips(3), max_tokens=20)[0]) <= set(TEXT.alphabet)
    with pytest.raises(ConfigError, match="5 tokens, and the language model 3"):
        CatAsr(CatAsrConfig(text_config=language_model_config(16, 1, 2, 3)), TEXT)


@pytest.mark.parametrize("num_beams", [0, 1])
def test_what_is_longer_than_the_models_positions(num_beams):
    language = language_model_config(16, 1, 2, TEXT.num_tokens)
    language.max_position_embeddings = 12
    config = CatAsrConfig(
        text_config=language, num_quantizers=4, codebook_size=8, frame_scores=True
    )
    model = CatAsr(config, TEXT)
    assert model.transcribe_codes(clips(7), num_beams=num_beams, max_tokens=4)
    with pytest.raises(InputError, match="this model has 12"):
        model.transcribe_codes(clips(12), num_beams=num_beams, max_tokens=4)


def test_beams_and_tokens_there_must_be(model):
    for beams in (-1, 129):
        with pytest.raises(InputError, match=f"num_beams is {beams}"):
            model.transcribe_codes(clips(3), num_beams=beams)
    with pytest.raises(InputError, match="no frame scores"):
        model.transcribe_codes(clips(3), num_beams=0)


def test_frames_are_read_without_repeats_and_pauses(monkeypatch):
    model = fresh(frame_scores=True)
    a, b, nothing = TEXT.encode("a")[0], TEXT.encode("b")[0], TEXT.num_tokens
    heard = torch.tensor([nothing, a, a, nothing, a, b, b])
    scores = F.one_hot(heard, nothing + 1)[None].float()
    monkeypatch.setattr(model, "frame_scores", lambda codes: scores)
    assert model.transcribe_codes(clips(6), num_beams=0) == ["aab"]


@pytest.mark.parametrize(
    "values", [{"num_quantizers": 0}, {"text_config": {}}, {"text_config": {"model_type": "no"}}]
)
def test_configurations_that_cannot_be(values):
    with pytest.raises(ConfigError):
        CatAsrConfig(**values)


def test_the_shape_of_the_published_recipe():
    """Qwen3-1.7B with 32 tables of 1024 x 2048, on the meta device."""
    language = {
        "model_type": "qwen3",
        "hidden_size": 2048,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": 6144,
        "vocab_size": 151_936,
        "tie_word_embeddings": True,
    }
    with torch.device("meta"):
        model = CatAsr(CatAsrConfig(text_config=language))
    tables = sum(p.numel() for p in model.code_embedding.parameters())
    inner = sum(p.numel() for p in model.language_model.parameters())
    assert tables == 32 * 1024 * 2048
    assert round(inner / 1e9, 2) == 1.72
