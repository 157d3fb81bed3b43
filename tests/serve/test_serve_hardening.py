"""Hostile clients and bad input: each kind once, beside a stream that must come to no harm."""

import gzip
import hashlib
import io
import resource
import socket as sockets
import struct
import time
from contextlib import suppress

import httpx
import numpy as np
import pytest
from running_server import Running, last_error, running_server
from test_serve_abuse import FRAMES, Bystander, masked, raw_stream
from test_serve_requests import audio_codes, post, recording
from toy_codec import FRAME, INFO, ToyCodec, some_audio, some_codes
from websockets.sync.client import connect

from moss_audio_tokenizer.serve import file_routes, runner
from moss_audio_tokenizer.serve.admission import Refused
from moss_audio_tokenizer.serve.batching import QueuedStream, StreamBatch
from moss_audio_tokenizer.serve.request_body import parse_form
from moss_audio_tokenizer.serve.runner import _listener
from moss_audio_tokenizer.serve.settings import ServerSettings
from moss_audio_tokenizer.serve.voices import voice_name
from moss_audio_tokenizer.serve.wire_format import PackedFrames


def ping(payload=b""):
    return b"\x89" + bytes([0x80 | len(payload)]) + bytes(4) + payload


def is_closed(raw, seconds=5):
    """Whether the server ends a connection in time, read or not."""
    deadline = time.monotonic() + seconds
    raw.settimeout(seconds)
    with suppress(OSError):  # reset, or nothing came
        while raw.recv(1 << 16):
            pass
    return time.monotonic() < deadline


# Connections


def test_a_flood_of_pings_ends_the_connection(server):
    with Bystander(server):
        raw = raw_stream(server)
        with suppress(OSError):
            for _ in range(20):
                raw.sendall(ping(b"x" * 100) * 500)  # 1 MB, and the pongs are not read
        assert is_closed(raw)
        raw.close()
    server.wait_until_idle()


def test_some_pings_are_answered(server):
    with server.socket() as socket:
        for _ in range(50):
            assert socket.ping().wait(10)


def test_a_refused_socket_does_not_stay(serving):
    with serving(api_keys=frozenset({"correct-horse"})) as running:
        raw = raw_stream(running)
        with suppress(OSError):
            raw.sendall(ping() * 100)
        assert is_closed(raw, seconds=4)
        raw.close()


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHo", b"GET /" + b"x" * 100])
def test_a_connection_without_a_request_is_closed(serving, monkeypatch, sent):
    monkeypatch.setattr(runner, "REQUEST_SECONDS", 0.3)
    with (
        serving() as running,
        Bystander(running),
        sockets.create_connection(running.listener.getsockname()) as raw,
    ):
        raw.sendall(sent)
        assert is_closed(raw)


def test_half_a_second_request_is_closed_and_a_slow_answer_is_not(serving, monkeypatch):
    monkeypatch.setattr(runner, "REQUEST_SECONDS", 0.3)
    with serving(step_seconds=0.1, clip_step_frames=1) as running:
        assert post(running, "/v1/encode", recording(10 * FRAME)).status_code == 200
        with sockets.create_connection(running.listener.getsockname()) as raw:
            raw.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200 OK" in raw.recv(4096)
            raw.sendall(b"GET /hea")
            assert is_closed(raw)


def test_a_long_request_line_of_a_socket_is_closed(serving):
    with serving() as running, sockets.create_connection(running.listener.getsockname()) as raw:
        raw.sendall(
            b"GET /v1/decode/stream?x=" + b"y" * 9000 + b" HTTP/1.1\r\nHost: x\r\n"
            b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert is_closed(raw)


def test_more_connections_than_allowed_are_closed_at_once():
    running = Running(ToyCodec(), ServerSettings(), max_connections=5)
    with running.run():
        held = [sockets.create_connection(running.listener.getsockname()) for _ in range(20)]
        time.sleep(0.3)
        closed = sum(is_closed(each, 0.3) for each in held)
        for each in held:
            each.close()
        assert 14 <= closed <= 16
        running.wait_until(lambda: not running.runner.server_state.connections)
        assert httpx.get(f"{running.url}/health", trust_env=False).status_code == 200


def test_the_limit_of_files_leaves_room():
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert runner.raise_file_limit() >= 16
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= soft


def test_answers_are_sent_at_once():
    """Without TCP_NODELAY every answer of two writes waits 40 ms for the client's kernel."""
    with _listener("127.0.0.1", 0) as listener:
        assert listener.proto == sockets.IPPROTO_TCP
    with running_server(ToyCodec()) as running, running.socket():
        (protocol, *_) = running.runner.server_state.connections
        own = protocol.transport.get_extra_info("socket")
        assert own.getsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY)


def test_a_client_that_left_frees_its_slot_in_time(serving):
    with serving(max_ahead_seconds=0.5) as running:
        raw = raw_stream(running)
        with suppress(TimeoutError):
            raw.settimeout(0.5)
            raw.sendall(masked(FRAMES.write(some_codes(1)) * 200) * 500)  # 22 minutes of audio
        running.wait_until(lambda: running.streams.num_live == 1)
        raw.close()
        running.wait_until(lambda: not running.streams.num_live, seconds=20)


# Messages


@pytest.mark.parametrize(
    ("side", "query", "message"),
    [
        ("decode", "", b""),
        ("encode", "", b""),
        ("decode", "", '{"type": "end"' + " " * 2000 + "}"),
        ("decode", "audio=opus&bitrate=1", None),
        ("decode", "audio=opus&bitrate=0", None),
        ("decode", "audio=opus&bitrate=-5", None),
        ("decode", "audio=opus&bitrate=1000000000000", None),
        ("decode", "audio=opus&bitrate=" + "9" * 23, None),
        ("decode", "num_quantizers=x", None),
        ("decode", "num_quantizers=", None),
        ("decode", "num_quantizer=2", None),
        ("encode", "bitrate=32000", None),
    ],
)
def test_bad_messages_and_queries_are_refused_with_a_reason(server, side, query, message, caplog):
    with Bystander(server), server.socket(side, query) as socket:
        if message is not None:
            socket.send(message)
        assert last_error(socket) == "bad_input"
    server.wait_until_idle()
    assert not caplog.records


def test_long_messages_are_read_in_parts(server, monkeypatch):
    lengths, honest = [], PackedFrames.read

    def read(self, message):
        lengths.append(len(message))
        return honest(self, message)

    monkeypatch.setattr(PackedFrames, "read", read)
    codes = some_codes(3000)
    with server.client() as client, client.decode_stream() as stream:
        audio = np.concatenate(list(stream.run([codes])), axis=1)
    np.testing.assert_array_equal(audio, ToyCodec().decode(codes))
    assert max(lengths) <= 25 * FRAMES.bytes_per_frame


def test_streams_ahead_of_real_time_take_short_steps_beside_others():
    batch = StreamBatch("encode", True, ToyCodec().encoder_stream(2, 4), FRAME, 4, 100)
    fast = QueuedStream(batch, lambda result: None)
    batch.admit(fast)
    fast.put(some_audio(40 * FRAME), 0.0)
    assert not fast.is_ahead(0.0, 0.08)
    fast.waited(8, 0.1, 0.08)
    assert fast.is_ahead(0.1, 0.08)
    assert not fast.is_ahead(0.6, 0.08)


def test_a_live_stream_is_stepped_beside_many_fast_ones(serving):
    with serving(max_speed=4.0) as running, running.socket() as slow:
        slow.send(FRAMES.write(some_codes(1)))
        with running.socket() as fast:
            fast.send(FRAMES.write(some_codes(60)))
            fast.send('{"type": "end"}')
            while not isinstance(message := fast.recv(timeout=10), str) or "done" not in message:
                pass
        engine = running.streams._model_thread._batches["decode", True].session.engine
        assert len(engine.batches) > 30  # single frames, for the other might need the model


# Whole files


def in_form(body, name="file", more=()):
    parts = [*more, f'name="{name}"; filename="a.wav"\r\n\r\n'.encode() + body]
    lines = b"".join(b"--limit\r\nContent-Disposition: form-data; " + p + b"\r\n" for p in parts)
    return lines + b"--limit--\r\n"


FORM = {"Content-Type": "multipart/form-data; boundary=limit"}


def test_files_come_in_forms_and_compressed(server):
    sound, document = recording(), audio_codes().to_bytes()
    plain = post(server, "/v1/encode", sound).content
    assert post(server, "/v1/encode", in_form(sound), headers=FORM).content == plain
    zipped = {"Content-Encoding": "gzip"}
    assert post(server, "/v1/encode", gzip.compress(sound), headers=zipped).content == plain
    quoted = {"Content-Type": 'Multipart/Form-Data; charset=x; boundary="limit"'}
    assert post(server, "/v1/encode", in_form(sound), headers=quoted).content == plain
    answer = httpx.post(f"{server.url}/v1/encode", files={"file": sound}, trust_env=False)
    assert answer.content == plain
    assert post(server, "/v1/decode", in_form(document), headers=FORM).status_code == 200


def test_wrong_bodies_are_told_apart(server):
    sound, document = recording(), audio_codes().to_bytes()
    field = b'name="model"\r\n\r\nx'
    cases = [
        ("/v1/decode", sound, {}, "this is a wav file; expected a .moss document"),
        ("/v1/decode", recording(400_000), {}, "this is a wav file"),
        ("/v1/decode", recording(extension=".flac"), {}, "this is a flac file"),
        ("/v1/decode", in_form(sound), FORM, "this is a wav file"),
        ("/v1/encode", document, {}, "this is a .moss document; expected a sound file"),
        ("/v1/encode", sound, {"Content-Encoding": "gzip"}, "not gzip"),
        ("/v1/encode", gzip.compress(sound)[:-9], {"Content-Encoding": "gzip"}, "cut short"),
        ("/v1/encode", sound, {"Content-Encoding": "br"}, "expected gzip"),
        ("/v1/encode", in_form(sound, "sound"), FORM, "name the file 'file'"),
        ("/v1/encode", in_form(sound, more=[field]), FORM, "'model'"),
        ("/v1/encode", in_form(sound)[:-20], FORM, "damaged"),
        ("/v1/encode", b"--limit--", FORM, "no part 'file'"),
        ("/v1/encode", sound, {"Content-Type": "multipart/form-data"}, "boundary"),
        ("/v1/encode", b"a=b", {"Content-Type": "application/x-www-form-urlencoded"}, "-F file=@"),
    ]
    for where, body, headers, words in cases:
        answer = post(server, where, body, headers=headers)
        assert answer.status_code == 422, (where, headers, answer.text)
        assert words in answer.json()["error"]["message"], answer.text
    server.wait_until_idle()


def test_a_compressed_body_has_the_limit_of_a_plain_one(serving):
    with serving(max_upload_bytes=20_000) as running:
        bomb = gzip.compress(bytes(1 << 24))
        assert len(bomb) < 20_000
        answer = post(running, "/v1/encode", bomb, headers={"Content-Encoding": "gzip"})
        assert answer.status_code == 413


def test_random_forms_are_parsed_or_refused():
    random = np.random.default_rng(0)
    whole = in_form(b"\r\n--limi\r\n\r\n" * 5, more=[b'name="a"\r\n\r\nb'])
    assert parse_form(FORM["Content-Type"], whole).file == b"\r\n--limi\r\n\r\n" * 5
    for _ in range(2000):
        damaged = bytearray(whole)
        for at in random.integers(0, len(whole), random.integers(1, 6)):
            damaged[at] = random.integers(256)
        with suppress(Refused):
            parse_form(FORM["Content-Type"], bytes(damaged[: random.integers(len(whole) + 1)]))


def test_a_refused_body_is_answered_at_once(server):
    with httpx.Client(trust_env=False) as http:
        start = time.monotonic()
        for _ in range(3):
            assert http.post(f"{server.url}/v1/encode", content=b"0123456789").status_code == 422
        assert time.monotonic() - start < 0.9  # 0.5 s each, once


def test_a_file_keeps_its_place_until_its_thread_is_done(serving, monkeypatch):
    """A client that breaks off must not free a place whose file is still being read."""
    busy, most = [], []

    def read(file, info, max_seconds, honest=file_routes._read):
        busy.append(1)
        most.append(len(busy))
        time.sleep(0.3)
        busy.pop()
        return honest(file, info, max_seconds)

    monkeypatch.setattr(file_routes, "_read", read)
    with serving(max_clips=1) as running:
        for _ in range(6):
            with suppress(httpx.ReadTimeout):
                post(running, "/v1/encode", recording(), timeout=0.05)
        assert running.streams.num_clips > 0
        running.wait_until(lambda: not running.streams.num_clips)
        assert max(most) == 1


def test_a_dropped_upload_ends():
    upload = file_routes.Upload(b"12345")
    with upload:
        assert upload.read(2) == b"12"
    assert upload.read() == b""
    assert upload.readinto(bytearray(3)) == 0


def test_a_body_has_a_deadline(serving):
    with serving(max_upload_seconds=0.5) as running:

        def slowly():
            for _ in range(20):
                time.sleep(0.1)
                yield bytes(8000)

        assert post(running, "/v1/encode", slowly()).status_code == 408
        running.wait_until(lambda: not running.streams.num_clips)


def test_one_client_leaves_places_to_others(serving):
    keys = frozenset({"first-client", "second-client"})
    limits = {"max_clips": 1, "max_waiting_clips": 7, "clip_step_frames": 1, "api_keys": keys}
    with serving(step_seconds=0.05, **limits) as running:
        host = running.listener.getsockname()
        head = b"POST /v1/encode HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n"
        held = [sockets.create_connection(host) for _ in range(8)]
        for each in held:
            each.sendall(head + b"Authorization: Bearer first-client\r\n\r\n")
        running.wait_until(lambda: running.streams.num_clips == 6)
        time.sleep(0.1)
        assert running.streams.num_clips == 6
        answers = {
            key: post(running, "/v1/encode", b"x", headers={"Authorization": f"Bearer {key}"})
            for key in keys
        }
        assert answers["first-client"].status_code == 503
        assert "this client" in answers["first-client"].json()["error"]["message"]
        assert answers["second-client"].status_code == 422
        for each in held:
            each.close()
        running.wait_until(lambda: not running.streams.num_clips)
        assert not running.streams._held


def test_streams_of_one_client_can_be_limited(serving):
    with serving(max_streams_a_client=2) as running, running.client() as client:
        with client.decode_stream(), client.encode_stream(), running.socket() as third:
            assert last_error(third) == "busy"
        running.wait_until_idle()
        with client.decode_stream():
            pass


# Admission


def test_addresses_that_guess_keys_must_wait(serving):
    with serving(api_keys=frozenset({"correct-horse"})) as running:
        where = f"{running.url}/v1/model"
        with httpx.Client(trust_env=False) as http:
            wrong = [
                http.get(where, headers={"Authorization": f"Bearer guess-{number}"}).status_code
                for number in range(12)
            ]
            right = http.get(where, headers={"Authorization": "Bearer correct-horse"})
        assert wrong[0] == 401
        assert wrong[-1] == 429
        assert right.status_code == 200  # others at this address are not locked out


def test_a_header_does_not_change_the_client(serving):
    with serving(max_requests_a_minute=12.0) as running:  # 2 at once
        statuses = [
            httpx.get(
                f"{running.url}/v1/model",
                headers={"X-Forwarded-For": f"10.0.0.{number}"},
                trust_env=False,
            ).status_code
            for number in range(4)
        ]
    assert statuses[-1] == 429


def test_a_proxy_may_name_the_client_where_it_is_trusted(serving):
    with serving(max_requests_a_minute=12.0, trusts_proxy=True) as running:
        for number in range(4):
            headers = {"X-Forwarded-For": f"10.0.0.{number}"}
            answer = httpx.get(f"{running.url}/v1/model", headers=headers, trust_env=False)
            assert answer.status_code == 200


def test_web_pages_of_other_sites_are_refused(serving):
    hosts = frozenset({"localhost", "127.0.0.1"})
    with serving(allowed_hosts=hosts) as running:
        port = running.listener.getsockname()[1]
        own, evil = f"http://127.0.0.1:{port}", "http://evil.example"
        with httpx.Client(base_url=running.url, trust_env=False) as http:
            for headers, status in [
                ({}, 200),
                ({"Origin": own}, 200),
                ({"Origin": evil}, 403),
                ({"Origin": "null"}, 403),
                ({"Host": f"evil.example:{port}"}, 403),
                ({"Host": f"localhost:{port}"}, 200),
                ({"Host": f"evil.example:{port}", "Origin": f"http://evil.example:{port}"}, 403),
            ]:
                for where in ("/v1/model", "/metrics"):
                    answer = http.get(where, headers=headers)
                    assert answer.status_code == status, (headers, answer.text)
            answer = http.post("/v1/voices?text=x", headers={"Origin": evil}, content=b"x")
            assert answer.json()["error"]["code"] == "forbidden"
        where = f"ws://127.0.0.1:{port}/v1/decode/stream"
        with connect(where, origin=evil, proxy=None) as socket:
            assert last_error(socket) == "forbidden"
        with connect(where, origin=own, proxy=None) as socket:
            assert '"ready"' in socket.recv(timeout=10)


def test_sites_that_are_allowed_get_their_headers(serving):
    site = "https://app.example"
    with serving(cors_origins=frozenset({site})) as running:
        with httpx.Client(base_url=running.url, trust_env=False) as http:
            asked = {"Origin": site, "Access-Control-Request-Method": "POST"}
            preflight = http.options("/v1/encode", headers=asked)
            assert preflight.headers["Access-Control-Allow-Origin"] == site
            answer = http.get("/v1/model", headers={"Origin": site})
            assert answer.headers["Access-Control-Allow-Origin"] == site
            refused = http.post("/v1/encode", headers={"Origin": site}, content=b"x")
            assert refused.status_code == 422
            assert refused.headers["Access-Control-Allow-Origin"] == site
            assert http.get("/v1/model", headers={"Origin": "https://b"}).status_code == 403
        where = f"ws{running.url[4:]}/v1/decode/stream"
        with connect(where, origin=site, proxy=None) as socket:
            assert '"ready"' in socket.recv(timeout=10)


def test_unknown_names_in_a_query_are_refused(server):
    for where in ("/v1/encode?num_quantizer=8", "/v1/decode?fmt=flac", "/v1/model?x=1"):
        method = "GET" if "model" in where else "POST"
        answer = httpx.request(method, server.url + where, trust_env=False)
        assert answer.status_code == 422
        assert "the query has" in answer.json()["error"]["message"]


def test_head_is_answered(server):
    for where in ("/health", "/ready", "/v1/model", "/v1/models", "/"):
        answer = httpx.head(server.url + where, trust_env=False)
        assert (answer.status_code, answer.content) == (200, b"")


# Voices, and the end


def test_a_voice_with_a_text_is_no_other_recording():
    sound, text = recording(), "what I say"
    trick = sound + hashlib.sha256(text.encode()).digest()
    names = {voice_name(sound), voice_name(sound, text), voice_name(trick), voice_name(trick, "x")}
    assert len(names) == 4
    assert voice_name(sound) == hashlib.sha256(sound).hexdigest()[:32]


def test_draining_logs_nothing(serving, caplog):
    with serving(drain_seconds=0.1) as running, running.socket() as socket:
        running.wait_until(lambda: running.streams.num_live)
        running.runner.handle_exit(15, None)
        assert last_error(socket) == "server"
        running.thread.join(10)
    assert not caplog.records


def test_sound_in_memory_is_read_from_its_start():
    samples = file_routes._read(io.BytesIO(recording()), INFO, 10.0)
    assert samples.shape == (1, 5000)


def test_a_frame_with_a_huge_length_is_refused(server):
    raw = raw_stream(server)
    raw.sendall(b"\x82\xff" + struct.pack(">Q", 1 << 62) + bytes(4))
    assert is_closed(raw)
    raw.close()
