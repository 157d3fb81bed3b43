"""Graphs as public repositories have them, run by scripts such as those repositories have."""

import numpy as np
import onnxruntime
import pytest
import soundfile
import torch

from moss_audio_tokenizer.errors import AudioError, CheckpointError, CodesError
from moss_audio_tokenizer.export.whole_clip import export_whole_clip
from moss_audio_tokenizer.onnx import OnnxAudioTokenizer
from moss_audio_tokenizer.onnx.graph_pair import GraphPair


@pytest.fixture
def exported(make_exported, tmp_path):
    """The model, and a function that exports it under a contract."""
    model, steps = make_exported()

    def export(contract="whole-clip"):
        if contract == "steps":
            return steps
        export_whole_clip(tmp_path / "checkpoint", tmp_path / contract, contract)
        return tmp_path / contract

    return model, export


def session(path):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def audio_of(samples):
    return 0.3 * np.random.default_rng(3).standard_normal(samples).astype(np.float32)


def ports(values):
    return [(value.name, value.type, len(value.shape)) for value in values]


def test_names_types_and_ranks(exported):
    _, export = exported
    folder = export("whole-clip")
    encoder, decoder = (session(folder / f"{side}.onnx") for side in ("encoder", "decoder"))
    assert ports(encoder.get_inputs()) == [("input_values", "tensor(float)", 3)]
    assert ports(encoder.get_outputs()) == [
        ("audio_codes", "tensor(int64)", 3),
        ("audio_codes_lengths", "tensor(int64)", 1),
        ("encoder_hidden_states", "tensor(float)", 3),
    ]
    assert ports(decoder.get_inputs()) == [("audio_codes", "tensor(int32)", 3)]
    assert ports(decoder.get_outputs()) == [("audio", "tensor(float)", 2)]
    folder = export("n-quantizers")
    encoder, decoder = (session(folder / f"{side}.onnx") for side in ("encoder", "decoder"))
    count = ("n_quantizers", "tensor(int64)", 0)
    assert ports(encoder.get_inputs()) == [("input_values", "tensor(float)", 3), count]
    assert ports(encoder.get_outputs()) == [
        ("audio_codes", "tensor(int64)", 3),
        ("audio_codes_lengths", "tensor(int64)", 1),
    ]
    assert ports(decoder.get_inputs()) == [("audio_codes", "tensor(int64)", 3), count]
    assert ports(decoder.get_outputs()) == [
        ("audio", "tensor(float)", 3),
        ("audio_lengths", "tensor(int64)", 1),
    ]


def test_a_script_that_encodes_and_one_that_decodes(exported, tmp_path):
    """As in the README of the ONNX repository: positional results, and a file of the first row."""
    model, export = exported
    folder = export("whole-clip")
    encoder, decoder = (session(folder / f"{side}.onnx") for side in ("encoder", "decoder"))
    audio = audio_of(203)[None, None]
    names = [value.name for value in encoder.get_outputs()]
    codes, lengths, hidden = encoder.run(names, {encoder.get_inputs()[0].name: audio})
    expected = model.encode(audio)
    assert np.array_equal(codes, expected.audio_codes)
    assert lengths.tolist() == [26]
    assert hidden.shape == (1, 12, 26)

    np.save(tmp_path / "tokens.npy", codes)
    tokens = np.load(tmp_path / "tokens.npy").astype(np.int32)
    (sound,) = decoder.run(None, {decoder.get_inputs()[0].name: tokens})
    assert sound.ndim == 2
    soundfile.write(tmp_path / "sound.wav", sound[0], 800, subtype="FLOAT")
    written, _ = soundfile.read(tmp_path / "sound.wav", dtype="float32")
    np.testing.assert_allclose(written, model.decode(codes).audio[0, 0], atol=1e-5)


@pytest.mark.parametrize("contract", ["whole-clip", "n-quantizers", "steps"])
def test_the_class_of_the_official_repository(exported, contract):
    """The constructor and the shapes that the llama.cpp pipeline of MOSS-TTS uses."""
    model, export = exported
    folder = export(contract)
    codec = OnnxAudioTokenizer(
        encoder_path=str(folder / "encoder.onnx"),
        decoder_path=str(folder / "decoder.onnx"),
        n_quantizers=4,
        use_gpu=True,
    )
    assert isinstance(codec, GraphPair)
    assert (codec.sample_rate, codec.downsample_rate) == (800, 8)
    audio = audio_of(803)
    expected = model.encode(torch.tensor(audio))
    for shaped in (audio, audio[None], audio[None, None]):
        codes = codec.encode(shaped)
        assert codes.dtype == np.int64
        assert np.array_equal(codes, expected.audio_codes[:, 0].T)
    sound = model.decode(expected.audio_codes).audio[0, 0].numpy()
    for shaped in (codes, codes.T, codes.T[:, None]):
        decoded = codec.decode(shaped)
        assert decoded.shape == (808,)
        assert decoded.dtype == np.float32
        np.testing.assert_allclose(decoded, sound, atol=1e-5)
    for size in (20, 200):
        np.testing.assert_allclose(codec.decode_chunked(codes, size), sound, atol=1e-5)
    few = codec.encode(audio, n_quantizers=2)
    assert np.array_equal(few, codes[:, :2])
    sound = model.decode(expected.audio_codes, num_quantizers=2).audio[0, 0].numpy()
    np.testing.assert_allclose(codec.decode(codes, n_quantizers=2), sound, atol=1e-5)


def test_positional_arguments(exported):
    _, export = exported
    folder = export()
    codec = OnnxAudioTokenizer(folder / "encoder.onnx", folder / "decoder.onnx", 3, False)
    assert codec.encode(audio_of(20)).shape == (3, 3)


def test_layers_that_are_not_wanted_are_zero(exported):
    _, export = exported
    encoder = session(export("n-quantizers") / "encoder.onnx")
    feeds = {"input_values": audio_of(80)[None, None], "n_quantizers": np.array(2)}
    codes, _ = encoder.run(None, feeds)
    assert codes[:2].any()
    assert not codes[2:].any()


def test_stereo(make_exported, tmp_path):
    model, _ = make_exported(2)
    folder = tmp_path / "stereo"
    export_whole_clip(tmp_path / "checkpoint", folder)
    codec = GraphPair(folder / "encoder.onnx", folder / "decoder.onnx", use_gpu=False)
    audio = audio_of(160).reshape(2, 80)
    codes = codec.encode(audio)
    assert np.array_equal(codes.T, model.encode(audio).audio_codes[:, 0])
    assert codec.decode(codes).shape == (2, 80)


def test_a_layout_that_would_be_misread(exported):
    _, export = exported
    folder = export()
    codec = GraphPair(folder / "encoder.onnx", folder / "decoder.onnx", use_gpu=False)
    codes = np.zeros((1, 4, 7), np.int64)
    with (
        pytest.warns(UserWarning, match=r"has the shape \(4, 1, frames\)"),
        pytest.raises(CodesError, match="a batch of 4 clips"),
    ):
        codec.decode(codes)


def test_refusals(exported, tmp_path):
    _, export = exported
    folder = export()
    paths = (folder / "encoder.onnx", folder / "decoder.onnx")
    codec = GraphPair(*paths, use_gpu=False)
    with pytest.raises(AudioError, match="expected one clip"):
        codec.encode(np.zeros((2, 1, 8), np.float32))
    with pytest.raises(AudioError, match="empty"):
        codec.encode(np.zeros(0, np.float32))
    with pytest.raises(CodesError, match="expected integers of shape"):
        codec.decode(np.zeros((4, 3)))
    with pytest.raises(CheckpointError, match="takes audio_codes; expected input_values"):
        GraphPair(paths[1], paths[0], use_gpu=False)
    with pytest.raises(CheckpointError, match="there is no graph"):
        GraphPair(tmp_path / "none.onnx", paths[1])
