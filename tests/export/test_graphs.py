"""Exported graphs against PyTorch, run by onnxruntime alone, as a deployer would run them."""

import json

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import helper

from moss_audio_tokenizer.graphs.graph import OPSET, Graph, value_info
from moss_audio_tokenizer.graphs.transformer_nodes import StageWriter
from moss_audio_tokenizer.onnx.manifest import RingShape

CODECS = {
    "mono": {},
    "stereo": {"channels": 2, "quantizer_type": "rvq"},
    "bare": {"codebook_dim": 10},  # codes as wide as the residual: no projections
    "equal": {"codebook_dim": 10, "quantizer_type": "rvq"},
}


@pytest.fixture(params=CODECS)
def exported(request, make_exported):
    return make_exported(**CODECS[request.param])


def session(folder, name):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        folder / f"{name}.onnx", options, providers=["CPUExecutionProvider"]
    )


def audio_of(model, samples, batch=2):
    random = torch.Generator().manual_seed(3)
    return 0.3 * torch.randn(batch, model.config.codec.number_channels, samples, generator=random)


def assert_close(got, expected):
    assert got.shape == tuple(expected.shape)
    rms = expected.square().mean().sqrt()
    assert np.abs(got - expected.numpy()).max() <= 1e-4 * rms


def test_whole_clips(exported):
    model, folder = exported
    encoder, decoder = session(folder, "encoder"), session(folder, "decoder")
    for samples in (1, 8, 203, 805):
        audio = audio_of(model, samples)
        expected = model.encode(audio)
        codes, lengths, hidden = encoder.run(None, {"input_values": audio.numpy()})
        assert np.array_equal(codes, expected.audio_codes)
        assert lengths.tolist() == expected.audio_codes_lengths.tolist()
        assert_close(hidden, expected.encoder_hidden_states)
        (decoded,) = decoder.run(None, {"audio_codes": codes})
        assert_close(decoded, model.decode(codes).audio)
    # Of constant codes, equality would prove nothing.
    assert all(len(np.unique(layer)) > 3 for layer in codes)


def test_fewer_layers_and_rows_of_different_depths(exported):
    """-1 stands for a layer that is not there."""
    model, folder = exported
    for layers in (1, 3):
        codes = np.random.default_rng(0).integers(0, 16, (layers, 2, 9)).astype(np.int32)
        (decoded,) = session(folder, "decoder").run(None, {"audio_codes": codes})
        assert_close(decoded, model.decode(codes).audio)
    codes = np.random.default_rng(0).integers(0, 16, (4, 2, 9)).astype(np.int32)
    codes[2:, 1] = -1
    (decoded,) = session(folder, "decoder").run(None, {"audio_codes": codes})
    assert_close(decoded[:1], model.decode(codes[:, :1]).audio)
    assert_close(decoded[1:], model.decode(codes[:2, 1:]).audio)


class Streams:
    """A step graph and its state, carried from outputs to inputs."""

    def __init__(self, folder, name, batch, chunk):
        self.session = session(folder, name)
        facts = self.session.get_modelmeta().custom_metadata_map["rings"]
        self.state = {"positions": np.zeros(batch, np.int64)}
        for ring in json.loads(facts):
            places = ring["context_steps"] + chunk * ring["steps_per_frame"]
            shape = (batch, ring["num_heads"], places, ring["head_dim"])
            for kind in ("key", "value"):
                # What a ring holds before a stream has written to it does not matter.
                self.state[f"past_key_values.{ring['layer']}.{kind}"] = np.full(
                    shape, 9, np.float32
                )

    def step(self, given, active):
        name = self.session.get_inputs()[0].name
        names = [output.name for output in self.session.get_outputs()]
        feeds = {name: given, "active": active, **self.state}
        found = dict(zip(names, self.session.run(None, feeds), strict=True))
        following = {"positions": "next_positions"}
        for key in self.state:
            present = following.get(key, key.replace("past_key_values", "present"))
            self.state[key] = found[present]
        return found


def test_steps_past_the_window_with_rows_that_pause(exported):
    """Each row is as long as it had frames; a row without any keeps its state."""
    for chunk in (1, 3, 7):
        assert_steps(*exported, chunk)


def assert_steps(model, folder, chunk):
    random = np.random.default_rng(1)
    channels = model.config.codec.number_channels
    encoder, decoder = (
        Streams(folder, f"{side}_step", 3, chunk) for side in ("encoder", "decoder")
    )
    audio = audio_of(model, 8 * 7 * 12, batch=3).numpy()
    expected = model.encode(audio).audio_codes.numpy()
    sound = model.decode(expected).audio
    heard, said = ([[] for _ in range(3)] for _ in range(2))
    done = np.zeros(3, int)
    for _ in range(84 // chunk):
        counts = random.integers(0, chunk + 1, 3)
        active = np.arange(chunk) < counts[:, None]
        given = np.full((3, channels, 8 * chunk), 0.5, np.float32)
        codes = np.full((4, 3, chunk), 7, np.int32)
        for row, (start, count) in enumerate(zip(done, counts, strict=True)):
            given[row, :, : 8 * count] = audio[row, :, 8 * start : 8 * (start + count)]
            codes[:, row, :count] = expected[:, row, start : start + count]
        got = encoder.step(given, active)["audio_codes"]
        back = decoder.step(codes, active)["audio"]
        for row, count in enumerate(counts):
            heard[row].append(got[:, row, :count])
            said[row].append(back[row, :, : 8 * count])
        done += counts
    assert encoder.state["positions"].tolist() == done.tolist()
    assert done.min() > 20  # past the windows of 3 and 5 frames, whatever the chunk
    for row in range(3):
        assert np.array_equal(np.concatenate(heard[row], axis=1), expected[:, row, : done[row]])
        assert_close(np.concatenate(said[row], axis=1), sound[row, :, : 8 * done[row]])


def test_types_of_codes(make_exported):
    _, folder = make_exported(export={"codes_type": "int64"})
    for name in ("encoder", "encoder_step"):
        assert session(folder, name).get_outputs()[0].type == "tensor(int64)"
    for name in ("decoder", "decoder_step"):
        assert session(folder, name).get_inputs()[0].type == "tensor(int64)"


def test_public_names(make_exported):
    _, folder = make_exported()
    encoder, decoder = session(folder, "encoder"), session(folder, "decoder")
    assert [value.name for value in encoder.get_inputs()] == ["input_values"]
    names = ["audio_codes", "audio_codes_lengths", "encoder_hidden_states"]
    assert [value.name for value in encoder.get_outputs()] == names
    assert [value.name for value in decoder.get_inputs()] == ["audio_codes"]
    assert [value.name for value in decoder.get_outputs()] == ["audio"]
    for name, given in (("encoder_step", "input_values"), ("decoder_step", "audio_codes")):
        inputs = [value.name for value in session(folder, name).get_inputs()]
        assert inputs[:4] == [given, "active", "positions", "past_key_values.0.key"]


def test_rotations_are_right_after_years(make_config):
    """Positions of 10^9: float32 alone would be off by turns."""
    stage = make_config().encoder[1]
    graph = Graph()
    writer = StageWriter(graph, None, stage, "", [RingShape(0, 1, 2, 8, 3, 2)])
    shape = [1, 1, "steps", 8]
    outputs = [value_info(name, "float32", shape) for name in writer._rotations("steps")]
    inputs = [value_info("steps", "int64", [1, 1, "steps", 1])]
    body = graph.body("rotations", inputs, outputs)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    steps = np.array([0, 1, 12345, 10**6 + 7, 10**9 + 1]).reshape(1, 1, -1, 1)
    cosine, sine = onnxruntime.InferenceSession(model.SerializeToString()).run(
        None, {"steps": steps}
    )
    angle = steps * stage.max_period ** (-np.arange(4) / 4)
    assert np.abs(cosine - np.tile(np.cos(angle), 2)).max() < 1e-6
    sines = np.concatenate((-np.sin(angle), np.sin(angle)), axis=-1)
    assert np.abs(sine - sines).max() < 1e-6
