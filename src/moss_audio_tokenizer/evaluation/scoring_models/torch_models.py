"""Scoring models in PyTorch: any of transformers, WavLM speaker verification, and UTMOS22.

The last two are published as pickled checkpoints, which this package does not open.
`recipes/convert_scoring_models.py` writes a folder with config.json and model.safetensors once;
only that is read here. Layers carry the names of the published checkpoints.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from ...errors import CheckpointError, one_line
from ..loading import (
    load_feature_extractor,
    load_pretrained,
    transformers_class,
)

# UTMOS22 was trained with the ratings of many listeners; this one is asked at inference.
_LISTENER = 288
_HIGHEST_LISTENER = 3000


def embedder(path: str) -> Callable[[np.ndarray, int], np.ndarray]:
    """A speaker-verification model (WavLM, wav2vec 2.0 x-vectors, ...): samples -> embedding."""
    model, features = load_pretrained("AutoModelForAudioXVector", path), _features(path)
    run = torch.inference_mode()(model)
    return lambda samples, rate: run(**features(samples, rate)).embeddings[0].numpy()


def rater(path: str) -> Callable[[np.ndarray, int], float]:
    """A model of one output, such as a predictor of mean opinion scores: samples -> score.

    Raises:
        CheckpointError: the model has several outputs.
    """
    model, features = load_pretrained("AutoModelForAudioClassification", path), _features(path)
    if model.config.num_labels != 1:
        raise CheckpointError(
            f"the model at {path!r} has {model.config.num_labels} outputs; expected one, the score"
        )

    run = torch.inference_mode()(model)
    return lambda samples, rate: float(run(**features(samples, rate)).logits)


def transcriber(path: str) -> Callable[[np.ndarray, int], str]:
    """A speech recognition model by the pipeline of transformers: samples -> text."""
    pipeline = transformers_class("pipeline")
    try:
        safe = {"use_safetensors": True}
        recognize = pipeline("automatic-speech-recognition", path, device="cpu", model_kwargs=safe)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"no speech recognition model at {path!r} ({error})") from error

    def text_of(samples: np.ndarray, sampling_rate: int) -> str:
        sound = {"raw": samples.astype(np.float32), "sampling_rate": sampling_rate}
        return str(recognize(sound)["text"])

    return text_of


def _features(path: str) -> Callable[[np.ndarray, int], Any]:
    """The model's own preparation of samples."""
    extract = load_feature_extractor(path)
    return lambda samples, rate: extract(
        samples.astype(np.float32), sampling_rate=rate, return_tensors="pt"
    )


def wavlm_embedder(folder: str) -> Callable[[np.ndarray, int], np.ndarray]:
    """The speaker model of Seed-TTS-Eval and of the paper's SIM: samples to embedding.

    Raises:
        CheckpointError: the folder is not one of a converted model.
        MissingDependencyError: transformers is not installed.
    """
    model = _converted(folder, "wavlm-speaker-verification", SpeakerVerification)
    return lambda samples, _: model(samples)[0].numpy()


def utmos_rater(folder: str) -> Callable[[np.ndarray, int], float]:
    """UTMOS22 (the strong learner): samples to a predicted opinion score from 1 to 5.

    Raises:
        CheckpointError: the folder is not one of a converted model.
        MissingDependencyError: transformers is not installed.
    """
    model = _converted(folder, "utmos22-strong", Utmos22)
    return lambda samples, _: float(model(samples))


def _converted(
    folder: str, kind: str, build: Callable[[dict[str, Any]], nn.Module]
) -> Callable[[np.ndarray], torch.Tensor]:
    """The model of a converted folder, as a function of samples at 16 kHz."""
    path = Path(folder)
    try:
        config = json.loads((path / "config.json").read_text("utf-8"))
        if config["model_type"] != kind:
            raise ValueError(f"its model_type is {config['model_type']!r}")
        model = build(config)
        model.load_state_dict(load_file(path / "model.safetensors"))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(
            f"no converted {kind} model in {folder!r} ({one_line(error, 300)}); make one with "
            "recipes/convert_scoring_models.py"
        ) from error
    model.eval()

    @torch.inference_mode()
    def run(samples: np.ndarray) -> torch.Tensor:
        return model(torch.from_numpy(samples).float()[None])

    return run


class SpeakerVerification(nn.Module):
    """ECAPA-TDNN on a learned mix of WavLM's hidden states.

    Sources: Chen et al., "WavLM", 2022; Desplanques et al., "ECAPA-TDNN", 2020.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        wavlm = transformers_class("WavLMConfig")(**config["wavlm"])
        channels, bottleneck = config["channels"], config["bottleneck"]
        self.wavlm = transformers_class("WavLMModel")(wavlm)
        self.feature_weight = nn.Parameter(torch.zeros(wavlm.num_hidden_layers + 1))
        self.layer1 = _ConvReluNorm(wavlm.hidden_size, channels, 5, padding=2)
        self.layer2 = _Res2Block(channels, 2, bottleneck)
        self.layer3 = _Res2Block(channels, 3, bottleneck)
        self.layer4 = _Res2Block(channels, 4, bottleneck)
        self.conv = nn.Conv1d(3 * channels, 3 * channels, 1)
        self.pooling = _AttentivePooling(3 * channels, bottleneck)
        self.bn = nn.BatchNorm1d(6 * channels)
        self.linear = nn.Linear(6 * channels, config["embedding_size"])

    def forward(self, audio: Float[torch.Tensor, "batch samples"]) -> torch.Tensor:
        """Embeddings of signals at 16 kHz."""
        audio = F.layer_norm(audio, audio.shape[1:])
        hidden = torch.stack(self.wavlm(audio, output_hidden_states=True).hidden_states)
        mixed = torch.einsum("l,lbtc->bct", self.feature_weight.softmax(0), hidden)
        first = self.layer1(F.instance_norm(mixed + 1e-6))
        second = self.layer2(first)
        third = self.layer3(second)
        fourth = self.layer4(third)
        joined = F.relu(self.conv(torch.cat((second, third, fourth), 1)))
        return self.linear(self.bn(self.pooling(joined)))


class _ConvReluNorm(nn.Module):
    def __init__(self, channels_in: int, channels: int, kernel: int, padding: int = 0) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels_in, channels, kernel, padding=padding, bias=False)
        self.bn = nn.BatchNorm1d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn(F.relu(self.conv(x)))


class _Res2(nn.Module):
    """A convolution in groups, each of which also sees the output of the one before."""

    def __init__(self, channels: int, dilation: int, groups: int = 8) -> None:
        super().__init__()
        self.width = width = channels // groups
        self.convs = nn.ModuleList(
            nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation, bias=False)
            for _ in range(groups - 1)
        )
        self.bns = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(groups - 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        *parts, last = x.split(self.width, 1)
        outputs: list[torch.Tensor] = []
        for part, conv, norm in zip(parts, self.convs, self.bns, strict=True):
            seen = part + outputs[-1] if outputs else part
            outputs.append(norm(F.relu(conv(seen))))
        return torch.cat((*outputs, last), 1)


class _ChannelGate(nn.Module):
    """Squeeze and excitation: channels scaled by what their means over time say."""

    def __init__(self, channels: int, bottleneck: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(channels, bottleneck)
        self.linear2 = nn.Linear(bottleneck, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = torch.sigmoid(self.linear2(F.relu(self.linear1(x.mean(2)))))
        return x * gate[:, :, None]


class _Res2Block(nn.Module):
    def __init__(self, channels: int, dilation: int, bottleneck: int) -> None:
        super().__init__()
        self.Conv1dReluBn1 = _ConvReluNorm(channels, channels, 1)
        self.Res2Conv1dReluBn = _Res2(channels, dilation)
        self.Conv1dReluBn2 = _ConvReluNorm(channels, channels, 1)
        self.SE_Connect = _ChannelGate(channels, bottleneck)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.Conv1dReluBn2(self.Res2Conv1dReluBn(self.Conv1dReluBn1(x)))
        gated: torch.Tensor = self.SE_Connect(inner)
        return x + gated


class _AttentivePooling(nn.Module):
    """Mean and deviation over time, weighted by attention for each channel."""

    def __init__(self, channels: int, bottleneck: int) -> None:
        super().__init__()
        self.linear1 = nn.Conv1d(channels, bottleneck, 1)
        self.linear2 = nn.Conv1d(bottleneck, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights = self.linear2(torch.tanh(self.linear1(x))).softmax(2)
        mean = (weights * x).sum(2)
        variance = (weights * x**2).sum(2) - mean**2
        return torch.cat((mean, variance.clamp_min(1e-9).sqrt()), 1)


class Utmos22(nn.Module):
    """wav2vec 2.0, a recurrent layer and a projection; the mean over frames is the score.

    Source: Saeki et al., "UTMOS: UTokyo-SaruLab system for VoiceMOS Challenge 2022", 2022.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        wav2vec2 = transformers_class("Wav2Vec2Config")(**config["wav2vec2"])
        condition, hidden = config["condition_size"], config["hidden_size"]
        self.wav2vec2 = transformers_class("Wav2Vec2Model")(wav2vec2)
        self.domain_emb = nn.Parameter(torch.zeros(1, condition))
        self.judge_emb = nn.Embedding(_HIGHEST_LISTENER, condition)
        self.blstm = nn.LSTM(
            wav2vec2.hidden_size + 2 * condition, hidden, batch_first=True, bidirectional=True
        )
        self.projection = nn.Sequential(
            nn.Linear(2 * hidden, config["projection_size"]),
            nn.ReLU(),
            nn.Linear(config["projection_size"], 1),
        )

    def forward(self, audio: Float[torch.Tensor, "batch samples"]) -> torch.Tensor:
        """Opinion scores of signals at 16 kHz."""
        frames = self.wav2vec2(audio).last_hidden_state
        listener = self.judge_emb(torch.full((len(audio),), _LISTENER))
        condition = torch.cat((self.domain_emb.expand(len(audio), -1), listener), 1)
        conditions = condition[:, None].expand(-1, frames.shape[1], -1)
        hidden, _ = self.blstm(torch.cat((frames, conditions), 2))
        scores: torch.Tensor = self.projection(hidden)[..., 0].mean(1)
        return 2 * scores + 3
