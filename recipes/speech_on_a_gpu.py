r"""Train CAT-ASR and CAT-TTS on general English within minutes on one GPU.

    python recipes/speech_on_a_gpu.py pack corpus/kokoro corpus/kathleen corpus/test -o speech.tgz
    python recipes/speech_on_a_gpu.py train speech.tgz -o out --minutes 9
    python recipes/speech_on_a_gpu.py unpack out -o models

`pack` turns corpora (folders with a manifest.jsonl, as samples/natural_speech.py writes them) into
codes of the bundled model, 4 kbit/s, in one archive; clips of other splits than "train" are for
validation. `train` needs only the archive and this repository: recipe `asr_general` first, then
the alignment of every clip, then recipe `tts_general`. How many steps fit is planned from steps
that are timed once all caches are full. The models come out as 16-bit weights in parts of 15 MB,
each as soon as it is trained; SIGTERM ends the run under way early, with what it has learned.
`unpack` makes folders of the parts, for `moss-audio tts`, `asr` and `export onnx`.
"""

import argparse
import io
import json
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file, save_file

MANIFEST = "manifest.jsonl"
SHARDS = "codes"
WEIGHTS = "model.safetensors"
SETTINGS = ("config.json", "text.json", "lexicon.txt")
PART_BYTES = 15_000_000
# The archive should travel with the repository.
MOST_BYTES = 50_000_000
# Of the time of both runs; the TTS model has more to learn.
ASR_SHARE = 0.35
# Validations, checkpoints and the end of a run take the rest.
SHARE_OF_STEPS = 0.88
WARM_STEPS = 8
# The steps of one plan of batches (`CodesPlanner`): of all lengths.
TIMED_STEPS = 16
ALIGNED_TOGETHER = 256
CHECKPOINT_SECONDS = 60.0
VALIDATIONS = 3


def pack(corpora: Sequence[Path], archive: Path, workers: int) -> None:
    """Write the codes and texts of corpora into an archive."""
    from moss_audio_tokenizer.bulk import Tokenizing, tokenize

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "sound").mkdir()
        manifest = folder / "sound" / MANIFEST
        lines = [json.dumps(line) for line in merged_lines(corpora, folder / "sound")]
        manifest.write_text("\n".join(lines) + "\n", encoding="utf-8")
        settings = Tokenizing(str(manifest), shard_format="webdataset")
        tokenize(settings, folder / SHARDS, workers=workers)
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(folder / SHARDS, SHARDS)
    size = archive.stat().st_size
    print(f"{archive}: {len(lines)} clips, {size / 1e6:.1f} MB")
    if size > MOST_BYTES:
        sys.exit(f"{archive} has {size} bytes; expected up to {MOST_BYTES}: pack fewer corpora")


def merged_lines(corpora: Sequence[Path], folder: Path) -> Iterable[dict[str, Any]]:
    """Lines of all manifests, with paths below links in ``folder`` to the corpora."""
    for number, corpus in enumerate(corpora):
        name = f"{number}-{corpus.name}"
        (folder / name).symlink_to(corpus.absolute(), target_is_directory=True)
        for line in (corpus / MANIFEST).read_text(encoding="utf-8").splitlines():
            item = json.loads(line)
            split = "train" if item.get("split", "train") == "train" else "valid"
            yield item | {"path": f"{name}/{item['path']}", "split": split}


def train(
    archive: Path, output: Path, minutes: float, for_asr: Sequence[str], for_tts: Sequence[str]
) -> None:
    """Train both models, and write each when it is trained."""
    began = time.monotonic()
    end = began + 60 * minutes
    work = output / "work"
    work.mkdir(parents=True)
    with tarfile.open(archive) as tar:
        tar.extractall(work, filter="data")
    shared = [f"data.manifest={work / SHARDS}"]
    until = began + ASR_SHARE * (end - began)
    asr = trained("asr_general", work / "asr", until, "lexicon=bundled", *shared, *for_asr)
    write_parts(asr, output, "asr")
    tts = trained("tts_general", work / "tts", end, f"aligner={asr}", *shared, *for_tts)
    write_parts(tts, output, "tts")


def trained(recipe: str, output: Path, end: float, *changes: str) -> Path:
    """Train a recipe until about ``end``; at most its ``max_steps``.

    Returns:
        The folder of the trained model.
    """
    from moss_audio_tokenizer.training.recipes import recipe as find_recipe
    from moss_audio_tokenizer.training.recipes import trainer_for
    from moss_audio_tokenizer.training.run_config import override

    config = override(find_recipe(recipe), [f"output={output}-timing", *changes])
    first = trainer_for(config)
    fill_caches(first)
    seconds = seconds_a_step(first)
    first.close()
    steps = min(config.max_steps, int(SHARE_OF_STEPS * (end - time.monotonic()) / seconds))
    print(f"{recipe}: {seconds:.3f} s a step, {steps} steps", flush=True)
    if steps < 1:
        sys.exit(f"no time is left for {recipe}; give more --minutes")
    planned = replace(
        config,
        output=str(output),
        max_steps=steps,
        checkpoint_every=max(1, round(CHECKPOINT_SECONDS / seconds)),
        validation=replace(config.validation, every=max(1, -(-steps // VALIDATIONS))),
    )
    run = trainer_for(planned)
    # Codes in memory and alignments do not depend on the number of steps.
    run.data = first.data
    if config.kind == "tts":
        run.task.alignments = first.task.alignments
    return run.run()


def fill_caches(trainer: Any) -> None:
    """Read the codes of all clips, and align them with their texts where the run needs that."""
    rows = iter(trainer.data.clips())
    count = 0
    while part := list(islice(rows, ALIGNED_TOGETHER)):
        count += len(part)
        if trainer.config.kind == "tts":
            trainer.task.alignments.align(part)
    print(f"{count} clips are in memory", flush=True)


def seconds_a_step(trainer: Any) -> float:
    """The mean time of a step once kernels and memory are warm."""
    batches = trainer.batches(0)
    for batch in islice(batches, WARM_STEPS):
        trainer.train_step(batch)
    began = time.monotonic()
    # The loss of a step is read on the CPU, so that the step is over when it returns.
    for batch in islice(batches, TIMED_STEPS):
        trainer.train_step(batch)
    batches.close()
    return (time.monotonic() - began) / TIMED_STEPS


def write_parts(model: Path, output: Path, name: str) -> None:
    """Write a model folder with 16-bit weights, and the logs of its run, in parts."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as tar, tempfile.TemporaryDirectory() as temporary:
        small = Path(temporary) / WEIGHTS
        weights = load_file(model / WEIGHTS)
        save_file({key: tensor.astype("float16") for key, tensor in weights.items()}, small)
        tar.add(small, f"{name}/{WEIGHTS}")
        run = model.parent if model.name == "final" else model.parent.parent
        logs = [run / log for log in ("metrics.jsonl", "validation.jsonl", "recipe.json")]
        for path in [*(model / name for name in SETTINGS), *logs]:
            if path.is_file():
                tar.add(path, f"{name}/{path.name}")
    data = whole.getvalue()
    for number, first in enumerate(range(0, len(data), PART_BYTES)):
        (output / f"{name}.tar.{number:04}").write_bytes(data[first : first + PART_BYTES])


def unpack(parts: Path, output: Path) -> None:
    """Make folders of 32-bit weights of the parts that `train` wrote."""
    for name in ("asr", "tts"):
        found = sorted(parts.glob(f"{name}.tar.*"))
        if not found:
            print(f"{parts} has no parts of {name}", file=sys.stderr)
            continue
        joined = io.BytesIO(b"".join(part.read_bytes() for part in found))
        with tarfile.open(fileobj=joined) as tar:
            tar.extractall(output, filter="data")
        weights = load_file(output / name / WEIGHTS)
        full = {key: tensor.astype("float32") for key, tensor in weights.items()}
        save_file(full, output / name / WEIGHTS, metadata={"format": "pt"})
        print(output / name)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="corpora to an archive of codes")
    packing.add_argument("corpora", nargs="+", type=Path)
    packing.add_argument("--workers", type=int, default=2)
    training = commands.add_parser("train", help="both models from an archive")
    training.add_argument("archive", type=Path)
    training.add_argument("--minutes", type=float, default=12.0)
    for kind in ("asr", "tts"):
        training.add_argument(f"--{kind}", action="append", default=[], metavar="KEY=VALUE")
    unpacking = commands.add_parser("unpack", help="model folders from the parts")
    unpacking.add_argument("parts", type=Path)
    for command in (packing, training, unpacking):
        command.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args(arguments)
    if given.command == "pack":
        pack(given.corpora, given.output, given.workers)
    elif given.command == "train":
        train(given.archive, given.output, given.minutes, given.asr, given.tts)
    else:
        unpack(given.parts, given.output)


if __name__ == "__main__":
    main()
