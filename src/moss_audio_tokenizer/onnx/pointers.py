"""Which weights files a graph points into, by the bytes of its file.

Reads just so much of the protocol buffers' wire format, that neither onnx nor a session is
needed. Knows nothing of manifests; a file that is no graph points nowhere, and is onnxruntime's
to refuse. Source: onnx.proto, protobuf.dev/programming-guides/encoding.
"""

from collections.abc import Iterator

# Fields on the way: ModelProto.graph, GraphProto.initializer, TensorProto.external_data.
_PATH = (7, 5, 13)
_KEY, _VALUE = 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def weights_files(graph: bytes) -> set[str]:
    """Names of the files that initializers of a graph lie in."""
    try:
        return {_location(entry) for entry in _entries(memoryview(graph), _PATH)} - {""}
    except (IndexError, UnicodeDecodeError):
        return set()


def _entries(message: memoryview, path: tuple[int, ...]) -> Iterator[memoryview]:
    """Messages that lie at the end of a path of fields."""
    if not path:
        yield message
        return
    for number, content in _fields(message):
        if number == path[0]:
            yield from _entries(content, path[1:])


def _location(entry: memoryview) -> str:
    """The value of a StringStringEntryProto whose key is "location"; else nothing."""
    pair = {number: bytes(content) for number, content in _fields(entry)}
    return pair.get(_VALUE, b"").decode() if pair.get(_KEY) == b"location" else ""


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and content of every field that has a length; the others are passed over.

    Raises:
        IndexError: the message breaks off, or is none.
    """
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        kind = tag & 7
        if kind == _VARINT:
            _, place = _varint(message, place)
        elif kind == _BYTES:
            length, place = _varint(message, place)
            if place + length > len(message):
                raise IndexError("a field is longer than its message")
            yield tag >> 3, message[place : place + length]
            place += length
        elif kind in (_FIXED32, _FIXED64):
            place += 4 if kind == _FIXED32 else 8
        else:
            raise IndexError(f"no wire type {kind}")


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """A number and the place after it."""
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
