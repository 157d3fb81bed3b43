"""Training data: from manifests and shards to the batch of every step.

Knows nothing of models, and imports torch only to open a codec that encodes sound. A batch is a
pure function of the seed, the step and the process's rank. Names load on first use: recipes need
the configuration alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .batch import Batch
    from .clips import Clip, load_clips
    from .coded_batch import CodedBatch, CodedRow, Segment
    from .coded_config import CodesDataConfig
    from .coded_data import CodedData
    from .config import DataConfig
    from .sources import find_clips
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
    "Batch": ".batch",
    "Clip": ".clips",
    "CodedBatch": ".coded_batch",
    "CodedData": ".coded_data",
    "CodedRow": ".coded_batch",
    "CodesDataConfig": ".coded_config",
    "DataConfig": ".config",
    "Segment": ".coded_batch",
    "TrainingData": ".training_data",
    "find_clips": ".sources",
    "load_clips": ".clips",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)
