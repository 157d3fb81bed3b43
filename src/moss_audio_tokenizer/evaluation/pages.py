"""Reports: described once, written as Markdown and as one page that loads nothing.

Owns the frame of every page and the parts of a report: tables, plots, lists. Its looks, on phones
and desktops, light and dark, are `page.css`'s. It knows nothing of what is measured. Arguments are
plain text and escaped here, but for those that are called HTML.
"""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from ..files import write_file

# The policy makes the promise checkable: a browser refuses whatever is not inside the page.
_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="$policy">
<link rel="icon" href="data:,">
<title>$title</title>
<style>
$style</style>
</head>
<body>
$body
</body>
</html>
""")
_POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"
# A cell without a value, which a phone leaves out.
_EMPTY = ' class="empty"'


@dataclass(frozen=True)
class Table:
    """Cells of text, the first of each row its name, and a caption below."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


@dataclass(frozen=True)
class Figure:
    """A plot twice, for light and for dark pages, as PNG; its file lies below ``plots``."""

    file: str
    title: str
    light: bytes
    dark: bytes


@dataclass(frozen=True)
class Section:
    """A part of a report; what is empty is left out.

    Attributes:
        title: heading.
        table: its first part.
        figures: plots, on the page and as files.
        lines: list of remarks.
        html: HTML, on the page alone.
    """

    title: str = ""
    table: Table | None = None
    figures: Sequence[Figure] = ()
    lines: Sequence[str] = ()
    html: str = ""

    def markdown(self) -> list[str]:
        """Paragraphs; none for a section that only the page has."""
        parts = [] if self.table is None else [pipe_table(self.table.headings, self.table.rows)]
        parts += [self.table.caption] if self.table and self.table.caption else []
        parts += ["\n".join(f"- {line}" for line in self.lines)] if self.lines else []
        return [f"## {self.title}", *parts] if parts and self.title else parts

    def html_parts(self) -> str:
        """The section on the page."""
        parts = [f"<h2>{escape(self.title)}</h2>"] if self.title else []
        parts += [table_html(self.table)] if self.table else []
        parts += [_figures_html(self.figures)] if self.figures else []
        items = "\n".join(f"<li>{escape(line)}</li>" for line in self.lines)
        parts += [f"<ul>\n{items}\n</ul>"] if items else []
        return "\n".join([*parts, self.html])


@dataclass(frozen=True)
class Report:
    """What a run has found: its command, a line on its scope, and sections."""

    title: str
    command: str
    scope: str
    sections: Sequence[Section]

    def markdown(self) -> str:
        """The report as text, without plots and sounds."""
        parts = [f"# {self.title}", f"```\n{self.command}\n```"]
        parts += [part for section in self.sections for part in section.markdown()]
        return printable("\n\n".join(parts) + "\n")

    def html(self) -> str:
        """The report as a page."""
        top = f"<h1>{escape(self.title)}</h1>\n<p>{escape(self.scope)}</p>"
        top = f"<header>\n{top}\n<code>{escape(self.command)}</code>\n</header>"
        sections = "\n".join(section.html_parts() for section in self.sections)
        return page(escape(self.title), f"{top}\n<main>\n{sections}\n</main>")

    def write(self, folder: Path, summary: Mapping[str, Any], csv: str = "") -> str:
        """Write summary.md, summary.json, report.html and the plots; returns the Markdown.

        Args:
            folder: of the run, which exists.
            summary: content of summary.json, besides the command.
            csv: content of summary.csv; "" for no such file.
        """
        text, document = self.markdown(), {"command": self.command, **summary}
        files: dict[str, str | bytes] = {
            f"plots/{figure.file}.png": figure.light
            for section in self.sections
            for figure in section.figures
        }
        files |= {"summary.csv": csv} if csv else {}
        text_of_json = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
        files["summary.json"] = text_of_json + "\n"
        files |= {"summary.md": text, "report.html": self.html()}
        for name, content in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            write_file(folder / name, content)
        return text


def page(title: str, body: str, style: str = "", script: str = "") -> str:
    """A whole page that loads nothing from anywhere.

    Args:
        title: of the window, escaped.
        body: HTML.
        style: CSS beyond the common one.
        script: JavaScript; a page without any is forbidden to run some.
    """
    policy = _POLICY + ("; script-src 'unsafe-inline'" if script else "")
    if script:
        body = f"{body}\n<script>\n{script}</script>"
    common = resources.files(__package__).joinpath("page.css").read_text("utf-8")
    return _PAGE.substitute(title=title, style=common + style, body=body, policy=policy)


def table_html(table: Table) -> str:
    """A table that fits the page: on a phone each row is a block."""
    # An arrow stays beside its word.
    texts = [escape(text).replace(" \u2191", "&nbsp;\u2191") for text in table.headings]
    texts = [text.replace(" \u2193", "&nbsp;\u2193") for text in texts]
    heads = "".join(f'<th scope="col">{text}</th>' for text in texts)
    rows = "\n".join(_row(row, table.headings) for row in table.rows)
    note = f'\n<p class="note">{escape(table.caption)}</p>' if table.caption else ""
    return (
        '<div class="card table">\n<div class="scroll">\n'
        f"<table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>\n"
        f"</div>{note}\n</div>"
    )


def _row(cells: Sequence[str], headings: Sequence[str]) -> str:
    """Cells that know their headings; an interval stands smaller below its mean."""
    values = "".join(
        f'<td data-label="{escape(heading)}"{_EMPTY if cell == "-" else ""}>{_value(cell)}</td>'
        for cell, heading in zip(cells[1:], headings[1:], strict=True)
    )
    name, remark, note = cells[0].partition(" (")
    first = f"{escape(name)} <small>{escape(remark + note)}</small>" if note else escape(name)
    return f'<tr><th scope="row">{first}</th>{values}</tr>'


def _value(cell: str) -> str:
    mean, sign, interval = cell.partition(" \u00b1 ")
    shown = f"{escape(mean)}<small>{sign}{escape(interval)}</small>" if sign else escape(mean)
    return f"<span>{shown}</span>"


def _figures_html(figures: Sequence[Figure]) -> str:
    """Plots side by side; the browser picks the one that suits the page."""
    shown = "\n".join(
        '<figure class="card"><picture>'
        f'<source media="(prefers-color-scheme: dark)" srcset="{data_url("image/png", one.dark)}">'
        f'<img alt="{escape(one.title)}" src="{data_url("image/png", one.light)}">'
        "</picture></figure>"
        for one in figures
    )
    return f'<div class="curves">\n{shown}\n</div>'


def data_url(kind: str, content: bytes) -> str:
    """Content inside the page."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def pipe_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, the first column to the left, the others to the right."""
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def printable(text: str) -> str:
    """Text with control characters escaped, which a file name may hold to steer a terminal."""
    return "".join(
        sign if sign.isprintable() or sign == "\n" else sign.encode("unicode_escape").decode()
        for sign in text
    )
