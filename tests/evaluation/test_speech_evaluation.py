"""Recognition and synthesis by number of quantizers, with systems of exact arithmetic."""

import json
from dataclasses import replace
from math import isnan

import numpy as np
import pytest
import soundfile
from pages import Page
from toy_codecs import ByteCodec

from moss_audio_tokenizer.errors import CodesError, EvaluationError, InputError
from moss_audio_tokenizer.evaluation.datasets import SpeechItem, read_test_items
from moss_audio_tokenizer.evaluation.speech.asr_eval import AsrPlan, run_asr
from moss_audio_tokenizer.evaluation.speech.speech_report import points_of, write_results
from moss_audio_tokenizer.evaluation.speech.tts_eval import TtsPlan, run_tts
from moss_audio_tokenizer.manifest import read_manifest
from moss_audio_tokenizer.speech.synthesizer import Speech

pytest.importorskip("jiwer")
pytest.importorskip("matplotlib")
pytest.importorskip("scipy")

CODES = np.zeros((1, 1), np.int64)


def write_manifest(folder, lines):
    path = folder / "lines.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


def silently(done, total):
    assert done <= total


class AsrSystem:
    """Understands two words with one quantizer's codes, and three with both."""

    identity, num_quantizers = "asr", 2

    def __init__(self):
        self.calls = []

    def transcribe_codes(self, clips, num_quantizers, num_beams=1):
        self.calls.append((len(clips), num_quantizers))
        assert all(len(codes) == num_quantizers for codes in clips)
        return [" ".join(["one", "TWO", "three"][: num_quantizers + 1]) for _ in clips]


class TtsSystem:
    """A note for every word, the higher the more layers; "mute" is refused, "" is silent."""

    identity, num_quantizers, kbps_per_quantizer = "tts", 4, 0.125

    def __init__(self):
        self.seeds = {}

    def synthesize(self, requests, num_quantizers, seed):
        if any("mute" in one.text for one in requests):
            raise InputError("a word that nobody can say")
        for index, one in enumerate(requests):
            self.seeds[one.text, num_quantizers] = seed + index
        return [self.say(one.text, num_quantizers) for one in requests]

    def say(self, text, layers):
        if text == "silence":
            return Speech(np.zeros(0, np.float32), 24_000, CODES, True)
        time = np.arange(6_000 * len(text.split())) / 24_000
        sound = 0.3 * np.sin(2 * np.pi * 200 * layers * time)
        return Speech(sound.astype(np.float32), 24_000, CODES, len(text.split()) < 4)


def count(samples, rate):
    """Hears a word every quarter of a second."""
    return " ".join(["one", "two", "three", "four"][: round(4 * len(samples) / rate)])


@pytest.fixture
def clips(manifest):
    return read_manifest(manifest, "valid", "speech")


def test_error_rates_fall_with_quantizers_and_a_broken_clip_costs_itself(clips, tmp_path):
    plan = AsrPlan([*clips], ByteCodec(), batch_size=1)
    rows = run_asr({"toy": AsrSystem()}, plan, tmp_path, silently)
    # The broken clip of the manifest has no text, so nobody asks for it.
    assert [(row.path, row.num_quantizers) for row in rows] == [
        (f"speech{index}.wav", layers) for layers in (1, 2) for index in (0, 1)
    ]
    assert [row.transcripts[""].wer for row in rows] == pytest.approx([1 / 3, 1 / 3, 0, 0])
    assert rows[0].as_json()["read"] == "one TWO"


def test_a_clip_that_cannot_be_read_has_rows_that_say_so(tmp_path):
    (tmp_path / "broken.wav").write_bytes(b"RIFF, or so it says")
    path = write_manifest(tmp_path, [{"path": "broken.wav", "text": "one"}])
    plan = AsrPlan(read_manifest(path), ByteCodec())
    rows = run_asr({"toy": AsrSystem()}, plan, tmp_path, silently)
    assert [row.num_quantizers for row in rows] == [1, 2]
    assert all("broken.wav" in row.as_json()["error"] for row in rows)
    (first, _) = points_of(rows)
    assert (first.num_texts, first.num_failed, first.metrics) == (0, 1, {})


class Interrupted(AsrSystem):
    """Is stopped at its third batch."""

    def transcribe_codes(self, clips, num_quantizers, num_beams=1):
        if len(self.calls) == 2:
            raise KeyboardInterrupt
        return super().transcribe_codes(clips, num_quantizers, num_beams)


def test_an_interrupted_recognition_run_resumes(clips, tmp_path):
    plan = AsrPlan(clips, ByteCodec(), batch_size=1)
    whole = run_asr({"toy": AsrSystem()}, plan, tmp_path / "whole", silently)
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run_asr({"toy": Interrupted()}, plan, folder, silently)
    with (folder / "results.jsonl").open("a") as file:
        file.write('{"path": "spee')
    system, calls = AsrSystem(), []
    rows = run_asr({"toy": system}, plan, folder, lambda *counts: calls.append(counts))
    assert rows == whole
    assert system.calls == [(1, 1), (1, 2)]
    assert calls == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]
    lines = [(one / "results.jsonl").read_bytes() for one in (folder, tmp_path / "whole")]
    assert lines[0] == lines[1]


def test_what_has_changed_is_recognized_again(clips, tmp_path):
    def calls(plan, system):
        run_asr({"toy": system}, plan, tmp_path, silently)
        return len(system.calls)

    plan = AsrPlan(clips, ByteCodec(), (2,), batch_size=1)
    assert [calls(plan, AsrSystem()) for _ in range(2)] == [2, 0]
    assert calls(replace(plan, num_beams=3), AsrSystem()) == 2
    other = AsrSystem()
    other.identity = "trained longer"
    assert calls(replace(plan, num_beams=3), other) == 2
    changed = [replace(clips[0], text="another"), *clips[1:]]
    assert calls(replace(plan, clips=changed), AsrSystem()) == 2
    sound, rate = soundfile.read(clips[1].path)
    soundfile.write(clips[1].path, 0.5 * sound, rate)
    assert calls(replace(plan, clips=changed), AsrSystem()) == 1


def test_results_of_a_codec_are_not_those_of_a_speech_model(clips, tmp_path):
    row = {"path": "speech0.wav", "domain": "speech", "text": "one", "model": "toy"}
    (tmp_path / "results.jsonl").write_text(json.dumps(row | {"num_quantizers": 1}) + "\n")
    with pytest.raises(EvaluationError, match=r"a row of such a run .*codec's evaluation"):
        run_asr({"toy": AsrSystem()}, AsrPlan(clips, ByteCodec()), tmp_path, silently)


def test_quantizers_that_a_model_lacks_are_refused(clips, tmp_path):
    with pytest.raises(CodesError, match="expected 1 to 2 for 'toy'"):
        run_asr({"toy": AsrSystem()}, AsrPlan(clips, ByteCodec(), (1, 3)), tmp_path, silently)


def test_nothing_to_compare_with_is_refused(clips):
    with pytest.raises(InputError, match="none of the clips has a text"):
        AsrPlan(clips[2:], ByteCodec())
    with pytest.raises(InputError, match="no scoring model"):
        TtsPlan([SpeechItem("a", "text")], {})


ITEMS = [
    SpeechItem("1", "one"),
    SpeechItem("2", "one, Two!"),
    SpeechItem("3", "silence"),
    SpeechItem("4", "mute"),
]


def test_speech_is_read_kept_and_compared(tmp_path, manifest):
    prompt = manifest.parent / "speech0.wav"
    items = [SpeechItem("p", "one two three four", prompt, "speech0.wav", "One"), *ITEMS]
    system = TtsSystem()
    plan = TtsPlan(
        items, {"count": count}, lambda samples, rate: np.ones(3), (1, 4), seed=5, batch_size=2
    )
    rows = run_tts({"toy": system}, plan, tmp_path, silently)
    assert [row.path for row in rows if row.num_quantizers == 4] == ["p", "1", "2", "3", "4"]
    first, second, third, silent, failed = rows[:5]
    assert first.transcripts["count"].wer == 0.0
    assert first.similarity == pytest.approx(1.0)
    assert (first.finished, second.finished) == (False, True)
    assert isnan(second.similarity)
    assert third.transcripts["count"].wer == 0.0
    assert (silent.audio, silent.transcripts["count"].wer) == ("", 1.0)
    assert "nobody can say" in failed.error
    sound, rate = soundfile.read(tmp_path / first.audio)
    assert (len(sound), rate) == (24_000, 24_000)
    # The fourth's batch broke, and yet everyone has the seed of its place.
    assert [system.seeds[item.text, 4] for item in items[:4]] == [5, 6, 7, 8]


def test_an_interrupted_synthesis_run_resumes(tmp_path):
    def seeds(plan):
        system = TtsSystem()
        rows = run_tts({"toy": system}, plan, tmp_path, silently)
        return rows, set(system.seeds)

    items = [SpeechItem("1", "one"), SpeechItem("2", "one two"), SpeechItem("3", "silence")]
    plan = TtsPlan(items, {"count": count}, quantizer_counts=(1,), batch_size=2)
    rows, done = seeds(plan)
    assert done == {("one", 1), ("one two", 1), ("silence", 1)}
    again, done = seeds(plan)
    assert (again, done) == (rows, set())
    # A speech that was deleted is made again, with the others of its batch.
    (tmp_path / rows[1].audio).unlink()
    again, done = seeds(plan)
    assert (again, done) == (rows, {("one", 1), ("one two", 1)})
    assert (tmp_path / rows[1].audio).is_file()
    for changed in (replace(plan, seed=7), replace(plan, settings="another ASR model")):
        assert len(seeds(changed)[1]) == 3
    assert seeds(replace(plan, items=items[:1]))[1] == {("one", 1)}


def test_words_weigh_and_not_texts(tmp_path):
    items = [SpeechItem("1", "one"), SpeechItem("2", "one two four")]
    rows = run_tts({"a": TtsSystem()}, TtsPlan(items, {"count": count}), tmp_path, silently)
    points = points_of(rows)
    assert [point.num_quantizers for point in points] == [1, 2, 4]
    assert points[0].metrics["WER, count"].mean == pytest.approx(1 / 4)


def test_files_and_the_page_of_speech(tmp_path, manifest):
    prompt = manifest.parent / "speech0.wav"
    items = [SpeechItem("p <1>", "one two", prompt, "speech0.wav", "One"), *ITEMS]
    plan = TtsPlan(items, {"count": count}, lambda samples, rate: np.ones(3), (1, 2, 4))
    folder = tmp_path / "run"
    folder.mkdir()
    rows = run_tts({"p0": TtsSystem(), "p1": TtsSystem()}, plan, folder, silently)
    text = write_results(folder, rows, "Title", "command", ["a note"], items, 2, 0.125)
    assert (folder / "summary.md").read_text("utf-8") == text
    assert "| p1 | 4 | 4 (1 failed) | 0.167" in text
    assert "- a note" in text
    assert "failed: 4 (p0, p1): a word that nobody can say" in text
    lines = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert len(lines) == 2 * 3 * 5
    assert lines[0]["transcripts"]["count"]["wer"] == 0.0
    assert (lines[1]["similarity"], lines[1]["opinion"]) == (None, None)
    names = {path.name for path in (folder / "plots").iterdir()}
    assert names == {"wer_count.png", "cer_count.png", "sim.png"}
    document = json.loads((folder / "summary.json").read_text("utf-8"))
    assert document["failed"] == ["4"]
    assert [point["num_quantizers"] for point in document["points"]] == [1, 2, 4] * 2
    page = Page((folder / "report.html").read_text("utf-8"))
    # Two examples: the prompt and two models at 1 of (1, 8, 32) quantizers; one has no prompt.
    assert len(page.all("audio")) == 1 + 2 + 2
    assert "p &lt;1&gt;" in (folder / "report.html").read_text("utf-8")


def test_files_and_the_page_of_reading(clips, tmp_path):
    rows = run_asr({"toy": AsrSystem()}, AsrPlan(clips, ByteCodec()), tmp_path, silently)
    write_results(tmp_path, rows, "Title", "command")
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert lines[0]["text"] == "One, two, three."
    assert lines[0]["read"] == "one TWO"
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {"wer.png", "cer.png"}
    text = (tmp_path / "report.html").read_text("utf-8")
    assert "said: One, two, three." in text
    assert "one TWO" in text
    assert Page(text).all("audio") == []


@pytest.fixture
def prompts(tmp_path):
    lines = [
        {"path": "a1.wav", "text": "first", "speaker": "a"},
        {"path": "b1.wav", "text": "second", "speaker": "b"},
        {"path": "a2.wav", "text": "third", "speaker": "a"},
        {"path": "noise.wav", "domain": "sound"},
    ]
    return write_manifest(tmp_path, lines)


def test_a_text_file_takes_prompts_in_turn(tmp_path, prompts):
    path = tmp_path / "texts.txt"
    path.write_text("\ufeffone\n\n two \nthree\nfour", "utf-8")
    items = read_test_items(path, prompts)
    assert [item.text for item in items] == ["one", "two", "three", "four"]
    assert [item.prompt_text for item in items] == ["first", "second", "third", "first"]
    assert read_test_items(path, limit=1) == [SpeechItem("text 1", "one")]


def test_a_manifest_takes_other_recordings_of_its_speakers(prompts):
    items = read_test_items(prompts, prompts)
    assert [item.name for item in items] == ["a1.wav", "b1.wav", "a2.wav"]
    # b has no other recording: a voice that says something else is better than b's own answer.
    assert [item.prompt_name for item in items] == ["a2.wav", "a2.wav", "a1.wav"]


def test_no_prompt_says_the_text_itself_where_there_is_another(tmp_path, prompts):
    path = tmp_path / "texts.txt"
    path.write_text("first\nsecond\n", "utf-8")
    assert [item.prompt_text for item in read_test_items(path, prompts)] == ["second", "third"]


def test_a_manifest_may_name_its_own_prompts(tmp_path):
    line = {"path": "x.wav", "text": "say", "prompt_path": "p.wav", "prompt_text": "transcript"}
    (item,) = read_test_items(write_manifest(tmp_path, [line]))
    assert (item.prompt, item.prompt_text) == (tmp_path / "p.wav", "transcript")
    with pytest.raises(InputError, match=r"line 1 .*both or none"):
        read_test_items(write_manifest(tmp_path, [line | {"prompt_text": None}]))


def test_the_list_of_seed_tts_eval(tmp_path):
    path = tmp_path / "meta.lst"
    path.write_text("u1|prompt text|wavs/p.wav|target text\nu2|p|w.wav|t|gt.wav\n", "utf-8")
    first, second = read_test_items(path)
    assert first == SpeechItem(
        "u1", "target text", tmp_path / "wavs/p.wav", "wavs/p.wav", "prompt text", "en"
    )
    assert second.text == "t"
    path.write_text("u1|only two\n", "utf-8")
    with pytest.raises(InputError, match=r"line 1.*name\|prompt text"):
        read_test_items(path)


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_nothing_to_say_is_refused(tmp_path, content):
    path = tmp_path / "texts.txt"
    path.write_text(content, "utf-8")
    with pytest.raises(InputError, match="no texts"):
        read_test_items(path)
