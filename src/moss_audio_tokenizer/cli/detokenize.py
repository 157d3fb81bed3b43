"""`moss-audio detokenize`: shards of codes back to sound files.

Owns options and looks; the work is `bulk.detokenizing`'s.
"""

from pathlib import Path
from typing import Annotated

import typer

from . import display, options
from .tokenize import (
    Engine,
    Folder,
    Gpus,
    RayAddress,
    Resume,
    Splits,
    Workers,
    choose,
    default_workers,
    ray_options,
)

Shards = Annotated[
    Path,
    typer.Argument(
        metavar="DIR", show_default=False, help="Folder that moss-audio tokenize wrote."
    ),
]


def detokenize(
    source: Shards,
    output: Folder,
    model: options.Model = "bundled",
    num_quantizers: options.NumQuantizers = None,
    engine: Engine = "local",
    resume: Resume = False,
    split: Splits = None,
    audio_format: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="flac or wav.")
    ] = "flac",
    workers: Workers = None,
    device: options.Device = "cpu",
    backend: options.Backend = None,
    ray_address: RayAddress = "",
    gpus: Gpus = None,
    as_json: options.Json = False,
) -> None:
    """Turn shards of codes back into sound, a file a clip, with a manifest.

    Example: moss-audio detokenize codes -o sound
    """
    from ..bulk import detokenize

    with display.progress("detokenizing") as bar:
        summary = detokenize(
            source,
            output,
            choose(model, device, "fp32", backend),
            num_quantizers or 0,
            audio_format,
            tuple(split or ()),
            engine,
            workers or default_workers(device),
            resume,
            ray_options(ray_address, gpus, device, 1),
            lambda done, total: bar.update(
                bar.task_ids[0], description=f"detokenizing {done}/{total}"
            ),
        )
    if as_json:
        display.print_json(summary)
    else:
        display.print_facts(summary)
