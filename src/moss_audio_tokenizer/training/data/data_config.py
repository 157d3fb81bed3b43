"""What a run trains on: the group ``data`` of a recipe, checked when built.

`DataConfig` is for runs on audio (the codec), `CodesDataConfig` for runs on codes (CAT-TTS and
CAT-ASR). Imports neither NumPy nor PyTorch; knows nothing of files, sound or codes.
"""

from dataclasses import dataclass

from ...manifest import ManifestEntry
from ..run_config import check_types, require

_MOST_VERSIONS = 10_000
_MOST_JOINED = 64


@dataclass(frozen=True)
class SourcesConfig:
    """Which recordings are used, and what all runs make of them.

    Attributes:
        manifest: the JSON-lines manifest, whose paths are relative to it, or a folder of shards or
            of sound files.
        sources: several of these with their weights, as (path, weight) pairs, in place of
            ``manifest``.
        speakers: the speakers to train and validate on; empty for all.
        languages: the languages to train and validate on; empty for all.
        gain_db: the range of levels in dBFS (RMS) that a row, or a version of a clip, is brought
            to; it is raised by 20 dB at most.
        text_seconds: the shortest and the longest utterance that is used.
        batch_seconds: about how much audio there is in a step, of all processes together.
        row_multiple: the number that the rows of each process are a multiple of.
        max_unreadable_share: the share of training clips that may be unreadable; with more of them
            the run ends.
        cache_hours: the hours of audio that are kept in memory: 170 MB an hour of mono at 24 kHz,
            3 MB an hour of codes of 32 codebooks.
    """

    manifest: str = ""
    sources: tuple[tuple[str, float], ...] = ()
    speakers: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    gain_db: tuple[float, float] = (-32.0, -14.0)
    text_seconds: tuple[float, float] = (0.5, 30.0)
    batch_seconds: float = 60.0
    row_multiple: int = 1
    max_unreadable_share: float = 0.05
    cache_hours: float = 4.0

    def __post_init__(self) -> None:
        check_types(self)
        usable = all(path and weight > 0 for path, weight in self.sources)
        usable = usable and len(dict(self.sources)) == len(self.sources)
        require(usable, self, "sources", "(path, weight) pairs, weights above 0, a path once")
        single = not (self.sources and self.manifest)
        require(single, self, "sources", "none where data.manifest is set: use one of the two")
        low, high = self.gain_db
        require(low <= high <= 0, self, "gain_db", "(lower, upper) in dBFS, up to 0")
        low, high = self.text_seconds
        require(0 < low < high, self, "text_seconds", "(shortest, longest) above 0 seconds")
        require(self.row_multiple >= 1, self, "row_multiple", "at least 1")
        require(0 <= self.max_unreadable_share <= 1, self, "max_unreadable_share", "0 to 1")
        require(self.cache_hours >= 0, self, "cache_hours", "0 or more")

    @property
    def weighted_paths(self) -> tuple[tuple[str, float], ...]:
        """Every manifest and folder with its weight."""
        return self.sources or ((self.manifest, 1.0),)

    def keeps(self, entry: ManifestEntry) -> bool:
        """Whether a clip is of a speaker and a language that are wanted."""
        return (not self.speakers or entry.speaker in self.speakers) and (
            not self.languages or entry.language in self.languages
        )


@dataclass(frozen=True)
class DataConfig(SourcesConfig):
    """Where audio comes from, and what is cut from it.

    Data of up to ``cache_hours`` are decoded once and kept in memory, as 16-bit samples; longer
    ones are decoded when they are needed. ``batch_seconds`` and ``text_seconds`` are for batches
    with whole utterances.

    Attributes:
        crop_seconds: the length of a training crop; a whole number of frames.
        batch_size: the number of crops in a step, of all processes together.
        text_share: the share of rows that are whole utterances with their text. Above 0, a batch
            holds rows of about one length instead of ``batch_size`` crops of ``crop_seconds``.
        batch_change: (step, factor): from this step on, batches are so many times as large; the
            step 0 stands for never.
        domain_weights: the share of each domain in a batch, as (domain, weight) pairs.
        workers: the number of processes that decode ahead what is not in memory; with all data in
            memory, one thread makes batches ahead; 0 does either in the loop.
    """

    crop_seconds: float = 0.64
    batch_size: int = 8
    text_share: float = 0.0
    batch_change: tuple[int, float] = (0, 1.0)
    domain_weights: tuple[tuple[str, float], ...] = (
        ("speech", 0.7),
        ("sound", 0.15),
        ("music", 0.15),
    )
    workers: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("crop_seconds", "batch_seconds"):
            require(getattr(self, name) > 0, self, name, "a time above 0")
        require(self.batch_size >= 1, self, "batch_size", "at least 1")
        require(0 <= self.text_share <= 1, self, "text_share", "0 to 1")
        require(self.workers >= 0, self, "workers", "0 or more")
        changed, factor = self.batch_change
        require(changed >= 0 and factor > 0, self, "batch_change", "(step, factor), both above 0")
        shares = dict(self.domain_weights)
        usable = all(share >= 0 for share in shares.values()) and sum(shares.values()) > 0
        unique = len(shares) == len(self.domain_weights)
        require(usable and unique, self, "domain_weights", "shares of 0 or more, a domain once")


@dataclass(frozen=True)
class CodesDataConfig(SourcesConfig):
    """Where codes and their texts come from, and what rows are made of them.

    A manifest may name sound files, which are encoded when they are first drawn, and files of
    codes (.moss, .safetensors, .npz); a folder holds shards of sound or of codes.

    Attributes:
        codec: the model that encodes sound: a model folder, a hub id, or "bundled". Stored codes
            must be this model's. Empty: there is no sound, and the files say what the codes are.
        versions: the number of versions of each sound file that are encoded, up to 10,000. The
            first is the recording as it is, the others differ in level, noise and, by up to a
            tenth, in speed and pitch.
        noise_db: the range of the distance of white noise below the level of a version, in dB.
        batch_tokens: in place of ``batch_seconds``, which is then 0: about how many tokens there
            are in a step, of all processes together: the positions of the decoder-only model,
            which are text tokens and frames (a frame is one position, whatever its number of
            codebooks); 0 to count ``batch_seconds``.
        max_join: the most clips of one speaker and source that make up a row; 64 at most.
    """

    text_seconds: tuple[float, float] = (0.3, 12.0)
    cache_hours: float = 300.0
    codec: str = "bundled"
    versions: int = 1
    noise_db: tuple[float, float] = (30.0, 60.0)
    batch_tokens: int = 0
    max_join: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, most in (("versions", _MOST_VERSIONS), ("max_join", _MOST_JOINED)):
            require(1 <= getattr(self, name) <= most, self, name, f"1 to {most}")
        require(self.batch_tokens >= 0, self, "batch_tokens", "0 or more")
        if self.batch_tokens:
            required = "0 where data.batch_tokens is set: use one of the two"
            require(self.batch_seconds == 0, self, "batch_seconds", required)
        else:
            require(self.batch_seconds > 0, self, "batch_seconds", "a time above 0")
        low, high = self.noise_db
        require(0 <= low <= high, self, "noise_db", "(lower, upper) in dB below the level")
