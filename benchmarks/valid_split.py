"""Quality of a codec on the held-out clips of a manifest, by domain and number of quantizers.

    python benchmarks/valid_split.py MANIFEST --model bundled --num-quantizers 8 --num-quantizers 16

MANIFEST has a JSON object on each line, with ``path`` (relative to the manifest), ``domain``
and ``split``; the clips of split "valid" are measured. Without a manifest, as `make bench` calls
it, nothing is measured.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track

from moss_audio_tokenizer.cli.loading import load_codec
from moss_audio_tokenizer.errors import MossAudioError
from moss_audio_tokenizer.evaluation import (
    Row,
    evaluate_clips,
    markdown_table,
    summarise,
)
from moss_audio_tokenizer.manifest import read_manifest

_METRICS = ("stoi", "mel_distance", "stft_distance", "si_sdr")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, and write the results; 1 for an error of the input."""
    options = _parser().parse_args(arguments)
    if options.manifest is None:
        print("no MANIFEST given: nothing to measure (see --help)")
        return 0
    try:
        _run(options)
    except (MossAudioError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("manifest", type=Path, nargs="?", help="JSON-lines manifest")
    parser.add_argument("--model", default="bundled", help="folder, hub id or 'bundled'")
    parser.add_argument(
        "--num-quantizers", type=int, action="append", help="repeatable (default: all)"
    )
    parser.add_argument("--domain", help="measure this domain only")
    parser.add_argument("--limit", type=int, help="measure the first N clips only")
    parser.add_argument("-o", "--output", type=Path, help="write rows and summary as JSON")
    return parser


def _run(options: argparse.Namespace) -> None:
    clips = read_manifest(options.manifest, "valid", options.domain)[: options.limit]
    codec = load_codec(options.model)
    depths = options.num_quantizers or [codec.info.num_quantizers]
    rows = evaluate_clips(codec, track(clips, "clips", console=Console(stderr=True)), depths)
    print(markdown_table(summarise(rows), _METRICS))
    for row in _failed(rows):
        print(f"failed: {row.name}: {row.error}")
    if options.output:
        _write(options, codec.info.identity, rows)


def _failed(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if row.error]


def _write(options: argparse.Namespace, identity: str, rows: Sequence[Row]) -> None:
    result = {
        "model": options.model,
        "identity": identity,
        "summary": [group.as_json() for group in summarise(rows)],
        "rows": [row.as_json() for row in rows],
    }
    options.output.write_text(json.dumps(result, indent=1, allow_nan=False), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
