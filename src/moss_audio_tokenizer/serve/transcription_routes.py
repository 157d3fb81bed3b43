"""Speech to text over HTTP, in the form of OpenAI's interface.

Owns the form that clients send and the formats of the answer; `model_service` transcribes.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request, Response

from ..speech.ctc import Word
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
FORMATS = ("json", "text", "verbose_json", "srt", "vtt")
_GRANULARITIES = ("word", "segment")
_FORM_BYTES = 1 << 14
# Subtitles: a cue ends after so many words or seconds, or at a pause.
_CUE_WORDS, _CUE_SECONDS, _PAUSE_SECONDS = 12, 6.0, 1.0


@dataclass(frozen=True)
class _Request:
    """A checked form.

    Attributes:
        recording: The sound file.
        response_format: One of `FORMATS`.
    """

    recording: bytes
    response_format: str

    @classmethod
    def of(cls, form: Form) -> "_Request":
        """Check a form.

        Raises:
            Refused: It has unknown fields, or values that are not supported.
        """
        fields = {name: values[-1] for name, values in form.fields.items()}
        if form.file is None:
            raise Refused("bad_input", "the form has no part 'file'; send a sound file", 0, "file")
        model = fields.pop("model", MODEL)
        if model not in (MODEL, "whisper-1"):
            raise Refused(
                "not_found", f"there is no model {model!r:.60}; use {MODEL!r}", 0, "model"
            )
        response_format = fields.pop("response_format", "json")
        _require("response_format", response_format, FORMATS)
        for value in form.fields.get("timestamp_granularities[]", []):
            _require("timestamp_granularities[]", value, _GRANULARITIES)
        fields.pop("timestamp_granularities[]", None)
        # Hints for other models: the answer is the same without them.
        for name in ("language", "prompt", "temperature"):
            fields.pop(name, None)
        if fields:
            name = next(iter(fields))
            raise Refused("bad_input", f"{name!r:.40} is not a field of this interface", 0, name)
        return cls(form.file, response_format)


def _require(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        expected = ", ".join(allowed)
        raise Refused("bad_input", f"{name} is {value!r:.40}; expected {expected}", 0, name)


def transcription_routes(transcriptions: Transcriptions | None, gate: Gate) -> APIRouter:
    """Create the route of transcription; without an ASR model it answers that there is none."""
    router = APIRouter(prefix="/v1", dependencies=gate.guards(), tags=["speech"])

    @router.post("/audio/transcriptions", response_class=Response, openapi_extra=_form_body())
    async def transcribe(request: Request) -> Response:
        """Transcribe a sound file; srt and vtt need a model that gives the times of words."""
        if transcriptions is None:
            raise Refused("not_found", "this server has no ASR model; start it with --asr FOLDER")
        async with (
            answered_after_reading(request),
            transcriptions.turn(client_of(request)),
        ):
            asked = await _read(request, transcriptions)
            found = await unless_gone(request, transcriptions.transcribe(asked.recording))
            return _answer(found, asked.response_format)

    return router


def _form_body() -> dict[str, Any]:
    text = {"type": "string"}
    properties = {
        "file": BINARY["schema"],
        "model": text | {"default": MODEL},
        "response_format": text | {"enum": list(FORMATS), "default": "json"},
    }
    schema = {"type": "object", "required": ["file"], "properties": properties}
    return {
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
    }


async def _read(request: Request, transcriptions: Transcriptions) -> _Request:
    kind = request.headers.get("content-type", "")
    if not is_form(kind):
        raise Refused("bad_input", "expected a form; send the file by curl -F file=@FILE")
    settings = transcriptions.settings
    body = await read_body(request, settings.max_upload_bytes + _FORM_BYTES, settings)
    asked = _Request.of(parse_form(kind, body))
    check_kind(asked.recording, "a sound file")
    return asked


def _answer(found: Transcript, response_format: str) -> Response:
    if response_format == "text":
        return Response(f"{found.text}\n", media_type="text/plain; charset=utf-8")
    if response_format == "json":
        return _json({"text": found.text})
    if response_format == "verbose_json":
        return _json(_verbose(found))
    if found.text and not found.words:
        raise Refused(
            "bad_input",
            f"this model gives no times of words; use json, not {response_format}",
            0,
            "response_format",
        )
    return Response(
        _subtitles(found, response_format), media_type=f"text/{_SUBTYPES[response_format]}"
    )


_SUBTYPES = {"srt": "plain; charset=utf-8", "vtt": "vtt; charset=utf-8"}


def _json(document: dict[str, Any]) -> Response:
    return Response(json.dumps(document, ensure_ascii=False), media_type="application/json")


def _verbose(found: Transcript) -> dict[str, Any]:
    words = [
        {
            "word": word.text,
            "start": round(word.start_seconds, 3),
            "end": round(word.end_seconds, 3),
        }
        for word in found.words
    ]
    segments = [
        {
            "id": number,
            **_span(cue[0], cue[-1]),
            "text": " ".join(word.text for word in cue),
        }
        for number, cue in enumerate(_cues(found.words))
    ]
    return {
        "task": "transcribe",
        "duration": round(found.duration_seconds, 3),
        "text": found.text,
        "words": words,
        "segments": segments,
    }


def _span(first: Word, last: Word) -> dict[str, float]:
    return {"start": round(first.start_seconds, 3), "end": round(last.end_seconds, 3)}


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
    mark = "," if response_format == "srt" else "."
    blocks = ["WEBVTT"] if response_format == "vtt" else []
    for number, cue in enumerate(_cues(found.words), 1):
        times = f"{_time(cue[0].start_seconds, mark)} --> {_time(cue[-1].end_seconds, mark)}"
        text = " ".join(word.text for word in cue)
        if response_format == "vtt":
            text = text.replace("&", "&amp;").replace("<", "&lt;")
        blocks.append("\n".join([str(number), times, text]))
    return "\n\n".join(blocks) + "\n"


def _time(seconds: float, mark: str) -> str:
    whole = round(seconds * 1000)
    hours, rest = divmod(whole, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    return f"{hours:02}:{minutes:02}:{rest // 1000:02}{mark}{rest % 1000:03}"
