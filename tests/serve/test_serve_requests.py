"""Whole files, voices, state and documentation over HTTP."""

import io
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
import soundfile
from running_server import running_server
from toy_codec import FRAME, INFO, RATE, ToyCodec, some_audio, some_codes

from moss_audio_tokenizer.audio import encode_audio, load_audio
from moss_audio_tokenizer.codes import AudioCodes
from moss_audio_tokenizer.errors import InputError, ServerBusy, ServerError
from moss_audio_tokenizer.serve.client import CodecClient
from moss_audio_tokenizer.serve.settings import ServerSettings
from moss_audio_tokenizer.serve.voices import VoiceCache, voice_name

CODEC = ToyCodec()


def recording(samples=5000, rate=RATE, seed=0, extension=".wav"):
    return encode_audio(some_audio(samples, seed), rate, extension)


def audio_codes(frames=7, seed=0, layers=4, **changes):
    facts = {"downsample_rate": FRAME, "codebook_size": 16, "model": INFO.identity} | changes
    return AudioCodes(some_codes(frames, seed, layers), RATE, frames * FRAME - 100, **facts)


def post(server, where, body, **options):
    return httpx.post(server.url + where, content=body, trust_env=False, **options)


@pytest.mark.parametrize("extension", [".wav", ".flac", ".opus"])
def test_encoding_equals_offline(server, extension):
    sound = recording(extension=extension)
    with server.client() as client:
        codes = client.encode(sound)
        first = client.encode(sound, num_quantizers=2)
    np.testing.assert_array_equal(codes.codes, CODEC.encode(load_audio(io.BytesIO(sound), RATE, 1)))
    assert (codes.num_samples, codes.model) == (5000, INFO.identity)
    assert first == codes.first(2)


def test_codes_as_json(server):
    sound = recording()
    document = post(server, "/v1/encode?format=json&num_quantizers=1", sound).json()
    with server.client() as client:
        codes = client.encode(sound, 1)
    assert document == codes.metadata | {"codes": codes.codes.tolist()}


@pytest.mark.parametrize("audio_format", ["wav", "flac", "opus"])
def test_decoding_equals_offline_and_ends_where_the_original_did(server, audio_format):
    codes = audio_codes()
    with server.client() as client:
        sound, first = client.decode(codes, None, audio_format), client.decode(codes, 1)
    samples, rate = soundfile.read(io.BytesIO(sound))
    assert (len(samples), rate) == (codes.num_samples, RATE)
    if audio_format != "opus":
        expected = CODEC.decode(codes.codes)[0, : codes.num_samples]
        assert np.abs(samples - expected).max() < 1e-4
    expected = CODEC.decode(codes.codes[:1])[0, : codes.num_samples]
    assert np.abs(soundfile.read(io.BytesIO(first))[0] - expected).max() < 1e-4


def test_what_cannot_be_used_is_refused_in_one_document(server):
    other = audio_codes(model="another").to_bytes()
    damaged = bytearray(audio_codes().to_bytes())
    damaged[-1] ^= 1
    cases = {
        ("/v1/encode", b"garbage"): "not a wav",
        ("/v1/encode", b""): "empty",
        ("/v1/encode", recording()[:500]): "cut short",
        ("/v1/encode?num_quantizers=5", recording()): "expected 1 to 4",
        ("/v1/encode?num_quantizers=none", recording()): "num_quantizers",
        ("/v1/encode?format=mp3", recording()): "format",
        ("/v1/decode", b"garbage"): "not a .moss",
        ("/v1/decode", bytes(damaged)): "altered",
        ("/v1/decode", other): "another",
    }
    for (where, body), words in cases.items():
        answer = post(server, where, body)
        assert answer.status_code == 422, (where, answer.text)
        error = answer.json()["error"]
        assert error["code"] == "bad_input"
        assert words in error["message"], error
    with server.client() as client, pytest.raises(InputError, match="expected 1 to 4"):
        client.encode(recording(), 9)
    server.wait_until_idle()


def test_answers_about_long_values_are_short(server):
    name = "x" * 20_000
    with server.client() as client:
        assert len(httpx.get(f"{server.url}/v1/voices/{name}", trust_env=False).text) < 3000
        assert len(post(server, f"/v1/encode?format={name}", recording()).text) < 3000
        assert len(post(server, f"/v1/encode?{name}=1", recording()).text) < 3000
        assert client.encode(recording()).num_samples == 5000


def test_limits_of_whole_files(serving):
    with serving(max_clip_seconds=1.0, max_upload_bytes=40_000) as running:
        assert post(running, "/v1/encode", recording(RATE)).status_code == 200
        for where, body, code, status in [
            ("/v1/encode", recording(RATE + 10), "bad_input", 422),
            ("/v1/encode", encode_audio(np.zeros((1, 400_000)), RATE, ".flac"), "bad_input", 422),
            ("/v1/encode", bytes(40_001), "too_large", 413),
            ("/v1/encode", iter([bytes(20_000)] * 3), "too_large", 413),
            ("/v1/decode", audio_codes(14).to_bytes(), "bad_input", 422),
            ("/v1/decode", audio_codes(40).to_bytes(), "too_large", 413),
        ]:
            answer = post(running, where, body)
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_too_many_files_are_busy_and_those_let_in_are_served(serving):
    with serving(0.03, max_clips=1, max_waiting_clips=2, clip_step_frames=1) as running:
        sound = recording(10 * FRAME)
        with ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(lambda _: post(running, "/v1/encode", sound), range(6)))
        codes = sorted(answer.status_code for answer in answers)
        assert codes[:3] == [200, 200, 200]
        assert codes[-1] == 503
        busy = next(answer for answer in answers if answer.status_code == 503)
        assert busy.json()["error"]["code"] == "busy"
        assert int(busy.headers["Retry-After"]) > 0
        running.wait_until_idle()
        assert running.figure("moss_clips") == 0


def test_a_client_that_goes_frees_its_slot_at_once(serving):
    with serving(0.05, clip_step_frames=1) as running:
        sound = recording(200 * FRAME)  # ten seconds of steps
        with pytest.raises(httpx.ReadTimeout):
            post(running, "/v1/encode", sound, timeout=0.5)
        running.wait_until_idle()
        assert running.figure("moss_frames_total") < 100


def test_live_streams_go_before_whole_files(serving):
    with serving(0.02, clip_step_frames=1, clip_patience_seconds=10.0) as running:
        clips = running.streams._model_thread._batches["encode", False].session.engine
        with httpx.Client(trust_env=False) as http, running.client() as client:
            sound = recording(60 * FRAME)
            uploading = threading.Thread(
                target=lambda: http.post(f"{running.url}/v1/encode", content=sound, timeout=20)
            )
            uploading.start()
            running.wait_until(lambda: len(clips.batches) > 3)
            with client.decode_stream() as stream:
                codes = some_codes(12)
                before = len(clips.batches)
                assert len(list(stream.run([codes]))) == 3
            assert len(clips.batches) - before < 12
            uploading.join()
        assert len(clips.batches) == 60


def test_keys(serving):
    with serving(api_keys=frozenset({"correct-horse", "battery-staple"})) as running:
        assert httpx.get(f"{running.url}/v1/model", trust_env=False).status_code == 401
        for key in ("wrong-horse-1", "correct-hors"):
            with running.client(key=key) as client:
                with pytest.raises(ServerError, match="no valid API key"):
                    client.model()
                with pytest.raises(ServerError, match="no valid API key"), client.decode_stream():
                    pass
        for key in ("correct-horse", "battery-staple"):
            with running.client(key=key) as client, client.decode_stream() as stream:
                assert client.model()["model"] == INFO.identity
                stream.finish()
                assert list(stream.results()) == []
        with running.socket("decode", "key=correct-horse") as socket:
            assert '"ready"' in socket.recv(timeout=10)
        for where in ("/health", "/ready", "/metrics", "/docs", "/"):
            assert httpx.get(running.url + where, trust_env=False).status_code == 200


def test_rate_of_requests(serving):
    with serving(max_requests_a_minute=12.0) as running, running.client() as client:  # 2 at once
        client.model()
        client.model()
        with pytest.raises(ServerBusy, match="too many requests"):
            client.model()
        answer = httpx.get(f"{running.url}/v1/model", trust_env=False)
        assert answer.status_code == 429
        assert 1 <= int(answer.headers["Retry-After"]) <= 10


def test_voices_are_encoded_once_and_outlive_the_server(tmp_path):
    sound, settings = recording(), ServerSettings(voice_folder=tmp_path / "voices")
    with running_server(ToyCodec(), settings) as running, running.client() as client:
        kept = client.add_voice(sound)
        assert kept == {
            "voice": voice_name(sound),
            "was_cached": False,
            "seconds": 5000 / RATE,
            "frames": 8,
        }
        made = running.figure("moss_frames_total")
        assert client.add_voice(sound) == kept | {"was_cached": True}
        assert running.figure("moss_frames_total") == made
        assert client.voice(kept["voice"]) == client.encode(sound)
    with running_server(ToyCodec(), settings) as running, running.client() as client:
        assert client.voice(kept["voice"], 2).num_quantizers == 2
        client.drop_voice(kept["voice"])
        for missing in (kept["voice"], "0" * 32, "..%2F..%2Fetc"):
            with pytest.raises(ServerError, match="not_found"):
                client.voice(missing)
        assert running.figure("moss_voice_bytes") == 0


def test_without_a_folder_no_voices(server):
    with server.client() as client, pytest.raises(ServerError, match="--voices"):
        client.add_voice(recording())


def test_the_longest_unused_voices_go_first(tmp_path):
    codes = audio_codes()
    size = len(codes.to_bytes())
    cache = VoiceCache(tmp_path, "model", 3 * size)
    names = [voice_name(bytes([index])) for index in range(4)]
    for age, name in enumerate(names[:3]):
        cache.keep(name, codes)
        os.utime(tmp_path / "model" / f"{name}.moss", (1000 + age, 1000 + age))
    assert cache.find(names[0]) == codes  # a use
    cache.keep(names[3], codes)
    assert [cache.find(name) is not None for name in names] == [True, False, True, True]
    assert cache.num_bytes == 3 * size
    (tmp_path / "model" / f"{names[0]}.moss").write_bytes(b"damaged")
    assert cache.find(names[0]) is None
    assert VoiceCache(tmp_path, "other", 3 * size).find(names[3]) is None


def test_what_a_voice_says_lies_beside_its_codes_and_goes_with_them(tmp_path):
    codes, sizes = audio_codes(), len(audio_codes().to_bytes()) + len("what I say")
    cache = VoiceCache(tmp_path, "model", 2 * sizes)
    names = [voice_name(bytes([index]), "what I say") for index in range(3)]
    assert voice_name(b"\0") not in names
    for age, name in enumerate(names):
        cache.keep(name, codes, "what I say")
        os.utime(tmp_path / "model" / f"{name}.moss", (1000 + age, 1000 + age))
    assert [cache.text(name) for name in names] == ["", "what I say", "what I say"]
    assert cache.num_bytes == 2 * sizes == VoiceCache(tmp_path, "model", 1).num_bytes
    assert cache.drop(names[1])
    assert (cache.text(names[1]), cache.text("../model/x"), cache.num_bytes) == ("", "", sizes)
    cache.keep(voice_name(b"mute"), codes)
    assert cache.text(voice_name(b"mute")) == ""


def test_pages_and_their_parts_are_served_from_here(server):
    with httpx.Client(base_url=server.url, trust_env=False) as http:
        assert "AudioWorklet" in http.get("/").text
        page = http.get("/docs").text
        for part in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png"):
            assert f'"/docs/assets/{part}"' in page
            assert http.get(f"/docs/assets/{part}").status_code == 200
        document = http.get("/openapi.json").json()
    assert "https://" not in page.replace("https://fastapi", "")
    body = document["paths"]["/v1/encode"]["post"]["requestBody"]["content"]
    assert body["application/octet-stream"]["schema"]["format"] == "binary"
    assert set(document["paths"]) == {
        *("/v1/model", "/v1/encode", "/v1/decode", "/v1/voices", "/v1/voices/{voice}"),
        *("/v1/models", "/v1/audio/speech", "/v1/audio/transcriptions", "/v1/audio/voices"),
        *("/health", "/ready", "/metrics"),
    }
    for operations in document["paths"].values():
        for operation in operations.values():
            assert len(operation["summary"].split()) > 2
            error = operation["responses"]["default"]["content"]["application/json"]["schema"]
            assert set(error["properties"]["error"]["properties"]) == {"code", "message"}
    assert "HTTPValidationError" not in document.get("components", {}).get("schemas", {})


def test_state_and_figures(server):
    with httpx.Client(base_url=server.url, trust_env=False) as http:
        assert http.get("/health").json() == {"healthy": True}
        assert http.get("/ready").json()["ready"]
        figures = http.get("/metrics").text
    for name in (
        *("moss_streams", "moss_step_seconds", "moss_step_streams", "moss_frame_wait_seconds"),
        *("moss_underruns_total", "moss_queued_frames", "moss_session_slots"),
    ):
        assert f"# HELP {name.removesuffix('_total')}" in figures


def test_no_server_is_one_error():
    with pytest.raises(ServerError, match="no answer"):
        CodecClient("http://127.0.0.1:9").model()


def test_unknown_paths_and_methods_have_the_same_form_of_error(server):
    with httpx.Client(base_url=server.url, trust_env=False) as http:
        for answer, status, code in [
            (http.get("/v1/nothing"), 404, "not_found"),
            (http.get("/v1/encode"), 405, "method_not_allowed"),
            (http.post("/health"), 405, "method_not_allowed"),
        ]:
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
            assert answer.json()["error"]["message"]
