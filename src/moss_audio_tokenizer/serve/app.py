"""The application: its routes, its documentation, and its state.

Everything is created here and passed on. There are no globals, so one process can hold any number
of applications.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import swagger_ui_bundle
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from .. import __version__
from ..codes import StreamingCodec
from ..errors import MossAudioError
from .admission import STATUS, Gate, Refused, document_of, openai_answer, refusal_of
from .file_routes import file_routes
from .metrics import Metrics
from .model_service import SpeechSynthesizer, SpeechTranscriber, TextToSpeech, Transcriptions
from .settings import ServerSettings
from .speech_routes import MODEL as TTS_MODEL
from .speech_routes import OPENAI_PATHS, model_routes, speech_routes
from .stream_routes import stream_routes
from .streams import Streams
from .transcription_routes import MODEL as ASR_MODEL
from .transcription_routes import transcription_routes
from .voices import VoiceCache, voice_routes

_DESCRIPTION = """Audio to discrete codes and back. Whole files go over HTTP. Live streams go over
WebSockets at `/v1/encode/stream` and `/v1/decode/stream`, which this page cannot show: the first
message describes the codec, binary messages carry audio one way and packed frames of codes the
other, and `{"type": "end"}` ends a stream. `/v1/audio/speech` synthesizes texts and
`/v1/audio/transcriptions` transcribes recordings, in the form of OpenAI's interface.
Errors are `{"error": {"code", "message"}}`."""
_CLIENT_CLOSED = 499
_TEXTS = {name: {"type": "string"} for name in ("code", "message")}
_ERROR_RESPONSE = {
    "description": "An error: what was got, what was expected, and what to do.",
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {"error": {"type": "object", "properties": _TEXTS}},
            }
        }
    },
}


class CodecServer:
    """A codec, its streams and its application.

    Args:
        open_codec: Opens the codec, on the thread that will step it.
        settings: The server's limits.
        open_synthesizer: Opens the TTS model, on the thread that will run it; None for a server
            without speech.
        open_transcriber: Opens the ASR model, on the thread that will run it; None for a server
            without transcription.

    Attributes:
        app: The ASGI application.
        streams: All streams; `Streams.opened` waits for the codec.
        speeches: All speech requests; None without a TTS model.
        transcriptions: All transcriptions; None without an ASR model.
    """

    def __init__(
        self,
        open_codec: Callable[[], StreamingCodec],
        settings: ServerSettings | None = None,
        open_synthesizer: Callable[[], SpeechSynthesizer] | None = None,
        open_transcriber: Callable[[], SpeechTranscriber] | None = None,
    ) -> None:
        self.settings = settings or ServerSettings()
        self.metrics = Metrics()
        self.streams = Streams(open_codec, self.settings, self.metrics)
        self.speeches: TextToSpeech | None = None
        if open_synthesizer is not None:
            self.speeches = TextToSpeech(open_synthesizer, self.settings, self.metrics)
        self.transcriptions: Transcriptions | None = None
        if open_transcriber is not None:
            self.transcriptions = Transcriptions(open_transcriber, self.settings, self.metrics)
        services = (self.streams, self.speeches, self.transcriptions)
        self._services = [service for service in services if service is not None]
        self._voices: VoiceCache | None = None
        self.metrics.watch(
            queued_frames=self.streams.waiting_frames,
            clips=lambda: self.streams.num_clips,
            session_slots=self.streams.num_slots,
            session_bytes=self.streams.num_bytes,
            voice_bytes=lambda: self._voices.num_bytes if self._voices else 0,
            queued_speeches=lambda: self.speeches.num_requests if self.speeches else 0,
        )
        self.app = self._build()

    def _build(self) -> FastAPI:
        app = FastAPI(
            title="moss-audio",
            version=__version__,
            description=_DESCRIPTION,
            lifespan=self._lifespan,
            responses={"default": _ERROR_RESPONSE},
            docs_url=None,
            redoc_url=None,
        )
        # The version that the bundled documentation page supports.
        app.openapi_version = "3.0.3"
        gate = Gate(self.settings)
        app.include_router(file_routes(self.streams, gate))
        app.include_router(voice_routes(self.streams, gate, lambda: self._voices))
        app.include_router(stream_routes(self.streams, gate))
        models = [TTS_MODEL] if self.speeches else []
        models += [ASR_MODEL] if self.transcriptions else []
        app.include_router(model_routes(models, gate))
        app.include_router(speech_routes(self.speeches, gate, lambda: self._voices))
        app.include_router(transcription_routes(self.transcriptions, gate))
        app.include_router(self._state_routes(gate))
        _add_pages(app)
        _say_what_routes_do(app)
        errors = (Refused, MossAudioError, RequestValidationError, HTTPException, ClientDisconnect)
        for error in errors:
            app.add_exception_handler(error, self._answer)
        if self.settings.cors_origins:
            app.add_middleware(
                CORSMiddleware,
                allow_origins=sorted(self.settings.cors_origins),
                allow_methods=["GET", "HEAD", "POST", "DELETE"],
                allow_headers=["Authorization", "Content-Type", "Content-Encoding"],
                expose_headers=["Retry-After"],
            )
        return app

    @asynccontextmanager
    async def _lifespan(self, app: FastAPI) -> AsyncIterator[None]:  # noqa: ARG002
        for service in self._services:
            service.start()
        opening = asyncio.create_task(self.open())
        try:
            yield
        finally:
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
            await asyncio.gather(*(service.stop() for service in self._services))

    async def drain(self) -> None:
        """Refuse new work, and wait for open work up to the limit."""
        await asyncio.gather(*(service.drain() for service in self._services))

    async def open(self) -> None:
        """Wait for the models to load, then open the voice cache."""
        info, *_ = await asyncio.gather(*(service.opened() for service in self._services))
        if self.settings.voice_folder is not None and self._voices is None:
            self._voices = VoiceCache(
                self.settings.voice_folder, info.identity, self.settings.max_voice_bytes
            )

    def _state_routes(self, gate: Gate) -> APIRouter:
        router = APIRouter(tags=["server"], dependencies=gate.open_guards())

        @router.get("/health")
        @router.head("/health", include_in_schema=False)
        async def health() -> JSONResponse:
            """Whether the server works (200) or must be restarted (503)."""
            healthy = all(service.is_healthy for service in self._services)
            return JSONResponse({"healthy": healthy}, 200 if healthy else 503)

        @router.get("/ready")
        @router.head("/ready", include_in_schema=False)
        async def ready() -> JSONResponse:
            """Whether new work is accepted: the model is loaded, and no stop is under way."""
            is_ready = all(service.is_ready for service in self._services)
            state = {
                "ready": is_ready,
                "draining": self.streams.is_draining,
                "streams": self.streams.num_live,
                "max_streams": self.settings.max_streams,
            }
            return JSONResponse(state, 200 if is_ready else 503)

        @router.get("/metrics", response_class=Response)
        async def metrics() -> Response:
            """Metrics for Prometheus."""
            return Response(self.metrics.text(), media_type=self.metrics.content_type)

        return router

    async def _answer(self, request: Request, error: Exception) -> Response:
        if isinstance(error, ClientDisconnect):
            return Response(status_code=_CLIENT_CLOSED)
        if isinstance(error, RequestValidationError):
            problem = error.errors()[0]
            error = Refused("bad_input", f"{problem['loc'][1]}: {problem['msg']}")
        if isinstance(error, HTTPException):
            error = _refusal_of_route(error, request)
        refusal = refusal_of(error)
        self.metrics.refused.labels(refusal.code).inc()
        headers = {"Retry-After": f"{refusal.retry_seconds:.0f}"} if refusal.retry_seconds else None
        if request.url.path.startswith(OPENAI_PATHS):
            return JSONResponse(*openai_answer(refusal), headers)
        return JSONResponse(document_of(refusal), STATUS[refusal.code].http, headers)


def _refusal_of_route(error: HTTPException, request: Request) -> Refused:
    asked = f"{request.method} {request.url.path}"[:80]
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "another method")
        return Refused("method_not_allowed", f"{asked} is not allowed; expected {allowed}")
    if error.status_code == 404:
        return Refused("not_found", f"{asked} does not exist; /docs lists the interface")
    return Refused("bad_input", str(error.detail))


def _say_what_routes_do(app: FastAPI) -> None:
    """Let the documentation name routes by their first sentence, not by their function."""
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        document = describe()
        for operations in document["paths"].values():
            for operation in operations.values():
                operation["summary"] = operation["description"].partition("\n")[0].rstrip(".")
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _add_pages(app: FastAPI) -> None:
    page = Path(__file__).with_name("page.html").read_text("utf-8")
    app.mount("/docs/assets", StaticFiles(directory=Path(swagger_ui_bundle.swagger_ui_path)))

    @app.get("/", include_in_schema=False)
    @app.head("/", include_in_schema=False)
    async def microphone() -> HTMLResponse:
        return HTMLResponse(page)

    @app.get("/docs", include_in_schema=False)
    async def documentation() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="/openapi.json",
            title="moss-audio",
            swagger_js_url="/docs/assets/swagger-ui-bundle.js",
            swagger_css_url="/docs/assets/swagger-ui.css",
            swagger_favicon_url="/docs/assets/favicon-32x32.png",
        )
