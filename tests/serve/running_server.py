"""A server on a free port of the loopback, in a thread of the test's process."""

import asyncio
import json
import threading
import time
from contextlib import contextmanager

from websockets.sync.client import connect

from moss_audio_tokenizer.serve.app import CodecServer
from moss_audio_tokenizer.serve.client import CodecClient
from moss_audio_tokenizer.serve.runner import _listener, uvicorn_of
from moss_audio_tokenizer.serve.settings import ServerSettings


class Running:
    """A running server, and how to reach it."""

    def __init__(self, codec, settings, speaker=None, max_connections=1000, transcriber=None):
        open_synthesizer = None if speaker is None else lambda: speaker
        open_transcriber = None if transcriber is None else lambda: transcriber
        self.server = CodecServer(lambda: codec, settings, open_synthesizer, open_transcriber)
        self.speeches = self.server.speeches
        self.streams = self.server.streams
        self.listener = _listener("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.runner = uvicorn_of(self.server, max_connections)
        self.thread = threading.Thread(
            target=lambda: asyncio.run(self.runner.serve([self.listener])), daemon=True
        )

    @contextmanager
    def run(self):
        self.thread.start()
        try:
            self.wait_until(lambda: self.runner.started and self.streams.is_ready)
            self.wait_until(lambda: all(each.is_ready for each in self.server._services))
            yield self
        finally:
            self.runner.should_exit = True
            self.thread.join(20)
            assert not self.thread.is_alive()
            self.listener.close()

    def client(self, **options):
        return CodecClient(self.url, **{"timeout_seconds": 10} | options)

    def socket(self, side="decode", query=""):
        where = f"ws{self.url[4:]}/v1/{side}/stream?{query}"
        return connect(where, compression=None, max_size=None, ping_interval=None, proxy=None)

    def wait_until(self, condition, seconds=10):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it never came true"
            time.sleep(0.01)

    def figure(self, name):
        """A figure of /metrics, summed over its labels."""
        lines = self.server.metrics.text().decode().splitlines()
        named = [line for line in lines if line.replace("{", " ").split()[0] == name]
        assert named, f"there is no figure {name}"
        return sum(float(line.split()[-1]) for line in named)

    def wait_until_idle(self):
        self.wait_until(lambda: not (self.streams.num_live or self.streams.num_slots()))


@contextmanager
def running_server(codec, settings=None, speaker=None):
    with Running(codec, settings or ServerSettings(), speaker).run() as running:
        yield running


def next_document(socket, timeout=10):
    """The next message that is a document, past all binary ones."""
    while isinstance(message := socket.recv(timeout=timeout), bytes):
        pass
    return json.loads(message)


def last_error(socket):
    """The code with which a server broke off, past its hello."""
    while (document := next_document(socket))["type"] == "ready":
        pass
    assert document["type"] == "error", document
    assert document["error"]["message"]
    return document["error"]["code"]
