"""A server is verified like a model: `moss-audio verify http://...`."""

import pytest
from toy_codec import ToyCodec

from moss_audio_tokenizer.errors import ServerError
from moss_audio_tokenizer.evaluation.golden import LocalSubject, make_vectors, verify
from moss_audio_tokenizer.serve.remote import RemoteCodec


def test_a_server_computes_what_its_codec_does(serving, make_speech_codec):
    codec = make_speech_codec()
    vectors = make_vectors(codec, "here")
    assert all(check.passed for check in verify(LocalSubject(codec), vectors))
    from running_server import running_server

    from moss_audio_tokenizer.serve.settings import ServerSettings

    settings = ServerSettings(max_speed=1000.0)
    with running_server(codec, settings) as running, running.client() as client:
        checks = verify(RemoteCodec(client), vectors)
    assert [check.name for check in checks if not check.passed] == []
    assert len(checks) == 8


def test_a_server_of_another_codec_fails(serving, make_speech_codec):
    vectors = make_vectors(make_speech_codec(), "here")
    with serving(max_speed=1000.0) as running, running.client() as client:
        checks = verify(RemoteCodec(client), vectors)
    assert not any(check.passed for check in checks)


def test_a_server_must_say_what_its_codec_is():
    class Silent:
        def model(self):
            return {"model": "0123456789abcdef", "sampling_rate": ToyCodec().info.sampling_rate}

    with pytest.raises(ServerError, match="/v1/model does not say"):
        RemoteCodec(Silent())
