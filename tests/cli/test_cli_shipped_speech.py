"""The speech models that ship: they speak and read without PyTorch, and fit into 25 MB."""

import json
import subprocess
import sys

import pytest

from moss_audio_tokenizer.speech.built_in_voices import BuiltInVoices
from moss_audio_tokenizer.speech.model_facts import BUNDLED_SPEECH, find_lexicon
from moss_audio_tokenizer.speech.phonemes import Lexicon

MOST_BYTES = 25_000_000
BASE = """
import sys
sys.modules["torch"] = sys.modules["transformers"] = None
from moss_audio_tokenizer.cli.main import run
run()
"""


def test_they_are_small_and_described() -> None:
    files = [path for path in BUNDLED_SPEECH.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= MOST_BYTES
    for kind in ("asr", "tts"):
        assert "icence" in (BUNDLED_SPEECH / kind / "README.md").read_text("utf-8")


def test_words_have_pronunciations() -> None:
    lexicon = Lexicon.load(find_lexicon("bundled"))
    assert all(lexicon.pronounce(word) for word in ("the", "quick", "brown", "fox", "fox's"))


def test_they_speak_and_read_without_pytorch(tmp_path) -> None:
    """A sentence in the default voice, read again: about as many words come back."""
    spoken = tmp_path / "spoken.wav"
    text = "The children built a castle out of wet sand."
    run(["tts", text, "-o", str(spoken)])
    found = json.loads(run(["asr", str(spoken), "--json"]))["files"][0]
    assert 1.5 < found["duration_seconds"] < 5
    assert 5 <= len(found["text"].split()) <= 14
    assert [word["text"] for word in found["words"]] == found["text"].split()


def run(arguments: list[str]) -> str:
    command = [sys.executable, "-c", BASE, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["emma", "george", "heart", "michael"])
def test_voices_hold_codes_of_the_bundled_codec(name) -> None:
    from moss_audio_tokenizer import load_codec

    voice = BuiltInVoices(BUNDLED_SPEECH / "tts").find(name, load_codec("bundled").info)
    assert voice is not None
    assert 25 <= voice.codes.shape[1] <= 60
    assert voice.text.endswith(".")
