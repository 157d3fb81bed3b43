"""Configurations of training runs of CAT-ASR and CAT-TTS: frozen dataclasses, checked when built.

Knows nothing of how training works. The group ``data`` is in `data/data_config.py`.
"""

from dataclasses import dataclass, field

from ..data.data_config import CodesDataConfig
from ..run_config import RunConfig, ValidationSchedule, check_types, num_heads, require

# Far beyond any real model: a mistyped number is refused before memory is allocated.
_MOST_CHANNELS = 1 << 16
_MOST_LAYERS = 1024
_MOST_WORDS = 1_000_000
_MOST_SKEW, _MOST_ENTROPY = 100, 20
# As in `asr.frame_encoder`, which needs PyTorch.
_LEAST_ENCODER_LAYERS, _MOST_ENCODER_LAYERS, _HEAD_DIM = 3, 128, 64


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
        width: channels of the model called "random", or of the encoder of a CAT-ASR.
        num_layers: blocks of the model called "random"; not of the encoder of a CAT-ASR.
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
    code_rank: int = 0
    start_from_codec: bool = False

    def __post_init__(self) -> None:
        check_types(self)
        require(bool(self.llm), self, "llm", "'random', a folder or a hub id")
        require(self.init in ("pretrained", "random"), self, "init", "'pretrained' or 'random'")
        for name, least, most in (
            ("width", 1, _MOST_CHANNELS),
            ("num_layers", 1, _MOST_LAYERS),
            ("code_rank", 0, _MOST_CHANNELS),
            ("num_words", 0, _MOST_WORDS),
            ("num_pieces", 0, _MOST_WORDS),
        ):
            require(least <= getattr(self, name) <= most, self, name, f"{least} to {most}")
        one = not (self.num_words and self.num_pieces)
        require(one, self, "num_pieces", "0 where model.num_words is set: use one of the two")
        multiple = 2 * num_heads(self.width)
        require(self.width % multiple == 0, self, "width", f"a multiple of {multiple}")
        named = self.llm != "random" or bool(self.text)
        require(named, self, "text", "'letters', 'bytes' or a tokenizer with llm=random")


def _depth(
    width: int, layers: int, heads: int, key_value_heads: int, head_dim: int, feedforward: int
) -> dict[str, int]:
    """A depth Transformer with plain projections before it and before each of its outputs."""
    return {
        "depth_width": width,
        "depth_layers": layers,
        "depth_heads": heads,
        "depth_key_value_heads": key_value_heads,
        "depth_head_dim": head_dim,
        "depth_feedforward": feedforward,
        "adapter_width": 0,
    }


# Shapes of the depth Transformer, as fields of `CatTtsConfig`, whose defaults are the paper's.
DEPTHS: dict[str, dict[str, int]] = {
    "paper": {},
    "medium": _depth(512, 4, 8, 4, 64, 1536),
    "small": _depth(192, 2, 3, 3, 64, 512),
    "tiny": _depth(128, 2, 2, 2, 64, 256),
}


@dataclass(frozen=True)
class DropoutConfig:
    """Progressive Sequence Dropout (`tts.SequenceDropout`; the paper's section 3.3).

    Attributes:
        probability: probability that a row drops codebooks.
        include_full: whether such a row may still keep all codebooks.
        skew: above 1, rows that drop codebooks keep small numbers of them more often, and the
            first codebooks are trained by more rows; 1, as in the paper, for all numbers alike.
    """

    probability: float = 1.0
    include_full: bool = True
    skew: float = 1.0

    def __post_init__(self) -> None:
        check_types(self)
        require(0 <= self.probability <= 1, self, "probability", "0 to 1")
        require(1 <= self.skew <= _MOST_SKEW, self, "skew", f"1 to {_MOST_SKEW}")


@dataclass(frozen=True)
class SoftTargetsConfig:
    """Targets of CAT-TTS that are spread over codes which sound alike (`tts.SoftTargets`).

    Attributes:
        share: share of each target that is spread by the distance of the codes' vectors to what
            the codec quantized; needs ``data.codec``. 0, as in the paper, for the codes alone.
        entropy: entropy of what is spread, in nats: how widely, on average over some frames of
            the first step, in every codebook.
    """

    share: float = 0.0
    entropy: float = 1.5

    def __post_init__(self) -> None:
        check_types(self)
        require(0 <= self.share <= 1, self, "share", "0 to 1")
        require(0 < self.entropy <= _MOST_ENTROPY, self, "entropy", f"above 0, to {_MOST_ENTROPY}")


@dataclass(frozen=True)
class BitratesValidation(ValidationSchedule):
    """Validation at several bitrates: transcripts of CAT-ASR; losses and speech of CAT-TTS.

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
class SpeechTrainingConfig(RunConfig):
    """What runs of CAT-ASR and CAT-TTS share.

    Attributes:
        model: the language model; of CAT-TTS the temporal Transformer.
        data: codes and their transcripts.
        validation: measures of held-out clips.
    """

    model: LanguageModelConfig = field(default_factory=LanguageModelConfig)
    data: CodesDataConfig = field(default_factory=CodesDataConfig)
    validation: BitratesValidation = field(default_factory=BitratesValidation)


@dataclass(frozen=True)
class AsrTrainingConfig(SpeechTrainingConfig):
    """A run of CAT-ASR.

    Attributes:
        prefix_share: share of the rows of which only the first codebooks, in a random number, are
            an input, so that the model can read every bitrate.
        frame_weight: weight of the loss of a CTC head on the frames, with which a model learns
            from little data; 0, as in the paper, for no such head.
        encoder_layers: number of blocks of a bidirectional encoder with CTC heads
            (`asr.frame_encoder`), of ``model.width`` channels, in place of the language model; 0,
            as in the paper, for none.
        encoder_dropout: probability of dropout in the encoder.
        lexicon: file of lines "word<TAB>pronunciation" (`speech.phonemes.Lexicon`) for the phoneme
            loss of the encoder, which the model keeps; "bundled" for that of the installed
            CAT-TTS, empty for none.
        phoneme_weight: weight of the phoneme loss.
        frame_mask: share of the frames that the encoder does not see, in spans of 1 to 4 frames
            that are drawn in each step.
    """

    prefix_share: float = 0.5
    frame_weight: float = 0.0
    encoder_layers: int = 0
    encoder_dropout: float = 0.1
    lexicon: str = ""
    phoneme_weight: float = 0.5
    frame_mask: float = 0.0

    kind = "asr"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.prefix_share <= 1, self, "prefix_share", "0 to 1")
        require(self.frame_weight >= 0, self, "frame_weight", "0 or more")
        require(0 <= self.encoder_dropout < 1, self, "encoder_dropout", "0 up to 1")
        require(self.phoneme_weight >= 0, self, "phoneme_weight", "0 or more")
        require(0 <= self.frame_mask <= 0.5, self, "frame_mask", "0 to 0.5")
        layers = self.encoder_layers
        usable = layers == 0 or _LEAST_ENCODER_LAYERS <= layers <= _MOST_ENCODER_LAYERS
        expected = f"{_LEAST_ENCODER_LAYERS} to {_MOST_ENCODER_LAYERS}, or 0 for none"
        require(usable, self, "encoder_layers", expected)
        if layers:
            self._check_encoder()
        else:
            for name, unused in (("lexicon", ""), ("frame_mask", 0)):
                none = getattr(self, name) == unused
                require(none, self, name, f"{unused!r} without encoder_layers")

    def _check_encoder(self) -> None:
        random = self.model.llm == "random"
        require(random, self.model, "llm", "'random' with encoder_layers: there is no such model")
        fits = self.model.width % _HEAD_DIM == 0
        require(fits, self.model, "width", f"a multiple of {_HEAD_DIM} with encoder_layers")
        require(not self.frame_weight, self, "frame_weight", "0 with encoder_layers")


@dataclass(frozen=True)
class TtsTrainingConfig(SpeechTrainingConfig):
    """A run of CAT-TTS.

    Attributes:
        depth: the shape of the depth Transformer, one of `DEPTHS`.
        num_quantizers: number of codebooks that the model predicts, the first ones; 0, as in the
            paper, for all of the codes.
        dropout: Progressive Sequence Dropout.
        scored_share: share of the frames whose codes count in the loss, drawn in each step: the
            depth Transformer is most of the work, and neighboring frames are similar.
        aligner: folder of a CAT-ASR with phoneme scores (recipe ``asr_general``), trained on the
            same codec, which finds how long each phoneme lasts; "bundled" for the installed one.
            The model then has a text encoder (`tts.text_encoder`) with the pronunciations of the
            aligner, and the three settings of tokens are not used. Empty, as in the paper, for
            text on the time axis.
        place_dropout: share of the rows, drawn in each step, that are not conditioned on the
            text, for classifier-free guidance (``guidance`` of `SpeechSampling`).
        frame_dropout: share of the frames, drawn in each step, that are no input of later frames,
            against exposure bias.
        hidden_dropout: probability of dropout in the temporal Transformer, and of what the depth
            Transformer gets from it (`CatTtsConfig`); 0, as in the paper, for none.
        soft_targets: targets that are spread over similar codes.
        half_weight_at: codebook, counted from 0, whose codes count half as much in the loss as
            those of the first: codebook l has the weight 1 / (1 + l / half_weight_at). Losses are
            divided by the sum of the weights. 0, as in the paper, for equal weights.
        recognition_weight: with an aligner, weight of the CTC losses of its CAT-ASR, which is not
            trained, on codes that are drawn from the predictions; divided, as the loss of codes,
            by the number of codes. 0, as in the paper, for none.
    """

    depth: str = "paper"
    num_quantizers: int = 0
    dropout: DropoutConfig = field(default_factory=DropoutConfig)
    scored_share: float = 1.0
    aligner: str = ""
    place_dropout: float = 0.0
    frame_dropout: float = 0.0
    hidden_dropout: float = 0.0
    soft_targets: SoftTargetsConfig = field(default_factory=SoftTargetsConfig)
    half_weight_at: float = 0.0
    recognition_weight: float = 0.0

    kind = "tts"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.depth in DEPTHS, self, "depth", f"one of {', '.join(DEPTHS)}")
        require(0 < self.scored_share <= 1, self, "scored_share", "above 0, up to 1")
        require(0 <= self.place_dropout < 1, self, "place_dropout", "0 up to 1")
        require(0 <= self.frame_dropout < 1, self, "frame_dropout", "0 up to 1")
        require(0 <= self.hidden_dropout < 1, self, "hidden_dropout", "0 up to 1")
        require(self.num_quantizers >= 0, self, "num_quantizers", "1 or more, or 0 for all")
        most = _MOST_LAYERS
        require(0 <= self.half_weight_at <= most, self, "half_weight_at", f"0 to {most}")
        require(self.recognition_weight >= 0, self, "recognition_weight", "0 or more")
