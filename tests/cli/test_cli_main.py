"""`moss-audio` itself: help, version, usage errors, and what starting it must not load."""

import subprocess
import sys

import pytest

from moss_audio_tokenizer import __version__

PROGRAM = "from moss_audio_tokenizer.cli.main import run; run()"
HEAVY = {"numpy", "torch", "transformers", "soundfile", "soxr", "scipy", "matplotlib"}


def moss_audio_process(*arguments, before=""):
    return subprocess.run(
        [sys.executable, "-c", before + PROGRAM, *arguments], capture_output=True, text=True
    )


def test_help_is_light():
    shown_at_exit = "import atexit, sys; atexit.register(lambda: print(*sys.modules)); "
    done = moss_audio_process("--help", before=shown_at_exit)
    assert done.returncode == 0, done.stderr
    loaded = {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}
    assert "typer" in loaded
    assert not HEAVY & loaded


def test_an_error_is_one_line_in_a_real_process(tmp_path):
    done = moss_audio_process("info", str(tmp_path / "missing.moss"))
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("moss-audio: error: ")
    assert "missing.moss" in line


@pytest.mark.parametrize("command", ["encode", "decode", "reconstruct", "info", "train"])
def test_every_command_explains_itself_with_an_example(moss_audio, command):
    assert command in moss_audio("-h").stdout
    text = moss_audio(command, "--help").stdout
    assert f"Example: moss-audio {command} " in text


COMMANDS = [
    *("encode", "decode", "reconstruct", "info", "tokenize", "detokenize", "stats"),
    *("data prepare", "data speak", "train", "study", "eval", "eval asr", "eval tts", "compare"),
    *("verify", "bench", "listening-test", "listening-results", "serve", "demo", "tts", "asr"),
    *("export onnx", "export hf"),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_an_example(moss_audio, command):
    text = " ".join(moss_audio(*command.split(), "--help").stdout.split())
    assert "Example" in text
    assert f" moss-audio {command}" in text.partition("Example")[2]


def test_commands_come_in_groups(moss_audio):
    lines = moss_audio("--help").stdout.splitlines()
    groups = [line.strip("╭─╮ ") for line in lines if line.startswith("╭")]
    assert groups == ["Options", "Use", "Data sets", "Train", "Measure", "Serve", "Speech"]
    text = " ".join("\n".join(lines).split())
    assert "moss-audio reconstruct speech.wav -o out.wav" in text


def test_help_of_train_lists_recipes(moss_audio):
    from moss_audio_tokenizer.training.recipes import RECIPES

    text = moss_audio("train", "--help").stdout
    assert all(f"{name}: " in text for name in RECIPES)


def test_usage_says_that_several_files_are_taken(moss_audio):
    for command in ("encode", "decode", "reconstruct", "asr"):
        assert "IN..." in moss_audio(command, "--help").stdout


def test_version(moss_audio):
    assert moss_audio("--version").stdout == f"moss-audio {__version__}\n"


def test_nothing_asked_shows_help(moss_audio):
    result = moss_audio()
    assert result.exit_code == 2
    assert "reconstruct" in result.output
    assert "error:" not in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nonsense"], "No such option: --nonsense"),
        (["encode", "a.wav", "--nonsense"], "No such option: --nonsense"),
        (["nonsense"], "No such command 'nonsense'"),
        (["encode", "-o", "x.moss"], "Missing argument 'IN...'"),
        (["encode", "a.wav"], "Missing option '--output'"),
        (["encode", "a.wav", "-o", "x.moss", "--format", "mp3"], "'mp3'"),
    ],
)
def test_usage_errors(refused, arguments, message):
    line = refused(*arguments)
    assert message in line
    assert line.endswith("--help")
