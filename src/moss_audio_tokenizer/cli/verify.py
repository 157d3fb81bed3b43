"""`moss-audio verify`: whether a model or a server computes what it must.

Owns the options, where vectors come from, and what is printed; `evaluation.golden` compares.
"""

import re
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from . import display, loading, options
from .failures import FAILURE, needs_extra
from .file_jobs import require_new

if TYPE_CHECKING:
    from ..codes import CodecInfo
    from ..evaluation.golden import Check, Subject
    from ..evaluation.golden_vectors import GoldenVectors


ModelOrServer = Annotated[
    str,
    typer.Argument(
        metavar="MODEL_OR_SERVER",
        help="Model folder, Hugging Face id, or 'bundled'; or the address of a server "
        "(http://...) that speaks as moss-audio serve does.",
    ),
]
Vectors = Annotated[
    Path | None,
    typer.Option(
        "--vectors",
        metavar="PATH",
        show_default="the model folder's io.safetensors",
        help="File of golden vectors, or the folder that has it.",
    ),
]
Against = Annotated[
    str | None,
    typer.Option(
        metavar="M",
        show_default="bundled, for a server of that model",
        help="Compute the vectors with this model, here and now.",
    ),
]
WriteVectors = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Write vectors of MODEL to a new file, for others to verify with."
    ),
]


def verify(
    subject: ModelOrServer,
    vectors: Vectors = None,
    against: Against = None,
    write: WriteVectors = None,
    key: Annotated[str | None, typer.Option(metavar="KEY", help="API key of the server.")] = None,
    device: options.Device = "cpu",
    backend: options.Backend = None,
    as_json: options.Json = False,
) -> None:
    """Compare codes, audio and streams with golden vectors: for people who port the codec.

    Ends with 1 where something differs.

    Example: moss-audio verify http://127.0.0.1:8000
    """
    _check_options(subject, vectors, against, write, key)
    if write is not None:
        _write(subject, write, device, backend, as_json)
        return
    from ..evaluation.golden import num_checks
    from ..evaluation.golden import verify as compare

    with ExitStack() as stack:
        found = _open(subject, key, device, backend, stack)
        golden = _golden(subject, vectors, against, found.info)
        with display.progress("verifying", num_checks(golden)) as bar:
            checks = []
            for check in compare(found, golden):
                checks.append(check)
                bar.advance(bar.task_ids[0])
    _show(subject, golden.source, checks, as_json)
    if not all(check.passed for check in checks):
        raise typer.Exit(FAILURE)


def _check_options(
    subject: str, vectors: Path | None, against: str | None, write: Path | None, key: str | None
) -> None:
    """Refuse options that would be ignored."""
    if sum(option is not None for option in (vectors, against, write)) > 1:
        raise InputError("got two of --vectors, --against and --write; name one of them")
    if key is not None and not _is_server(subject):
        raise InputError(f"got --key, but {subject!r} is not a server; leave it out")
    if re.fullmatch(r"[\w.-]+:\d+(/.*)?", subject):
        raise InputError(f"{subject!r} looks like an address; expected http://{subject}")
    if write is None:
        return
    if _is_server(subject):
        raise InputError("--write takes a model, not a server")
    if write.is_dir():
        raise InputError(f"--write {str(write)!r} is a folder; name a new file")
    require_new(write, "--write")


def _is_server(subject: str) -> bool:
    return subject.lower().startswith(("http://", "https://"))


def _open(
    subject: str, key: str | None, device: str, backend: str | None, stack: ExitStack
) -> "Subject":
    """What is verified, until ``stack`` is left."""
    if _is_server(subject):
        with needs_extra("serve", "talking to a server"):
            from ..serve.client import CodecClient, RemoteCodec
        return RemoteCodec(stack.enter_context(CodecClient(subject, key)))
    from ..evaluation.golden import LocalSubject

    return LocalSubject(loading.load_codec(subject, device=device, backend=backend))


def _golden(
    subject: str, vectors: Path | None, against: str | None, info: "CodecInfo"
) -> "GoldenVectors":
    """The vectors that are asked for, or those that belong to the subject."""
    from ..evaluation.golden import make_vectors
    from ..evaluation.golden_vectors import VECTORS_NAME, read_vectors

    if vectors is not None:
        return read_vectors(vectors)
    own = Path(subject) / VECTORS_NAME
    if against is None and not _is_server(subject) and own.is_file():
        return read_vectors(own)
    reference = loading.load_codec(against or "bundled")
    if against is None and reference.info.identity != info.identity:
        raise InputError(
            f"there are no golden vectors for {subject!r}: give --vectors PATH, or --against MODEL"
        )
    return make_vectors(reference, f"{against or 'bundled'}, computed here")


def _write(subject: str, path: Path, device: str, backend: str | None, as_json: bool) -> None:
    from ..evaluation.golden import make_vectors
    from ..evaluation.golden_vectors import write_vectors

    codec: Any = loading.load_codec(subject, device=device, backend=backend)
    vectors = make_vectors(codec, subject)
    write_vectors(path, vectors, codec.info)
    facts = {
        "vectors": str(path),
        "model_identity": codec.info.identity,
        "clips": len(vectors.encodings) - 1,
        "bytes": path.stat().st_size,
    }
    display.print_result(as_json, facts)


def _show(subject: str, source: str, checks: "list[Check]", as_json: bool) -> None:
    if as_json:
        passed = all(check.passed for check in checks)
        document = {"subject": subject, "vectors": source, "passed": passed}
        display.print_json({**document, "checks": [asdict(check) for check in checks]})
        return
    rows = [("yes" if one.passed else "NO", one.name, one.found, one.expected) for one in checks]
    display.print_table(("equal", "what", "found", "expected"), rows)
