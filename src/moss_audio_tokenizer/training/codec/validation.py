"""Validation of a codec in training: what held-out clips say of it, and what has not changed.

Owns the measures by num_quantizers and codebook use, and frozen.json: SHA-256 hashes of every
tensor of what fine-tuning froze and, where encoder and quantizer are frozen, of the codes of the
held-out clips. Knows nothing of the loop.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ...checkpoint.codec_checkpoint import write_json
from ...config import CodecConfig
from ...errors import TrainingError
from ...files import atomic_path
from ...metrics import gross_pitch_error, mel_distance, stoi
from ...model.codec import Codec
from ...runtime.inference_codec import InferenceEncoder
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
    return audio[0].mean(0).float().cpu().numpy()


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


REPORT_NAME = "frozen.json"


class FrozenProof:
    """Hashes of what is frozen when the run begins; `finish` compares the end with them.

    Args:
        folder: the folder of the run, where the hashes are written, or read on resume.
        codec: the codec before any step of the run.
        frozen: the frozen parts, of "encoder", "quantizer" and "decoder".
        clips: held-out recordings; there may be none.
        begun: whether the run has made steps already, so that the hashes must be there.

    Raises:
        TrainingError: the hashes are missing or damaged though the run is resumed.
    """

    def __init__(
        self,
        folder: Path,
        codec: Codec,
        frozen: Sequence[str],
        clips: Sequence[Clip],
        begun: bool,
    ) -> None:
        self._path = folder / REPORT_NAME
        self._frozen = list(frozen)
        self._clips = clips
        names = [clip.entry.name or str(clip.entry.path) for clip in clips]
        if begun:
            self._before = _read(self._path, names)
        else:
            self._before = self._hashes(codec)
            self._write({"before": self._before, "clips": names})
        self._names = names

    def finish(self, codec: Codec) -> str:
        """Write the whole report and return it as a line.

        Raises:
            TrainingError: something frozen has changed; the report says what.
        """
        after = self._hashes(codec)
        report = {
            "frozen": self._frozen,
            "validation_clips": len(self._clips),
            "clips": self._names,
            "before": self._before,
            "after": after,
            "identical": after == self._before,
        }
        self._write(report)
        if after != self._before:
            raise TrainingError(f"what was frozen has changed; {self._path} holds the hashes")
        return f"identical before and after: {', '.join(after)}"

    def _hashes(self, codec: Codec) -> dict[str, str]:
        """Of every frozen part, and of the codes where they cannot change."""
        hashes = {part: _hash_of(getattr(codec, part)) for part in self._frozen}
        if {"encoder", "quantizer"} <= hashes.keys():
            hashes["codes"] = _hash_of_codes(codec, self._clips)
        return hashes

    def _write(self, report: dict[str, object]) -> None:
        with atomic_path(self._path, error=TrainingError) as beside:
            write_json(beside, report)


def _hash_of(module: nn.Module) -> str:
    """SHA-256 over names and values of all tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def _hash_of_codes(codec: Codec, clips: Sequence[Clip]) -> str:
    digest = hashlib.sha256()
    half = InferenceEncoder(codec, torch.float32)
    device = codec.quantizer.codebooks.device
    audio = [torch.from_numpy(clip.cut(0, clip.samples.shape[1])).to(device) for clip in clips]
    for codes, _ in half.encode_rows(audio, codec.quantizer.config.num_quantizers):
        digest.update(codes.contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()


def _read(path: Path, names: list[str]) -> dict[str, str]:
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        before: dict[str, str] = report["before"]
        clips = report["clips"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f"{path} cannot be read ({error}): without it nothing tells whether the codes "
            "have changed; start a run in another output=DIR"
        ) from error
    if clips != names:
        raise TrainingError(
            f"the run began with {len(clips)} validation clips, of whose codes {path} has the "
            f"hash, and would be resumed with {len(names)} or with others; resume with the "
            "validation.clips and the data that it had"
        )
    return before
