"""`moss-audio demo`: what is served, and, where there is a browser, that the page works."""

import base64
import io
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import soundfile

from moss_audio_tokenizer.cli import demo
from moss_audio_tokenizer.cli.demo import make_server, site_files
from moss_audio_tokenizer.errors import CheckpointError
from moss_audio_tokenizer.onnx.tokenizer import OnnxCodec

ROOT = Path(__file__).parents[2]
RUNTIME = Path(
    os.environ.get("MOSS_ONNXRUNTIME_WEB", ROOT / "node_modules" / "onnxruntime-web" / "dist")
)
DRIVER, BROWSER = shutil.which("chromedriver"), shutil.which("chromium")
needs_browser = pytest.mark.skipif(
    not (DRIVER and BROWSER and RUNTIME.is_dir()),
    reason="needs chromium, chromedriver, and npm install onnxruntime-web (or its dist folder in "
    "MOSS_ONNXRUNTIME_WEB)",
)


@pytest.fixture
def runtime(tmp_path):
    """A stand-in for onnxruntime-web."""
    folder = tmp_path / "onnxruntime-web" / "dist"
    folder.mkdir(parents=True)
    for name in ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"):
        (folder / name).write_text(name)
    return folder


@pytest.fixture
def serve():
    """Serve a site until the test ends; returns its address."""
    servers = []

    def start(files):
        servers.append(make_server(files, 0))
        Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://localhost:{servers[-1].server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_what_is_served_and_what_is_not(runtime, serve):
    address = serve(site_files("bundled", runtime.parent))
    with urllib.request.urlopen(f"{address}/") as answer:
        assert b"<title>moss-audio</title>" in answer.read()
        assert answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    with urllib.request.urlopen(f"{address}/runtime/ort-wasm-simd-threaded.wasm?x=1") as answer:
        assert answer.headers["Content-Type"] == "application/wasm"
    with urllib.request.urlopen(f"{address}/model/onnx.json") as answer:
        assert json.load(answer)["opset"] == 20
    for path in ("model/README.md", "../demo.py", "runtime/", "model/..%2f..%2ferrors.py"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{address}/{path}")


def test_the_slider_gets_its_maximum_before_its_value():
    """A browser lowers a value above the maximum, which was 1: the page started at the worst."""
    page = (Path(demo.__file__).parent / "demo_page" / "page.js").read_text()
    assert 'element("layers").max = element' not in page
    assert page.index('element("layers").max = ') < page.index('element("layers").value = ')


@pytest.mark.parametrize("name", ["../secret.bin", "/etc/hostname", "link.bin"])
def test_files_outside_of_the_model_are_not_published(tmp_path, name):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_text("secret")
    (folder / "link.bin").symlink_to("../secret.bin")
    with pytest.raises(CheckpointError, match="a file of the folder itself"):
        demo._in_folder(folder, name)
    (folder / "weights.bin").write_text("x")
    assert demo._in_folder(folder, "weights.bin") == folder / "weights.bin"


def test_a_static_site(runtime, moss_audio, refused, names_in, tmp_path):
    arguments = ("demo", "--runtime", runtime, "-o", tmp_path / "site")
    assert moss_audio(*arguments).exit_code == 0
    names = names_in(tmp_path / "site")
    assert {"index.html", "model/model.safetensors", "runtime/ort.wasm.min.mjs"} <= names
    assert "model/encoder.onnx" not in names
    assert "not empty" in refused(*arguments)


def test_refusals(refused, runtime, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "npm install onnxruntime-web" in refused("demo")
    assert "run moss-audio export onnx" in refused("demo", "--model", tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert "try --port 0" in refused("demo", "--runtime", runtime, "--port", port)


class Browser:
    """Headless Chromium through the HTTP interface of its driver."""

    def __init__(self, port):
        self._address = f"http://localhost:{port}"
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        arguments += ["--autoplay-policy=no-user-gesture-required"]
        options = {"args": arguments, "binary": BROWSER}
        wanted = {"alwaysMatch": {"goog:chromeOptions": options}}
        session = self._ask("POST", "/session", {"capabilities": wanted})["sessionId"]
        self._session = f"/session/{session}"

    def _ask(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self._address}{path}", data, method=method)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)["value"]

    def open(self, url):
        self._ask("POST", f"{self._session}/url", {"url": url})

    def run(self, script):
        body = {"script": script, "args": []}
        return self._ask("POST", f"{self._session}/execute/sync", body)

    def _element(self, name):
        body = {"using": "css selector", "value": f"#{name}"}
        return next(iter(self._ask("POST", f"{self._session}/element", body).values()))

    def type(self, name, text):
        path = f"{self._session}/element/{self._element(name)}/value"
        self._ask("POST", path, {"text": text})

    def click(self, name):
        self._ask("POST", f"{self._session}/element/{self._element(name)}/click", {})

    def wait_for(self, condition, seconds=90):
        end = time.monotonic() + seconds
        while not self.run(f"return Boolean({condition})"):
            state = self.run("return [demo.state, demo.error, document.body.innerText]")
            assert time.monotonic() < end, f"never {condition}: {state}"
            assert state[1] is None, state
            time.sleep(0.1)

    def keep_picture(self, name):
        """A screenshot, for people who ask for one."""
        if folder := os.environ.get("MOSS_AUDIO_SCREENSHOTS"):
            for width in (1300, 400):
                size = {"width": width, "height": 1000}
                self._ask("POST", f"{self._session}/window/rect", size)
                picture = self._ask("GET", f"{self._session}/screenshot")
                (Path(folder) / f"{name}-{width}.png").write_bytes(base64.b64decode(picture))

    def close(self):
        self._ask("DELETE", self._session)


@pytest.fixture
def browser():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    driver = subprocess.Popen([DRIVER, f"--port={port}"], stdout=subprocess.DEVNULL)
    found = None
    for _ in range(100):
        try:
            found = Browser(port)
            break
        except urllib.error.URLError:
            time.sleep(0.1)
    yield found
    found.close()
    driver.terminate()
    driver.wait()


@needs_browser
def test_the_page(browser, serve, tmp_path):
    """A file is encoded as on the command line; the slider changes what is heard from then on."""
    clip = soundfile.read(ROOT / "samples" / "hello.flac", frames=24_000 * 2)[0]
    soundfile.write(tmp_path / "clip.wav", clip, 24_000, subtype="FLOAT")
    browser.open(serve(site_files("bundled", RUNTIME)))
    browser.wait_for("window.demo && demo.state === 'ready'")
    slider = "const s = document.getElementById('layers'); return [s.value, s.max]"
    assert browser.run(slider) == ["32", "32"]  # the best quality first
    browser.click("sample")
    browser.wait_for("demo.codes !== null && demo.state === 'ready'")
    assert browser.run("return demo.codes[0].length") == 104
    browser.keep_picture("demo")
    browser.click("original")
    browser.wait_for("demo.state === 'original'")
    browser.click("original")
    browser.wait_for("demo.state === 'ready'")
    browser.type("file", str(tmp_path / "clip.wav"))
    browser.wait_for("demo.codes !== null && demo.state === 'ready'")
    codes = np.array(browser.run("return demo.codes.map((layer) => Array.from(layer))"))
    codec = OnnxCodec.from_pretrained("bundled")
    expected = codec.encode(clip[None].astype(np.float32))
    assert codes.shape == expected.shape == (32, 25)
    assert (codes == expected).mean() >= 0.99  # another processor's rounding
    picture = "const c = document.getElementById('codes'); return [c.width, c.height]"
    assert browser.run(picture) == [25, 32]
    slider = "const s = document.getElementById('layers'); s.value = 8; s.oninput();"
    browser.run(slider)
    assert browser.run("return document.getElementById('bitrate').innerText") == (
        "8 of 32 quantizers: 1 kbps"
    )
    browser.click("download")
    browser.wait_for("demo.saved && demo.state === 'ready'")
    saved = base64.b64decode(
        browser.run("return btoa(String.fromCharCode(...new Uint8Array(demo.saved)))")
    )
    browser.click("play")
    browser.wait_for("demo.played !== null && demo.state === 'ready'")
    packed = browser.run(
        "const all = new Float32Array(25 * 1920); let at = 0;"
        "for (const [chunk] of demo.played) { all.set(chunk, at); at += chunk.length; }"
        "return btoa(String.fromCharCode(...new Uint8Array(all.buffer, 0, 96000)))"
        "+ '|' + btoa(String.fromCharCode(...new Uint8Array(all.buffer, 96000)))"
    )
    heard = np.frombuffer(b"".join(map(base64.b64decode, packed.split("|"))), np.float32)
    sound = codec.decode(codes[:8])[0]
    assert np.abs(heard - sound).max() <= 1e-3 * sound.std()
    written, rate = soundfile.read(io.BytesIO(saved))
    assert rate == 24_000
    assert np.abs(written - sound[: len(clip)]).max() <= 1e-3 * sound.std() + 2**-15
