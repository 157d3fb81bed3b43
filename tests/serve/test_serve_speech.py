"""Texts to speech over HTTP: formats, voices, refusals, turns, and clients that go."""

import asyncio
import io
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager, suppress

import httpx
import numpy as np
import pytest
import soundfile
import soxr
from running_server import running_server
from toy_codec import FRAME, INFO, RATE, ToyCodec, some_audio
from toy_speaker import ToySpeaker

from moss_audio_tokenizer.audio import encode_audio, load_audio
from moss_audio_tokenizer.errors import InputError, ServerBusy, ServerError
from moss_audio_tokenizer.serve.settings import ServerSettings
from moss_audio_tokenizer.serve.speech_routes import SpeechEncoder, SpeechResponse

EXPECTED = ToySpeaker()


@pytest.fixture(scope="module")
def speaker_server(tmp_path_factory):
    """One server for tests that leave nothing behind."""
    settings = ServerSettings(voice_folder=tmp_path_factory.mktemp("voices"))
    with running_server(ToyCodec(), settings, ToySpeaker()) as running:
        yield running


def post(running, document, **options):
    return httpx.post(f"{running.url}/v1/audio/speech", json=document, trust_env=False, **options)


def refused(answer, status, code, words, field=None):
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["code"], error["param"]) == (code, field)
    assert words in error["message"], error
    return error


@contextmanager
def half_heard(running, text):
    """A client in the middle of a long speech."""
    where = f"{running.url}/v1/audio/speech"
    document = {"input": text, "response_format": "pcm"}
    with httpx.stream("POST", where, json=document, trust_env=False) as response:
        assert response.status_code == 200
        yield response.iter_bytes()


def wait_until_silent(running):
    running.wait_until(lambda: not running.speeches.num_requests)
    assert running.figure("moss_queued_speeches") == 0


@pytest.mark.parametrize("audio_format", ["wav", "flac"])
def test_what_is_sent_is_what_the_speaker_says(speaker_server, audio_format):
    options = {"seed": 3, "temperature": 0.5, "top_k": 2, "top_p": 0.5, "num_quantizers": 2}
    with speaker_server.client() as client:
        sound = client.speak("hello there", audio_format, **options)
        plain = client.speak("hello there", audio_format)
    assert sound != plain
    assert len(plain) == len(sound)
    samples = load_audio(io.BytesIO(sound), RATE, 1)[0]
    expected = EXPECTED.speak("hello there", **options)
    assert samples.shape == expected.shape
    assert np.abs(samples - expected).max() <= 0.5 / 32768 + 1e-7


def test_raw_samples_are_at_24_khz_whatever_the_codec(speaker_server):
    with speaker_server.client() as client:
        pieces = list(client.speech("hello there", seed=3))
        raw = client.speak("hello there", "pcm", seed=3)
    samples = np.concatenate(pieces)
    assert len(raw) == 2 * len(samples) == 2 * 3 * 11 * FRAME
    expected = soxr.resample(EXPECTED.speak("hello there", seed=3), RATE, 24_000)
    assert np.abs(samples - np.clip(expected, -1, 1)).max() < 1e-3


def test_opus_is_a_whole_file(speaker_server):
    with speaker_server.client() as client:
        sound = client.speak("hello there", "opus")
    assert len(soundfile.read(io.BytesIO(sound))[0]) == 11 * FRAME
    answer = post(speaker_server, {"input": "ab", "response_format": "opus"})
    assert answer.headers["content-type"] == "audio/ogg"


def test_sound_comes_while_it_is_spoken(speaking):
    with speaking(0.05) as running, running.client() as client:
        pieces = client.speech("a" * 100)
        next(pieces)
        assert running.speeches.num_requests == 1
        assert running.figure("moss_spoken_seconds_total") < 4  # of eight
        pieces.close()
        wait_until_silent(running)


def test_a_speech_ends_at_the_limit(speaking):
    with speaking(max_speech_seconds=0.4) as running, running.client() as client:
        rows = {0.24: 3, 0.4: 5}
        for seconds, frames in rows.items():
            sound = client.speak("a" * 20, max_seconds=seconds)
            assert load_audio(io.BytesIO(sound), RATE, 1).shape == (1, frames * FRAME)
        assert len(client.speak("a" * 20)) == len(sound)
        with pytest.raises(InputError, match=r"max_seconds is 0.5; expected up to 0.4"):
            client.speak("a", max_seconds=0.5)


@pytest.mark.parametrize(
    ("change", "words", "field"),
    [
        ({"input": ""}, "at least 1", "input"),
        ({"input": "  "}, "blank", "input"),
        ({"input": None}, "valid string", "input"),
        ({"input": "a" * 4097}, "4097 characters", "input"),
        ({"input": "a7"}, "got '7'", None),
        ({"input": "hush"}, "generated no audio", None),
        ({"input": "hush", "response_format": "flac"}, "generated no audio", None),
        ({"response_format": "aac"}, "'wav', 'pcm', 'flac', 'opus' or 'mp3'", "response_format"),
        ({"stream_format": "sse"}, "'audio'", "stream_format"),
        ({"speed": 2.0}, "speed is 2.0", "speed"),
        ({"temperature": 0}, "greater than", "temperature"),
        ({"temperature": 1e-39}, "greater than or equal to 0.001", "temperature"),
        ({"temperature": 1e-323}, "greater than or equal to 0.001", "temperature"),
        ({"top_k": "3"}, "valid integer", "top_k"),
        ({"seed": -1}, "seed is -1", "seed"),
        ({"instructions": "sing"}, "Extra inputs", "instructions"),
        ({"voice": "alloy"}, "no such voice", "voice"),
        ({"voice": "../../etc/passwd"}, "no such voice", "voice"),
    ],
)
def test_what_cannot_be_said_is_told_in_openai_s_form(speaker_server, change, words, field):
    error = refused(post(speaker_server, {"input": "ab"} | change), 400, "bad_input", words, field)
    assert error["type"] == "invalid_request_error"
    wait_until_silent(speaker_server)


def test_bodies_that_are_no_object_of_this_kind(speaker_server):
    where = f"{speaker_server.url}/v1/audio/speech"
    for body, words in [(b"", "JSON"), (b"{", "JSON"), (b"[]", "object"), (b"\xff", "JSON")]:
        answer = httpx.post(where, content=body, trust_env=False)
        refused(answer, 400, "bad_input", words)
    refused(post(speaker_server, {}), 400, "bad_input", "Field required", "input")
    answer = httpx.post(where, content=bytes(100_000), trust_env=False)
    refused(answer, 413, "too_large", "more than")
    answer = post(speaker_server, {"input": "ab", "model": "tts-1"})
    refused(answer, 404, "not_found", "use 'cat-tts'", "model")
    wait_until_silent(speaker_server)


def test_built_in_voices_are_listed_and_speak(speaker_server, server):
    with speaker_server.client() as client:
        assert client.built_in_voices() == ["anna", "ben"]
        sounds = [client.speak("ab", "pcm", voice=name) for name in ("anna", "ben", "default")]
        assert len(set(sounds)) == 3
        with pytest.raises(InputError, match=r"no such voice; .* use anna, ben, 'default'"):
            client.speak("ab", voice="carl")
    where = f"{speaker_server.url}/v1/audio/voices"
    listed = httpx.get(where, trust_env=False).json()
    assert listed == {"voices": ["anna", "ben"], "default": "anna"}
    answer = httpx.get(f"{server.url}/v1/audio/voices", trust_env=False)
    refused(answer, 404, "not_found", "--tts FOLDER")


def test_models_are_listed(speaker_server, server):
    for running, names in [(speaker_server, ["cat-tts"]), (server, [])]:
        listed = httpx.get(f"{running.url}/v1/models", trust_env=False).json()
        assert listed["object"] == "list"
        assert [model["id"] for model in listed["data"]] == names


def test_a_server_that_does_not_speak_says_how_it_would(server):
    refused(post(server, {"input": "ab"}), 404, "not_found", "--tts FOLDER")
    with server.client() as client, pytest.raises(ServerError, match="--tts"):
        client.speak("ab")


def test_a_voice_needs_its_text(speaker_server):
    sound = encode_audio(some_audio(5000), RATE, ".wav")
    with speaker_server.client() as client:
        mute, kept = client.add_voice(sound), client.add_voice(sound, "what  I say")
        assert mute["voice"] != kept["voice"]
        assert client.add_voice(sound, "what I say") == kept | {"was_cached": True}
        assert client.voice(kept["voice"]) == client.voice(mute["voice"])
        spoken = client.speak("hello", voice=kept["voice"])
        with pytest.raises(InputError, match=r"\?text="):
            client.speak("hello", voice=mute["voice"])
        with pytest.raises(InputError, match="text has 5000 characters"):
            client.add_voice(sound, "a" * 5000)
        codes = ToyCodec().encode(load_audio(io.BytesIO(sound), RATE, 1))
        expected = EXPECTED.speak("hello", prompt_codes=codes, prompt_text="what I say")
        samples = load_audio(io.BytesIO(spoken), RATE, 1)[0]
        assert np.abs(samples - expected).max() < 1e-4
        client.drop_voice(kept["voice"])
        with pytest.raises(InputError, match="no such voice"):
            client.speak("hello", voice=kept["voice"])
    folder = speaker_server.server.settings.voice_folder
    assert list(folder.glob("**/*.txt")) == []


def test_long_voices_and_servers_without_voices(speaking, tmp_path):
    sound = encode_audio(some_audio(RATE), RATE, ".wav")
    limits = {"voice_folder": tmp_path, "max_prompt_seconds": 0.5}
    with speaking(**limits) as running, running.client() as client:
        voice = client.add_voice(sound, "long")["voice"]
        with pytest.raises(InputError, match="lasts 1 s"):
            client.speak("a", voice=voice)
    with speaking() as running:
        answer = post(running, {"input": "a", "voice": voice})
        refused(answer, 400, "bad_input", "use anna, ben, 'default'; or start", "voice")


def test_texts_wait_in_turn_and_too_many_are_busy(speaking):
    with speaking(0.02, max_waiting_speeches=2) as running:
        documents = [{"input": "a" * 10, "seed": seed} for seed in range(6)]
        with ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(lambda document: post(running, document), documents))
        good = [number for number in range(6) if answers[number].status_code == 200]
        assert len(good) == 3
        for number in good:
            samples = soundfile.read(io.BytesIO(answers[number].content))[0]
            expected = EXPECTED.speak("a" * 10, seed=number)
            assert np.abs(samples - expected).max() < 1e-4
        busy = next(answer for answer in answers if answer.status_code != 200)
        assert refused(busy, 503, "busy", "3 texts")["type"] == "server_error"
        assert int(busy.headers["Retry-After"]) > 0
        wait_until_silent(running)
        assert running.figure("moss_first_sound_seconds_count") == 3
        assert running.figure("moss_spoken_seconds_total") == pytest.approx(3 * 10 * FRAME / RATE)
        assert 'moss_speeches_total{how="finished"} 3.0' in running.server.metrics.text().decode()


def test_a_client_that_goes_stops_its_speech(speaking):
    with speaking(0.02, max_waiting_speeches=0) as running, running.client() as client:
        with half_heard(running, "a" * 200) as chunks:
            next(chunks)
            with pytest.raises(ServerBusy, match="1 texts"):
                client.speak("b")
        wait_until_silent(running)
        assert running.figure("moss_spoken_seconds_total") < 8
        with pytest.raises(httpx.ReadTimeout):  # before the first sound of the whole file
            post(running, {"input": "a" * 200, "response_format": "flac"}, timeout=0.2)
        wait_until_silent(running)
        assert len(client.speak("b")) == 44 + 2 * FRAME


def test_texts_of_clients_that_went_are_never_begun(speaking):
    speaker = ToySpeaker(0.03)
    with running_server(ToyCodec(), ServerSettings(), speaker) as running:
        with half_heard(running, "a" * 60) as chunks:
            next(chunks)
            with pytest.raises(httpx.ReadTimeout):
                post(running, {"input": "never"}, timeout=0.2)
            running.wait_until(lambda: running.speeches.num_requests == 1)
        wait_until_silent(running)
        with running.client() as client:
            client.speak("last")
    assert speaker.texts == ["a" * 60, "last"]


def test_clients_that_break_off_anywhere_leave_nothing_behind(speaking):
    random = np.random.default_rng(0)

    def break_off(running, seconds, audio_format):
        document = {"input": "a" * 30, "response_format": audio_format}
        with suppress(httpx.HTTPError):
            post(running, document, timeout=seconds)

    with speaking(0.005, max_waiting_speeches=30, max_requests_a_minute=0) as running:
        with ThreadPoolExecutor(8) as pool:
            for seconds in random.uniform(0.01, 0.2, 40):
                pool.submit(break_off, running, seconds, random.choice(["wav", "pcm", "flac"]))
        wait_until_silent(running)
        with running.client() as client:
            assert len(client.speak("b")) == 44 + 2 * FRAME


def test_a_speaker_that_fails_goes_on_with_the_next(speaker_server):
    error = refused(post(speaker_server, {"input": "crash"}), 500, "server", "RuntimeError")
    assert "secret" not in error["message"]
    with speaker_server.client() as client:
        with pytest.raises(ServerError, match="no speech"):  # broken off behind the second frame
            list(client.speech("break it"))
        assert client.speak("ab")
    wait_until_silent(speaker_server)


def test_keys_and_rates_are_those_of_the_other_routes(speaking):
    with speaking(api_keys=frozenset({"correct-horse"}), max_requests_a_minute=12.0) as running:
        error = refused(post(running, {"input": "a"}), 401, "unauthorized", "API key")
        assert error["type"] == "authentication_error"
        with running.client(key="correct-horse") as client:
            assert client.speak("a")
            assert client.speak("a")
            with pytest.raises(ServerBusy, match="too many requests"):
                client.speak("a")


def test_draining_lets_a_speech_end_and_refuses_the_next(speaking):
    with speaking(0.02) as running, running.client() as client:
        pieces = client.speech("a" * 30)
        parts = [next(pieces)]
        running.runner.handle_exit(15, None)
        running.wait_until(lambda: running.speeches.is_draining)
        with pytest.raises(ServerBusy, match="about to stop"):
            client.speak("b")
        parts += list(pieces)
        assert sum(map(len, parts)) == 3 * 30 * FRAME
        running.thread.join(10)
        assert not running.thread.is_alive()


def test_draining_breaks_off_what_takes_too_long(speaking):
    with speaking(0.05, drain_seconds=0.2) as running, running.client() as client:
        pieces = client.speech("a" * 200)
        next(pieces)
        running.runner.handle_exit(15, None)
        with pytest.raises(ServerError, match="no speech"):
            list(pieces)
        running.thread.join(10)
        assert not running.thread.is_alive()


@pytest.mark.parametrize(("pause", "ending"), [(0.02, "finished"), (0.5, "stalled")])
def test_who_takes_sound_too_slowly_loses_it(pause, ending):
    class Spoken:
        ending = "finished"
        left = 5

        async def next_result(self):
            self.left -= 1
            return np.zeros(FRAME, np.float32) if self.left else None

    async def never():
        await asyncio.sleep(60)

    async def send(message):
        sent.append(message)
        await asyncio.sleep(pause)

    async def answer():
        turn = AsyncExitStack()
        turn.callback(over.append, True)
        sound = SpeechEncoder("wav", RATE)
        response = SpeechResponse(np.zeros(FRAME, np.float32), spoken, sound, 0.1, turn)
        await response({"type": "http", "headers": []}, never, send)

    spoken, sent, over = Spoken(), [], []
    asyncio.run(answer())
    assert spoken.ending == ending
    assert over == [True]
    assert (sent[-1].get("more_body") is False) == (ending == "finished")


def test_a_speaker_that_cannot_be_opened_is_the_server_s_error():
    def fail():
        raise InputError("no such folder")

    from moss_audio_tokenizer.serve.app import CodecServer

    async def open_it():
        server = CodecServer(ToyCodec, ServerSettings(), fail)
        async with server.app.router.lifespan_context(server.app):
            with pytest.raises(InputError, match="no such folder"):
                await server.open()
            assert not server.speeches.is_ready

    asyncio.run(open_it())


def test_the_speaker_keeps_no_stream_waiting(speaking):
    """Live streams continue beside a speech."""
    with speaking(0.02) as running, half_heard(running, "a" * 100) as chunks:
        next(chunks)
        with running.client() as client, client.encode_stream() as stream:
            codes = np.concatenate(list(stream.run([some_audio(3 * FRAME)])), 1)
        assert codes.shape == (INFO.num_quantizers, 3)
        assert running.speeches.num_requests == 1


def test_mp3(speaker_server):
    with speaker_server.client() as client:
        sound = client.speak("hello there", "mp3")
    samples, rate = soundfile.read(io.BytesIO(sound))
    assert soundfile.info(io.BytesIO(sound)).format == "MP3"
    assert rate == RATE
    assert abs(len(samples) - 11 * FRAME) < 2000  # the coder's frames
