"""A client for Python programs: whole files over HTTP, live streams over WebSockets.

Needs httpx and websockets, but no FastAPI. A refusal of the server is raised as an error of this
package. `RemoteCodec` is a server's codec, one clip at a time, for `evaluation.golden` to verify.
"""

import io
import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, TypeAlias, TypeVar
from urllib.parse import urlencode

import httpx
import numpy as np
import soundfile
from jaxtyping import Float, Integer
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import ClientConnection, connect

from ..codes import AudioCodes, CodecInfo
from ..errors import InputError, MossAudioError, ServerBusy, ServerError
from .wire_format import PackedFrames, PcmReader, PcmWriter

_ERRORS: dict[str, type[MossAudioError]] = {
    "busy": ServerBusy,
    "too_many_requests": ServerBusy,
    "bad_input": InputError,
    "too_large": InputError,
    "too_long": InputError,
}
_AUDIO = "pcm_f32le"
_MAX_ANSWER_BYTES = 1 << 28
# Chunk lengths of a live stream in frames: shorter than, equal to, and longer than a frame.
_CHUNK_FRAMES = (0.37, 1.0, 2.3)
# The largest values that a codec can have.
_MOST = {
    "sampling_rate": 768_000,
    "num_channels": 64,
    "samples_per_frame": 1 << 20,
    "num_quantizers": 1024,
    "codebook_size": 1 << 16,
}
_Connect = Callable[[], AbstractContextManager[ClientConnection]]
Recording: TypeAlias = str | Path | bytes
_Self = TypeVar("_Self", bound="_LiveStream")


class CodecClient(AbstractContextManager["CodecClient"]):
    """A connection to a codec server.

    Args:
        url: The server's URL, such as "http://127.0.0.1:8000".
        key: An API key, if the server requires one.
        timeout_seconds: The time limit of every answer.

    Every method raises `ServerBusy` if trying again later helps, `InputError` if the input or the
    URL is wrong, and `ServerError` for everything else.
    """

    def __init__(self, url: str, key: str | None = None, timeout_seconds: float = 60.0) -> None:
        self._url = url.rstrip("/")
        self._timeout_seconds = timeout_seconds
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        try:
            self._http = httpx.Client(
                base_url=self._url, headers=self._headers, timeout=timeout_seconds, trust_env=False
            )
        except (httpx.InvalidURL, UnicodeError) as problem:
            raise InputError(
                f"cannot talk to {url!r} ({problem}); expected an address such as "
                "http://127.0.0.1:8000, and a key of ASCII characters"
            ) from problem

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def model(self) -> dict[str, Any]:
        """The codec's facts and the server's limits."""
        return _document(self._request("GET", "/v1/model"))

    def encode(self, recording: Recording, num_quantizers: int | None = None) -> AudioCodes:
        """Encode a sound file, given as a path or as bytes."""
        query, content = {"num_quantizers": num_quantizers}, _bytes_of(recording)
        return _codes(self._request("POST", "/v1/encode", query, content=content))

    def decode(
        self, codes: AudioCodes, num_quantizers: int | None = None, audio_format: str = "wav"
    ) -> bytes:
        """Decode codes to the bytes of a sound file: "wav", "flac" or "opus"."""
        query = {"format": audio_format, "num_quantizers": num_quantizers}
        return self._request("POST", "/v1/decode", query, "audio/", content=codes.to_bytes())

    def add_voice(self, recording: Recording, text: str = "") -> dict[str, Any]:
        """Upload a recording and, to `speak` in it, its text; "voice" of the answer is its name."""
        query, content = {"text": text or None}, _bytes_of(recording)
        return _document(self._request("POST", "/v1/voices", query, content=content))

    def voice(self, voice: str, num_quantizers: int | None = None) -> AudioCodes:
        """The codes of a voice."""
        query = {"num_quantizers": num_quantizers}
        return _codes(self._request("GET", f"/v1/voices/{voice}", query))

    def drop_voice(self, voice: str) -> None:
        """Delete a voice."""
        self._request("DELETE", f"/v1/voices/{voice}")

    def built_in_voices(self) -> list[str]:
        """Names of the speech model's built-in voices; the first is the default."""
        found = _document(self._request("GET", "/v1/audio/voices", {}))
        return [str(name) for name in found.get("voices", [])]

    def speak(self, text: str, audio_format: str = "wav", **options: Any) -> bytes:
        """Synthesize a text to the bytes of a sound file.

        Args:
            text: The text.
            audio_format: "wav", "flac", "opus", "mp3", or raw "pcm".
            options: ``voice``, ``seed``, ``temperature``, ``top_k``, ``top_p``,
                ``guidance``, ``code_choice``, ``num_quantizers``, ``max_seconds``.
        """
        document = {"input": text, "response_format": audio_format} | options
        return self._request("POST", "/v1/audio/speech", {}, "audio/", json=document)

    def speech(self, text: str, **options: Any) -> Iterator[Float[np.ndarray, " samples"]]:
        """Synthesize a text; iterates over samples at 24 kHz as they arrive.

        Closing the iterator stops the speech. The options are those of `speak`.
        """
        document = {"input": text, "response_format": "pcm"} | options
        try:
            with self._http.stream("POST", "/v1/audio/speech", json=document) as response:
                if response.is_error:
                    raise _error_of(self._content(response).decode(errors="replace"))
                yield from _samples(response.iter_bytes())
        except httpx.HTTPError as problem:
            raise ServerError(f"no speech from {self._url}: {problem}") from problem

    def transcribe(self, recording: Recording) -> dict[str, Any]:
        """Transcribe a sound file: its "text", and "words" with "start" and "end" in seconds."""
        files, data = {"file": _bytes_of(recording)}, {"response_format": "verbose_json"}
        where = "/v1/audio/transcriptions"
        return _document(self._request("POST", where, files=files, data=data))

    def encode_stream(self, num_quantizers: int | None = None) -> "EncodeStream":
        """Open a live stream of audio to codes, for a ``with`` block."""
        return EncodeStream(self._connection("encode", num_quantizers), self._timeout_seconds)

    def decode_stream(self, num_quantizers: int | None = None) -> "DecodeStream":
        """Open a live stream of codes to audio, for a ``with`` block."""
        return DecodeStream(self._connection("decode", num_quantizers), self._timeout_seconds)

    def _connection(self, side: str, num_quantizers: int | None) -> _Connect:
        query = {"audio": _AUDIO}
        if num_quantizers is not None:
            query["num_quantizers"] = str(num_quantizers)
        where = f"ws{self._url.removeprefix('http')}/v1/{side}/stream?{urlencode(query)}"
        return lambda: connect(
            where,
            additional_headers=self._headers,
            compression=None,
            max_size=None,
            open_timeout=self._timeout_seconds,
            ping_interval=None,
            proxy=None,
        )

    def _request(
        self,
        method: str,
        where: str,
        query: Mapping[str, str | int | None] | None = None,
        media_type: str = "",
        **body: Any,
    ) -> bytes:
        """Send a request with the names of the query that have values, and httpx's form of body."""
        params = {name: value for name, value in (query or {}).items() if value is not None}
        try:
            with self._http.stream(method, where, params=params, **body) as response:
                content = self._content(response)
        except (httpx.HTTPError, httpx.InvalidURL) as problem:
            raise ServerError(f"no answer from {self._url}: {problem}") from problem
        if not response.is_success:
            raise _error_of(content.decode(errors="replace"))
        found = response.headers.get("content-type", "")
        if not found.startswith(media_type):
            raise ServerError(f"the server answered {found!r:.60}; expected {media_type}")
        return content

    def _content(self, response: httpx.Response) -> bytes:
        """Read an answer, within limits of size and time: the server may be hostile."""
        deadline = time.monotonic() + self._timeout_seconds
        content = io.BytesIO()
        for chunk in response.iter_bytes():
            content.write(chunk)
            if content.tell() > _MAX_ANSWER_BYTES:
                raise ServerError(f"the answer has more than {_MAX_ANSWER_BYTES} bytes")
            if time.monotonic() > deadline:
                raise ServerError(f"the answer took more than {self._timeout_seconds:g} s")
        return content.getvalue()


class _LiveStream:
    """What both directions have in common; a ``with`` block connects and closes.

    Attributes:
        hello: The first message of the server.
        summary: Its last message: the numbers of frames and samples.
    """

    def __init__(self, connect_to: _Connect, timeout_seconds: float) -> None:
        self.hello: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self._connect_to = connect_to
        self._timeout_seconds = timeout_seconds

    def __enter__(self: _Self) -> _Self:
        with ExitStack() as stack:
            try:
                self._connection = stack.enter_context(self._connect_to())
            except (OSError, WebSocketException) as problem:
                raise ServerError(f"no stream from the server: {problem}") from problem
            hello = self._message()
            if isinstance(hello, bytes):
                raise ServerError("the server sent data before it described the stream")
            self.hello = hello
            self._info = codec_info(hello, "the stream's first message")
            self._frames = PackedFrames(self._info, self._info.num_quantizers)
            self._open = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.__exit__(*error)

    def send(self, chunk: np.ndarray, /) -> None:
        """Send samples or codes."""
        raise NotImplementedError

    def finish(self) -> None:
        """Mark the end of the input."""
        self._send(json.dumps({"type": "end"}))

    def results(self) -> Iterator[np.ndarray]:
        """Iterate over codes or audio as they arrive, to the end of the stream."""
        reader = self._reader()
        while isinstance(message := self._message(), bytes):
            yield reader.read(message)
        self.summary = message

    def run(self, chunks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Send all chunks and the end from another thread; iterate over the results meanwhile."""

        def feed() -> None:
            for chunk in chunks:
                self.send(chunk)
            self.finish()

        sending = threading.Thread(target=feed, daemon=True)
        sending.start()
        yield from self.results()
        sending.join()

    def _reader(self) -> PackedFrames | PcmReader:
        raise NotImplementedError

    def _send(self, message: str | bytes) -> None:
        if not message:  # an empty chunk; servers refuse empty messages
            return
        try:
            self._connection.send(message)
        except ConnectionClosed:
            pass  # the next result raises the reason
        except OSError as problem:
            raise ServerError(f"the connection broke: {problem}") from problem

    def _message(self) -> Any:
        """The next message: bytes, or a document."""
        try:
            message = self._connection.recv(timeout=self._timeout_seconds)
        except (ConnectionClosed, OSError) as problem:
            raise ServerError(f"the server closed the stream: {problem}") from problem
        if isinstance(message, bytes):
            return message
        document = _document(message)
        if document.get("type") == "error":
            raise _error_of(message)
        return document


class EncodeStream(_LiveStream):
    """Audio to codes, live: sends samples, gives arrays (num_quantizers, frames)."""

    def send(self, audio: Float[np.ndarray, "channels samples"]) -> None:
        """Send any number of samples."""
        for message in PcmWriter(_AUDIO).messages(np.asarray(audio, np.float32)):
            self._send(message)

    def _reader(self) -> PackedFrames:
        return self._frames


class DecodeStream(_LiveStream):
    """Codes to audio, live: sends codes, gives arrays (channels, samples)."""

    def send(self, codes: Integer[np.ndarray, "num_quantizers frames"]) -> None:
        """Send whole frames; their number of quantizers is that of the stream."""
        self._send(self._frames.write(codes))

    def _reader(self) -> PcmReader:
        return PcmReader(_AUDIO, self._info)


def codec_info(document: dict[str, Any], where: str) -> CodecInfo:
    """Read the codec's facts from a document of the server.

    Raises:
        ServerError: A fact is missing or impossible.
    """
    for name, limit in _MOST.items():
        value = document.get(name)
        if type(value) is not int or not 1 <= value <= limit:
            raise ServerError(
                f"{where} says {name} {str(value)[:40]!r}; expected a number of 1 to {limit}"
            )
    identity = document.get("model")
    if not isinstance(identity, str) or not re.fullmatch("[!-~]{1,16}", identity):
        raise ServerError(
            f"{where} says model {str(identity)[:40]!r}; expected 1 to 16 ASCII characters that "
            "identify the codec"
        )
    rate, channels, step, layers, entries = (document[name] for name in _MOST)
    return CodecInfo(identity, rate, channels, step, layers, entries)


def _document(text: str | bytes) -> dict[str, Any]:
    """Parse a JSON object."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise _nonsense(text if isinstance(text, str) else text.decode(errors="replace"))
    return found


def _nonsense(text: str) -> ServerError:
    return ServerError(f"the server answered {text[:80]!r}, which a codec server would not answer")


def _samples(chunks: Iterable[bytes]) -> Iterator[Float[np.ndarray, " samples"]]:
    """Decode 16-bit PCM that may be cut inside a sample."""
    rest = b""
    for chunk in chunks:
        whole = rest + chunk
        end = len(whole) - len(whole) % 2
        rest = whole[end:]
        if end:
            yield np.frombuffer(whole[:end], "<i2").astype(np.float32) / 32768


def _bytes_of(recording: Recording) -> bytes:
    return recording if isinstance(recording, bytes) else Path(recording).read_bytes()


def _codes(document: bytes) -> AudioCodes:
    return AudioCodes.from_bytes(document, "the answer")


def _error_of(text: str) -> MossAudioError:
    """The error that a server's document describes."""
    try:
        error = json.loads(text)["error"]
        code, message = error["code"], error["message"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return _nonsense(text)
    if not isinstance(code, str):
        return _nonsense(text)
    # The message may be printed on a terminal.
    shown = "".join(sign if sign.isprintable() else " " for sign in str(message))
    return _ERRORS.get(code, ServerError)(f"{shown} ({code})")


class RemoteCodec:
    """The codec of a server; decoded whole files are 16-bit wav.

    Args:
        client: A client of the server.

    Raises:
        ServerError: The server does not describe its codec.
    """

    audio_step = 1 / 32768

    def __init__(self, client: CodecClient) -> None:
        self._client = client
        self._info = codec_info(client.model(), "/v1/model")

    @property
    def info(self) -> CodecInfo:
        """The codec's facts, as the server describes them."""
        return self._info

    def encode(
        self, audio: Float[np.ndarray, "channels samples"], num_quantizers: int
    ) -> Integer[np.ndarray, "num_quantizers frames"]:
        """Encode a clip, sent as a float32 wav file."""
        file = io.BytesIO()
        soundfile.write(file, audio.T, self._info.sampling_rate, format="WAV", subtype="FLOAT")
        found = self._client.encode(file.getvalue(), num_quantizers)
        self._check_rate(found.sampling_rate, "codes")
        return found.codes

    def decode(
        self, codes: Integer[np.ndarray, "num_quantizers frames"]
    ) -> Float[np.ndarray, "channels samples"]:
        """Decode codes, sent as a .moss document."""
        num_samples = codes.shape[1] * self._info.downsample_rate
        document = AudioCodes.of_codec(self._info, codes, num_samples)
        try:
            samples, rate = soundfile.read(
                io.BytesIO(self._client.decode(document)), dtype="float32", always_2d=True
            )
        except soundfile.SoundFileError as problem:
            raise ServerError(f"/v1/decode did not answer with a wav file ({problem})") from problem
        self._check_rate(rate, "audio")
        return np.asarray(samples.T)

    def encode_live(
        self, audio: Float[np.ndarray, "channels samples"]
    ) -> Integer[np.ndarray, "num_quantizers frames"]:
        """Encode a clip by a live stream of uneven chunks."""
        step = self._info.downsample_rate
        frames = -(-audio.shape[1] // step)
        nothing = np.zeros((self._info.num_quantizers, 0), np.int64)
        with self._client.encode_stream() as stream:
            return _joined(stream.run(_chunks(audio, step)), nothing, frames)

    def decode_live(
        self, codes: Integer[np.ndarray, "num_quantizers frames"]
    ) -> Float[np.ndarray, "channels samples"]:
        """Decode codes by a live stream, to float32."""
        frames = [codes[:, frame : frame + 1] for frame in range(codes.shape[1])]
        nothing = np.zeros((self._info.num_channels, 0), np.float32)
        samples = codes.shape[1] * self._info.downsample_rate
        with self._client.decode_stream(len(codes)) as stream:
            return _joined(stream.run(frames), nothing, samples)

    def _check_rate(self, rate: int, what: str) -> None:
        if rate != self._info.sampling_rate:
            raise ServerError(
                f"the server's {what} are at {rate} Hz; expected {self._info.sampling_rate}, as "
                "/v1/model says"
            )


def _chunks(audio: np.ndarray, step: int) -> Iterator[np.ndarray]:
    start = number = 0
    while start < audio.shape[1]:
        stop = start + max(1, round(_CHUNK_FRAMES[number % len(_CHUNK_FRAMES)] * step))
        yield audio[:, start:stop]
        start, number = stop, number + 1


def _joined(parts: Iterable[np.ndarray], nothing: np.ndarray, expected: int) -> np.ndarray:
    """Join the results of a stream; stops at a stream that gives too much."""
    found = [nothing]
    for part in parts:
        found.append(part)
        if sum(each.shape[1] for each in found) > expected:
            raise ServerError(f"the stream gave more than the {expected} entries that are due")
    return np.concatenate(found, axis=1)
