"""Speech recognition and synthesis on codes, measured by the number of layers.

Owns runs of both, their tables, plots and pages; models are behind two protocols, `CodeReader`
and `Talker`. Source: training.md section 9 (Seed-TTS-Eval).
"""

from .items import Item, read_items
from .reading import CodeReader, ReadingPlan, read_clips
from .results import write_results
from .rows import SpokenRow
from .speaking import SpeakingPlan, speak_items
from .talkers import Spoken, Talker, Wanted

__all__ = [
    "CodeReader",
    "Item",
    "ReadingPlan",
    "SpeakingPlan",
    "Spoken",
    "SpokenRow",
    "Talker",
    "Wanted",
    "read_clips",
    "read_items",
    "speak_items",
    "write_results",
]
