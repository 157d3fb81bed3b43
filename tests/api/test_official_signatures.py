"""The face that code written for the released models meets, held as data and compared with ours.

Signatures, tuple orders, configuration keys and attributes are facts of the published code: v1
(revision 56df9ee), and what v2 and Nano add.
"""

import inspect
import json
import pickle
import subprocess
import sys
from copy import deepcopy

import numpy as np
import pytest
import torch

from moss_audio_tokenizer import (
    AudioCodes,
    MossAudioTokenizerConfig,
    MossAudioTokenizerModel,
    OnnxAudioTokenizer,
    load_codec,
)
from moss_audio_tokenizer.errors import (
    AudioError,
    CheckpointError,
    CodesError,
    ConfigError,
    InputError,
)

SIGNATURES = {
    "encode": ("input_values padding_mask num_quantizers return_dict chunk_duration", 1),
    "decode": ("audio_codes padding_mask return_dict chunk_duration num_quantizers", 1),
    "forward": ("input_values padding_mask audio_codes num_quantizers return_dict", 0),
    "batch_encode": ("wav_list num_quantizers chunk_duration", 1),
    "batch_decode": (
        "codes_list num_quantizers chunk_duration streaming max_batch_size finalize_indices "
        "reset_stream use_cuda_graph",
        1,
    ),
    "streaming": ("batch_size", 0),
    "_encode_frame": ("input_values input_lengths n_quantizers", 1),
    "_decode_frame": ("codes codes_lengths", 1),
    "_set_streaming_exec_mask": ("exec_mask", 1),
    "_reset_batch_decode_streaming_state": ("", 0),
}
ATTRIBUTES = {
    "sampling_rate": 800,
    "downsample_rate": 8,
    "number_channels": 1,
    "enable_channel_interleave": False,
    "causal_transformer_context_duration": 0.03,
    "attention_implementation": "sdpa",
    "compute_dtype": None,
    "compute_dtype_name": "fp32",
    "codec_weight_dtype_name": "fp32",
}
CONFIG = {
    "version": None,
    "num_quantizers": 4,
    "codebook_size": 16,
    "frame_rate": 100.0,
    "sample_rate": 800,
    "channels_numbers": 1,
    "attention_backend": "sdpa",
    "codec_compute_dtype": "fp32",
    "codec_load_dtype": "fp32",
    "return_dict": True,
}


def noise(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 0.4 - 0.2


@pytest.fixture
def model(make_model):
    return make_model()


@pytest.fixture
def folder(model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("name", SIGNATURES)
def test_arguments_come_in_the_released_order(name):
    names, num_required = SIGNATURES[name]
    verb = getattr(MossAudioTokenizerModel, name)
    parameters = list(inspect.signature(inspect.unwrap(verb)).parameters.values())[1:]
    ours = [item for item in parameters if item.kind is not inspect.Parameter.KEYWORD_ONLY]
    assert [item.name for item in ours][: len(names.split())] == names.split()
    assert [item.default for item in ours[:num_required]] == [
        inspect.Parameter.empty
    ] * num_required
    assert all(item.default is not inspect.Parameter.empty for item in parameters[num_required:])


@pytest.mark.parametrize("name", ["encode", "decode", "batch_encode"])
def test_the_onnx_face_takes_the_same_arguments(name):
    ours = list(inspect.signature(getattr(OnnxAudioTokenizer, name)).parameters)[1:]
    names = SIGNATURES[name][0].split()
    assert ours[: len(names)] == names


def test_attributes(model):
    assert {name: getattr(model, name) for name in ATTRIBUTES} == ATTRIBUTES
    assert {name: getattr(model.config, name) for name in CONFIG} == CONFIG
    assert model.encoder is model.codec.encoder
    assert model.quantizer is model.codec.quantizer
    assert model.decoder is model.codec.decoder


def test_base_class(model):
    from transformers.modeling_utils import PreTrainedAudioTokenizerBase

    from moss_audio_tokenizer.hf.modeling import MossAudioTokenizerPreTrainedModel

    assert isinstance(model, PreTrainedAudioTokenizerBase | MossAudioTokenizerPreTrainedModel)


def test_tuples(model):
    audio = noise(2, 80)
    encoded, decoded = model.encode(audio), model.decode(model.encode(audio).audio_codes)
    codes, lengths = model.encode(audio, return_dict=False)
    assert torch.equal(codes, encoded.audio_codes)
    assert torch.equal(lengths, encoded.audio_codes_lengths)
    (found,) = model.decode(codes, return_dict=False)
    assert torch.equal(found, decoded.audio)
    codes, found, lengths = model(audio, return_dict=False)
    assert torch.equal(codes, encoded.audio_codes)
    assert torch.equal(found, decoded.audio)
    assert lengths.tolist() == [80, 80]
    model.config.return_dict = False
    assert isinstance(model.encode(audio), tuple)
    assert model.encode(audio, return_dict=True).audio_codes.shape == (4, 2, 10)
    assert len(model(audio)) == 3


def test_call_with_audio_and_codes_encodes_one_and_decodes_the_other(model):
    audio, other = noise(1, 80), torch.zeros(4, 1, 3, dtype=torch.long)
    found = model(audio, audio_codes=other)
    assert torch.equal(found.audio_codes, model.encode(audio).audio_codes)
    assert torch.equal(found.audio, model.decode(other).audio)


# Lengths


def test_floor_lengths(model):
    clips = [noise(83), noise(80), noise(9)]
    whole = model.batch_encode(clips)
    model.set_lengths("floor")
    found = model.batch_encode(clips)
    assert whole.audio_codes_lengths.tolist() == [11, 10, 2]
    assert found.audio_codes_lengths.tolist() == [10, 10, 1]
    assert torch.equal(found.audio_codes[:, 0], whole.audio_codes[:, 0, :10])
    assert model(noise(83)).audio_lengths.tolist() == [80]
    streamed = model.batch_encode(clips[:1], streaming=True, finalize_indices=[0])
    assert torch.equal(streamed.audio_codes[:, 0], found.audio_codes[:, 0])
    with pytest.raises(AudioError, match="less than a frame of 8"):
        model.encode(noise(7))
    with pytest.raises(ConfigError, match="ceil, floor"):
        model.set_lengths("round")


def test_floor_lengths_are_remembered(model, folder):
    assert "lengths" not in json.loads((folder / "config.json").read_text())
    loaded = MossAudioTokenizerModel.from_pretrained(folder, lengths="floor")
    loaded.save_pretrained(folder)
    assert MossAudioTokenizerModel.from_pretrained(folder).config.lengths == "floor"


def test_floor_lengths_of_the_onnx_face():
    codec = OnnxAudioTokenizer.from_pretrained("bundled", lengths="floor")
    audio = np.zeros(2 * 1920 + 960, np.float32)
    assert codec.encode(audio, return_dict=False)[1].tolist() == [2]
    assert codec.batch_encode([audio]).audio_codes_lengths.tolist() == [2]


# Options of transformers


@pytest.mark.parametrize(
    "options",
    [
        {"device_map": "auto"},
        {"device_map": {"": "cpu"}},
        {"attn_implementation": "eager"},
        {"attn_implementation": "sdpa", "trust_remote_code": True},
        {"quantization_config": None, "state_dict": None, "max_memory": None, "subfolder": ""},
        {"codec_weight_dtype": "fp32"},
        {"torch_dtype": "auto", "low_cpu_mem_usage": True, "ignore_mismatched_sizes": True},
    ],
    ids=str,
)
def test_options_that_change_nothing(folder, model, options):
    if options.get("device_map") == "auto" and torch.cuda.is_available():
        pytest.skip("the GPU computes otherwise")
    loaded = MossAudioTokenizerModel.from_pretrained(folder, **options)
    assert torch.equal(loaded.encode(noise(80)).audio_codes, model.encode(noise(80)).audio_codes)


def test_loading_info_and_subfolder(folder):
    loaded, info = MossAudioTokenizerModel.from_pretrained(
        folder.parent, subfolder="model", output_loading_info=True
    )
    assert isinstance(loaded, MossAudioTokenizerModel)
    names = {"missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"}
    assert info == {name: [] for name in names}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantization_config": {}}, "quantization_config"),
        ({"device_map": {"codec.encoder": "cpu", "codec.decoder": "meta"}}, "not split"),
        ({"dtype": torch.float64}, "fp32, bf16, fp16"),
        ({"dtype": torch.float16, "codec_weight_dtype": "bf16"}, "several types"),
        ({"attn_implementation": "sdpa", "attention_backend": "flex_attention"}, "spelling"),
        ({"attn_implementation": "flash_attention_3"}, "flash_attention_2"),
    ],
    ids=str,
)
def test_options_that_cannot_be_done(folder, options, message):
    with pytest.raises(ConfigError, match=message):
        MossAudioTokenizerModel.from_pretrained(folder, **options)


# Types of weights


@pytest.mark.parametrize("options", [{"codec_weight_dtype": "bf16"}, {"dtype": torch.bfloat16}])
def test_weights_in_16_bits(folder, options):
    loaded = MossAudioTokenizerModel.from_pretrained(folder, **options)
    assert loaded.get_codec_dtype_summary() == {
        "encoder": "torch.bfloat16",
        "decoder": "torch.bfloat16",
        "quantizer": "torch.float32",
        "compute_dtype": "bf16",
        "codec_weight_dtype": "bf16",
    }
    assert loaded.compute_dtype == torch.bfloat16
    assert loaded.decode(loaded.encode(noise(80)).audio_codes).audio.dtype == torch.float32
    loaded.save_pretrained(folder)
    stored = json.loads((folder / "config.json").read_text())
    assert stored["codec_weight_dtype"] == "bf16"


@pytest.mark.parametrize("cast", ["bfloat16", "half", "double"])
def test_cast_models_work(model, cast):
    expected = model.encode(noise(400)).encoder_hidden_states
    getattr(model, cast)()
    encoded = model.encode(noise(400))
    assert encoded.encoder_hidden_states.dtype == torch.float32
    error = (encoded.encoder_hidden_states - expected).norm() / expected.norm()
    assert error < (1e-6 if cast == "double" else 0.05)
    assert model.decode(encoded.audio_codes).audio.dtype == torch.float32
    session = model.decoder_stream(1)
    slot = session.open()
    chunk = session.step({slot: encoded.audio_codes[:, 0, :3]})[slot]
    torch.testing.assert_close(chunk, model.decode(encoded.audio_codes).audio[0, :, :24])


def test_saving_with_other_weights(model, tmp_path):
    state = {name: value * 0 for name, value in model.state_dict().items()}
    model.save_pretrained(tmp_path, state_dict=state)
    loaded = MossAudioTokenizerModel.from_pretrained(tmp_path)
    assert all(weight.count_nonzero() == 0 for weight in loaded.parameters())
    with pytest.raises(ConfigError, match="state_dict"):
        model.save_pretrained(tmp_path, state_dict={"encoder.0": torch.zeros(1)})
    with pytest.raises(ConfigError, match="push_to_hub"):
        model.save_pretrained(tmp_path, push_to_hub=True)
    model.save_pretrained(tmp_path / "other", is_main_process=False, variant=None)
    assert not (tmp_path / "other").exists()


# Axis orders


def test_axis_orders_of_other_programs(model, make_model):
    stereo = make_model(channels=2)
    for bad in (torch.zeros(6000, 2), torch.zeros(100, 1)):
        with pytest.raises(AudioError, match="transpose"):
            model.encode(bad)
    with pytest.raises(AudioError, match="transpose"):
        stereo.encode(torch.zeros(6000, 2))
    codes = torch.zeros(6, 4, 5, dtype=torch.long)
    with pytest.raises(CodesError, match=r"transpose\(0, 1\)"):
        model.decode(codes)
    with pytest.raises(CodesError, match=r"codes\.T"):
        model.decode(codes[:, :, 0])


def test_codes_batch_first():
    codes = np.arange(8).reshape(1, 2, 4)
    built = AudioCodes.from_batch_first(codes, 24_000, 4 * 1920, codebook_size=16)
    assert built == AudioCodes(codes[0], 24_000, 4 * 1920, codebook_size=16)
    with pytest.raises(CodesError, match="num_quantizers, frames"):
        AudioCodes.from_batch_first(codes[0], 24_000, 4 * 1920)


@pytest.mark.parametrize("as_array", [torch.from_numpy, np.asarray])
def test_a_batch_of_one_with_the_batch_first_is_refused(model, as_array):
    with pytest.raises(CodesError, match=r"looks like \(1, num_quantizers, frames\)"):
        model.decode(as_array(np.zeros((1, model.config.num_quantizers, 5), np.int64)))


# Mistakes that would give wrong codes without a word


@pytest.mark.parametrize("runtime", ["PyTorch", "ONNX"])
def test_a_rate_that_is_stated_is_checked(model, runtime):
    codec = model if runtime == "PyTorch" else OnnxAudioTokenizer.from_pretrained("bundled")
    rate = codec.sampling_rate
    clip = np.zeros(3000, np.float32)
    expected = codec.encode(clip).audio_codes
    assert (codec.encode(clip, sampling_rate=rate).audio_codes == expected).all()
    assert (codec.batch_encode([clip], sampling_rate=rate).audio_codes == expected).all()
    words = f"has 16000 samples a second, but the model takes {rate}: resample it first"
    with pytest.raises(AudioError, match=words):
        codec.encode(clip, sampling_rate=16_000)
    with pytest.raises(AudioError, match=words):
        codec.batch_encode([clip], sampling_rate=16_000)


@pytest.mark.parametrize("strict", [True, False])
def test_released_tensor_names_are_not_taken_for_a_state(model, strict):
    released = {"encoder.0.weight": torch.zeros(1), "decoder.0.weight": torch.zeros(1)}
    with pytest.raises(CheckpointError, match=r"'encoder\.0\.weight'.*from_pretrained"):
        model.load_state_dict(released, strict=strict)
    model.load_state_dict(model.state_dict(), strict=strict)


# Without PyTorch


def test_floor_lengths_hold_for_clips_that_are_computed_at_once():
    codec = OnnxAudioTokenizer.from_pretrained("bundled", num_threads=1, lengths="floor")
    audio = np.linspace(-0.5, 0.5, 4000, dtype=np.float32)
    (codes,) = codec.encode_together([audio])
    assert codes.shape[1] == codec.encode(audio).audio_codes.shape[2] == 2
    with pytest.raises(InputError, match="expected a list of at least one"):
        codec.encode_together([])


def test_onnx_models_can_be_copied():
    codec = OnnxAudioTokenizer.from_pretrained("bundled", num_threads=1, lengths="floor")
    audio = np.linspace(-0.5, 0.5, 4000, dtype=np.float32)
    for copy in (deepcopy(codec), pickle.loads(pickle.dumps(codec))):  # noqa: S301
        assert copy.lengths == "floor"
        expected = codec.encode(audio).audio_codes
        assert np.array_equal(copy.encode(audio).audio_codes, expected)


def test_load_codec_takes_what_is_there():
    from moss_audio_tokenizer.onnx.tokenizer import OnnxCodec

    assert isinstance(load_codec("bundled"), OnnxCodec)
    assert load_codec().info.sampling_rate == 24_000


def test_missing_torch_is_named_in_one_line():
    program = (
        "import sys; sys.modules['torch'] = None; sys.modules['transformers'] = None\n"
        "import moss_audio_tokenizer as m\n"
        "try:\n    m.MossAudioTokenizerModel\n"
        "except m.MossAudioError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "moss-audio-tokenizer[torch]" in done.stdout, done.stderr
    assert "OnnxAudioTokenizer" in done.stdout


def test_configuration_needs_no_encoder_kwargs():
    assert MossAudioTokenizerConfig().num_quantizers == 32


def test_streaming_blocks_do_not_nest(model):
    with model.streaming(), pytest.raises(InputError, match="decoder_stream"), model.streaming():
        pass
