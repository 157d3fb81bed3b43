"""The pages in a real browser: no error, nothing cut off, sound that plays, a test by keyboard."""

import json
import shutil
import time
from functools import partial

import pytest
from toy_codecs import Noise, byte_codec

from moss_audio_tokenizer.evaluation import Plan, run_evaluation, write_results
from moss_audio_tokenizer.evaluation.listening_results import Rated, read_session
from moss_audio_tokenizer.evaluation.mushra import build_listening_test
from moss_audio_tokenizer.manifest import read_manifest

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
if not (CHROMIUM and DRIVER):
    pytest.skip("chromium and chromedriver are not installed", allow_module_level=True)
pytest.importorskip("matplotlib")
pytest.importorskip("scipy")

FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--mute-audio")


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, "--autoplay-policy=no-user-gesture-required"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def folder(shared_manifest, tmp_path_factory):
    """A report with plots and sounds; not to be changed."""
    path = tmp_path_factory.mktemp("report")
    clips = read_manifest(shared_manifest, split="valid")[:2]
    plan = Plan(clips, [partial(byte_codec, 1, 2), Noise], ("si_sdr", "mel_distance"))
    write_results(
        path, run_evaluation(plan, path, lambda done, total: None), clips, "Title", "command"
    )
    return path


def look(browser, width, theme):
    """The page in a window of a width; what it says to the console is an error."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", scheme)


PLAY = """
const done = arguments[0], sounds = [...document.querySelectorAll("audio")];
Promise.all(sounds.map(async (sound) => {
  sound.muted = true;
  await sound.play();
  const end = Date.now() + 4000;
  while (sound.currentTime === 0 && Date.now() < end) await new Promise(r => setTimeout(r, 20));
  sound.pause();
  return [sound.currentTime, sound.duration];
})).then(done, (problem) => done(String(problem)));
"""


@pytest.mark.parametrize(("width", "theme"), [(1280, "light"), (390, "dark")])
def test_the_report_fits_and_is_silent_on_the_console(browser, folder, width, theme):
    look(browser, width, theme)
    browser.get((folder / "report.html").as_uri())
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": "rgb(246, 246, 248)", "dark": "rgb(19, 20, 24)"}[theme]
    broken = "return [...document.images].filter(one => !one.complete || !one.naturalWidth).length"
    assert browser.execute_script(broken) == 0
    # The plots follow the colours of the page.
    current = browser.execute_script("return document.querySelector('picture img').currentSrc")
    other = browser.execute_script("return document.querySelector('picture source').srcset")
    assert (current == other) == (theme == "dark")
    assert browser.get_log("browser") == []


def test_every_sound_of_the_report_plays(browser, folder):
    browser.get((folder / "report.html").as_uri())
    played = browser.execute_async_script(PLAY)
    assert len(played) == 2 * 4
    assert all(at > 0 for at, _ in played), played
    assert all(length == pytest.approx(1.0, abs=0.02) for _, length in played)
    assert browser.get_log("browser") == []


def press(browser, *keys):
    webdriver.ActionChains(browser).send_keys(*keys).perform()


def wait_for(browser, condition):
    deadline = time.monotonic() + 10
    while not browser.execute_script(f"return Boolean({condition})"):
        assert time.monotonic() < deadline, condition
        time.sleep(0.02)


def test_a_listening_test_can_be_done_by_keyboard(browser, folder, tmp_path):
    from selenium.webdriver.common.keys import Keys

    look(browser, 390, "dark")
    page = tmp_path / "test.html"
    page.write_text(build_listening_test(folder, "Test", mid_anchor=True), encoding="utf-8")
    browser.get(page.as_uri())
    press(browser, "Ann", Keys.TAB, Keys.ENTER)
    for trial in range(2):
        wait_for(browser, f"trial && trial.ready && trial.index === {trial}")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
        press(browser, "r")
        wait_for(browser, "playing && playing.key === 'open' && position() > 0.05")
        names = browser.execute_script("return trial.sounds.map(sound => sound.name)")
        for place, name in enumerate(names):
            press(browser, "n")  # does nothing yet
            press(browser, str(place + 1), Keys.END if name == "reference" else Keys.PAGE_DOWN)
        wait_for(browser, "!document.getElementById('next').disabled")
        press(browser, " ")
        wait_for(browser, "playing === null")
        press(browser, "n")
    wait_for(browser, "window.results")
    assert ".json is then in your downloads" in browser.execute_script("return stage.textContent")
    results = browser.execute_script("return window.results")
    assert browser.get_log("browser") == []
    (tmp_path / "ann.json").write_text(json.dumps(results), encoding="utf-8")
    session = read_session(tmp_path / "ann.json")
    assert session.listener == "Ann"
    assert set(session.trials) == {"speech0.wav", "speech1.wav"}
    for trial in session.trials.values():
        ratings = dict(trial.ratings)
        assert trial.domain == "speech"
        assert trial.systems["bytes-2"] == Rated("bytes, 2 quantizers", "bytes", 256.0)
        assert ratings.pop("reference") == 100
        assert set(ratings) == {"bytes-1", "bytes-2", "noise", "low anchor", "mid anchor"}
        assert set(ratings.values()) == {40}
    # What is not saved yet would be lost; saying so must not keep the browser from the next page.
    browser.execute_script("saved = true")
