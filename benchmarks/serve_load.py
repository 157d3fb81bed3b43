"""Live streams in real time against a server: lateness, underruns, memory, and what they get.

`python benchmarks/serve_load.py --streams 8 --streams 16 --seconds 60` starts `moss-audio serve`,
then for each number keeps so many streams open on the loopback, half of them encoding and half
decoding. They come and go, stall, and break off; a new one takes the place of each that left.
A frame is late by the time from the moment when its input was due to be sent to the arrival of
its result; an underrun is more than a frame's duration. In the end every stream's results are
held against offline encoding and decoding of what it sent.
"""

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import urlopen

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from moss_audio_tokenizer import load_audio
from moss_audio_tokenizer.cli.loading import load_codec
from moss_audio_tokenizer.codes import CodecInfo
from moss_audio_tokenizer.serve.wire_format import PackedFrames

SAMPLE = Path(__file__).parents[1] / "samples" / "hello.flac"
# For streams that broke off and that the server has not missed yet.
_SPARE_STREAMS = 4
ENDINGS = ("end", "end", "end", "abort")


@dataclass
class Talk:
    """One stream: what it sends, when, and what it got.

    Attributes:
        side: "encode" or "decode".
        messages: one for each frame.
        ending: "end" for a proper one, "abort" for a connection that breaks off.
        stall_at: the frame before which it stops for a while, reading nothing.
        due: when each frame's input was to be sent; None for those under way in a stall.
        late: seconds from then to the result, for every frame that came.
        received: binary messages.
    """

    side: str
    messages: list[bytes]
    ending: str
    stall_at: int
    due: list[float | None] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    received: list[bytes] = field(default_factory=list)
    is_complete: bool = False


class Inputs:
    """Streams of speech, each from another place in the sample, with what offline makes of them."""

    def __init__(self, model: str) -> None:
        self._codec = load_codec(model)
        self.info: CodecInfo = self._codec.info
        self._frames = PackedFrames(self.info, None)
        self._speech = load_audio(SAMPLE, self.info.sampling_rate, self.info.num_channels)
        self._codes = self._codec.encode(self._speech)

    def talk(self, chance: random.Random, most_frames: int) -> Talk:
        """A stream of half to all of so many frames."""
        num_frames = chance.randint(max(1, most_frames // 2), max(1, most_frames))
        stall_at = chance.randrange(num_frames) if chance.random() < 0.1 else -1
        side, place = chance.choice(["encode", "decode"]), chance.randrange(self._codes.shape[1])
        if side == "decode":
            picked = np.take(self._codes, range(place, place + num_frames), axis=1, mode="wrap")
            messages = [self._frames.write(picked[:, i : i + 1]) for i in range(num_frames)]
        else:
            size = self.info.downsample_rate
            samples = range(place * size, (place + num_frames) * size)
            audio = np.take(self._speech, samples, axis=1, mode="wrap").T.astype("<f4")
            messages = [audio[i * size : (i + 1) * size].tobytes() for i in range(num_frames)]
        return Talk(side, messages, chance.choice(ENDINGS), stall_at)

    def faults(self, talk: Talk) -> tuple[bool, int]:
        """Whether a stream got something else than offline gives, and frames of other codes.

        Audio must be as close as docs/exactness.md says. Codes differ where two codebook rows are
        equally near to within rounding: more than a fiftieth of a stream's frames is wrong.
        """
        sent, got = b"".join(talk.messages), b"".join(talk.received)
        if talk.side == "decode":
            expected = self._codec.decode(self._frames.read(sent)).T
            audio = np.frombuffer(got, "<f4").reshape(-1, self.info.num_channels)
            is_short = talk.is_complete and len(audio) < len(expected)
            error = np.abs(audio - expected[: len(audio)]).max(initial=0)
            return is_short or error > 1e-4 * np.sqrt(np.mean(expected**2)), 0
        audio = np.frombuffer(sent, "<f4").reshape(-1, self.info.num_channels).T
        expected, codes = self._codec.encode(audio), self._frames.read(got)
        num_frames = codes.shape[1]
        other = int((codes != expected[:, :num_frames]).any(axis=0).sum())
        is_short = talk.is_complete and num_frames < expected.shape[1]
        return is_short or other > 1 + num_frames / 50, other


class Load:
    """So many streams at once, for so long."""

    def __init__(self, url: str, inputs: Inputs, num_streams: int, seconds: float) -> None:
        self._url = url
        self._inputs = inputs
        self._num_streams = num_streams
        self._seconds = seconds
        self._frame_seconds = 1 / inputs.info.frame_rate
        self.talks: list[Talk] = []
        self.problems: list[str] = []

    async def run(self) -> None:
        """Keep the streams going until the time is over."""
        self._stop = time.monotonic() + self._seconds
        await asyncio.gather(*(self._place(seed) for seed in range(self._num_streams)))

    async def _place(self, seed: int) -> None:
        """One stream after the other."""
        chance = random.Random(seed)  # noqa: S311 - the same load every time
        await asyncio.sleep(chance.uniform(0, min(2.0, self._seconds / 4)))
        while (left := self._stop - time.monotonic()) > 1:
            most = int(min(left, chance.uniform(4, 30)) / self._frame_seconds)
            talk = self._inputs.talk(chance, most)
            self.talks.append(talk)
            try:
                await self._hold(talk)
            except (OSError, ConnectionClosed, RuntimeError) as problem:
                self.problems.append(f"{type(problem).__name__}: {problem}")

    async def _hold(self, talk: Talk) -> None:
        where = f"{self._url.replace('http', 'ws')}/v1/{talk.side}/stream?audio=pcm_f32le"
        async with connect(where, compression=None, max_size=None, proxy=None) as socket:
            hello = json.loads(await socket.recv())
            if hello["type"] != "ready":
                raise RuntimeError(hello["error"]["message"])
            reads = asyncio.Event()
            reads.set()
            reading = asyncio.create_task(self._read(socket, talk, reads))
            await self._send(socket, talk, reads)
            if talk.ending == "abort":
                reading.cancel()
                socket.transport.abort()
                return
            await socket.send('{"type": "end"}')
            await reading

    async def _send(self, socket: ClientConnection, talk: Talk, reads: asyncio.Event) -> None:
        start = time.monotonic()
        for frame, message in enumerate(talk.messages):
            if frame == talk.stall_at:
                reads.clear()
                talk.due = [None] * len(talk.due)
                await asyncio.sleep(2)
                start += 2
                reads.set()
            due = start + frame * self._frame_seconds
            await asyncio.sleep(due - time.monotonic())
            talk.due.append(due)
            await socket.send(message)

    async def _read(self, socket: ClientConnection, talk: Talk, reads: asyncio.Event) -> None:
        num_frames, info = 0, self._inputs.info
        size = 4 * info.num_channels * info.downsample_rate
        if talk.side == "encode":
            size = PackedFrames(info, None).bytes_per_frame
        while isinstance(message := await socket.recv(), bytes):
            await reads.wait()
            now = time.monotonic()
            talk.received.append(message)
            for due in talk.due[num_frames : num_frames + len(message) // size]:
                if due is not None:
                    talk.late.append(now - due)
            num_frames += len(message) // size
        document = json.loads(message)
        if document["type"] != "done":
            raise RuntimeError(document["error"]["message"])
        talk.is_complete = True


@contextmanager
def server(model: str, threads: int, num_streams: int) -> Iterator[tuple[str, int]]:
    """A server's address and process."""
    command = [sys.executable, "-m", "moss_audio_tokenizer", "serve", "--model", model]
    command += ["--port", "0", "--threads", str(threads), "--max-streams", str(num_streams)]
    process = subprocess.Popen([*command, "--requests-a-minute", "0"], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None  # noqa: S101 - it was asked for
        yield process.stdout.readline().decode().split()[-1], process.pid
    finally:
        process.terminate()
        process.wait()


def memory(process: int, name: str) -> float:
    """A figure of a process's memory, in MB."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.split(f"{name}:")[1].split()[0]) / 1000


def cpu_seconds(process: int) -> float:
    """Processor time that a process has taken; unlike the clock, it knows no other processes."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def figures(url: str) -> dict[str, float]:
    """The server's own, summed over labels."""
    found: dict[str, float] = {}
    with urlopen(f"{url}/metrics") as answer:  # noqa: S310 - our own server
        for line in answer.read().decode().splitlines():
            if not line.startswith("#"):
                name, value = line.split("{")[0].split(" ")[0], float(line.split()[-1])
                found[name] = found.get(name, 0.0) + value
    return found


def measure(model: str, threads: int, num_streams: int, seconds: float, inputs: Inputs) -> str:
    """A row of the table."""
    with server(model, threads, num_streams + _SPARE_STREAMS) as (url, process):
        asyncio.run(Load(url, inputs, min(2, num_streams), 3).run())  # warm
        before, started = memory(process, "VmRSS"), figures(url)
        computed = cpu_seconds(process)
        load = Load(url, inputs, num_streams, seconds)
        asyncio.run(load.run())
        computed = cpu_seconds(process) - computed
        time.sleep(0.5)
        after, peak, ended = memory(process, "VmRSS"), memory(process, "VmHWM"), figures(url)
    late = np.array([value for talk in load.talks for value in talk.late])
    p50, p95, p99 = 1000 * np.percentile(late, [50, 95, 99])
    share = np.mean(late > 1 / inputs.info.frame_rate)
    steps = ended["moss_step_seconds_count"] - started["moss_step_seconds_count"]
    stepping = ended["moss_step_seconds_sum"] - started["moss_step_seconds_sum"]
    rows = ended["moss_step_streams_sum"] - started["moss_step_streams_sum"]
    wrong, other = np.sum([inputs.faults(talk) for talk in load.talks], axis=0)
    for problem in sorted(set(load.problems)):
        print(f"  problem, {load.problems.count(problem)} x: {problem}")
    return (
        f"| {num_streams} | {len(load.talks)} | {len(late)} | {p50:.0f} | {p95:.0f} | {p99:.0f} "
        f"| {share:.2%} | {rows / steps:.1f} | {1000 * stepping / steps:.1f} "
        f"| {stepping / seconds:.0%} | {computed / seconds:.0%} "
        f"| {before:.0f} / {after:.0f} / {peak:.0f} | {ended['moss_session_slots']:.0f} "
        f"| {wrong} | {other} |"
    )


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--model", default="bundled")
    options.add_argument("--streams", type=int, action="append")
    options.add_argument("--seconds", type=float, default=10.0)
    options.add_argument("--threads", type=int, default=1)
    given = options.parse_args()
    inputs = Inputs(given.model)
    print(
        "| streams at once | in all | frames | late p50 ms | p95 | p99 | underruns "
        "| streams a step | step ms | stepping | CPU | MB before / after / peak | slots left "
        "| wrong | frames of other codes |"
    )
    print(f"|{' --- |' * 15}")
    for num_streams in given.streams or [4, 8]:
        row = measure(given.model, given.threads, num_streams, given.seconds, inputs)
        print(row, flush=True)


if __name__ == "__main__":
    main()
