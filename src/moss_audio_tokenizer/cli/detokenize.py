"""`moss-audio detokenize`: shards of codes back to sound files.

Owns options and looks; the work is `bulk.detokenizing`'s.
"""

from typing import Annotated

import typer

from . import display, options
from .tokenize import choose, default_workers, ray_options


def detokenize(
    source: options.ShardsFolder,
    output: options.OutputFolder,
    model: options.Model = "bundled",
    num_quantizers: options.NumQuantizers = None,
    engine: options.Engine = "local",
    resume: options.Resume = False,
    split: options.Splits = None,
    audio_format: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="flac or wav.")
    ] = "flac",
    workers: options.Workers = None,
    device: options.Device = "cpu",
    backend: options.Backend = None,
    ray_address: options.RayAddress = "",
    gpus: options.Gpus = None,
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
