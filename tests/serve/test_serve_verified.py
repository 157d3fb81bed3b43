"""A server is verified like a model: `moss-audio verify http://...`."""

import httpx
import numpy as np
import pytest
from toy_codec import ToyCodec

from moss_audio_tokenizer.errors import ServerError
from moss_audio_tokenizer.evaluation.golden import LocalSubject, make_vectors, verify
from moss_audio_tokenizer.serve.client import CodecClient, RemoteCodec, codec_info


def test_a_server_computes_what_its_codec_does(serving, make_speech_codec):
    codec = make_speech_codec()
    vectors = make_vectors(codec, "here")
    assert all(check.passed for check in verify(LocalSubject(codec), vectors))
    from running_server import running_server

    from moss_audio_tokenizer.serve.settings import ServerSettings

    settings = ServerSettings(max_speed=1000.0)
    with running_server(codec, settings) as running, running.client() as client:
        checks = list(verify(RemoteCodec(client), vectors))
    assert [check.name for check in checks if not check.passed] == []
    assert len(checks) == 8


def test_a_server_of_another_codec_fails(serving, make_speech_codec):
    vectors = make_vectors(make_speech_codec(), "here")
    with serving(max_speed=1000.0) as running, running.client() as client:
        checks = list(verify(RemoteCodec(client), vectors))
    assert not any(check.passed for check in checks)


def test_a_server_must_say_what_its_codec_is():
    class Silent:
        def model(self):
            return {"model": "0123456789abcdef", "sampling_rate": ToyCodec().info.sampling_rate}

    with pytest.raises(ServerError, match="/v1/model says num_channels"):
        RemoteCodec(Silent())


GOOD = {
    "model": "0123456789abcdef",
    "sampling_rate": 8000,
    "num_channels": 1,
    "samples_per_frame": 640,
    "num_quantizers": 4,
    "codebook_size": 16,
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sampling_rate", 0),
        ("sampling_rate", 10**400),
        ("sampling_rate", 24000.7),
        ("num_channels", True),
        ("num_channels", "1"),
        ("codebook_size", 10**30),
        ("num_quantizers", None),
        ("model", None),
        ("model", "a" * 17),
        ("model", "\x1b[31m"),
    ],
)
def test_what_a_codec_cannot_be(name, value):
    assert codec_info(GOOD, "it").num_quantizers == 4
    with pytest.raises(ServerError, match=f"it says {name}"):
        codec_info(GOOD | {name: value}, "it")


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, "<html>"),
        (200, "[1]"),
        (200, "7"),
        (200, "[" * 100_000),
        (302, ""),
        (500, '{"error": {"code": ["x"], "message": "m"}}'),
        (500, '{"error": {"code": "x", "message": "\\u001b[31mred"}}'),
    ],
)
def test_answers_of_other_servers_are_one_error(status, body, monkeypatch):
    client = CodecClient("http://127.0.0.1:9")
    answer = httpx.Response(status, text=body)
    monkeypatch.setattr(client._http, "request", lambda *_, **__: answer)
    with pytest.raises(ServerError) as caught:
        client.model()
    assert str(caught.value).isprintable()


def test_an_endless_stream_is_left():
    class Endless:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def run(self, _):
            while True:
                yield np.zeros((4, 1), np.int64)

    class Client:
        def model(self):
            return GOOD

        def encode_stream(self):
            return Endless()

    with pytest.raises(ServerError, match="more than the 2 entries"):
        RemoteCodec(Client()).encode_live(np.zeros((1, 1280), np.float32))
