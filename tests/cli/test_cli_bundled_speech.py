"""Speech models in the package's folder are what commands and server use by default."""

import json
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import moss_audio_tokenizer
from moss_audio_tokenizer.asr import CatAsr, CatAsrConfig
from moss_audio_tokenizer.export.speech_export import export_speech
from moss_audio_tokenizer.llm import CharacterText, language_model_config
from moss_audio_tokenizer.speech import model_facts
from moss_audio_tokenizer.tts import CatTts, CatTtsConfig

TEXT = CharacterText(" abc")
SEED = 6
# A base install: without PyTorch, with the models of the folder that comes first.
BASE = """
import sys
from pathlib import Path
sys.modules["torch"] = sys.modules["transformers"] = None
from moss_audio_tokenizer.speech import model_facts
model_facts.BUNDLED_SPEECH = Path(sys.argv.pop(1))
from moss_audio_tokenizer.cli.main import run
run()
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder of toy models on the codes of the bundled codec."""
    folder = tmp_path_factory.mktemp("speech")
    codec = Path(moss_audio_tokenizer.__file__).parent / "bundled/onnx.json"
    common = {
        "text_config": language_model_config(8, 1, 1, TEXT.num_tokens),
        "num_quantizers": 2,
        "code_rank": 1,
        "codec": json.loads(codec.read_text(encoding="utf-8"))["identity"],
    }
    depth = {"depth_width": 8, "depth_layers": 1, "depth_heads": 1, "depth_key_value_heads": 1}
    sizes = {"depth_head_dim": 8, "depth_feedforward": 8, "adapter_width": 0}
    tts = CatTtsConfig(**common, **depth, **sizes)
    asr = CatAsrConfig(**common, frame_scores=True)
    models = {"tts": CatTts(tts, TEXT), "asr": CatAsr(asr, TEXT)}
    # To end is as likely as to continue: with this seed, speech continues at first.
    torch.nn.init.zeros_(models["tts"].depth.exits[0][2].weight)
    for kind, model in models.items():
        model.save_pretrained(folder / f"trained-{kind}")
        export_speech(folder / f"trained-{kind}", folder / kind)
    return folder


def command(folder, *arguments):
    return [sys.executable, "-c", BASE, str(folder), *map(str, arguments)]


def run(folder, *arguments) -> str:
    done = subprocess.run(command(folder, *arguments), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_commands_use_installed_models_without_torch(installed, tmp_path):
    spoken = tmp_path / "spoken.wav"
    run(installed, "tts", "a b", "-o", spoken, "--max-seconds", 0.4, "--seed", SEED)
    assert soundfile.info(spoken).samplerate == 24_000
    found = json.loads(run(installed, "asr", spoken, "--json"))
    assert found["files"][0].keys() >= {"text", "words", "duration_seconds"}


def test_sound_goes_down_a_pipe(installed):
    options = ("--stream", "-o", "-", "--max-seconds", 0.4, "--seed", SEED)
    done = subprocess.run(command(installed, "tts", "a b", *options), capture_output=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stdout) % (2 * 1920) == 0
    assert len(done.stdout) > 0


def test_a_voice_is_added_without_torch(installed, tmp_path):
    """As the documentation says."""
    folder, clip = tmp_path / "tts", tmp_path / "clip.wav"
    shutil.copytree(installed / "tts", folder)
    soundfile.write(clip, np.random.default_rng(0).normal(scale=0.1, size=12_000), 24_000)
    run(installed, "encode", clip, "-o", folder / "voices/anna.moss")
    (folder / "voices/anna.txt").write_text("a\n", "utf-8")
    options = ("--model", folder, "--voice", "anna", "--seed", SEED, "--max-seconds", 0.4)
    run(installed, "tts", "a b", "-o", tmp_path / "spoken.wav", *options)
    assert soundfile.info(tmp_path / "spoken.wav").frames > 0


def post(address: str, path: str, kind: str, body: bytes) -> tuple[int, bytes]:
    request = urllib.request.Request(address + path, body, {"Content-Type": kind})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def spoken_and_transcribed(address: str, recording: bytes) -> tuple[tuple[int, bytes], ...]:
    speech = json.dumps({"input": "a b", "max_seconds": 0.4, "seed": SEED}).encode()
    part = b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    form = b"--X\r\n" + part + recording + b"\r\n--X--\r\n"
    return (
        post(address, "/v1/audio/speech", "application/json", speech),
        post(address, "/v1/audio/transcriptions", "multipart/form-data; boundary=X", form),
    )


@pytest.fixture
def served(tmp_path):
    """Start the server of a base install; answers of its two routes of speech."""
    recording = tmp_path / "a.wav"
    samples = np.random.default_rng(0).normal(scale=0.1, size=12_000)
    soundfile.write(recording, samples, 24_000)

    def ask(folder, *options):
        line = command(folder, "serve", "--port", 0, "--threads", 1, *options)
        with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as server:
            try:
                address = server.stdout.readline().split()[-1]
                return spoken_and_transcribed(address, recording.read_bytes())
            finally:
                server.terminate()

    return ask


def test_the_server_uses_installed_models_without_torch(installed, served):
    (status, sound), (found, document) = served(installed)
    assert (status, sound[:4]) == (200, b"RIFF")
    assert found == 200
    assert json.loads(document).keys() == {"text"}


@pytest.mark.parametrize("options", [(), ("--tts", "none", "--asr", "none")])
def test_a_server_without_speech_models_says_what_to_do(installed, served, tmp_path, options):
    folder = installed if options else tmp_path
    for (status, document), remedy in zip(
        served(folder, *options), ("--tts FOLDER", "--asr FOLDER"), strict=True
    ):
        assert status == 404
        assert f"start it with {remedy}" in json.loads(document)["error"]["message"]


@pytest.mark.parametrize(
    ("arguments", "kind"), [(("tts", "a"), "text to speech"), (("asr", "a.wav"), "speech to text")]
)
def test_commands_without_a_model_say_what_to_do(refused, arguments, kind, monkeypatch, tmp_path):
    monkeypatch.setattr(model_facts, "BUNDLED_SPEECH", tmp_path)
    line = refused(*arguments)
    assert f"no model for {kind} is installed" in line
    assert f"train one with moss-audio train {arguments[0]}_tiny" in line


def test_weights_are_exported_in_8_bits(installed, tmp_path):
    line = ("export", "onnx", installed / "trained-tts", "-o", tmp_path / "tts", "--json")
    assert json.loads(run(installed, *line, "--weights", "int8"))["weights"] == "int8"


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        ("trained-tts", ("--weights", "int4"), "'int4'"),
        ("trained-tts", ("--int8",), "is a speech model, which has no option but --weights"),
        ("bundled", ("--weights", "int8"), "in place of --weights it takes --encoder"),
    ],
)
def test_wrong_types_of_weights_are_refused(installed, tmp_path, refused, model, options, words):
    model = model if model == "bundled" else installed / model
    assert words in refused("export", "onnx", model, "-o", tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()
