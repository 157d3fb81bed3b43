"""`moss-audio serve`: the codec server."""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError
from . import display, loading, options
from .failures import needs_extra

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


Tts = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER",
        show_default="the installed one, if there is one",
        help="CAT-TTS weights: also synthesize speech; 'none' for no speech.",
    ),
]
Asr = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER",
        show_default="the installed one, if there is one",
        help="CAT-ASR weights: also transcribe speech; 'none' for no transcripts.",
    ),
]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")]
Threads = Annotated[
    int | None, options.at_least(1, "Threads on a CPU.", show_default="all cores but one")
]
Voices = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Store codes of reference recordings there.")
]
VoiceMegabytes = Annotated[
    int, options.at_least(1, "Largest size of that folder; the longest unused are deleted first.")
]
ApiKeys = Annotated[
    Path | None,
    typer.Option("--api-keys", metavar="FILE", help="Require a key of FILE, one a line."),
]
MaxSpeed = Annotated[float, options.at_least(0.1, "Times real time at which a stream may be fed.")]
RequestsAMinute = Annotated[
    float, options.at_least(0, "Requests and streams of one client; 0 for no limit.")
]
IdleSeconds = Annotated[float, options.at_least(0.1, "How long a client may send or take nothing.")]
DrainSeconds = Annotated[float, options.at_least(0, "How long streams may continue after SIGTERM.")]
Cors = Annotated[
    list[str] | None,
    typer.Option(
        metavar="ORIGIN", help="Site whose web pages may use the server, or '*'; repeatable."
    ),
]
AllowedHost = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        show_default="this machine's own names, on 127.0.0.1; else any",
        help="Name by which clients may address the server; repeatable.",
    ),
]
TrustProxy = Annotated[
    bool, typer.Option("--trust-proxy", help="Take clients' addresses from X-Forwarded-For.")
]
StreamsAClient = Annotated[int, options.at_least(0, "Live streams of one client; 0 for no limit.")]


def serve(
    model: options.Model = "bundled",
    tts: Tts = None,
    asr: Asr = None,
    max_streams: Annotated[int, options.at_least(1, "Live streams at once.", metavar="N")] = 16,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Port = 8000,
    device: options.Device = "cpu",
    backend: options.Backend = None,
    compute_dtype: options.ComputeDtype = "fp32",
    attention: options.Attention = None,
    threads: Threads = None,
    voices: Voices = None,
    voice_megabytes: VoiceMegabytes = 256,
    api_keys: ApiKeys = None,
    max_clip_seconds: Annotated[float, options.at_least(0.1, "Longest whole file.")] = 600.0,
    max_speech_seconds: Annotated[float, options.at_least(0.1, "Longest speech.")] = 20.0,
    max_stream_seconds: Annotated[float, options.at_least(0.1, "Longest live stream.")] = 14400.0,
    max_speed: MaxSpeed = 4.0,
    requests_a_minute: RequestsAMinute = 600.0,
    idle_seconds: IdleSeconds = 30.0,
    drain_seconds: DrainSeconds = 30.0,
    cors: Cors = None,
    allowed_host: AllowedHost = None,
    trust_proxy: TrustProxy = False,
    streams_a_client: StreamsAClient = 0,
) -> None:
    """Serve the codec over HTTP and WebSockets.

    Its pages: / (a live microphone), /docs, /metrics, /health, /ready.

    Example: moss-audio serve --max-streams 32 --voices voices/
    """
    with needs_extra("serve", "the codec server"):
        from ..serve.app import CodecServer
        from ..serve.runner import run
        from ..serve.settings import ServerSettings
    settings = ServerSettings(
        max_streams=max_streams,
        max_clip_seconds=max_clip_seconds,
        max_stream_seconds=max_stream_seconds,
        max_speech_seconds=max_speech_seconds,
        max_speed=max_speed,
        max_requests_a_minute=requests_a_minute,
        idle_seconds=idle_seconds,
        drain_seconds=drain_seconds,
        voice_folder=voices,
        max_voice_bytes=voice_megabytes << 20,
        api_keys=_read_keys(api_keys),
        cors_origins=frozenset(site.lower().rstrip("/") for site in cors or ()),
        allowed_hosts=_allowed_hosts(host, allowed_host or []),
        trusts_proxy=trust_proxy,
        max_streams_a_client=streams_a_client,
    )
    precision = {"compute_dtype": compute_dtype, "attention": attention}
    open_codec, *open_speech = _openers(model, tts, asr, precision, device, backend, threads)
    run(CodecServer(open_codec, settings, *open_speech), host, port, _announce)


def _openers(
    codec: str,
    tts: str | None,
    asr: str | None,
    precision: dict[str, Any],
    device: str,
    backend: str | None,
    threads: int | None,
) -> Iterator[Any]:
    """What opens the codec, CAT-TTS and CAT-ASR, on the thread that will run it; None for none."""
    # Two threads that import transformers at the same time fail.
    opening = threading.Lock()
    # One core is left to the network.
    num_threads = threads or max(1, (os.cpu_count() or 2) - 1)
    shared = {"device": device, "backend": backend, "num_threads": num_threads}

    def opener(load: Callable[..., Any], *names: str, **options: Any) -> Callable[[], Any]:
        def open_model() -> Any:
            with opening:
                return load(*names, **shared, **options)

        return open_model

    yield opener(loading.load_codec, codec, **precision)
    for kind, name, load in (
        ("tts", tts, loading.load_speaker),
        ("asr", asr, loading.load_transcriber),
    ):
        served = _speech_model(kind, name, codec)
        yield opener(load, served, codec) if served else None


def _speech_model(kind: str, name: str | None, codec: str) -> str | None:
    """The speech model to serve; installed ones know the codes of the bundled codec alone."""
    from ..speech.model_facts import is_installed

    if name is None:
        return "bundled" if codec == "bundled" and is_installed(kind) else None
    return None if name == "none" else name


def _announce(address: str) -> None:
    display.print_line(f"serving at {address}")
    sys.stdout.flush()


def _allowed_hosts(host: str, names: list[str]) -> frozenset[str] | None:
    """The names by which clients may address the server; None for any.

    A server on the loopback is reachable from web pages in the browser of its user: pages whose
    domain points to this machine are kept out by their Host header.
    """
    if not names and host not in _LOOPBACK:
        return None
    return frozenset(name.lower() for name in (host, *names, *_LOOPBACK))


def _read_keys(path: Path | None) -> frozenset[str]:
    """Read API keys from a file, one a line."""
    if path is None:
        return frozenset()
    try:
        lines = path.read_text("utf-8").split()
    except (OSError, UnicodeDecodeError) as problem:
        raise InputError(f"cannot read keys from {str(path)!r}: {problem}") from problem
    if not lines:
        raise InputError(f"{str(path)!r} holds no keys; expected one a line, or no --api-keys")
    return frozenset(lines)
