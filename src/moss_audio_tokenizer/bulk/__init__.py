"""Whole data sets: to shards of codes and back, by local processes or by Ray Data.

Everything follows from a plan (clip, shard, batch) that is made of the list of inputs alone, so
that no kill, engine or number of workers changes a byte of the result. Speaks to models through
the Codec protocol; `codec_choice.py` alone knows what runs them.
"""

from .codec_choice import CodecChoice
from .detokenizing import detokenize
from .shard_plan import Tokenizing
from .shard_statistics import shard_statistics
from .tokenizing import tokenize

__all__ = ["CodecChoice", "Tokenizing", "detokenize", "shard_statistics", "tokenize"]
