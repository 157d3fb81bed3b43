"""What CAT-TTS, CAT-ASR and the semantic head share.

Owns text tokens, decoder-only language models, embeddings of codes, and model folders.
"""

from ..speech.tokens import ByteText, CharacterText, TextCodec
from .code_embedding import CodeEmbedding, code_coordinates
from .folder_model import PretrainedText, load_text, make_text, save_text
from .llm import (
    CachedRows,
    TokenDecoder,
    cache_argument,
    language_model_config,
    load_language_model,
    made_language_model,
    random_language_model,
)

__all__ = [
    "ByteText",
    "CachedRows",
    "CharacterText",
    "CodeEmbedding",
    "PretrainedText",
    "TextCodec",
    "TokenDecoder",
    "cache_argument",
    "code_coordinates",
    "language_model_config",
    "load_language_model",
    "load_text",
    "made_language_model",
    "make_text",
    "random_language_model",
    "save_text",
]
