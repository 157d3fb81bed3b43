"""Sound files of every format, made from tones."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from tones import FORMATS, RATE, tone


@pytest.fixture
def make_sound(tmp_path):
    """Writes a tone in one of FORMATS; returns (path, the tone)."""

    def make(name: str, **tone_options) -> tuple[Path, np.ndarray]:
        suffix, layout, subtype, _ = FORMATS[name]
        samples = tone(**tone_options)
        path = tmp_path / f"{name}{suffix}"
        rate = tone_options.get("rate", RATE)
        soundfile.write(path, samples.T, rate, subtype=subtype, format=layout)
        return path, samples

    return make
