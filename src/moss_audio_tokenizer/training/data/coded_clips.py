"""Codes of clips: read where they are stored, made by the codec where there is sound, and kept.

Owns the memory of codes; knows nothing of rows or of batches.
"""

import numpy as np
from jaxtyping import UInt16

from ...audio import load_audio
from ...codes import Codec, CodecInfo
from ...errors import ConfigError, ModelMismatchError, MossAudioError
from ...manifest import ManifestEntry
from ...sources.entries import explain, location, open_entry
from .coded_sources import StoredCodes, check_model, described, first_layers
from .rows import check_length
from .variations import Variations


class ClipReader:
    """Codes of any entry.

    Args:
        info: what all codes are, with the number of layers that is wanted.
        stored: reads stored codes.
        codec: makes the others; None where all are stored.
        variations: what versions sound like.
        cache_seconds: codes of so many seconds are kept in memory, those that come first.
    """

    def __init__(
        self,
        info: CodecInfo,
        stored: StoredCodes,
        codec: Codec | None,
        variations: Variations,
        cache_seconds: float,
    ) -> None:
        self._info, self._stored, self._codec = info, stored, codec
        self._variations, self._room = variations, cache_seconds
        self._kept: dict[tuple[ManifestEntry, int], np.ndarray] = {}

    def codes(
        self, entry: ManifestEntry, version: int
    ) -> UInt16[np.ndarray, "num_quantizers frames"] | str:
        """Codes of a version of a clip, or a line that says why its file cannot be used.

        Raises:
            ModelMismatchError: they are another model's.
        """
        key = entry, 0 if self._stored.holds(entry) else version
        if key in self._kept:
            return self._kept[key]
        try:
            codes = self._read(entry) if self._stored.holds(entry) else self._made(entry, version)
        except ModelMismatchError:
            raise
        except MossAudioError as error:
            return " ".join(explain(entry, error).split())
        seconds = codes.shape[1] / self._info.frame_rate
        if seconds <= self._room:
            self._room -= seconds
            self._kept[key] = codes
        return codes

    def _read(self, entry: ManifestEntry) -> np.ndarray:
        codes = self._stored.load(entry)
        check_model(described(codes), self._info, location(entry))
        check_length(entry, codes.duration_seconds, entry.seconds)
        return first_layers(codes, self._info.num_quantizers, entry).codes.astype(np.uint16)

    def _made(self, entry: ManifestEntry, version: int) -> np.ndarray:
        if self._codec is None:
            raise ConfigError(f"'{location(entry)}' is sound; set data.codec to a model")
        rate = self._info.sampling_rate
        with open_entry(entry) as source:
            audio = load_audio(source, rate, self._info.num_channels)
        check_length(entry, audio.shape[1] / rate, entry.seconds)
        if changed := self._variations.of(entry, version):
            audio = changed.applied(audio, rate)
        # Alone, so that codes cannot depend on what else is in the batch.
        codes = self._codec.encode(audio, num_quantizers=self._info.num_quantizers)
        return np.asarray(codes).astype(np.uint16)
