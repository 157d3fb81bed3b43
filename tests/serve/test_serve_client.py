"""The client against servers that are hostile or no codec servers."""

import itertools
import socket as sockets
import threading
import time
from contextlib import contextmanager, suppress

import numpy as np
import pytest
from test_serve_requests import audio_codes
from toy_codec import FRAME, some_codes

from moss_audio_tokenizer.errors import ServerError
from moss_audio_tokenizer.serve import client
from moss_audio_tokenizer.serve.client import CodecClient


@contextmanager
def fake_server(answer):
    """A server that answers every request with these bytes, and goes on while they last."""
    with sockets.create_server(("127.0.0.1", 0)) as listener:

        def work():
            with suppress(OSError), listener.accept()[0] as connection:
                connection.recv(1 << 16)
                for part in answer:
                    connection.sendall(part)

        threading.Thread(target=work, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: audio/wav\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_the_client_limits_what_a_hostile_server_sends(monkeypatch):
    monkeypatch.setattr(client, "_MAX_ANSWER_BYTES", 1 << 20)
    endless = itertools.chain([HEAD], itertools.repeat(b"10000\r\n" + bytes(1 << 16) + b"\r\n"))
    with (
        fake_server(endless) as url,
        CodecClient(url) as found,
        pytest.raises(ServerError, match="more than 1048576 bytes"),
    ):
        found.decode(audio_codes())

    def dripping():
        yield HEAD
        for _ in range(100):
            time.sleep(0.05)
            yield b"1\r\nx\r\n"

    start = time.monotonic()
    with (
        fake_server(dripping()) as url,
        CodecClient(url, timeout_seconds=0.3) as found,
        pytest.raises(ServerError, match=r"took more than 0.3 s"),
    ):
        found.speak("hello")
    assert time.monotonic() - start < 3


def test_the_client_takes_no_page_for_sound():
    page = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi"
    with (
        fake_server([page]) as url,
        CodecClient(url) as found,
        pytest.raises(ServerError, match=r"'text/html'; expected audio/"),
    ):
        found.decode(audio_codes())


def test_empty_chunks_are_not_sent(server):
    with server.client() as found, found.decode_stream() as stream:
        chunks = [some_codes(2), some_codes(0), some_codes(1)]
        audio = np.concatenate(list(stream.run(chunks)), axis=1)
    assert audio.shape[1] == 3 * FRAME
