"""Recordings to text over HTTP, in OpenAI's form."""

import io

import httpx
import numpy as np
import pytest
from running_server import Running
from test_serve_requests import recording
from toy_codec import ToyCodec
from toy_transcriber import ToyTranscriber

from moss_audio_tokenizer.audio import encode_audio, load_audio
from moss_audio_tokenizer.serve.settings import ServerSettings


def run(transcriber):
    return Running(ToyCodec(), ServerSettings(), transcriber=transcriber).run()


@pytest.fixture(scope="module")
def transcribing():
    with run(ToyTranscriber()) as running:
        yield running


def ask(running, samples=1000, **fields):
    where = f"{running.url}/v1/audio/transcriptions"
    return httpx.post(where, files={"file": recording(samples)}, data=fields, trust_env=False)


def test_formats(transcribing):
    assert ask(transcribing).json() == {"text": "word0 word1 a<b"}
    assert ask(transcribing, model="whisper-1", language="en").json()["text"]
    answer = ask(transcribing, response_format="text")
    assert answer.text == "word0 word1 a<b\n"
    assert answer.headers["content-type"].startswith("text/plain")
    found = ask(transcribing, response_format="verbose_json").json()
    assert found["words"][1] == {"word": "word1", "start": 0.5, "end": 0.9}
    assert found["segments"] == [{"id": 0, "start": 0.0, "end": 1.4, "text": "word0 word1 a<b"}]
    assert found["duration"] == 0.24
    assert ask(transcribing, response_format="srt").text == (
        "1\n00:00:00,000 --> 00:00:01,400\nword0 word1 a<b\n"
    )
    assert ask(transcribing, response_format="vtt").text == (
        "WEBVTT\n\n1\n00:00:00.000 --> 00:00:01.400\nword0 word1 a&lt;b\n"
    )


def test_the_client_transcribes(transcribing):
    with transcribing.client() as client:
        found = client.transcribe(recording(1000))
    assert found["text"] == "word0 word1 a<b"
    assert [word["start"] for word in found["words"]] == [0.0, 0.5, 1.0]


def test_subtitles_are_cut(transcribing):
    cues = ask(transcribing, 640 * 40, response_format="srt").text.strip().split("\n\n")
    assert len(cues) == 4
    assert cues[1].startswith("2\n00:00:06,000 --> ")


def test_the_model_is_listed(transcribing):
    models = httpx.get(f"{transcribing.url}/v1/models", trust_env=False).json()
    assert [model["id"] for model in models["data"]] == ["cat-asr"]


def test_refusals(transcribing):
    where = f"{transcribing.url}/v1/audio/transcriptions"
    cases = [
        (ask(transcribing, response_format="xml"), 400, "response_format is 'xml'"),
        (ask(transcribing, model="other"), 404, "use 'cat-asr'"),
        (ask(transcribing, stream="true"), 400, "'stream' is not a field"),
        (ask(transcribing, **{"timestamp_granularities[]": "letter"}), 400, "expected word"),
        (ask(transcribing, 640 * 13), 500, "failed on this recording (RuntimeError)"),
        (httpx.post(where, content=recording(), trust_env=False), 400, "-F file=@FILE"),
        (httpx.post(where, data={"model": "x"}, files={"a": b"b"}, trust_env=False), 400, "'a'"),
        (httpx.post(where, files={"file": b"garbage"}, trust_env=False), 400, "not a wav"),
    ]
    for answer, status, words in cases:
        assert answer.status_code == status, answer.text
        error = answer.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert words in error["message"], error
        assert "secret" not in answer.text
    assert ask(transcribing).status_code == 200


def test_without_times_no_subtitles():
    with run(ToyTranscriber(has_times=False)) as running:
        assert "no times of words" in ask(running, response_format="srt").json()["error"]["message"]
        assert ask(running, response_format="verbose_json").json()["words"] == []


def test_without_a_model(server):
    assert "--asr" in ask(server).json()["error"]["message"]


def test_silence_is_no_text(transcribing):
    where = f"{transcribing.url}/v1/audio/transcriptions"
    silence = encode_audio(np.zeros((1, 4000)), 8000, ".wav")
    for response_format, text in [("text", "\n"), ("srt", "\n"), ("vtt", "WEBVTT\n")]:
        form = {"files": {"file": silence}, "data": {"response_format": response_format}}
        assert httpx.post(where, **form, trust_env=False).text == text


def test_a_model_transcribes_as_offline(make_speech_codec):
    pytest.importorskip("torch")
    from moss_audio_tokenizer.asr import CatAsr, CatAsrConfig, Transcriber
    from moss_audio_tokenizer.llm import CharacterText, language_model_config

    codec, text = make_speech_codec(), CharacterText("abc ")
    config = CatAsrConfig(
        text_config=language_model_config(16, 2, 2, text.num_tokens),
        num_quantizers=codec.info.num_quantizers,
        codebook_size=codec.info.codebook_size,
        codec=codec.info.identity,
    )
    transcriber = Transcriber(CatAsr(config, text, seed=1).eval(), codec)
    sound = load_audio(io.BytesIO(recording(5000)), 8000, 1)
    with Running(codec, ServerSettings(), transcriber=transcriber).run() as running:
        assert ask(running, 5000).json()["text"] == transcriber.transcribe([(sound, 8000)])[0]
