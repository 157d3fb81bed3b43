"""Which speaker says which text in a set of natural speech, and how fast.

Owns the voices of Kokoro-82M by language, the speakers that are kept for tests, and the plan of a
dataset; knows nothing of synthesizers and files.
"""

import hashlib
from dataclasses import dataclass, field

import numpy as np

ENGLISH = "en"
# Never in training data, neither alone nor in a mixture: evaluations use them as unseen speakers.
TEST_VOICES = ("af_nova", "am_onyx", "bf_lily", "bm_lewis")
# Language: its voices. The first letter is the accent, the second the sex.
VOICES: dict[str, tuple[str, ...]] = {
    "en": (
        *("af_alloy", "af_aoede", "af_bella", "af_heart", "af_jessica", "af_kore", "af_nicole"),
        *("af_nova", "af_river", "af_sarah", "af_sky"),
        *("am_adam", "am_echo", "am_eric", "am_fenrir", "am_liam", "am_michael", "am_onyx"),
        *("am_puck", "am_santa"),
        *("bf_alice", "bf_emma", "bf_isabella", "bf_lily"),
        *("bm_daniel", "bm_fable", "bm_george", "bm_lewis"),
    ),
    "es": ("ef_dora", "em_alex", "em_santa"),
    "fr": ("ff_siwis",),
    "hi": ("hf_alpha", "hf_beta", "hm_omega", "hm_psi"),
    "it": ("if_sara", "im_nicola"),
    "ja": ("jf_alpha", "jf_gongitsune", "jf_nezumi", "jf_tebukuro", "jm_kumo"),
    "pt": ("pf_dora", "pm_alex", "pm_santa"),
    "zh": (
        *("zf_xiaobei", "zf_xiaoni", "zf_xiaoxiao", "zf_xiaoyi"),
        *("zm_yunjian", "zm_yunxi", "zm_yunxia", "zm_yunyang"),
    ),
}
LEAST_WEIGHT, MOST_WEIGHT = 0.3, 0.7
SPEEDS = (0.85, 1.2)
# Streams of random numbers: one for each purpose, so that changing one leaves the others alone.
_TEXTS, _CLIPS, _MIXTURES = range(3)


@dataclass(frozen=True)
class Speaker:
    """A voice, or a mixture of two.

    Attributes:
        name: in manifests.
        parts: (voice, weight); the weights' sum is 1.
        license: of its recordings or of its model.
    """

    name: str
    parts: tuple[tuple[str, float], ...]
    license: str = "Apache-2.0"

    @property
    def accent(self) -> str:
        """First letter of the voice with the most weight: "a" American, "b" British, ..."""
        return max(self.parts, key=lambda part: part[1])[0][0]


@dataclass(frozen=True)
class Clip:
    """A text, who says it and how fast.

    Attributes:
        number: in the plan, from 0.
        text: to say.
        speaker: who says it.
        speed: 1 is the voice's own.
        language: as in a manifest.
    """

    number: int
    text: str
    speaker: Speaker
    speed: float
    language: str


def make_speakers(language: str, num_mixtures: int, seed: int, test: bool = False) -> list[Speaker]:
    """Speakers of a language: its voices and mixtures of them, or the test speakers.

    Args:
        language: a key of VOICES.
        num_mixtures: number of mixtures, fewer where a sex has one voice only.
        seed: of the choice of mixtures.
        test: the test speakers, without mixtures.
    """
    if test:
        return [Speaker(voice, ((voice, 1.0),)) for voice in VOICES[language] if is_test(voice)]
    voices = [voice for voice in VOICES[language] if not is_test(voice)]
    named = [Speaker(voice, ((voice, 1.0),)) for voice in voices]
    return named + mixtures(voices, num_mixtures, seed)


def is_test(voice: str) -> bool:
    """Whether a voice is kept for tests."""
    return voice in TEST_VOICES


def mixtures(voices: list[str], count: int, seed: int) -> list[Speaker]:
    """Convex mixtures of two voices of one sex.

    Raises:
        ValueError: a test voice is among the voices.
    """
    if refused := [voice for voice in voices if is_test(voice)]:
        raise ValueError(f"{', '.join(refused)} are test speakers; expected training voices only")
    random = np.random.default_rng([seed, _MIXTURES])
    pairs = [(a, b) for a in voices for b in voices if a < b and a[1] == b[1]]
    found = []
    for index in range(count if pairs else 0):
        # Every pair once before any comes again, with another weight.
        if index % len(pairs) == 0:
            random.shuffle(pairs)
        first, second = pairs[index % len(pairs)]
        weight = round(float(random.uniform(LEAST_WEIGHT, MOST_WEIGHT)), 2)
        name = f"{first}-{second}-{round(100 * weight)}"
        found.append(Speaker(name, ((first, weight), (second, round(1 - weight, 2)))))
    return list({speaker.name: speaker for speaker in found}.values())


@dataclass(frozen=True)
class Plan:
    """The clips of a dataset, each made up from its number and the seed alone.

    Attributes:
        texts: what is said; all once in a random order, then again in another order.
        speakers: who may speak.
        language: of the texts.
        seed: another gives other pairs of text and speaker.
        mixture_share: of the clips that mixtures speak.
        every_pair: every speaker says every text once, at speed 1 (a test set).
    """

    texts: list[str]
    speakers: list[Speaker]
    language: str = ENGLISH
    seed: int = 0
    mixture_share: float = 0.5
    every_pair: bool = False
    _orders: dict[int, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self):
        """Refuse what cannot be spoken."""
        if not self.texts or not self.speakers:
            raise ValueError(
                f"got {len(self.texts)} texts and {len(self.speakers)} speakers; expected some"
            )
        names = [voice for speaker in self.speakers for voice, _ in speaker.parts]
        if not self.every_pair and any(map(is_test, names)):
            raise ValueError(f"{', '.join(TEST_VOICES)} are test speakers; leave them out")

    def has(self, number: int) -> bool:
        """Whether there is such a clip; only a test set ends by itself."""
        return not self.every_pair or number < len(self.texts) * len(self.speakers)

    def clip(self, number: int) -> Clip:
        """The clip with this number."""
        if self.every_pair:
            text, speaker = divmod(number, len(self.speakers))
            return Clip(number, self.texts[text], self.speakers[speaker], 1.0, self.language)
        random = np.random.default_rng([self.seed, _CLIPS, number])
        speaker = self._speaker(random)
        speed = round(float(random.uniform(*SPEEDS)), 2)
        return Clip(number, self._text(number), speaker, speed, self.language)

    def _speaker(self, random: np.random.Generator) -> Speaker:
        mixed = [speaker for speaker in self.speakers if len(speaker.parts) > 1]
        named = [speaker for speaker in self.speakers if len(speaker.parts) == 1]
        chosen = mixed if mixed and random.random() < self.mixture_share else named
        return chosen[int(random.integers(len(chosen)))]

    def _text(self, number: int) -> str:
        turn, place = divmod(number, len(self.texts))
        if turn not in self._orders:
            random = np.random.default_rng([self.seed, _TEXTS, turn])
            self._orders[turn] = random.permutation(len(self.texts))
        return self.texts[self._orders[turn][place]]

    def settings(self) -> dict[str, object]:
        """What the clips depend on, to compare with that of a run to continue."""
        everything = "\n".join(self.texts + [speaker.name for speaker in self.speakers])
        return {
            "num_texts": len(self.texts),
            "num_speakers": len(self.speakers),
            "texts_and_speakers": hashlib.sha256(everything.encode()).hexdigest(),
            "language": self.language,
            "seed": self.seed,
            "mixture_share": self.mixture_share,
            "every_pair": self.every_pair,
        }
