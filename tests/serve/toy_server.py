"""`moss-audio serve` with the toy codec, as a program of its own."""

import sys
import time
from contextlib import contextmanager
from pathlib import Path

from toy_codec import ToyCodec
from toy_speaker import ToySpeaker
from toy_transcriber import ToyTranscriber

from moss_audio_tokenizer.cli import loading
from moss_audio_tokenizer.cli.main import run
from moss_audio_tokenizer.speech import model_facts

opening = []


@contextmanager
def alone():
    """As large imports must be."""
    opening.append(True)
    time.sleep(0.05)
    assert len(opening) == 1, "two threads open models at once"
    yield
    opening.pop()


def load(model, **_: object):
    with alone():
        if model != "bundled":
            raise loading.CodesError(f"{model!r} is no toy")
        return ToyCodec()


def load_speaker(folder, *_: object, **__: object):
    with alone():
        if folder != "toy":
            raise loading.CodesError(f"{folder!r} is no toy either")
        return ToySpeaker()


def load_transcriber(folder, *_: object, **__: object):
    with alone():
        if folder != "toy":
            raise loading.CodesError(f"{folder!r} is no toy either")
        return ToyTranscriber()


# Of the models that ship, none speaks the toy codec.
model_facts.BUNDLED_SPEECH = Path("none")
loading.load_codec = load
loading.load_speaker = load_speaker
loading.load_transcriber = load_transcriber
sys.argv = ["moss-audio", "serve", *sys.argv[1:]]
run()
