"""The voice cache: codes of reference recordings, found by the hash of the upload, and its routes.

Owns a folder of .moss files. Each is written whole before the request is answered, so a confirmed
voice survives any end of the server. The transcript of a recording is a file beside its codes. The
cache is bounded: the longest unused voices are dropped first, those of other models included.
"""

import asyncio
import hashlib
import os
import re
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from ..codes import AudioCodes
from ..errors import CodesFileError
from ..files import write_file
from .admission import Gate, Refused
from .file_routes import MOSS_TYPE, NumQuantizers, encode_clip, moss_response
from .request_body import BINARY, file_body, with_body
from .settings import MAX_TEXT_CHARACTERS
from .streams import Streams

Transcript = Annotated[str, Query(description="Its transcript, which speech in this voice needs.")]
_VOICE = re.compile(r"[0-9a-f]{32}")


def voice_name(recording: bytes, text: str = "") -> str:
    """The name of a voice: 32 digits of the SHA-256 of the recording and its transcript.

    A recording with another transcript is another voice, so the content of a name never changes.
    """
    digest = hashlib.sha256(recording)
    if text:
        # With a prefix that no sound file starts with, so no recording alone has this name.
        pair = digest.digest() + hashlib.sha256(text.encode()).digest()
        digest = hashlib.sha256(b"voice with transcript" + pair)
    return digest.hexdigest()[:32]


class VoiceCache:
    """Codes by name, in a folder.

    Args:
        folder: The folder of all voices; it is created if it is missing.
        model: The identity of the codec, whose voices have a subfolder.
        max_bytes: The limit of all files together, for all codecs.

    Raises:
        OSError: The folder cannot be created.
    """

    def __init__(self, folder: Path, model: str, max_bytes: int) -> None:
        self._folder = folder
        self._own = folder / model
        self._max_bytes = max_bytes
        self._own.mkdir(parents=True, exist_ok=True)
        self.num_bytes = sum(size for _, size, _ in self._files())

    def find(self, name: str) -> AudioCodes | None:
        """Load the codes of a name and mark them as used; None if there are none."""
        if not _VOICE.fullmatch(name):
            return None
        path = self._path(name)
        try:
            codes = AudioCodes.load(path)
            os.utime(path)
        except (CodesFileError, FileNotFoundError):  # missing, evicted just now, or damaged
            return None
        return codes

    def text(self, name: str) -> str:
        """The transcript of a voice's recording; empty if it was uploaded without one."""
        if not _VOICE.fullmatch(name):
            return ""
        try:
            return _text_path(self._path(name)).read_text("utf-8")
        except (FileNotFoundError, UnicodeDecodeError):
            return ""

    def keep(self, name: str, codes: AudioCodes, text: str = "") -> None:
        """Write codes, and drop the longest unused voices if the cache is too large.

        Raises:
            CodesFileError: The codes or the transcript cannot be written.
        """
        if text:  # before the codes: a voice exists once its codes do
            write_file(_text_path(self._path(name)), text, CodesFileError)
        codes.save(self._path(name))
        self._evict(spare=self._path(name))

    def drop(self, name: str) -> bool:
        """Delete a voice; returns whether it existed."""
        if not _VOICE.fullmatch(name) or not self._path(name).is_file():
            return False
        _remove(self._path(name))
        self.num_bytes = sum(size for _, size, _ in self._files())
        return True

    def _path(self, name: str) -> Path:
        return self._own / f"{name}.moss"

    def _files(self) -> list[tuple[float, int, Path]]:
        """Last use, size and path of the voices of all codecs, the longest unused first."""
        found = []
        for path in self._folder.glob("*/*.moss"):
            with suppress(OSError):  # deleted meanwhile
                status, text = path.stat(), _text_path(path)
                size = status.st_size + (text.stat().st_size if text.exists() else 0)
                found.append((status.st_mtime, size, path))
        return sorted(found)

    def _evict(self, spare: Path) -> None:
        files = self._files()
        self.num_bytes = sum(size for _, size, _ in files)
        for _, size, path in files:
            if self.num_bytes <= self._max_bytes:
                return
            if path != spare:
                _remove(path)
                self.num_bytes -= size


def _text_path(path: Path) -> Path:
    return path.with_suffix(".txt")


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    _text_path(path).unlink(missing_ok=True)


def _transcript(text: str) -> str:
    if len(text) > MAX_TEXT_CHARACTERS:
        got = f"the text has {len(text)} characters"
        raise Refused("bad_input", f"{got}; expected up to {MAX_TEXT_CHARACTERS}")
    return " ".join(text.split())


def voice_routes(
    streams: Streams, gate: Gate, voices: Callable[[], VoiceCache | None]
) -> APIRouter:
    """Create the routes of the voice cache."""
    router = APIRouter(prefix="/v1", dependencies=gate.guards(), tags=["voices"])

    def cache() -> VoiceCache:
        found = voices()
        if found is None:
            raise Refused("not_found", "this server keeps no voices; start it with --voices DIR")
        return found

    async def find(voice: str) -> AudioCodes | None:
        codes = await asyncio.to_thread(cache().find, voice)
        streams.metrics.looked_up(codes is not None)
        return codes

    @router.post(
        "/voices", openapi_extra=file_body("a reference recording", "application/octet-stream")
    )
    async def add_voice(request: Request, text: Transcript = "") -> dict[str, Any]:
        """Encode a reference recording and keep its codes; encodes each one only once."""
        cache()
        said = _transcript(text)

        async def work(recording: bytes) -> dict[str, Any]:
            voice = await streams.in_thread(partial(voice_name, recording, said))
            codes = await find(voice)
            facts = {"voice": voice, "was_cached": codes is not None}
            if codes is None:
                codes = await encode_clip(streams, recording, None)
                await asyncio.to_thread(cache().keep, voice, codes, said)
            return facts | {"seconds": codes.duration_seconds, "frames": codes.num_frames}

        return await with_body(request, streams, work, "a sound file")

    @router.get(
        "/voices/{voice}",
        response_class=Response,
        responses={200: {"content": {MOSS_TYPE: BINARY}}},
    )
    async def get_voice(voice: str, num_quantizers: NumQuantizers = None) -> Response:
        """The codes of a voice, as a .moss document."""
        codes = await find(voice)
        if codes is None:
            raise Refused("not_found", "no such voice; upload the recording (again)")
        return moss_response(codes if num_quantizers is None else codes.first(num_quantizers))

    @router.delete("/voices/{voice}", status_code=204)
    async def drop_voice(voice: str) -> Response:
        """Delete a voice."""
        if not await asyncio.to_thread(cache().drop, voice):
            raise Refused("not_found", "no such voice")
        return Response(status_code=204)

    return router
