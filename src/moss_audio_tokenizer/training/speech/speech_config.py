"""Configurations of training runs of CAT-ASR and CAT-TTS: frozen dataclasses, checked when built.

Knows nothing of how training works. The group ``data`` is in `data/data_config.py`.
"""

from dataclasses import dataclass, field

from ..data.data_config import CodesDataConfig
from ..overrides import check_types, require
from ..run_config import RunConfig, ValidationSchedule

# Far beyond any real model: a mistyped number is refused before memory is allocated.
_MOST_CHANNELS = 1 << 16
_MOST_LAYERS = 1024
_MOST_HEADS = 1024
_MOST_WORDS = 1_000_000
_LONGEST_SPEECH_SECONDS = 3600


@dataclass(frozen=True)
class LanguageModelConfig:
    """The decoder-only model, and how codes get into it.

    Attributes:
        llm: a folder or hub id of a decoder-only model of transformers, or "random" for a small
            one that is made here.
        init: "pretrained" to load the weights of ``llm``, or "random" to use its sizes alone.
        text: "letters" (small English letters), "bytes", or folder or hub id of a tokenizer;
            empty for the tokenizer of ``llm``. With an aligner, the tokens of the aligner are used
            instead of all three settings of tokens.
        num_words: with "letters", the number of frequent words in the training texts that are
            tokens of their own.
        num_pieces: with "letters", the number of frequent pieces of words in the training texts
            that are tokens of their own, in place of ``num_words``. A CTC head needs them for
            general English, which has more letters than frames.
        width: channels of the model called "random".
        num_layers: blocks of the model called "random".
        num_heads: attention heads of the model called "random".
        code_rank: rank of the code embeddings (`CodeEmbedding`), at most the codebook's size and
            the model's width; 0 for full tables.
        start_from_codec: whether code embeddings are initialized with the codec's own vectors;
            needs ``data.codec``.
    """

    llm: str = "random"
    init: str = "pretrained"
    text: str = "letters"
    num_words: int = 0
    num_pieces: int = 0
    width: int = 256
    num_layers: int = 4
    num_heads: int = 4
    code_rank: int = 0
    start_from_codec: bool = False

    def __post_init__(self) -> None:
        check_types(self)
        require(bool(self.llm), self, "llm", "'random', a folder or a hub id")
        require(self.init in ("pretrained", "random"), self, "init", "'pretrained' or 'random'")
        _require_size(self, "width", _MOST_CHANNELS)
        _require_size(self, "num_layers", _MOST_LAYERS)
        _require_size(self, "num_heads", _MOST_HEADS)
        _require_size(self, "code_rank", _MOST_CHANNELS, least=0)
        _require_size(self, "num_words", _MOST_WORDS, least=0)
        _require_size(self, "num_pieces", _MOST_WORDS, least=0)
        one = not (self.num_words and self.num_pieces)
        require(one, self, "num_pieces", "0 where model.num_words is set: use one of the two")
        fits = self.width % (2 * self.num_heads) == 0
        require(fits, self, "width", "a multiple of twice num_heads")
        named = self.llm != "random" or bool(self.text)
        require(named, self, "text", "'letters', 'bytes' or a tokenizer with llm=random")


@dataclass(frozen=True)
class DepthConfig:
    """The depth Transformer of CAT-TTS; the defaults are the paper's.

    Attributes:
        width: channels of the depth Transformer.
        num_layers: number of its blocks.
        num_heads: number of its attention heads.
        num_key_value_heads: number of its key and value heads; divides ``num_heads``.
        head_dim: channels of a head.
        feedforward: channels inside its gated feed-forward layers.
        adapter_width: channels inside the gated layers before the depth Transformer and before
            each of its outputs; 0 for plain projections.
    """

    width: int = 1536
    num_layers: int = 4
    num_heads: int = 16
    num_key_value_heads: int = 8
    head_dim: int = 128
    feedforward: int = 8960
    adapter_width: int = 2048

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("width", "head_dim", "feedforward"):
            _require_size(self, name, _MOST_CHANNELS)
        _require_size(self, "num_layers", _MOST_LAYERS)
        for name in ("num_heads", "num_key_value_heads"):
            _require_size(self, name, _MOST_HEADS)
        _require_size(self, "adapter_width", _MOST_CHANNELS, least=0)
        shared = self.num_heads % self.num_key_value_heads == 0
        require(shared, self, "num_heads", "a multiple of num_key_value_heads")


@dataclass(frozen=True)
class DropoutConfig:
    """Progressive Sequence Dropout (`tts.SequenceDropout`; the paper's section 3.3).

    Attributes:
        probability: probability that a row drops codebooks.
        include_full: whether such a row may still keep all codebooks.
    """

    probability: float = 1.0
    include_full: bool = True

    def __post_init__(self) -> None:
        check_types(self)
        require(0 <= self.probability <= 1, self, "probability", "0 to 1")


@dataclass(frozen=True)
class BitratesValidation(ValidationSchedule):
    """Validation at several bitrates.

    Attributes:
        num_quantizers: numbers of codebooks; larger ones than the model has stand for all.
    """

    num_quantizers: tuple[int, ...] = (1, 8, 32)

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = self.num_quantizers
        usable = bool(counts) and all(count >= 1 for count in counts)
        require(usable, self, "num_quantizers", "numbers from 1 on")


@dataclass(frozen=True)
class AsrValidation(BitratesValidation):
    """Validation of CAT-ASR: transcripts of held-out clips.

    Attributes:
        num_beams: number of beams of decoding; 1 decodes greedily.
    """

    num_beams: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.num_beams >= 1, self, "num_beams", "at least 1")


@dataclass(frozen=True)
class TtsValidation(BitratesValidation):
    """Validation of CAT-TTS: losses of held-out clips, and speech of one text.

    Attributes:
        max_seconds: longest speech, up to an hour; 0 for no speech.
    """

    max_seconds: float = 8.0

    def __post_init__(self) -> None:
        super().__post_init__()
        usable = 0 <= self.max_seconds <= _LONGEST_SPEECH_SECONDS
        require(usable, self, "max_seconds", f"0 to {_LONGEST_SPEECH_SECONDS}")


@dataclass(frozen=True)
class AsrTrainingConfig(RunConfig):
    """A run of CAT-ASR.

    Attributes:
        model: the language model.
        data: codes and their transcripts.
        prefix_share: share of the rows of which only the first codebooks, in a random number, are
            an input, so that the model can read every bitrate.
        frame_weight: weight of the loss of a CTC head on the frames, with which a model learns
            from little data; 0, as in the paper, for no such head.
        validation: error rates of held-out clips.
    """

    model: LanguageModelConfig = field(default_factory=LanguageModelConfig)
    data: CodesDataConfig = field(default_factory=CodesDataConfig)
    prefix_share: float = 0.5
    frame_weight: float = 0.0
    validation: AsrValidation = field(default_factory=AsrValidation)

    kind = "asr"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.prefix_share <= 1, self, "prefix_share", "0 to 1")
        require(self.frame_weight >= 0, self, "frame_weight", "0 or more")


@dataclass(frozen=True)
class TtsTrainingConfig(RunConfig):
    """A run of CAT-TTS.

    Attributes:
        model: the temporal Transformer.
        depth: the depth Transformer.
        data: codes and their transcripts.
        dropout: Progressive Sequence Dropout.
        scored_share: share of the frames whose codes count in the loss, drawn in each step: the
            depth Transformer is most of the work, and neighboring frames are similar.
        aligner: folder of a CAT-ASR with a CTC head, trained on the same codec, which finds the
            text token of each frame. Both Transformers are then conditioned on it, and token
            durations are predicted (`tts.text_alignment`). The model has the text tokens of the
            aligner. Empty, as in the paper, for no alignment.
        place_weight: weight of the loss of token durations.
        place_dropout: share of the rows, drawn in each step, that are not conditioned on the
            alignment, for classifier-free guidance (``guidance`` of `SpeechSampling`).
        frame_dropout: share of the frames, drawn in each step, that are no input of later frames,
            against exposure bias.
        validation: losses of held-out clips, and speech of one text.
    """

    model: LanguageModelConfig = field(default_factory=LanguageModelConfig)
    depth: DepthConfig = field(default_factory=DepthConfig)
    data: CodesDataConfig = field(default_factory=CodesDataConfig)
    dropout: DropoutConfig = field(default_factory=DropoutConfig)
    scored_share: float = 1.0
    aligner: str = ""
    place_weight: float = 1.0
    place_dropout: float = 0.0
    frame_dropout: float = 0.0
    validation: TtsValidation = field(default_factory=TtsValidation)

    kind = "tts"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.scored_share <= 1, self, "scored_share", "above 0, up to 1")
        require(self.place_weight >= 0, self, "place_weight", "0 or more")
        require(0 <= self.place_dropout < 1, self, "place_dropout", "0 up to 1")
        require(0 <= self.frame_dropout < 1, self, "frame_dropout", "0 up to 1")


def _require_size(config: object, name: str, most: int, least: int = 1) -> None:
    """Check the range of a whole number."""
    require(least <= getattr(config, name) <= most, config, name, f"{least} to {most}")
