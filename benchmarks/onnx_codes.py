"""Codes and audio of ONNX exports beside PyTorch's, on the held-out clips of a manifest.

`python benchmarks/onnx_codes.py MANIFEST [--model bundled]` exports the model in several
precisions and prints, for each, the size, the share of codes that differ from PyTorch's and the
signal-to-noise ratio of decoding the same codes. Without a manifest nothing is measured. Needs
the torch and export extras.
"""

import argparse
import tempfile
from pathlib import Path
from statistics import median

import numpy as np

from moss_audio_tokenizer import load_audio
from moss_audio_tokenizer.export.onnx_export import export_onnx
from moss_audio_tokenizer.hf.torch_codec import TorchCodec
from moss_audio_tokenizer.manifest import read_manifest
from moss_audio_tokenizer.onnx.tokenizer import OnnxCodec

# Encoder and decoder.
_PRECISIONS = [("stored", "stored"), ("fp16", "fp16"), ("stored", "int8"), ("int8", "int8")]


def decibels(reference: np.ndarray, estimate: np.ndarray) -> float:
    """Signal-to-noise ratio."""
    noise = np.square(reference - estimate).sum()
    return float(10 * np.log10(np.square(reference).sum() / max(float(noise), 1e-20)))


def main() -> None:
    """Parse the command line and print a Markdown table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("manifest", type=Path, nargs="?")
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--limit", type=int, help="the first N clips only")
    options = parser.parse_args()
    if options.manifest is None:
        print("no MANIFEST given: nothing to measure (see --help)")
        return
    reference = TorchCodec.from_pretrained(options.model)
    info = reference.info
    entries = read_manifest(options.manifest, "valid")[: options.limit]
    clips = [load_audio(entry.path, info.sampling_rate, info.num_channels) for entry in entries]
    exact = [reference.encode(clip) for clip in clips]
    audio = [reference.decode(codes) for codes in exact]
    print("| encoder | decoder | weights | codes changed | layer 1 | SNR, median | least |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for encoder, decoder in _PRECISIONS:
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "exported"
            export_onnx(options.model, target, encoder=encoder, decoder=decoder, force=True)
            codec = OnnxCodec.from_pretrained(target)
            size = sum(file.stat().st_size for file in target.glob("*.safetensors"))
            codes = [codec.encode(clip) for clip in clips]
            changed = np.concatenate([a != b for a, b in zip(exact, codes, strict=True)], axis=1)
            ratios = [decibels(a, codec.decode(c)) for a, c in zip(audio, exact, strict=True)]
        print(
            f"| {encoder} | {decoder} | {size / 1e6:.1f} MB | {changed.mean():.4%} of "
            f"{changed.size:,} | {changed[0].mean():.2%} | {median(ratios):.0f} dB | "
            f"{min(ratios):.0f} dB |",
            flush=True,
        )


if __name__ == "__main__":
    main()
