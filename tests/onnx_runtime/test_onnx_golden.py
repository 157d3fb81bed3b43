"""What the reference implementation computed, computed by exported graphs."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from moss_audio_tokenizer.export.onnx_export import export_onnx
from moss_audio_tokenizer.onnx import OnnxAudioTokenizer

FOLDERS = sorted((Path(__file__).parents[1] / "golden").glob("*/"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_codes_and_audio(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "checkpoint")
    export_onnx(tmp_path / "checkpoint", tmp_path / "exported")
    codec = OnnxAudioTokenizer.from_pretrained(tmp_path / "exported", num_threads=1)
    vectors = load_file(folder / "io.safetensors")
    mask = np.arange(vectors["wav"].shape[-1]) < vectors["lengths"][:, None]
    encoded = codec.encode(vectors["wav"], mask)
    for row, frames in enumerate(vectors["codes_lengths"]):
        expected = vectors["codes"][:, row, :frames]
        assert np.array_equal(encoded.audio_codes[:, row, :frames], expected)
    audio = vectors["audio"]
    decoded = codec.decode(vectors["dec_codes"]).audio[..., : audio.shape[-1]]
    assert np.abs(decoded - audio).max() <= 1e-4 * audio.std()
