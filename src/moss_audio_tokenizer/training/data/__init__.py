"""Training data: from manifests and shards to the batch of every step.

Knows nothing of models, and imports torch only to open a codec that encodes sound. A batch is a
pure function of the seed, the step and the process's rank. Names load on first use: recipes need
the configuration alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .audio_rows import Clip, load_clips
    from .batches import Batch, CodedBatch, CodedRow, Segment
    from .clip_sources import find_clips
    from .coded_data import CodedData
    from .data_config import CodesDataConfig, DataConfig
    from .training_data import TrainingData

__all__ = [
    "Batch",
    "Clip",
    "CodedBatch",
    "CodedData",
    "CodedRow",
    "CodesDataConfig",
    "DataConfig",
    "Segment",
    "TrainingData",
    "find_clips",
    "load_clips",
]

_HOMES = {
    "Batch": ".batches",
    "Clip": ".audio_rows",
    "CodedBatch": ".batches",
    "CodedData": ".coded_data",
    "CodedRow": ".batches",
    "CodesDataConfig": ".data_config",
    "DataConfig": ".data_config",
    "Segment": ".batches",
    "TrainingData": ".training_data",
    "find_clips": ".clip_sources",
    "load_clips": ".audio_rows",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)
