"""The pages in a real browser, with a made-up microphone; skipped where there is no Chromium."""

import base64
import json
import os
import shutil
import subprocess
import threading
import time
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from websockets.sync.client import connect

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--no-proxy-server"),
    *("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"),
    *("--autoplay-policy=no-user-gesture-required", "--remote-debugging-port=0"),
    *("--window-size=900,900", "--disable-dev-shm-usage"),
)


class Page:
    """A tab, driven through the browser's debugging protocol."""

    def __init__(self, socket):
        self._socket = socket
        self._number = 0

    def call(self, method, **parameters):
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        self._socket.send(json.dumps(message))
        while (answer := json.loads(self._socket.recv(timeout=20))).get("id") != self._number:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def value(self, expression):
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def text(self, name):
        return self.value(f"document.getElementById({name!r})?.textContent")

    def wait_until(self, expression, seconds=20):
        deadline = time.monotonic() + seconds
        while not self.value(expression):
            assert time.monotonic() < deadline, (expression, self.value("document.body.innerText"))
            time.sleep(0.05)

    def keep_picture(self, name):
        """A screenshot, for people who ask for one."""
        if folder := os.environ.get("MOSS_AUDIO_SCREENSHOTS"):
            for width in (1300, 400):
                size = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
                self.call("Emulation.setDeviceMetricsOverride", **size)
                picture = self.call("Page.captureScreenshot")["data"]
                (Path(folder) / f"{name}-{width}.png").write_bytes(base64.b64decode(picture))


@contextmanager
def browsing(url, profile):
    """The page at an address."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    browser = subprocess.Popen([CHROMIUM, *FLAGS, f"--user-data-dir={profile}", url], **quiet)
    try:
        place = profile / "DevToolsActivePort"
        deadline = time.monotonic() + 20
        while not (place.is_file() and place.read_text().count("\n")):
            assert time.monotonic() < deadline, "the browser did not start"
            time.sleep(0.05)
        with connect(tab_address(place.read_text().split()[0], url), max_size=None) as socket:
            yield Page(socket)
    finally:
        browser.kill()
        browser.wait()


def tab_address(port, url):
    from urllib.request import ProxyHandler, build_opener

    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with build_opener(ProxyHandler({})).open(f"http://127.0.0.1:{port}/json") as answer:
            tabs = json.load(answer)
        for tab in tabs:
            if tab["type"] == "page" and tab["url"].startswith(url):
                return tab["webSocketDebuggerUrl"]
        time.sleep(0.05)
    raise AssertionError(f"no tab shows {url}: {tabs}")


def test_the_microphone_goes_through_the_codec_and_back(server, tmp_path):
    with browsing(f"{server.url}/", tmp_path) as page:
        page.wait_until("document.getElementById('layers-text')?.textContent.includes('of 4')")
        page.value("document.getElementById('toggle').click()")
        page.wait_until("loop?.played?.length > 12")
        assert page.text("message") == "Speak now."
        assert page.value("loop.recorded.some((peak) => peak > 0.01)")
        assert server.streams.num_live == 2
        page.wait_until("document.getElementById('delay').textContent.endsWith('ms')")
        assert "kbit/s" in page.text("rate")
        page.keep_picture("microphone")
        page.value("document.getElementById('toggle').click()")
        server.wait_until_idle()
        assert page.text("toggle") == "Start"


def test_the_microphone_page_says_why_it_cannot(serving, tmp_path):
    with (
        serving(max_streams=1) as running,
        browsing(f"{running.url}/", tmp_path) as page,
        running.client() as client,
        client.decode_stream(),
    ):
        page.wait_until("document.getElementById('layers-text')?.textContent.includes('of 4')")
        page.value("document.getElementById('toggle').click()")
        page.wait_until("document.getElementById('message').textContent.includes('are taken')")
        page.wait_until("document.getElementById('toggle').textContent === 'Start'")


def test_the_documentation_shows_every_request(server, tmp_path):
    with browsing(f"{server.url}/docs", tmp_path) as page:
        page.wait_until("document.querySelectorAll('.opblock').length === 13")
        page.wait_until(
            "document.querySelector('.info .title')?.textContent.includes('moss-audio')"
        )
        page.keep_picture("documentation")
        page.value("document.querySelector('#operations-server-ready_ready_get button').click()")
        page.wait_until("document.querySelector('.try-out__btn') !== null")
        page.value("document.querySelector('.try-out__btn').click()")
        page.wait_until("document.querySelector('.execute') !== null")
        page.value("document.querySelector('.execute').click()")
        page.wait_until("document.body.innerText.includes('\"ready\": true')")


def test_the_page_of_the_documentation_works_from_another_site(serving, tmp_path):
    """Its microphone goes through the codec and back, from a page of another site."""
    document = (Path(__file__).parents[2] / "docs" / "serving.md").read_text("utf-8")
    page = document.partition("```html\n")[2].partition("```")[0]
    folder = tmp_path / "site"
    folder.mkdir()
    with http_server(folder) as site, serving(cors_origins=frozenset({site})) as running:
        (folder / "page.html").write_text(
            page.replace("ws://127.0.0.1:8000", f"ws{running.url[4:]}"), "utf-8"
        )
        with browsing(f"{site}/page.html", tmp_path / "profile") as tab:
            tab.wait_until("Boolean(document.getElementById('start')?.onclick)")
            tab.value("document.getElementById('start').click()")
            decoded = b'moss_frames_total{side="decode"}'
            running.wait_until(lambda: decoded in running.server.metrics.text(), seconds=20)
            assert running.streams.num_live == 2


@contextmanager
def http_server(folder):
    """Another site."""
    handler = partial(QuietHandler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{site.server_address[1]}"
        site.shutdown()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass
