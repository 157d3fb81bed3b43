"""The command: a server as a process that is told to stop, killed, and started again."""

import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from toy_codec import ToyCodec, some_audio, some_codes

from moss_audio_tokenizer.audio import encode_audio
from moss_audio_tokenizer.errors import InputError, ServerBusy
from moss_audio_tokenizer.serve.client import CodecClient

PROGRAM = Path(__file__).with_name("toy_server.py")


@contextmanager
def process(*options):
    """A server, and its address; killed at the end if it still runs."""
    command = [sys.executable, str(PROGRAM), "--port", "0", *map(str, options)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = server.stdout.readline()
        assert line.startswith("serving at http://127.0.0.1:"), server.stderr.read()
        yield server, line.split()[-1]
    finally:
        server.kill()
        server.communicate()


def test_what_was_answered_outlives_kill_9(tmp_path):
    sounds = [encode_audio(some_audio(3000, seed), 8000, ".wav") for seed in range(5)]
    with process("--voices", tmp_path) as (server, url), CodecClient(url) as client:
        voices = [client.add_voice(sound)["voice"] for sound in sounds]
        codes = [client.voice(voice) for voice in voices]
        with client.decode_stream() as stream:  # one that will not end
            stream.send(some_codes(3))
            server.send_signal(signal.SIGKILL)
            assert server.wait(10) == -signal.SIGKILL
    assert list(tmp_path.glob("**/.moss-*")) == []
    with process("--voices", tmp_path) as (_, url), CodecClient(url) as client:
        assert [client.voice(voice) for voice in voices] == codes
        assert all(client.add_voice(sound)["was_cached"] for sound in sounds)


def test_sigterm_waits_for_live_streams(tmp_path):
    with process("--drain-seconds", 20) as (server, url), CodecClient(url) as client:
        with client.decode_stream() as stream:
            codes = some_codes(4)
            stream.send(codes[:, :2])
            results = stream.results()
            pieces = [next(results)]
            server.send_signal(signal.SIGTERM)
            sound = encode_audio(some_audio(700), 8000, ".wav")
            with pytest.raises(ServerBusy, match="about to stop"):
                _ = [client.encode(sound) for _ in range(100)]  # until the signal has arrived
            stream.send(codes[:, 2:])
            stream.finish()
            pieces += list(results)
        np.testing.assert_array_equal(np.concatenate(pieces, 1), ToyCodec().decode(codes))
        assert server.wait(10) == 0
        assert server.stderr.read() == ""


def test_the_second_signal_stops_at_once_without_a_traceback():
    with process("--drain-seconds", 20) as (server, url), CodecClient(url) as client:
        with client.decode_stream() as stream:
            stream.send(some_codes(2))
            sound = encode_audio(some_audio(700), 8000, ".wav")
            server.send_signal(signal.SIGINT)
            with pytest.raises(ServerBusy, match="about to stop"):
                _ = [client.encode(sound) for _ in range(100)]  # until the signal has arrived
            server.send_signal(signal.SIGINT)
            assert server.wait(10) == 0
        assert "Traceback" not in server.stderr.read()


def test_the_command_speaks(tmp_path):
    with process("--tts", "toy", "--max-speech-seconds", 1) as (_, url), CodecClient(url) as client:
        samples = np.concatenate(list(client.speech("abc")))
        assert len(samples) == 3 * 1920  # at 24 kHz
        with pytest.raises(InputError, match="up to 1"):
            client.speak("abc", max_seconds=2)


def test_the_command_transcribes_and_guards_the_loopback():
    options = ("--asr", "toy", "--cors", "https://app.example", "--allowed-host", "my.host")
    with process(*options) as (_, url), CodecClient(url) as client:
        assert client.transcribe(encode_audio(some_audio(700), 8000, ".wav"))["text"]
        for headers, status in [
            ({"Host": "my.host"}, 200),
            ({"Host": "localhost:1"}, 200),
            ({"Host": "evil.example"}, 403),
            ({"Origin": "https://app.example"}, 200),
            ({"Origin": "https://evil.example"}, 403),
        ]:
            answer = httpx.get(f"{url}/v1/model", headers=headers, trust_env=False)
            assert answer.status_code == status, headers


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "nothing"], "is no toy"),
        (["--tts", "nothing"], "is no toy either"),
        (["--asr", "nothing"], "is no toy either"),
        (["--api-keys", "nothing"], "cannot read keys"),
        (["--max-streams", "0"], "Invalid value"),
    ],
)
def test_a_server_that_cannot_start_says_so_in_one_line(options, message):
    done = subprocess.run(
        [sys.executable, str(PROGRAM), "--port", "0", *options],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("moss-audio: error: ")
    assert message in line
    assert done.stdout == ""


def test_a_port_that_is_taken_is_one_line():
    with process() as (_, url):
        port = url.rpartition(":")[2]
        done = subprocess.run(
            [sys.executable, str(PROGRAM), "--port", port],
            capture_output=True,
            text=True,
            timeout=30,
        )
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
    assert len(done.stderr.splitlines()) == 1
