"""transformers' Auto classes: ours registered, theirs undisturbed, and the feature extractor."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForAudioTokenization,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from moss_audio_tokenizer import MossAudioTokenizerConfig, MossAudioTokenizerModel, hf
from moss_audio_tokenizer.errors import InputError
from moss_audio_tokenizer.hf.feature_extraction import MossAudioTokenizerFeatureExtractor


@pytest.fixture
def extractor():
    return MossAudioTokenizerFeatureExtractor(sampling_rate=800, hop_length=8)


def test_auto_classes_load_what_we_save(make_model, tmp_path):
    make_model().save_pretrained(tmp_path)
    for auto_class in (AutoModel, AutoModelForAudioTokenization):
        assert type(auto_class.from_pretrained(tmp_path)) is MossAudioTokenizerModel


OURS = "import moss_audio_tokenizer"
MODELS = "from transformers import AutoModel; AutoModel._model_mapping.keys()"
EXTRACTORS = "from transformers import AutoFeatureExtractor"
LOADED = """
import sys
from transformers import AutoConfig
extractor = AutoFeatureExtractor.from_pretrained(sys.argv[1])
assert type(extractor).__module__ == "moss_audio_tokenizer.hf.feature_extraction"
assert extractor.hop_length == 8
assert type(AutoModel.from_pretrained(sys.argv[2])).__name__ == "MossAudioTokenizerModel"
assert AutoConfig.from_pretrained(sys.argv[2]).frame_rate == 100
"""
# One process for several programs: each in a copy in which no Auto class of models or extractors,
# and nothing of ours, has been imported yet.
FORKED = """
import os, sys
import transformers.modeling_utils
loaded = [name for name in sys.modules if name.endswith(("modeling_auto", "_extraction_auto"))]
assert not loaded and "moss_audio_tokenizer" not in sys.modules
for program in sys.argv[3:]:
    child = os.fork()
    if child == 0:
        exec(program, {})
        sys.exit()
    assert os.waitpid(child, 0)[1] == 0, program
"""


def run(program, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_order_of_imports_does_not_matter(make_model, tmp_path):
    folders = str(tmp_path / "hf"), str(tmp_path / "ours")
    model = make_model(windows=(0.05, 0.05))
    model.save_pretrained(folders[0], layout="hf")
    model.save_pretrained(folders[1])
    run("\n".join([OURS, MODELS, EXTRACTORS, LOADED]), *folders)
    if hasattr(os, "fork"):
        orders = (MODELS, EXTRACTORS, OURS), (EXTRACTORS, MODELS, OURS)
        run(FORKED, *folders, *("\n".join([*order, LOADED]) for order in orders))


def test_a_class_of_the_same_name_in_transformers_stays_itself(make_model, tmp_path, monkeypatch):
    """What a release of transformers may have: the type with an underscore, the same names."""

    class Theirs(PreTrainedConfig):
        model_type = "moss_audio_tokenizer"

    class TheirModel(PreTrainedModel):
        config_class = Theirs

        def __init__(self, config):
            super().__init__(config)
            self.weight = torch.nn.Parameter(torch.zeros(1))

    Theirs.__name__, TheirModel.__name__ = "MossAudioTokenizerConfig", "MossAudioTokenizerModel"
    for auto_class in (AutoModel, AutoModelForAudioTokenization):
        mapping = auto_class._model_mapping
        built_in = ("MossAudioTokenizerConfig", "moss_audio_tokenizer")
        monkeypatch.setitem(mapping._reverse_config_mapping, *built_in)
        monkeypatch.setitem(mapping._model_mapping, built_in[1], "MossAudioTokenizerModel")
    hf._register_models()  # a name that is taken is no obstacle
    AutoConfig.register("moss_audio_tokenizer", Theirs)
    try:
        for auto_class in (AutoModel, AutoModelForAudioTokenization):
            auto_class.register(Theirs, TheirModel, exist_ok=True)
            assert type(auto_class.from_config(Theirs())) is TheirModel
        make_model().save_pretrained(tmp_path)
        assert type(AutoConfig.from_pretrained(tmp_path)) is MossAudioTokenizerConfig
        assert type(AutoModel.from_pretrained(tmp_path)) is MossAudioTokenizerModel
    finally:
        CONFIG_MAPPING._extra_content.pop("moss_audio_tokenizer", None)
        for auto_class in (AutoModel, AutoModelForAudioTokenization):
            auto_class._model_mapping._extra_content.pop(Theirs, None)


def test_clips_become_padded_rows_and_a_mask(extractor):
    clips = [np.full(13, 0.5), np.full(5, 0.25)]
    found = extractor(clips, sampling_rate=800, return_tensors="pt")
    assert found["input_values"].shape == (2, 1, 16)
    assert found["input_values"].dtype == torch.float32
    assert found["padding_mask"].sum(-1).tolist() == [13, 5]
    assert found["input_values"][1, 0].tolist() == [0.25] * 5 + [0] * 11


def test_the_model_takes_what_the_extractor_gives(extractor, make_model):
    model = make_model()
    clips = [np.sin(np.arange(40) / 3), np.sin(np.arange(21) / 2)]
    found = model.encode(**extractor(clips, return_tensors="pt"))
    expected = model.batch_encode([torch.tensor(clip, dtype=torch.float32) for clip in clips])
    assert torch.equal(found.audio_codes, expected.audio_codes)
    assert found.audio_codes_lengths.tolist() == [5, 3]


@pytest.mark.parametrize(
    "audio", [[0.5, 0.25], np.array([0.5, 0.25]), np.array([[0.5, 0.25]]), [np.array([0.5, 0.25])]]
)
def test_one_clip_of_any_kind(extractor, audio):
    found = extractor(audio, return_tensors="np")
    assert found["input_values"].tolist() == [[[0.5, 0.25, *[0] * 6]]]


def test_stereo():
    extractor = MossAudioTokenizerFeatureExtractor(feature_size=2, hop_length=4)
    clip = np.ones((2, 3))
    assert extractor(clip, return_tensors="np")["input_values"].shape == (1, 2, 4)
    assert extractor([clip, clip], return_tensors="np")["input_values"].shape == (2, 2, 4)
    assert extractor(np.ones((3, 2, 3)), return_tensors="np")["input_values"].shape == (3, 2, 4)


def test_lengths(extractor):
    clips = [np.ones(13), np.ones(5)]

    def shape(**options):
        return extractor(clips, return_tensors="np", **options)["input_values"].shape

    assert shape(padding="max_length", max_length=20) == (2, 1, 24)
    assert shape(truncation=True, max_length=6) == (2, 1, 8)
    assert shape(pad_to_multiple_of=1) == (2, 1, 13)
    assert extractor(clips[:1], padding=False, return_tensors="np")["input_values"].shape[2] == 13


@pytest.mark.parametrize(
    ("audio", "options", "message"),
    [
        (np.ones(8), {"sampling_rate": 44_100}, "44100 samples a second, but the model takes 800"),
        (np.ones((2, 3, 4)), {}, "expected floats of shape"),
        (np.ones(8, np.int16), {}, "int16"),
        ([np.ones((2, 8))], {}, r"of shape \[2, 8\]"),
        ([], {}, "no clip"),
        ([np.ones(0)], {}, "no samples"),
        ([np.ones(8), np.ones(9)], {"padding": False}, r"\[8, 9\] samples"),
        (np.ones(80), {"padding": "max_length", "max_length": 8}, "truncation=True"),
        (np.ones(8), {"truncation": True}, "max_length is None"),
        (np.ones(8), {"padding": "widest"}, "padding is 'widest'"),
    ],
)
def test_refusals(extractor, audio, options, message):
    with pytest.raises(InputError, match=message):
        extractor(audio, **options)


def test_saved_and_loaded(extractor, tmp_path):
    extractor.save_pretrained(tmp_path)
    loaded = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert type(loaded) is MossAudioTokenizerFeatureExtractor
    assert (loaded.sampling_rate, loaded.hop_length) == (800, 8)
