"""`moss-audio demo`: the codec in a browser, served to this machine or written as a static site.

Owns the files of the site and their server. The page itself runs the codec.
"""

import shutil
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import CheckpointError, InputError
from . import display, options

_PAGE = Path(__file__).parent / "demo_page"
_RUNTIME_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
_IN_NODE_MODULES = Path("node_modules") / "onnxruntime-web" / "dist"
# The types of .mjs and .wasm, which some systems do not know.
_TYPES = {".mjs": "text/javascript", ".js": "text/javascript", ".wasm": "application/wasm"}


Runtime = Annotated[
    Path,
    typer.Option(
        metavar="DIR",
        readable=False,
        help="Folder of onnxruntime-web's files; npm install onnxruntime-web makes it.",
    ),
]
Output = Annotated[
    Path | None,
    options.output_option(
        "DIR", "Write the site to a new folder, for any web server, and serve nothing."
    ),
]


def demo(
    model: options.Model = "bundled",
    runtime: Runtime = _IN_NODE_MODULES,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port; 0 takes a free one.")] = 8000,
    output: Output = None,
) -> None:
    """Try the codec in a browser: record, see the codes, hear them at any bitrate.

    Example: npm install onnxruntime-web && moss-audio demo
    """
    files = site_files(model, runtime)
    if output is not None:
        write_site(files, output)
        display.print_line(f"{output}: {len(files)} files; open index.html through a web server")
        return
    server = make_server(files, port)
    display.print_line(f"http://localhost:{server.server_address[1]}/  (Ctrl-C ends it)")
    with server:
        server.serve_forever()


def site_files(model: str, runtime: Path) -> dict[str, Path]:
    """Every file of the site, by its path in the site.

    Raises:
        CheckpointError: The model was not exported, or names files outside of its folder.
        InputError: onnxruntime-web is missing.
    """
    from ..onnx.folder import find_folder
    from ..onnx.manifest import MANIFEST_NAME

    folder = find_folder(model)
    folder.check_weights()
    runtime = runtime / "dist" if (runtime / "dist").is_dir() else runtime
    missing = [name for name in _RUNTIME_FILES if not (runtime / name).is_file()]
    if missing:
        raise InputError(
            f"{str(runtime)!r} has no {missing[0]}; run npm install onnxruntime-web here, or name "
            "its folder with --runtime"
        )
    steps = [folder.graph(f"{side}_step") for side in ("encoder", "decoder")]
    weights = [_in_folder(folder.path, name) for name in folder.manifest["weights"]]
    model_files = [folder.path / MANIFEST_NAME, *steps, *weights]
    return {
        **{path.name: path for path in sorted(_PAGE.iterdir())},
        **{f"model/{path.name}": path for path in model_files},
        **{f"runtime/{name}": runtime / name for name in _RUNTIME_FILES},
    }


def _in_folder(folder: Path, name: str) -> Path:
    """A file of the model, which must lie in its folder: the site publishes it."""
    path = folder / name
    # A snapshot of the hub's cache links to the folder of blobs beside the snapshots.
    own = {folder.resolve(), folder.parent.parent.resolve() / "blobs"}
    if "/" in name or "\\" in name or path.resolve().parent not in own:
        raise CheckpointError(
            f"{str(folder)!r} names the weights {name!r:.80}; expected a file of the folder itself"
        )
    return path


def write_site(files: dict[str, Path], output: Path) -> None:
    """Copy the site into a new folder, whole or not at all."""
    from ..files import atomic_path

    with atomic_path(output, error=InputError, replace_folder=False) as folder:
        for name, source in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, folder / name)


def make_server(files: dict[str, Path], port: int) -> ThreadingHTTPServer:
    """Create a server of exactly these files, for this machine only."""
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), partial(_Handler, files))
    except OSError as problem:
        raise InputError(f"port {port} cannot be used ({problem.strerror}); try --port 0") from None


class _Handler(SimpleHTTPRequestHandler):
    """Serves the files of a site, by their paths in it."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | _TYPES

    def __init__(self, files: dict[str, Path], *connection: Any) -> None:
        self._files = files
        super().__init__(*connection)

    def translate_path(self, path: str) -> str:
        """The file of a path; one that does not exist for every other path."""
        name = path.partition("?")[0].lstrip("/") or "index.html"
        return str(self._files.get(name, _PAGE / "no such file"))

    def end_headers(self) -> None:
        """Add the two headers that allow the page to use threads."""
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing to the terminal."""
