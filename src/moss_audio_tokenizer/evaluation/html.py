"""The frame of every page: HTML and CSS with fields to fill in.

Owns the looks, on phones and desktops, light and dark; knows nothing of what is shown.
Everything filled in must be escaped already.
"""

from string import Template

STYLE = """:root {
  color-scheme: light dark;
  --page: #f6f6f8; --card: #ffffff; --ink: #1b1c20; --soft: #5c5f69; --line: #dedfe5;
  --strong: #0b62c4;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #131418; --card: #1d1f25; --ink: #e9eaee; --soft: #a2a6b2; --line: #33363f;
    --strong: #7ab4ff;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 1400px; padding: 24px 16px 48px;
  background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
h1 { margin: 0; font-size: 1.6rem; line-height: 1.25; overflow-wrap: anywhere; }
h2 { margin: 36px 0 0; font-size: 1.25rem; overflow-wrap: anywhere; }
h3 { margin: 0; font-size: 1.05rem; overflow-wrap: anywhere; }
a { color: var(--strong); }
small, .note, dt { color: var(--soft); font-size: .85rem; font-weight: 400; }
header p, .note { margin: 4px 0 0; overflow-wrap: anywhere; }
header p { color: var(--soft); }
code {
  display: block; margin: 12px 0 0; padding: 10px 12px; border: 1px solid var(--line);
  border-radius: 8px; background: var(--card); font: .85rem/1.5 ui-monospace, Menlo, monospace;
  white-space: pre-wrap; overflow-wrap: anywhere;
}
.card {
  padding: 14px; border: 1px solid var(--line); border-radius: 12px; background: var(--card);
  min-width: 0;
}
.table { margin: 16px 0; }
.scroll { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 6px; text-align: right; font-size: .85rem; }
tr > :first-child { text-align: left; font-weight: 500; overflow-wrap: anywhere; min-width: 9rem; }
thead th { color: var(--soft); font-size: .8rem; font-weight: 400; vertical-align: bottom; }
tbody tr { border-top: 1px solid var(--line); }
td small { display: block; white-space: nowrap; font-size: .75rem; }
.cards { display: grid; gap: 16px; grid-template-columns: repeat(2, minmax(0, 1fr)); }
.cards, .curves { margin-top: 16px; }
.curves { display: grid; gap: 16px; grid-template-columns: repeat(3, minmax(0, 1fr)); }
.curves img { display: block; width: 100%; height: auto; }
.card > .plot, .card > audio, .card > dl, .card > .note { margin-top: 10px; }
.plot {
  position: relative; margin: 0 0 10px; padding: 0 0 34px 40px;
  color: var(--soft); font-size: .75rem;
}
.plot img {
  display: block; width: 100%; height: auto; aspect-ratio: 5 / 2; border-radius: 4px;
  background: #000;
}
.plot.difference img { aspect-ratio: 5 / 1; }
.plot figcaption { margin: 0 0 4px; line-height: 1.3; }
.axes { position: relative; }
.kilohertz { position: absolute; inset: 0 auto 0 -40px; width: 34px; text-align: right; }
.seconds { position: absolute; inset: 100% 0 auto 0; height: 32px; }
.plot span { position: absolute; line-height: 1; }
.kilohertz span { right: 0; transform: translateY(50%); }
.seconds span { top: 3px; transform: translateX(-50%); }
.plot .unit { transform: none; }
.kilohertz .unit {
  top: 50%; right: auto; left: 0; writing-mode: vertical-rl; rotate: 180deg; translate: 0 -50%;
}
.seconds .unit { top: 19px; left: 0; right: 0; text-align: center; }
.plot.difference { padding-bottom: 0; }
audio { display: block; width: 100%; height: 44px; }
dl { display: grid; grid-template-columns: repeat(4, auto); gap: 4px 12px; margin-bottom: 0; }
dd { margin: 0; font-variant-numeric: tabular-nums; }
ul { margin: 8px 0 0; padding-left: 20px; overflow-wrap: anywhere; }
@media (max-width: 980px) { .curves { grid-template-columns: repeat(2, minmax(0, 1fr)); } }
@media (max-width: 760px) {
  .cards { grid-template-columns: minmax(0, 1fr); }
  table, tbody, th[scope=row] { display: block; }
  thead { display: none; }
  tbody tr {
    display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 0 16px; padding: 8px 0;
  }
  th[scope=row] { grid-column: 1 / -1; }
  td { display: flex; justify-content: space-between; gap: 8px; padding: 2px 6px; }
  td::before { content: attr(data-label); color: var(--soft); text-align: left; }
  td small { display: inline; margin-left: 6px; }
  td span { text-align: right; }
  td.empty { display: none; }
}
@media (max-width: 600px) { .curves { grid-template-columns: minmax(0, 1fr); } }
@media (max-width: 480px) {
  body { padding: 16px 12px 32px; }
  h1 { font-size: 1.35rem; }
  tbody tr { grid-template-columns: minmax(0, 1fr); }
  dl { grid-template-columns: repeat(2, 1fr); }
}
"""

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
_POLICY_OF_SCRIPTS = "; script-src 'unsafe-inline'"


def page(title: str, body: str, style: str = "", script: str = "") -> str:
    """A whole page that loads nothing from anywhere.

    Args:
        title: of the window, escaped.
        body: HTML.
        style: CSS beyond the common one.
        script: JavaScript; a page without any is forbidden to run some.
    """
    policy = _POLICY + (_POLICY_OF_SCRIPTS if script else "")
    if script:
        body = f"{body}\n<script>\n{script}</script>"
    return _PAGE.substitute(title=title, style=STYLE + style, body=body, policy=policy)
