"""`python -m moss_audio_tokenizer` is `moss-audio`."""

from .cli.main import run

run()
