"""What runs of CAT-ASR and CAT-TTS begin with: texts, language models, codecs, and refusals."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toy_speech import BOOK, KINDS, LAYERS, SMALL, language_config, write_codes

from moss_audio_tokenizer.codes import AudioCodes
from moss_audio_tokenizer.errors import ConfigError, ModelMismatchError, TrainingError
from moss_audio_tokenizer.hf.modeling import MossAudioTokenizerConfig, MossAudioTokenizerModel
from moss_audio_tokenizer.llm import (
    CodeEmbedding,
    language_model_config,
    load_language_model,
    made_language_model,
)
from moss_audio_tokenizer.training.data.data_config import CodesDataConfig
from moss_audio_tokenizer.training.recipes import trainer_for
from moss_audio_tokenizer.training.run_config import override
from moss_audio_tokenizer.training.speech import tts_trainer


@pytest.fixture(scope="module")
def codes(tmp_path_factory) -> str:
    """A manifest of stored codes."""
    return write_codes(tmp_path_factory.mktemp("codes"))


@pytest.fixture(scope="module")
def codec(tmp_path_factory) -> str:
    """The folder of a tiny codec: 4 layers of 64 rows."""
    folder = tmp_path_factory.mktemp("codec")
    torch.manual_seed(0)
    MossAudioTokenizerModel(MossAudioTokenizerConfig.preset("tiny")).save_pretrained(folder)
    return str(folder)


@pytest.fixture(params=KINDS)
def config(request, tmp_path, codes):
    return language_config(request.param, tmp_path / "run", codes)


@pytest.fixture
def opened():
    """Open a run that is closed after the test."""
    trainers = []

    def make(config, report=lambda _: None):
        trainers.append(trainer_for(config, report=report))
        return trainers[-1]

    yield make
    for trainer in trainers:
        trainer.close()


@pytest.fixture
def qwen(tmp_path):
    """Write a tiny Qwen2; returns its folder."""

    def write(num_tokens=32, **changes) -> str:
        config = language_model_config(16, 1, 2, num_tokens)
        for name, value in changes.items():
            setattr(config, name, value)
        made_language_model(config, seed=9).save_pretrained(tmp_path / "qwen")
        return str(tmp_path / "qwen")

    return write


def with_model(config, **changes):
    return replace(config, model=replace(config.model, **changes))


def test_clips_that_the_alphabet_cannot_spell_are_left_out(config, opened, tmp_path):
    (tmp_path / "more").mkdir()
    manifest, lines = write_codes(tmp_path / "more", "für", "aж", "B-a!"), []
    trainer = opened(override(config, [f"data.manifest={manifest}"]), lines.append)
    assert "left out: 2 clips whose text the model cannot say, such as 'für'" in lines
    assert "10 of 12 training clips are used" in lines
    assert "3 validation clips" in lines
    rows = [row for step in range(12) for row in trainer.data.batch(step).rows]
    texts = {segment.text for row in rows for segment in row.segments}
    assert "b a" in texts
    assert not {"für", "aж", "B-a!"} & texts
    in_bytes = [f"data.manifest={manifest}", "model.text=bytes", f"output={tmp_path / 'bytes'}"]
    assert opened(override(config, in_bytes)).data.num_used == 12


@pytest.mark.parametrize("tied", [True, False])
def test_a_pretrained_model_is_taken_over_weight_by_weight(config, qwen, opened, tied):
    folder = qwen(tie_word_embeddings=tied)
    model = opened(with_model(config, llm=folder)).task.model
    source = load_language_model(folder)
    if config.kind == "asr":
        ours, theirs = model.language_model, source
    else:
        ours, theirs = model.temporal, source.base_model
    expected = theirs.state_dict()
    assert ours.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in ours.state_dict().items())


def test_a_pretrained_models_shape_can_be_taken_alone(config, qwen, opened):
    folder = qwen()
    model = opened(with_model(config, llm=folder, init="random")).task.model
    source = load_language_model(folder)
    ours = model.language_model.base_model if config.kind == "asr" else model.temporal
    assert ours.config.vocab_size == 32
    name = "layers.0.mlp.up_proj.weight"
    ours, theirs = ours.get_parameter(name), source.base_model.get_parameter(name)
    assert ours.shape == theirs.shape
    assert not torch.equal(ours, theirs)


@pytest.fixture
def spoken_config(config, spoken, codec):
    """Of sound, which a tiny codec encodes, with texts in bytes."""
    data = CodesDataConfig(spoken, codec=codec, batch_seconds=2.0)
    return replace(config, data=data, model=replace(SMALL, text="bytes"))


@pytest.mark.parametrize("rank", [0, 4])
def test_code_tables_can_begin_as_the_codecs_vectors(spoken_config, codec, opened, rank):
    config = with_model(spoken_config, start_from_codec=True, code_rank=rank)
    table = opened(config).task.model.code_embedding
    quantizer = MossAudioTokenizerModel.from_pretrained(codec).codec.quantizer
    expected = CodeEmbedding(4, 64, 16, rank)
    expected.start_from(quantizer.code_vectors(), config.seed)
    torch.testing.assert_close(table.tables, expected.tables)


def test_sound_is_encoded_and_a_text_is_spoken(spoken, codec, tmp_path, opened, monkeypatch):
    config = replace(
        language_config("tts", tmp_path / "run", ""),
        data=CodesDataConfig(spoken, codec=codec, batch_seconds=2.0),
        model=replace(SMALL, text="bytes"),
    )
    monkeypatch.setattr(tts_trainer, "_MOST_SECONDS", 0.8)
    trainer = opened(config)
    torch.nn.init.constant_(trainer.task.model.signs, 1.0)
    found = trainer.validate()
    assert (found.text, found.sampling_rate) == ("SAY 2", 24_000)
    assert 0 < len(found.samples) <= 0.8 * 24_000
    assert len(found.samples) % 1920 == 0
    assert {"codes/1", "codes/4", "score"} <= found.scalars.keys()
    monkeypatch.setattr(tts_trainer, "_MOST_SECONDS", 0.0)
    assert len(trainer.validate().samples) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start_from_codec": True}, r"start_from_codec is set, but data\.codec is empty; name"),
        ({"llm": "./nowhere"}, r"no language model at './nowhere'.*set model\.llm to"),
        ({"llm": "./nowhere", "text": ""}, r"no tokenizer at './nowhere'.*name one"),
        ({"text": "./nowhere"}, r"no tokenizer at './nowhere'.*name one"),
        ({"code_rank": 17}, r"code_rank is 17; expected at most 16 .* or 0 for full tables"),
    ],
)
def test_models_that_cannot_be_made_are_refused_in_a_line(config, change, message):
    with pytest.raises(ConfigError, match=message) as caught:
        trainer_for(with_model(config, **change))
    assert "\n" not in str(caught.value)
    assert not (Path(config.output) / "recipe.json").exists()


def test_a_model_that_knows_fewer_tokens_than_the_text_is_refused(config, qwen):
    folder = qwen(num_tokens=20)
    with pytest.raises(ConfigError, match=r"has 29 tokens, but .* knows 20; set model\.text"):
        trainer_for(with_model(config, llm=folder))


def test_rows_beyond_the_models_positions_are_refused(config, qwen):
    folder = qwen(max_position_embeddings=64)
    with pytest.raises(TrainingError, match=r"takes 150 steps .* has 64; lower data\.text_seconds"):
        trainer_for(with_model(config, llm=folder))


def test_a_codec_whose_codes_are_others_is_no_start(config, codec):
    config = override(config, [f"data.codec={codec}"])
    with pytest.raises(ModelMismatchError, match=r"set data\.codec"):
        trainer_for(with_model(config, start_from_codec=True))


def test_the_model_has_the_shape_of_its_codes(config, opened):
    found = opened(config).task.model.config
    assert (found.num_quantizers, found.codebook_size) == (LAYERS, BOOK)


def test_a_run_does_not_go_on_with_another_codec_in_the_place_of_its_own(config, tmp_path):
    manifest = write_codes(tmp_path)
    config = override(config, [f"data.manifest={manifest}"])
    trainer_for(config, report=lambda _: None).run()
    for path in tmp_path.glob("*.moss"):
        clip = AudioCodes.load(path)
        replace(clip, model="fedcba9876543210").save(path)
    longer = replace(config, max_steps=9)
    with pytest.raises(TrainingError, match=r"codes of model 0123.* of fedc.*set data\.codec"):
        trainer_for(longer, resume=True)
