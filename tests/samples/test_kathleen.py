import kathleen
import numpy as np
import pytest
import soundfile as sf
from natural_texts import is_held_out

from moss_audio_tokenizer.manifest import read_manifest

PROMPTS = [f"She saw {count} ships." for count in ("one", "two", "six", "ten", "no", "my", "all")]


@pytest.fixture
def repository(tmp_path):
    (tmp_path / "source/data").mkdir(parents=True)
    lines = []
    for number, prompt in enumerate(PROMPTS):
        lines.append(f'( arctic_a{number:04d} "{prompt}" )')
        stem = tmp_path / f"source/data/arctic_a{number:04d}_159"
        sf.write(stem.with_suffix(".wav"), np.full((4800, 2), 0.1), 48_000)
        stem.with_suffix(".txt").write_text(prompt + "\n")
    (tmp_path / "source/cmuarctic.data").write_text("\n".join(lines))
    return tmp_path / "source"


def test_recordings_become_mono_clips_with_a_split_by_prompt(repository, tmp_path):
    for _ in range(2):
        kathleen.main(repository, tmp_path / "clips")
    entries = read_manifest(tmp_path / "clips/manifest.jsonl")
    assert [entry.text for entry in entries] == PROMPTS
    for entry in entries:
        assert entry.split == ("test" if is_held_out(entry.text) else "train")
        assert entry.seconds == pytest.approx(0.1)
        assert sf.info(entry.path).samplerate == 24_000
    assert {path.suffix for path in (tmp_path / "clips").iterdir()} == {".flac", ".jsonl"}
