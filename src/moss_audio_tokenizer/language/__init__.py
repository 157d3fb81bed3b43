"""What the language models on codes share: text tokens, decoder-only models, sums of codes.

Knows nothing of tasks: reading is `asr`'s, speaking `tts`'s, the head of codec training
`semantic`'s.
"""

from .arrays import check_codes, pad_in_front
from .caching import cache_argument
from .code_embedding import CodeEmbedding
from .describe import describe_language_folder
from .models import (
    language_model_config,
    load_language_model,
    made_language_model,
    random_language_model,
)
from .text import (
    ByteText,
    CharacterText,
    PretrainedText,
    TextCodec,
    load_text,
    make_text,
    save_text,
)

__all__ = [
    "ByteText",
    "CharacterText",
    "CodeEmbedding",
    "PretrainedText",
    "TextCodec",
    "cache_argument",
    "check_codes",
    "describe_language_folder",
    "language_model_config",
    "load_language_model",
    "load_text",
    "made_language_model",
    "make_text",
    "pad_in_front",
    "random_language_model",
    "save_text",
]
