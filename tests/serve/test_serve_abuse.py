"""Clients that send garbage, too much, nothing, or vanish harm only themselves."""

import json
import os
import random
import socket as sockets
import struct
import threading
import time
from contextlib import suppress

import numpy as np
import pytest
from running_server import last_error, next_document
from toy_codec import FRAME, INFO, ToyCodec, some_audio, some_codes
from websockets.exceptions import ConnectionClosed

from moss_audio_tokenizer.errors import ServerBusy
from moss_audio_tokenizer.serve.wire_format import PackedFrames

CODEC = ToyCodec()
FRAMES = PackedFrames(INFO, None)
# Every connection opens, sends something, and breaks off in its own way: 1000 were tried once.
NUM_ABORTS = int(os.environ.get("MOSS_AUDIO_NUM_ABORTS", "60"))


class Bystander:
    """A stream that goes on beside what a test does, and must come to no harm."""

    def __init__(self, running):
        self.codes = some_codes(60)
        self._thread = threading.Thread(target=self._work, args=(running,))
        self._problem = "it never ended"

    def _chunks(self):
        for frame in range(60):
            time.sleep(0.005)
            yield self.codes[:, frame : frame + 1]

    def _work(self, running):
        with running.client() as client, client.decode_stream() as stream:
            audio = np.concatenate(list(stream.run(self._chunks())), axis=1)
            same = np.array_equal(audio, CODEC.decode(self.codes))
            self._problem = None if same else "its audio is wrong"

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._thread.join(20)
        assert self._problem is None, self._problem


@pytest.mark.parametrize(
    ("side", "query", "message", "code"),
    [
        ("decode", "", b"x", "bad_input"),
        ("decode", "num_quantizers=3", b"\xff\xff", "bad_input"),
        ("decode", "num_quantizers=0", None, "bad_input"),
        ("decode", "num_quantizers=5", None, "bad_input"),
        ("decode", "audio=mp3", None, "bad_input"),
        ("decode", "", "{", "bad_input"),
        ("decode", "", '{"type": "sing"}', "bad_input"),
        ("decode", "", "[" * 100_000, "bad_input"),
        ("encode", "", b"odd", "bad_input"),
        ("encode", "audio=pcm_f32le", struct.pack("<f", float("nan")) * FRAME, "bad_input"),
        ("encode", "audio=pcm_f32le", struct.pack("<f", float("inf")) * FRAME, "bad_input"),
        ("encode", "audio=pcm_f32le", struct.pack("<f", 1e9) * FRAME, "bad_input"),
        ("encode", "audio=opus", bytes(5000), "bad_input"),
        ("encode", "audio=opus", b"", "bad_input"),
    ],
)
def test_garbage_is_refused_with_a_reason(server, side, query, message, code):
    with Bystander(server), server.socket(side, query) as socket:
        if message is not None:
            socket.send(message)
        assert last_error(socket) == code
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=10)
    server.wait_until_idle()


def test_a_message_behind_the_end_is_refused(serving):
    with serving(step_seconds=0.2) as running, running.socket() as socket:
        socket.send(FRAMES.write(some_codes(20)))
        socket.send('{"type": "end"}')
        socket.send(FRAMES.write(some_codes(1)))
        assert last_error(socket) == "bad_input"
        running.wait_until_idle()


def test_a_model_that_fails_on_one_stream_goes_on_with_the_others(server, monkeypatch):
    class Poison(np.ndarray):
        is_poison = True

    def read(self, message, honest=PackedFrames.read):
        codes = honest(self, message)
        return codes.view(Poison) if (codes == 15).all() else codes

    monkeypatch.setattr(PackedFrames, "read", read)
    with Bystander(server), server.socket() as socket:
        socket.send(FRAMES.write(np.full((4, 1), 15)))
        assert last_error(socket) == "server"
    server.wait_until_idle()


def test_oversized_messages_and_endless_streams(serving):
    limits = {"max_message_bytes": 1000, "max_stream_seconds": 4.0, "max_speed": 1000.0}
    with serving(**limits) as running, Bystander(running) as bystander:
        with running.socket() as socket:
            socket.send(bytes(1002))
            with pytest.raises(ConnectionClosed, match="1009"):
                next_document(socket), next_document(socket)
        with running.socket() as socket:
            socket.send(FRAMES.write(some_codes(50)))
            socket.send(FRAMES.write(some_codes(1)))
            assert last_error(socket) == "too_long"
        bystander.codes = bystander.codes[:, :50]
        running.wait_until(lambda: running.streams.num_live <= 1)


def test_who_sends_nothing_is_closed(serving):
    with serving(idle_seconds=0.3) as running, Bystander(running):
        with running.socket() as socket:
            assert last_error(socket) == "idle"
        host, port = running.listener.getsockname()
        with sockets.create_connection((host, port)) as raw:
            raw.sendall(b"POST /v1/encode HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\nab")
            raw.settimeout(10)
            assert b" 408 " in raw.recv(4096)
        with sockets.create_connection((host, port)) as raw:  # and byte by byte is too slow
            raw.sendall(b"POST /v1/encode HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\n")
            raw.settimeout(0.1)
            answer = b""
            for _ in range(30):
                with suppress(TimeoutError):
                    raw.sendall(b"x")
                    answer = answer or raw.recv(4096)
            assert b" 408 " in answer
        running.wait_until_idle()


def raw_stream(running, receive_bytes=4096):
    """A WebSocket by hand, with a small window, that reads only when it is asked to."""
    host, port = running.listener.getsockname()
    raw = sockets.socket()
    raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, receive_bytes)
    raw.connect((host, port))
    raw.sendall(
        b"GET /v1/decode/stream?audio=pcm_f32le HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    raw.settimeout(10)
    while b"\r\n\r\n" not in raw.recv(4096):
        pass
    return raw


def masked(message):
    """A binary WebSocket message from a client, masked with zeros."""
    return b"\x82\xfe" + struct.pack(">H", len(message)) + bytes(4) + message


def test_a_slow_reader_holds_up_only_itself(serving):
    limits = {"max_ahead_seconds": 1.0, "idle_seconds": 1.0, "max_speed": 1000.0}
    with serving(**limits) as running:
        raw = raw_stream(running)
        message = masked(FRAMES.write(some_codes(400)))
        raw.settimeout(0.2)
        with pytest.raises(TimeoutError):  # it never reads, and in the end it cannot send either
            raw.sendall(message * 10_000)
        with Bystander(running):
            assert running.figure("moss_queued_frames") < 600
        stalled = b'moss_refused_total{why="stalled"} 1.0'
        running.wait_until(lambda: stalled in running.server.metrics.text())
        running.wait_until_idle()
        raw.close()


def test_more_streams_than_there_are_slots_are_busy(serving):
    with serving(max_streams=2) as running, running.client() as client:
        with client.decode_stream(), client.encode_stream():
            with pytest.raises(ServerBusy, match="all 2 streams are taken"), client.decode_stream():
                pass
            with running.socket() as socket:
                assert last_error(socket) == "busy"
                with pytest.raises(ConnectionClosed, match="1013"):
                    socket.recv(timeout=10)
        running.wait_until_idle()
        with client.decode_stream(), client.encode_stream():
            pass


def abort(running, random):
    """Open a stream, do something or nothing, and break off."""
    side = random.choice(["encode", "decode"])
    with running.socket(side, "audio=pcm_f32le") as socket:
        for _ in range(random.randrange(4)):
            audio = some_audio(random.randrange(2000)).T.tobytes()
            socket.send(audio if side == "encode" else FRAMES.write(some_codes(9)))
        if random.random() < 0.2:
            socket.send(random.choice([b"garbage", "garbage", '{"type": "end"}']))
        if random.random() < 0.3:
            socket.recv(timeout=10)
        if random.random() < 0.7:  # no farewell: the connection is reset
            linger = struct.pack("ii", 1, 0)
            socket.socket.setsockopt(sockets.SOL_SOCKET, sockets.SO_LINGER, linger)
            socket.socket.close()


def test_random_aborts_leak_no_slot(serving):
    limits = {"max_streams": 8, "max_speed": 1000.0, "max_requests_a_minute": 0.0}
    with serving(step_seconds=0.002, **limits) as running:
        seeds = iter(range(NUM_ABORTS))
        lock = threading.Lock()

        def work():
            while True:
                with lock:
                    seed = next(seeds, None)
                if seed is None:
                    return
                with suppress(ConnectionClosed, OSError):
                    abort(running, random.Random(seed))

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        running.wait_until_idle()
        assert running.figure("moss_streams") == 0
        assert running.figure("moss_session_slots") == 0
        assert running.figure("moss_streams_opened_total") >= 0.5 * NUM_ABORTS
        with Bystander(running):
            pass


def test_draining_lets_live_streams_end_and_refuses_new_ones(serving):
    with serving(drain_seconds=10.0) as running, running.client() as client:
        with client.decode_stream() as stream:
            codes = some_codes(3)
            stream.send(codes[:, :1])
            pieces = [next(stream.results())]
            running.runner.handle_exit(15, None)
            running.wait_until(lambda: running.streams.is_draining)
            with pytest.raises(ServerBusy, match="about to stop"), client.encode_stream():
                pass
            stream.send(codes[:, 1:])
            stream.finish()
            pieces += list(stream.results())
        np.testing.assert_array_equal(np.concatenate(pieces, axis=1), CODEC.decode(codes))
        running.thread.join(10)
        assert not running.thread.is_alive()


def test_draining_breaks_off_what_takes_too_long(serving):
    with serving(drain_seconds=0.2) as running, running.socket() as socket:
        assert json.loads(socket.recv(timeout=10))["type"] == "ready"
        running.runner.handle_exit(15, None)
        assert last_error(socket) == "server"
        running.thread.join(10)
        assert not running.thread.is_alive()
