"""Forms (multipart/form-data), as browsers, curl -F and OpenAI's clients send files.

Parses a body that has been read whole and within its limit. Knows no routes.
"""

import re
from dataclasses import dataclass

from .http_errors import Refused

_MAX_PARTS = 32
_MAX_FIELD_BYTES = 1 << 14
_BOUNDARY = re.compile(r'boundary=(?:"([^"]{1,70})"|([^\s;,]{1,70}))', re.IGNORECASE)
_NAME = re.compile(rb'(?:^|[;\s])name=(?:"([^"\r\n]*)"|([^\s;"]+))', re.IGNORECASE)
_FILE_NAME = re.compile(rb"(?:^|[;\s])filename\*?=", re.IGNORECASE)


@dataclass(frozen=True)
class Form:
    """The content of a form.

    Attributes:
        fields: The text fields; of a repeated name, all values.
        file: The content of the part "file"; None without one.
    """

    fields: dict[str, list[str]]
    file: bytes | None


def is_form(content_type: str) -> bool:
    """Whether a content type is multipart/form-data."""
    return content_type.partition(";")[0].strip().lower() == "multipart/form-data"


def file_of_form(content_type: str, body: bytes) -> bytes:
    """The file of a form; a body of another type is the file itself.

    Raises:
        Refused: The form is damaged, has no part "file", or has other parts.
    """
    if not is_form(content_type):
        return body
    form = parse_form(content_type, body)
    if form.fields:
        raise Refused(
            "bad_input",
            f"the form has the field {next(iter(form.fields))!r:.40}; expected only 'file'",
        )
    if form.file is None:
        raise Refused("bad_input", "the form has no part 'file'; send it as curl -F file=@FILE")
    return form.file


def parse_form(content_type: str, body: bytes) -> Form:
    """Parse a form.

    Raises:
        Refused: It is damaged or has too many parts.
    """
    fields: dict[str, list[str]] = {}
    file = None
    for head, content in _parts(content_type, body):
        name = _name_of(head)
        if name == "file":
            if file is not None:
                raise Refused("bad_input", "the form has two parts 'file'; send one at a time")
            file = content
        elif _FILE_NAME.search(head) or len(content) > _MAX_FIELD_BYTES:
            raise Refused("bad_input", f"the form has the part {name!r:.40}; name the file 'file'")
        else:
            fields.setdefault(name, []).append(content.decode("utf-8", "replace"))
    return Form(fields, file)


def _parts(content_type: str, body: bytes) -> list[tuple[bytes, bytes]]:
    """Head and content of every part."""
    found = _BOUNDARY.search(content_type)
    if found is None:
        raise Refused("bad_input", "the form's Content-Type has no boundary; let the client set it")
    delimiter = b"\r\n--" + (found[1] or found[2]).encode("latin-1", "replace")
    damaged = Refused(
        "bad_input", f"the form is damaged, or has more than {_MAX_PARTS} parts; send it again"
    )
    parts: list[tuple[bytes, bytes]] = []
    # No line break comes before the first delimiter.
    if (at := body.find(delimiter[2:])) < 0:
        raise damaged
    at += len(delimiter) - 2
    while not body.startswith(b"--", at):
        head_end = body.find(b"\r\n\r\n", at, at + _MAX_FIELD_BYTES)
        end = body.find(delimiter, head_end + 2) if head_end >= 0 else -1
        if end < 0 or len(parts) == _MAX_PARTS:
            raise damaged
        parts.append((body[at:head_end], body[head_end + 4 : end]))
        at = end + len(delimiter)
    return parts


def _name_of(head: bytes) -> str:
    for line in head.split(b"\r\n"):
        kind, _, value = line.partition(b":")
        if kind.strip().lower() == b"content-disposition" and (found := _NAME.search(value)):
            return (found[1] or found[2] or b"").decode("utf-8", "replace")
    return ""
