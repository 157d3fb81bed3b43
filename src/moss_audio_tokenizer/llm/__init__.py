"""What CAT-TTS, CAT-ASR and the semantic head share.

Owns text tokens, decoder-only language models, embeddings of codes, and model folders.
"""

from .code_embedding import CodeEmbedding
from .codes_batch import check_codes, pad_in_front
from .folder import describe_language_folder
from .llm import (
    cache_argument,
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
