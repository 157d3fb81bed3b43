"""Speech to text over HTTP, in the form of OpenAI's interface.

Owns the form that clients send and the formats of the answer; `model_service` transcribes.
"""

import json
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from ..speech.token_frames import Word
from ..speech.transcriber import Transcript
from .admission import Gate, Refused, client_of
from .model_service import Transcriptions
from .request_body import (
    BINARY,
    Form,
    answered_after_reading,
    check_kind,
    is_form,
    parse_form,
    read_body,
    unless_gone,
)

MODEL = "cat-asr"
_FORMATS = ("json", "text", "verbose_json", "srt", "vtt")
_TEXT_TYPES = {"text": "plain", "srt": "plain", "vtt": "vtt"}
_GRANULARITIES = ("word", "segment")
_MODELS = (MODEL, "whisper-1")
# Hints for other models: the answer is the same without them.
_IGNORED = ("language", "prompt", "temperature")
_FIELDS = ("model", "response_format", "timestamp_granularities[]", *_IGNORED)
_FORM_BYTES = 1 << 14
# Subtitles: a cue ends after so many words or seconds, or at a pause.
_CUE_WORDS, _CUE_SECONDS, _PAUSE_SECONDS = 12, 6.0, 1.0


def transcription_routes(transcriptions: Transcriptions | None, gate: Gate) -> APIRouter:
    """Create the route of transcription; without an ASR model it answers that there is none."""
    router = APIRouter(prefix="/v1", dependencies=gate.guards(), tags=["speech"])

    @router.post("/audio/transcriptions", response_class=Response, openapi_extra=_form_body())
    async def transcribe(request: Request) -> Response:
        """Transcribe a sound file; srt and vtt need a model that gives the times of words."""
        if transcriptions is None:
            raise Refused("not_found", "this server has no ASR model; start it with --asr FOLDER")
        async with answered_after_reading(request), transcriptions.turn(client_of(request)) as turn:
            recording, response_format = await _read(request, transcriptions)
            turn.submit(recording)
            found = await unless_gone(request, turn.next_result())
            return _answer(found, response_format)

    return router


def _form_body() -> dict[str, Any]:
    text = {"type": "string"}
    properties = {
        "file": BINARY["schema"],
        "model": text | {"default": MODEL},
        "response_format": text | {"enum": list(_FORMATS), "default": "json"},
    }
    schema = {"type": "object", "required": ["file"], "properties": properties}
    content = {"multipart/form-data": {"schema": schema}}
    return {"requestBody": {"required": True, "content": content}}


async def _read(request: Request, transcriptions: Transcriptions) -> tuple[bytes, str]:
    """The sound file of a form, and the format of the answer."""
    kind = request.headers.get("content-type", "")
    if not is_form(kind):
        raise Refused("bad_input", "expected a form; send the file by curl -F file=@FILE")
    settings = transcriptions.settings
    body = await read_body(request, settings.max_upload_bytes + _FORM_BYTES, settings)
    form = parse_form(kind, body)
    return _checked(form), _last(form, "response_format", "json")


def _checked(form: Form) -> bytes:
    """The sound file of a form whose fields this server supports."""
    if form.file is None:
        raise Refused("bad_input", "the form has no part 'file'; send a sound file", 0, "file")
    model = _last(form, "model", MODEL)
    if model not in _MODELS:
        raise Refused("not_found", f"there is no model {model!r:.60}; use {MODEL!r}", 0, "model")
    _require("response_format", form.fields.get("response_format", [])[-1:], _FORMATS)
    granularities = "timestamp_granularities[]"
    _require(granularities, form.fields.get(granularities, []), _GRANULARITIES)
    if unknown := next((name for name in form.fields if name not in _FIELDS), None):
        message = f"{unknown!r:.40} is not a field of this interface"
        raise Refused("bad_input", message, 0, unknown)
    check_kind(form.file, "a sound file")
    return form.file


def _last(form: Form, name: str, default: str) -> str:
    return form.fields.get(name, [default])[-1]


def _require(name: str, values: Sequence[str], allowed: Sequence[str]) -> None:
    for value in values:
        if value not in allowed:
            expected = ", ".join(allowed)
            raise Refused("bad_input", f"{name} is {value!r:.40}; expected {expected}", 0, name)


def _answer(found: Transcript, response_format: str) -> Response:
    if response_format in ("json", "verbose_json"):
        document = {"text": found.text} if response_format == "json" else _verbose(found)
        return Response(json.dumps(document, ensure_ascii=False), media_type="application/json")
    if response_format == "text":
        text = f"{found.text}\n"
    elif found.text and not found.words:
        message = f"this model gives no times of words; use json, not {response_format}"
        raise Refused("bad_input", message, 0, "response_format")
    else:
        text = _subtitles(found, response_format)
    return Response(text, media_type=f"text/{_TEXT_TYPES[response_format]}; charset=utf-8")


def _verbose(found: Transcript) -> dict[str, Any]:
    cues = enumerate(_cues(found.words))
    return {
        "task": "transcribe",
        "duration": round(found.duration_seconds, 3),
        "text": found.text,
        "words": [{"word": word.text, **_span(word, word)} for word in found.words],
        "segments": [
            {"id": number, **_span(cue[0], cue[-1]), "text": _text(cue)} for number, cue in cues
        ],
    }


def _span(first: Word, last: Word) -> dict[str, float]:
    return {"start": round(first.start_seconds, 3), "end": round(last.end_seconds, 3)}


def _text(cue: Sequence[Word]) -> str:
    return " ".join(word.text for word in cue)


def _cues(words: Sequence[Word]) -> list[list[Word]]:
    """Words in groups that fit a subtitle."""
    cues: list[list[Word]] = []
    for word in words:
        if cues and _fits(cues[-1], word):
            cues[-1].append(word)
        else:
            cues.append([word])
    return cues


def _fits(cue: Sequence[Word], word: Word) -> bool:
    return (
        len(cue) < _CUE_WORDS
        and word.end_seconds - cue[0].start_seconds <= _CUE_SECONDS
        and word.start_seconds - cue[-1].end_seconds < _PAUSE_SECONDS
    )


def _subtitles(found: Transcript, response_format: str) -> str:
    is_vtt = response_format == "vtt"
    blocks = ["WEBVTT"] if is_vtt else []
    for number, cue in enumerate(_cues(found.words), 1):
        ends = (cue[0].start_seconds, cue[-1].end_seconds)
        times = " --> ".join(_time(seconds, "." if is_vtt else ",") for seconds in ends)
        text = _text(cue).replace("&", "&amp;").replace("<", "&lt;") if is_vtt else _text(cue)
        blocks.append(f"{number}\n{times}\n{text}")
    return "\n\n".join(blocks) + "\n"


def _time(seconds: float, mark: str) -> str:
    whole = round(seconds * 1000)
    hours, rest = divmod(whole, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    return f"{hours:02}:{minutes:02}:{rest // 1000:02}{mark}{rest % 1000:03}"
