"""Hostile clients against a server on the loopback: what each kind gets, and who else is hurt.

`python benchmarks/hostile_server.py --count 20` starts `moss-audio serve`, then sends every kind of
bad input so many times. Beside each kind a well-behaved stream encodes and another decodes, both in
real time. Codes must equal those of an idle server, and audio too but for rounding. An input is
well handled if it is answered with an error or closed in time. Prints a table in Markdown, and ends
with 1 if anything failed.
"""

import argparse
import gzip
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np

from moss_audio_tokenizer.audio import encode_audio, load_audio
from moss_audio_tokenizer.errors import MossAudioError
from moss_audio_tokenizer.serve.client import CodecClient, codec_info

SAMPLE = Path(__file__).parents[1] / "samples" / "reading.flac"
KEY = "a-key-of-the-bystander"
FRAMES = 40
ANSWER_SECONDS = 15.0
HANDSHAKE = (
    b"GET /v1/%s/stream%s HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nAuthorization: Bearer "
    + KEY.encode()
    + b"\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@dataclass
class Server:
    """A running server.

    Attributes:
        process: The process of `moss-audio serve`.
        url: Its URL.
    """

    process: "subprocess.Popen[str]"
    url: str

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, _, port = self.url.removeprefix("http://").partition(":")
        return host, int(port)

    def megabytes(self) -> float:
        """The memory of the process."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024

    def connect(self) -> socket.socket:
        """A connection that gives up waiting in the end."""
        raw = socket.create_connection(self.address, timeout=ANSWER_SECONDS)
        raw.settimeout(ANSWER_SECONDS)
        return raw


@contextmanager
def serving(model: str, voices: str) -> Iterator[Server]:
    """A server with keys, voices and short limits."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as keys:
        keys.write(KEY)
        keys.flush()
        command = [sys.executable, "-m", "moss_audio_tokenizer", "serve", "--model", model]
        command += ["--port", "0", "--threads", "1", "--api-keys", keys.name, "--voices", voices]
        command += ["--idle-seconds", "5", "--requests-a-minute", "0", "--voice-megabytes", "1"]
        command += ["--drain-seconds", "3", "--max-streams", "8"]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        try:
            line = process.stdout.readline() if process.stdout else ""
            yield Server(process, line.split()[-1])
        finally:
            process.kill()
            process.wait()


@dataclass
class Bystander:
    """Two streams in real time that do nothing wrong, and what they must give.

    Attributes:
        audio: What one encodes.
        codes: What it gives; also what the other decodes.
        sound: What that one gives.
    """

    audio: np.ndarray
    codes: np.ndarray
    sound: np.ndarray

    @classmethod
    def of(cls, server: Server) -> "Bystander":
        """The results of an idle server."""
        with CodecClient(server.url, KEY) as client:
            info = codec_info(client.model(), "/v1/model")
            audio = load_audio(SAMPLE, info.sampling_rate, info.num_channels)
            own = cls(audio[:, : FRAMES * info.downsample_rate], np.zeros((1, 0)), audio)
            own.codes = encoded(server, own)
            own.sound = decoded(server, own)
        return own

    def is_unharmed(self, server: Server) -> bool:
        """Whether both streams give the same codes, and the same audio but for rounding."""
        found: list[bool] = []

        def encode() -> None:
            with suppress(MossAudioError):
                found.append(np.array_equal(encoded(server, self), self.codes))

        thread = threading.Thread(target=encode)
        thread.start()
        with suppress(MossAudioError):
            difference = np.abs(decoded(server, self) - self.sound).max()
            found.append(bool(difference <= 1e-4 * self.sound.std()))
        thread.join()
        return found == [True, True]


def in_real_time(array: np.ndarray) -> Iterator[np.ndarray]:
    """A part for each frame, when it is due."""
    start, size = time.monotonic(), array.shape[1] // FRAMES
    for index in range(FRAMES):
        time.sleep(max(0.0, start + 0.08 * index - time.monotonic()))
        yield array[:, index * size : (index + 1) * size]


def encoded(server: Server, own: Bystander) -> np.ndarray:
    """Codes of a live stream."""
    with CodecClient(server.url, KEY) as client, client.encode_stream() as live:
        return np.concatenate(list(live.run(in_real_time(own.audio))), axis=1)


def decoded(server: Server, own: Bystander) -> np.ndarray:
    """Audio of a live stream."""
    with CodecClient(server.url, KEY) as client, client.decode_stream() as live:
        return np.concatenate(list(live.run(in_real_time(own.codes))), axis=1)


def is_ended(raw: socket.socket) -> bool:
    """Whether the server answers an error, or closes the connection, in time."""
    deadline, answer = time.monotonic() + ANSWER_SECONDS, b""
    try:
        while chunk := raw.recv(1 << 16):
            answer += chunk
            if re.search(rb"HTTP/1.1 [45]\d\d|\x88.\x03", answer, re.DOTALL):
                return True
            if time.monotonic() > deadline:
                return False
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def sent(server: Server, *parts: bytes, pause: float = 0.0) -> bool:
    """Send bytes by a connection of their own, and see it ended."""
    with server.connect() as raw:
        with suppress(OSError):
            for part in parts:
                raw.sendall(part)
                time.sleep(pause)
        return is_ended(raw)


def masked(opcode: int, payload: bytes) -> bytes:
    """A WebSocket frame of a client, masked with zeros."""
    size = len(payload)
    head = bytes([0x80 | size]) if size < 126 else b"\xfe" + struct.pack(">H", size)
    return bytes([0x80 | opcode]) + head + bytes(4) + payload


def stream(side: str = "decode", query: str = "") -> bytes:
    """The handshake of a stream."""
    return HANDSHAKE % (side.encode(), query.encode())


def request(body: bytes, path: str = "/v1/encode", *headers: str, key: str = KEY) -> bytes:
    """A POST with a body."""
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {key}", *headers]
    if not any(line.lower().startswith("content-length") for line in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


# Kinds: each handles one input, and says whether the server ended it well.


def bad_frames(server: Server, dice: random.Random) -> bool:
    """Malformed frames: random bytes, wrong opcodes, no mask, impossible lengths."""
    choice = dice.choice(
        [
            dice.randbytes(200),
            bytes([0x80 | dice.choice([3, 4, 11, 15]), 0x80]) + bytes(4),
            b"\x82\x05hello",
            b"\x82\xff" + struct.pack(">Q", dice.randrange(1 << 30, 1 << 63)) + bytes(4),
            masked(9, b"x" * 126),
        ]
    )
    return sent(server, stream(), choice)


def bad_messages(server: Server, dice: random.Random) -> bool:
    """Malformed messages: empty, cut, texts, NaN, too long."""
    side = dice.choice(["encode", "decode"])
    nan = struct.pack("<f", float("nan")) * 100
    bad = [b"", b"x", dice.randbytes(40 * 3 - 1)] if side == "decode" else [b"", b"odd", nan[:-1]]
    if dice.random() < 0.4:
        text = dice.choice(['{"type": "sing"}', "[" * 5000, "\x00", '{"type": "end"' + " " * 2000])
        return sent(server, stream(side), masked(1, text.encode()))
    return sent(server, stream(side), masked(2, dice.choice(bad)))


def opus_garbage(server: Server, dice: random.Random) -> bool:
    """Random bytes as Opus packets; some decode, and the stream is then idle."""
    packets = [masked(2, dice.randbytes(dice.randrange(1, 5000))) for _ in range(5)]
    return sent(server, stream("encode", "?audio=opus"), *packets, masked(2, b"x" * 5000))


def bad_queries(server: Server, dice: random.Random) -> bool:
    """Impossible options of streams."""
    query = dice.choice(["num_quantizers=x", "num_quantizers=99", "audio=mp3", "x=1", "bitrate=-5"])
    return sent(server, stream("decode", f"?{query}"))


def bad_requests(server: Server, dice: random.Random) -> bool:
    """Malformed HTTP: random bytes, false lengths, attempts to split lines."""
    choice = dice.choice(
        [
            dice.randbytes(300) + b"\r\n\r\n",
            request(b"short", "/v1/encode", "Content-Length: -1"),
            request(b"short", "/v1/encode", "Content-Length: 5", "Content-Length: 6"),
            request(b"x", "/v1/encode", "Transfer-Encoding: chunked", "Content-Length: 1"),
            request(b"x", "/v1/model%0d%0aSet-Cookie:%20a=b"),
            request(b"x", "/v1/encode?format=%0a%0dERROR%20forged"),
            request(b"x", "/v1/encode", "X-Long: " + "y" * 70_000),
            b"GET /v1/model HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\x00\r\n\r\n",
        ]
    )
    return sent(server, choice)


def slow_requests(server: Server, dice: random.Random) -> bool:
    """Slow requests: nothing, half a head, or a body byte by byte."""
    head = request(b"", "/v1/encode", "Content-Length: 9999")
    choice = dice.choice([[b""], [b"GET / HT"], [head], [head, *([b"x"] * 20)]])
    return sent(server, *choice, pause=0.1)


def disconnects(server: Server, dice: random.Random) -> bool:
    """Streams and uploads that break off anywhere, with or without a reset."""
    whole = dice.choice(
        [
            stream() + masked(2, bytes(40)) * 20 + masked(1, b'{"type": "end"}'),
            request(bytes(5000)),
            request(encode_audio(np.zeros((1, 24_000)), 24_000, ".wav")),
        ]
    )
    with server.connect() as raw:
        raw.sendall(whole[: dice.randrange(len(whole))])
        time.sleep(dice.random() * 0.05)
        if dice.random() < 0.5:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return True


def ping_floods(server: Server, dice: random.Random) -> bool:
    """Ten thousand pings, with a valid key or a wrong one, whose pongs are not read."""
    start = (
        stream() if dice.random() < 0.5 else stream().replace(KEY.encode(), b"a-wrong-key-of-mine")
    )
    return sent(server, start, *[masked(9, b"x" * dice.randrange(100)) * 500] * 20)


def connects(server: Server, dice: random.Random) -> bool:  # noqa: ARG001
    """A hundred silent connections at once."""
    held = [server.connect() for _ in range(100)]
    time.sleep(0.2)
    for raw in held:
        raw.close()
    return True


def wrong_keys(server: Server, dice: random.Random) -> bool:
    """Keys that are missing, wrong, too long or not ASCII."""
    key = dice.choice(["", "wrong", KEY[:-1], KEY + "x", "k" * 50_000, "schl\xfcssel"])
    return sent(server, request(b"x", key=key))


def voice_names(server: Server, dice: random.Random) -> bool:
    """Names of voices that leave their folder."""
    name = dice.choice(["..%2f..%2fetc%2fpasswd", "....//", "%00", "a" * 5000, "..", "0" * 31])
    return sent(server, request(b"", f"/v1/voices/{name}").replace(b"POST", b"DELETE", 1))


def bombs(server: Server, dice: random.Random) -> bool:
    """Small files that decompress to hours or gigabytes."""
    if dice.random() < 0.5:
        return sent(
            server, request(gzip.compress(bytes(1 << 27)), "/v1/encode", "Content-Encoding: gzip")
        )
    hours = encode_audio(np.zeros((1, 8000 * 3600)), 8000, ".flac")
    return sent(server, request(hours))


def broken_uploads(server: Server, dice: random.Random) -> bool:  # noqa: ARG001
    """Five large sounds at once whose senders leave."""
    silence = encode_audio(np.zeros((2, 48_000 * 300)), 48_000, ".flac")
    for _ in range(5):
        with server.connect() as raw:
            raw.sendall(request(silence))
            time.sleep(0.02)
    return True


def foreign_pages(server: Server, dice: random.Random) -> bool:
    """Web pages of other sites, also by a domain that points to this machine."""
    line = dice.choice(["Origin: http://evil.example", "Origin: null"])
    whole = dice.choice([stream(), request(b"x")]).replace(b"\r\n", f"\r\n{line}\r\n".encode(), 1)
    if dice.random() < 0.3:
        whole = whole.replace(b"Host: 127.0.0.1", b"Host: evil.example")
    return sent(server, whole)


def full_cache(server: Server, dice: random.Random) -> bool:
    """Voices beyond the size of the cache."""
    sound = np.random.default_rng(dice.randrange(1 << 30)).uniform(-0.1, 0.1, (1, 24_000))
    with CodecClient(server.url, KEY) as client, suppress(MossAudioError):
        client.add_voice(encode_audio(sound, 24_000, ".wav"))
    figures = httpx.get(f"{server.url}/metrics", trust_env=False).text
    return float(re.findall(r"^moss_voice_bytes (\S+)", figures, re.MULTILINE)[0]) <= 1 << 20


KINDS: list[Callable[[Server, random.Random], bool]] = [
    *(bad_frames, bad_messages, opus_garbage, bad_queries, bad_requests, slow_requests),
    *(disconnects, ping_floods, connects, wrong_keys, voice_names, bombs, broken_uploads),
    *(foreign_pages, full_cache),
]


def tried(server: Server, kind: Callable[[Server, random.Random], bool], count: int) -> list[bool]:
    """Inputs of one kind, by four clients at once."""
    results: list[bool] = []
    seeds = iter(range(count))
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                seed = next(seeds, None)
            if seed is None:
                return
            try:
                results.append(kind(server, random.Random(f"{kind.__name__}{seed}")))  # noqa: S311
            except OSError:
                results.append(False)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def row(
    server: Server, kind: Callable[[Server, random.Random], bool], count: int, own: Bystander
) -> bool:
    """One line of the table; whether all went well."""
    unharmed: list[bool] = []
    is_over = threading.Event()

    def behave() -> None:
        while not is_over.is_set():
            unharmed.append(own.is_unharmed(server))

    thread = threading.Thread(target=behave)
    thread.start()
    results = tried(server, kind, count)
    is_over.set()
    thread.join()
    is_alive = server.process.poll() is None
    print(
        f"| {(kind.__doc__ or '').splitlines()[0].rstrip('.')} | {len(results)} | {sum(results)} "
        f"| {sum(unharmed)} of {len(unharmed)} | {server.megabytes():.0f} |",
        flush=True,
    )
    return all(results) and all(unharmed) and is_alive


def ends(model: str, how: int) -> bool:
    """Whether a server under load ends in time by a signal, and its voices are whole afterwards."""
    with tempfile.TemporaryDirectory() as voices, serving(model, voices) as server:
        with CodecClient(server.url, KEY) as client:
            sound = encode_audio(np.zeros((1, 24_000)), 24_000, ".wav")
            voice = client.add_voice(sound)["voice"]

            def load() -> None:
                with suppress(MossAudioError), client.encode_stream() as live:
                    for _ in live.run(np.zeros((1, 1920)) for _ in range(10_000)):
                        pass

            threads = [threading.Thread(target=load, daemon=True) for _ in range(4)]
            for thread in threads:
                thread.start()
            time.sleep(1)
            start = time.monotonic()
            server.process.send_signal(how)
            server.process.wait(20)
            seconds = time.monotonic() - start
        with serving(model, voices) as again, CodecClient(again.url, KEY) as client:
            is_whole = client.voice(voice).num_frames == 13
        left = list(Path(voices).glob("**/.moss-*"))
    return is_whole and not left and seconds < 10


def main() -> None:
    """Run every kind and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--count", type=int, default=20, help="inputs of each kind")
    parser.add_argument("--kind", action="append", help="only these kinds, by name")
    parser.add_argument("--no-ends", action="store_true", help="leave the signals out")
    options = parser.parse_args()
    fine = True
    print("| kind | inputs | well handled | streams unharmed | MB after |\n" + "| --- " * 5 + "|")
    with tempfile.TemporaryDirectory() as voices, serving(options.model, voices) as server:
        own = Bystander.of(server)
        for kind in KINDS:
            if not options.kind or kind.__name__ in options.kind:
                fine &= row(server, kind, options.count, own)
    if not options.no_ends:
        for how in (signal.SIGTERM, signal.SIGKILL):
            well = sum(ends(options.model, how) for _ in range(options.count))
            print(f"| {how.name} under load | {options.count} | {well} | | |", flush=True)
            fine &= well == options.count
    sys.exit(not fine)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
