"""The summary of a prepared data set, for people: a table of its groups and a list of totals.

Owns words and units alone; the figures are `survey.py`'s.
"""

from typing import Any

GROUP_HEADINGS = ("clips", "hours", "with text", "split", "domain", "language")


def group_rows(summary: dict[str, Any]) -> list[tuple[str, ...]]:
    """The groups of a summary as rows of text under GROUP_HEADINGS."""
    return [
        (
            f"{group['clips']:,}",
            f"{group['hours']:.2f}",
            f"{group['transcribed_clips'] / group['clips']:.0%}",
            group["split"],
            group["domain"],
            group["language"] or "-",
        )
        for group in summary["groups"]
    ]


def markdown(summary: dict[str, Any]) -> str:
    """A summary as a page of Markdown."""
    rows = [GROUP_HEADINGS, ("---",) * len(GROUP_HEADINGS), *group_rows(summary)]
    table = "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows)
    return f"# Data set\n\n{table}\n\n" + "".join(
        f"- {name}: {value}\n" for name, value in totals(summary).items()
    )


def totals(summary: dict[str, Any]) -> dict[str, Any]:
    """What a summary says of the whole, by names for people."""
    loudness = summary["loudness_dbfs"]
    return {
        "clips": f"{summary['clips']:,}",
        "hours": f"{summary['hours']:.3f}",
        "shards": len(summary["shards"]),
        "errors": summary["errors"],
        "sampling rates": _counted(summary["sampling_rates"]),
        "channels": _counted(summary["channels"]),
        "loudness (5, 50, 95 %)": " / ".join(f"{value:.1f}" for value in loudness.values())
        + " dBFS",
        "clipped clips": summary["clipped_clips"]["count"],
        "silence": f"{summary['silent_share']:.1%}, {summary['silent_clips']['count']} clips whole",
        "duplicates": f"{summary['duplicates']['count']}, "
        f"{summary['duplicates']['across_splits']} of them across splits",
    }


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in counts.items())
