"""`moss-audio serve` with the toy codec, as a program of its own."""

import sys

from toy_codec import ToyCodec

from moss_audio_tokenizer.cli import loading
from moss_audio_tokenizer.cli.main import run


def load(model, **_: object):
    if model != "bundled":
        raise loading.CodesError(f"{model!r} is no toy")
    return ToyCodec()


loading.load_codec = load
sys.argv = ["moss-audio", "serve", *sys.argv[1:]]
run()
