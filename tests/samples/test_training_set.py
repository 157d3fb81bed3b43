import io
import json
import tarfile

import numpy as np
import pytest
import soundfile as sf
import training_set

from moss_audio_tokenizer.manifest import read_manifest


def written(folder, clips, rate):
    """A manifest of tones: (split, seconds) of each."""
    folder.mkdir()
    lines = []
    for number, (split, seconds) in enumerate(clips):
        tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)
        sf.write(folder / f"{number}.wav", np.stack([tone, tone], 1), rate)
        row = {"path": f"{number}.wav", "split": split, "seconds": seconds, "speaker": None}
        lines.append(row | {"text": f"tone {number}", "license": "CC0-1.0"})
    (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "manifest.jsonl"


@pytest.fixture
def manifests(tmp_path):
    clips = [("train", 0.5), ("valid", 0.5), ("test", 0.5), ("train", 0.25)]
    return written(tmp_path / "wide", clips, 48_000), written(
        tmp_path / "narrow", 4 * [("train", 0.5)], 16_000
    )


def test_what_is_packed_is_unpacked(manifests, tmp_path, capsys):
    wide, narrow = manifests
    arguments = ["pack", str(tmp_path / "set.tar"), f"{wide}@32", f"{narrow}@16"]
    training_set.main(arguments)
    training_set.main(["unpack", str(tmp_path / "set.tar"), str(tmp_path / "set")])
    assert "train: 6 clips" in capsys.readouterr().out
    entries = read_manifest(tmp_path / "set/manifest.jsonl")
    assert [entry.split for entry in entries] == ["train", "train", "valid", *4 * ["train"]]
    assert [entry.text for entry in entries[:3]] == ["tone 0", "tone 3", "tone 1"]
    assert [entry.seconds for entry in entries[:3]] == [0.5, 0.25, 0.5]
    for entry in entries:
        audio, rate = sf.read(entry.path)
        assert (rate, len(audio)) == (24_000, entry.seconds * 24_000)
        expected = 0.3 * np.sin(2 * np.pi * 440 * np.arange(len(audio)) / 24_000)
        assert np.corrcoef(audio, expected)[0, 1] > 0.98
    counted = json.loads((tmp_path / "set/sources.json").read_text())
    assert [(row["source"], row["clips"]) for row in counted] == [("narrow", 4), ("wide", 3)]


def test_the_bitrate_is_what_is_asked_for():
    noise = np.random.default_rng(0).standard_normal(10 * 24_000).astype(np.float32) * 0.1
    sizes = {kbps: len(training_set.encoded(noise, kbps)) * 8 / 10_000 for kbps in (16, 32, 64)}
    for kbps, found in sizes.items():
        assert kbps * 0.85 < found < kbps * 1.2


def test_hours_are_spread_over_a_manifest():
    rows = [{"number": number, "seconds": 36.0} for number in range(10)]
    chosen = [row["number"] for row in training_set.within_hours(rows, 0.05)]
    assert chosen == [0, 2, 4, 6, 8]
    assert training_set.within_hours(rows, 1.0) == training_set.within_hours(rows, None) == rows


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{wide}@32", "--megabytes", "0.001"], "take a lower bitrate"),
        (["{wide}@32", "{wide}@16"], "expected other names"),
        (["{wide}"], "expected MANIFEST@KBPS"),
        (["{wide}@4"], "6 to 256 kbit/s"),
    ],
)
def test_what_cannot_be_packed_is_refused(manifests, tmp_path, arguments, said):
    filled = [argument.format(wide=manifests[0]) for argument in arguments]
    with pytest.raises(SystemExit, match=said):
        training_set.main(["pack", str(tmp_path / "set.tar"), *filled])
    assert not list(tmp_path.glob("set.tar*"))


def test_a_set_that_lacks_a_clip_is_refused(tmp_path):
    line = json.dumps({"path": "a/0.opus"}).encode()
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        member = tarfile.TarInfo("manifest.jsonl")
        member.size = len(line)
        archive.addfile(member, io.BytesIO(line))
    with tarfile.open(tmp_path / "other.tar", "w"):
        pass
    with pytest.raises(SystemExit, match=r"has no manifest\.jsonl"):
        training_set.unpack(tmp_path / "other.tar", tmp_path / "set")
    with pytest.raises(SystemExit, match=r"lacks a/0\.opus"):
        training_set.unpack(tmp_path / "set.tar", tmp_path / "set")
    assert not (tmp_path / "set").exists()
