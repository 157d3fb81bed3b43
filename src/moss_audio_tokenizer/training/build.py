"""Which loop trains what a recipe describes."""

from collections.abc import Callable
from typing import Any

from .codec.codec_config import TrainingConfig
from .codec.codec_trainer import CodecTrainer
from .loop import Loop
from .run_config import RunConfig
from .speech.asr_task import AsrTrainer
from .speech.speech_config import AsrTrainingConfig, TtsTrainingConfig
from .speech.tts_task import TtsTrainer

TRAINERS: dict[type[RunConfig], type[Loop[Any, Any]]] = {
    AsrTrainingConfig: AsrTrainer,
    TrainingConfig: CodecTrainer,
    TtsTrainingConfig: TtsTrainer,
}


def trainer_for(
    config: RunConfig, resume: bool = False, report: Callable[[str], None] = print
) -> Loop[Any, Any]:
    """A run of the kind of its recipe, ready to `run`; arguments and errors are `Loop`'s."""
    return TRAINERS[type(config)](config, resume, report)
