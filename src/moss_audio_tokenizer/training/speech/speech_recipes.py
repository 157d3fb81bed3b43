"""Full run configurations of CAT-ASR and CAT-TTS; sources: appendices C and E of the paper."""

from ..data.data_config import CodesDataConfig
from ..run_config import OptimizerConfig
from .speech_config import (
    AsrTrainingConfig,
    BitratesValidation,
    DropoutConfig,
    LanguageModelConfig,
    SoftTargetsConfig,
    TtsTrainingConfig,
)


def asr() -> AsrTrainingConfig:
    """The paper's ASR model: Qwen3-1.7B, a million tokens a batch, 200,000 steps.

    For many GPUs, under torchrun, on codes stored by ``moss-audio tokenize``.
    """
    return AsrTrainingConfig(
        max_steps=200_000,
        model=LanguageModelConfig(llm="Qwen/Qwen3-1.7B", text=""),
        data=CodesDataConfig(text_seconds=(0.3, 30.0), batch_seconds=0.0, batch_tokens=1_000_000),
        optimizer=OptimizerConfig(
            learning_rate=5e-5,
            betas=(0.9, 0.999),
            weight_decay=0.0,
            warmup_steps=4000,
            decay_fraction=1.0,
            schedule="cosine",
        ),
        prefix_share=0.0,
    )


def tts() -> TtsTrainingConfig:
    """The paper's TTS model: Qwen3-1.7B and a depth Transformer, 1.35 million tokens a batch.

    For many GPUs, under torchrun, on codes stored by ``moss-audio tokenize``.
    """
    return TtsTrainingConfig(
        max_steps=200_000,
        model=LanguageModelConfig(llm="Qwen/Qwen3-1.7B", text=""),
        data=CodesDataConfig(
            text_seconds=(0.3, 60.0), batch_seconds=0.0, batch_tokens=1_350_000, max_join=2
        ),
        optimizer=OptimizerConfig(
            learning_rate=2e-4,
            betas=(0.9, 0.95),
            weight_decay=0.1,
            warmup_steps=2000,
            decay_fraction=1.0,
            schedule="cosine",
        ),
    )


def asr_one_gpu() -> AsrTrainingConfig:
    """An ASR model of 34 M weights for one GPU and some hundred hours of speech."""
    return AsrTrainingConfig(
        max_steps=60_000,
        model=LanguageModelConfig(
            text="bytes", width=512, num_layers=8, code_rank=8, start_from_codec=True
        ),
        data=CodesDataConfig(text_seconds=(0.3, 20.0), batch_seconds=1200.0, versions=3),
        optimizer=OptimizerConfig(
            learning_rate=5e-4, betas=(0.9, 0.98), warmup_steps=2000, schedule="cosine"
        ),
    )


def tts_one_gpu() -> TtsTrainingConfig:
    """A TTS model of 72 M weights for one GPU and some hundred hours of speech."""
    return TtsTrainingConfig(
        max_steps=100_000,
        model=LanguageModelConfig(
            text="bytes", width=512, num_layers=10, code_rank=8, start_from_codec=True
        ),
        depth="medium",
        data=CodesDataConfig(text_seconds=(0.3, 20.0), batch_seconds=1200.0, max_join=2),
        optimizer=OptimizerConfig(
            learning_rate=5e-4, betas=(0.9, 0.95), warmup_steps=2000, schedule="cosine"
        ),
        scored_share=0.5,
    )


def _small_optimizer(learning_rate: float, beta: float) -> OptimizerConfig:
    """For a model of some million weights that is trained within hours."""
    return OptimizerConfig(
        learning_rate, (0.9, beta), weight_decay=0.05, warmup_steps=200, decay_fraction=0.6
    )


def asr_general() -> AsrTrainingConfig:
    """An ASR model of 6 M weights for English, in hours on one CPU core and some hours of speech.

    A bidirectional encoder, which learns from less data than a language model. ``lexicon=FILE``
    adds the phoneme loss. `recipes/speech_on_a_gpu.py` runs it, and `tts_general` after it.
    """
    return AsrTrainingConfig(
        max_steps=6000,
        threads=1,
        checkpoint_every=500,
        model=LanguageModelConfig(code_rank=8, start_from_codec=True),
        data=CodesDataConfig(
            languages=("en",), text_seconds=(0.3, 16.0), batch_seconds=60.0, max_join=2
        ),
        optimizer=_small_optimizer(1.2e-3, 0.98),
        encoder_layers=6,
        frame_mask=0.1,
        validation=BitratesValidation(every=1000, clips=64, num_quantizers=(8, 32)),
    )


def tts_general() -> TtsTrainingConfig:
    """A TTS model of 11 M weights, 7.8 M without an aligner, for English, in minutes on one GPU.

    ``aligner=FOLDER`` is a CAT-ASR by `asr_general` on the same codes, with a lexicon, or
    "bundled". Predicts 8 codebooks, the first above all, as the installed model was trained to.
    """
    return TtsTrainingConfig(
        max_steps=12_000,
        checkpoint_every=500,
        model=LanguageModelConfig(num_layers=5, code_rank=8, start_from_codec=True),
        depth="small",
        data=CodesDataConfig(
            languages=("en",), text_seconds=(0.3, 16.0), batch_seconds=96.0, max_join=2
        ),
        optimizer=_small_optimizer(1e-3, 0.95),
        num_quantizers=8,
        dropout=DropoutConfig(skew=1.3),
        scored_share=0.9,
        place_dropout=0.1,
        frame_dropout=0.3,
        hidden_dropout=0.1,
        soft_targets=SoftTargetsConfig(share=0.5, entropy=1.5),
        half_weight_at=4.0,
        recognition_weight=2.0,
        validation=BitratesValidation(every=1000, clips=64),
    )


def asr_tiny() -> AsrTrainingConfig:
    """An ASR model for letters, digits and a few words, in an hour on one CPU core."""
    return AsrTrainingConfig(
        max_steps=4000,
        threads=1,
        checkpoint_every=250,
        model=LanguageModelConfig(num_words=150, code_rank=8, start_from_codec=True),
        data=CodesDataConfig(languages=("en",), batch_seconds=40.0, versions=6, max_join=2),
        optimizer=_small_optimizer(1.5e-3, 0.98),
        frame_weight=1.0,
        validation=BitratesValidation(every=250, clips=54),
    )


def tts_tiny() -> TtsTrainingConfig:
    """A TTS model for letters, digits and a few words, in hours on one CPU core.

    ``aligner=FOLDER``, a CAT-ASR with phoneme scores, gives it a text encoder (`asr_general`).
    """
    return TtsTrainingConfig(
        max_steps=9000,
        threads=1,
        checkpoint_every=500,
        model=LanguageModelConfig(num_words=150, num_layers=5, code_rank=8, start_from_codec=True),
        depth="small",
        data=CodesDataConfig(
            languages=("en",),
            batch_seconds=24.0,
            max_join=2,
            versions=4,
            # A prompt and what follows are to sound alike but for their speed.
            gain_db=(-26.0, -20.0),
            noise_db=(50.0, 60.0),
        ),
        optimizer=_small_optimizer(1e-3, 0.95),
        scored_share=0.25,
        place_dropout=0.1,
        frame_dropout=0.3,
        validation=BitratesValidation(every=500, clips=32),
    )
