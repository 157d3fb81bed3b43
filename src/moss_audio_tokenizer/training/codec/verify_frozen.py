"""Verification that fine-tuning changed nothing that is frozen: hashes before and after.

Owns frozen.json. Hashes cover every tensor of what is frozen and, where encoder and quantizer
are, the codes of the validation clips.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from ...checkpoint.codec_checkpoint import write_json
from ...errors import TrainingError
from ...files import atomic_path
from ...model.codec import Codec
from ...runtime.inference_codec import InferenceEncoder
from ...runtime.offline import encode_rows
from ..data.audio_rows import Clip

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
    for codes, _ in encode_rows(half, audio, codec.quantizer.config.num_quantizers):
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
