"""Validation of a codec in training: quality by num_quantizers on held-out clips, codebook use.

Owns what is measured and shown; knows nothing of the loop. The measures are `metrics`'s.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from ...config import CodecConfig
from ...metrics import gross_pitch_error, mel_distance, stoi
from ...model.codec import Codec
from ...semantic import SemanticHead
from ..data.audio_rows import Clip
from ..logging import TensorBoardLog, compared
from .codec_config import ValidationConfig

# What is measured of each clip.
_MOST_SECONDS = 6.0


@dataclass
class Measures:
    """Measurements of some clips; `summarize` joins those of several processes.

    Attributes:
        rows: values by "domain/measure/num_quantizers", one for each clip.
        codes: the codes of every clip, all layers.
        pictures: (recording, estimate) of one clip, with the most layers.
        texts: (transcript, prediction of the language model) of one clip with a text.
    """

    rows: dict[str, list[float]] = field(default_factory=dict)
    codes: list[torch.Tensor] = field(default_factory=list)
    pictures: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    texts: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class ValidationResult:
    """Scalars by name, with one reconstruction and one prediction of the language model.

    Attributes:
        scalars: means over the clips; "score" is the mean mel distance with all layers.
        reference: one recording, mono.
        estimate: its reconstruction.
        sampling_rate: the sampling rate of both.
        text: the transcript of a recording; empty where there is none.
        reading: what the language model predicts for it from the codes.
    """

    scalars: dict[str, float]
    reference: np.ndarray
    estimate: np.ndarray
    sampling_rate: int
    text: str = ""
    reading: str = ""

    def show(self, board: TensorBoardLog, step: int) -> None:
        """Log the reconstruction as audio and spectrogram, and the prediction of the text."""
        for name, audio in (("recording", self.reference), ("estimate", self.estimate)):
            board.audio(name, audio, self.sampling_rate, step)
        picture = compared(self.reference, self.estimate, self.sampling_rate)
        board.picture("recording above estimate", picture, step)
        if self.text:
            board.text("reading", f"{self.text!r} read as {self.reading!r}", step)
            board.report(
                f"valid {step} the language model transcribes {self.text!r} as {self.reading!r}"
            )


@torch.no_grad()
def measure(
    codec: Codec,
    clips: Sequence[Clip],
    config: ValidationConfig,
    quantize: bool = True,
    semantic: SemanticHead | None = None,
) -> Measures:
    """Reconstruct clips with several numbers of layers and measure them, in float32.

    Args:
        codec: the codec to measure; its training mode is restored.
        clips: the held-out clips.
        config: the numbers of layers.
        quantize: False measures the autoencoder alone, under the number 0.
        semantic: the language model that predicts the text of the first clip with one.
    """
    was_training = codec.training
    codec.eval()
    layers = codec.quantizer.config.num_quantizers
    depths = sorted({min(depth, layers) for depth in config.num_quantizers}) if quantize else [0]
    measures = Measures()
    for clip in clips:
        audio = _whole_frames(codec, clip)
        hidden = codec.require_encoder()(audio)
        codes = codec.quantizer.encode(hidden)
        measures.codes.append(codes.flatten(1).cpu())
        reference = _mono(audio)
        for depth in depths:
            latent = codec.quantizer.decode(codes[:depth]) if depth else hidden
            estimate = _mono(codec.require_decoder()(latent))
            _measure(measures.rows, codec, clip, reference, estimate, depth)
        measures.pictures = measures.pictures or [(reference, estimate)]
        if semantic is not None and clip.entry.text and not measures.texts:
            measures.texts.append((clip.entry.text, semantic.read(latent[0])))
    codec.train(was_training)
    return measures


def summarize(
    parts: Sequence[Measures], codec: CodecConfig, quantized: bool = True
) -> ValidationResult:
    """The means over the clips of all parts.

    Args:
        parts: the measurements of all processes, of at least one clip.
        codec: the configuration of the codec.
        quantized: whether the quantizer is in use yet.
    """
    rows: dict[str, list[float]] = {}
    for part in parts:
        for name, values in part.rows.items():
            rows.setdefault(name, []).extend(values)
    scalars = _means(rows)
    scalars["score"] = _score(scalars)
    if quantized:
        codes = torch.cat([codes for part in parts for codes in part.codes], 1)
        scalars |= _codebook_use(codes, codec.quantizer.codebook_size)
    reference, estimate = next(picture for part in parts for picture in part.pictures)
    text, reading = next((item for part in parts for item in part.texts), ("", ""))
    return ValidationResult(scalars, reference, estimate, codec.sampling_rate, text, reading)


def _score(scalars: dict[str, float]) -> float:
    """The mean over domains of the mel distance with the most layers."""
    names = [name.split("/") for name in scalars]
    depths = [int(depth) for _, measure, depth in names if measure == "mel_distance"]
    wanted = ["mel_distance", str(max(depths))]
    return float(np.mean([scalars["/".join(name)] for name in names if name[1:] == wanted]))


def _mono(audio: torch.Tensor) -> np.ndarray:
    """The first row, its channels mixed: the measures take mono."""
    mono: np.ndarray = audio[0].mean(0).float().cpu().numpy()
    return mono


def _means(rows: dict[str, list[float]]) -> dict[str, float]:
    """Means over the clips where a measure is defined; a measure without any is left out."""
    defined = {name: [v for v in values if np.isfinite(v)] for name, values in rows.items()}
    return {name: float(np.mean(values)) for name, values in defined.items() if values}


def _whole_frames(codec: Codec, clip: Clip) -> torch.Tensor:
    step = codec.config.downsample_rate
    frames = max(1, int(_MOST_SECONDS * codec.config.sampling_rate) // step)
    length = min(frames, -(-clip.samples.shape[1] // step)) * step
    device = next(codec.parameters()).device
    return torch.from_numpy(clip.cut(0, length))[None].to(device)


def _measure(
    rows: dict[str, list[float]],
    codec: Codec,
    clip: Clip,
    reference: np.ndarray,
    estimate: np.ndarray,
    depth: int,
) -> None:
    rate = codec.config.sampling_rate
    domain = clip.entry.domain
    values = {"mel_distance": mel_distance(reference, estimate, rate)}
    if domain == "speech":
        values["stoi"] = stoi(reference, estimate, rate)
        values["pitch_error"] = gross_pitch_error(reference, estimate, rate)
    for name, value in values.items():
        rows.setdefault(f"{domain}/{name}/{depth}", []).append(value)


def _codebook_use(codes: torch.Tensor, codebook_size: int) -> dict[str, float]:
    """Perplexity of each layer's codes as a share of what the sample allows."""
    reachable = min(codebook_size, codes.shape[1])
    shares = []
    for layer in codes:
        counts = torch.bincount(layer, minlength=codebook_size).double()
        p = counts[counts > 0] / counts.sum()
        shares.append(float(torch.exp(-(p * p.log()).sum())) / reachable)
    thirds = {"first": shares[0], "middle": shares[len(shares) // 2], "last": shares[-1]}
    return {f"perplexity/{name}": value for name, value in thirds.items()} | {
        "perplexity/lowest": min(shares)
    }
