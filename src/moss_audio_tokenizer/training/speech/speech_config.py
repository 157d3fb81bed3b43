"""What a run of CAT-ASR or CAT-TTS is: frozen dataclasses, checked when built.

Knows nothing of how training works. The group ``data`` is `data/coded_config.py`'s.
"""

from dataclasses import dataclass, field

from ..data.data_config import CodesDataConfig
from ..overrides import check_types, require
from ..run_config import RunConfig, ValidationSchedule

# Far beyond any model that there is: a slip of the pen is refused, not an allocation.
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
        init: "pretrained" weights, or "random" ones in the shape that ``llm`` names.
        text: "letters" (small English letters), "bytes", or folder or hub id of a tokenizer;
            empty for the one beside ``llm``. With an aligner it is the aligner's.
        num_words: with "letters", so many of the training texts' most frequent words are tokens
            of their own. With an aligner the words are the aligner's.
        num_pieces: likewise, so many pieces of words, in place of ``num_words``. A CTC head needs
            them for general English, which has more letters than frames.
        width: of the model called "random".
        num_layers: likewise.
        num_heads: likewise.
        code_rank: of the code tables, see `CodeEmbedding`; 0 for whole tables. At most the
            codebook's size and the model's width.
        start_from_codec: code tables begin as the codec's own vectors, if ``data.codec`` is set.
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
    """The depth Transformer of CAT-TTS; the defaults are the published ones.

    Attributes:
        width: channels.
        num_layers: blocks.
        num_heads: heads.
        num_key_value_heads: heads of keys and values.
        head_dim: channels of a head.
        feedforward: channels inside its gated layers.
        adapter_width: channels of the gated layers around it; 0 for plain projections.
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
    """Progressive Sequence Dropout, see `tts.SequenceDropout`."""

    probability: float = 1.0
    include_full: bool = True

    def __post_init__(self) -> None:
        check_types(self)
        require(0 <= self.probability <= 1, self, "probability", "0 to 1")


@dataclass(frozen=True)
class DepthsValidation(ValidationSchedule):
    """Held-out clips are looked at through several numbers of layers.

    Attributes:
        num_quantizers: layers that are kept; more than the model has are all of its.
    """

    num_quantizers: tuple[int, ...] = (1, 8, 32)

    def __post_init__(self) -> None:
        super().__post_init__()
        depths = self.num_quantizers
        usable = bool(depths) and all(depth >= 1 for depth in depths)
        require(usable, self, "num_quantizers", "depths from 1 on")


@dataclass(frozen=True)
class AsrValidation(DepthsValidation):
    """Held-out clips are read, at several depths.

    Attributes:
        num_beams: 1 decodes greedily.
    """

    num_beams: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.num_beams >= 1, self, "num_beams", "at least 1")


@dataclass(frozen=True)
class TtsValidation(DepthsValidation):
    """Losses of held-out clips at several depths, and one text that is spoken.

    Attributes:
        max_seconds: of that speech, up to an hour; 0 speaks none.
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
        data: codes with what is said.
        prefix_share: share of the rows that see a random prefix of the layers, so that the
            model reads codes of any bitrate.
        frame_weight: of a second loss, by which the frames themselves tell the tokens (CTC): with
            little data, words are found much sooner. 0, as in the paper, for none.
        validation: reading.
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
        data: codes with what is said.
        dropout: of layers, by rows.
        scored_share: share of the frames whose codes are scored in a step, drawn anew in each:
            the depth Transformer is most of the work, and its frames are much alike.
        aligner: folder of a CAT-ASR with frame scores, on the same codec and tokens; it finds
            out which token is being said in each frame. Both Transformers are then told, and learn
            when the next token's turn comes; speech goes through the text token by token. Texts
            are spelled in its tokens, whatever ``model.text`` and ``model.num_words`` say. Empty,
            as in the paper, for none.
        place_weight: of the loss by which frames learn when to move on.
        place_dropout: share of the rows, drawn anew in each step, that are not told their place:
            what a model says that is told can then be held against what it would say untold
            (``guidance`` of `SpeechSampling`).
        frame_dropout: share of the frames, drawn anew in each step, that the frames behind do not
            hear: a model that has only heard recordings loses its way in what it says itself.
        validation: losses, and a text that is spoken.
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
    """Hold a whole number to its range."""
    require(least <= getattr(config, name) <= most, config, name, f"{least} to {most}")
