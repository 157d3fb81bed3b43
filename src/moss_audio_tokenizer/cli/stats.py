"""`moss-audio stats`: what is in shards of codes.

Owns options and looks; the sums are `bulk.shard_statistics`'s.
"""

from typing import Annotated, Any

import typer

from . import display, options


def stats(
    source: options.ShardsFolder,
    split: options.Splits = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare every shard with its hash first.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Show hours, lengths, bitrates, and how the codebooks are used.

    Example: moss-audio stats codes
    """
    from ..bulk import shard_statistics

    with display.progress("counting") as bar:
        found = shard_statistics(
            source,
            tuple(split or ()),
            verify,
            lambda done, total: bar.update(bar.task_ids[0], description=f"counting {done}/{total}"),
        )
    if as_json:
        display.print_json(found)
    else:
        _print(found)


def _print(found: dict[str, Any]) -> None:
    layers, groups = found.pop("layers"), found.pop("groups")
    display.print_facts(found)
    display.print_line("")
    display.print_table(
        ("clips", "hours", "split", "domain", "language"),
        [
            (
                f"{group['clips']:,}",
                f"{group['hours']:.2f}",
                group["split"],
                group["domain"],
                group["language"] or "-",
            )
            for group in groups
        ],
    )
    display.print_line("")
    display.print_table(
        ("layer", "bits a code", "entries in use"),
        [
            (str(number), f"{layer['bits']:.2f}", f"{layer['used']:.1%}")
            for number, layer in enumerate(layers, 1)
        ],
    )
