"""The frame of the report: HTML and CSS with places to fill in.

Owns the looks, on phones and desktops, light and dark; knows nothing of what is shown.
Everything filled in must be escaped already.
"""

from string import Template

# The policy makes the promise checkable: a browser refuses whatever is not inside the page.
PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'">
<title>$title</title>
<style>
:root {
  color-scheme: light dark;
  --page: #f6f6f8; --card: #ffffff; --ink: #1b1c20; --soft: #5c5f69; --line: #dedfe5;
}
@media (prefers-color-scheme: dark) {
  :root { --page: #131418; --card: #1d1f25; --ink: #e9eaee; --soft: #a2a6b2; --line: #33363f; }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 1160px; padding: 24px 16px 48px;
  background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
h1 { margin: 0; font-size: 1.6rem; line-height: 1.25; overflow-wrap: anywhere; }
h2 { margin: 0; font-size: 1.1rem; }
small, .note, dt, caption { color: var(--soft); font-size: .85rem; font-weight: 400; }
header p { margin: 4px 0 0; color: var(--soft); overflow-wrap: anywhere; }
code {
  display: block; margin: 12px 0 0; padding: 10px 12px; border: 1px solid var(--line);
  border-radius: 8px; background: var(--card); font: .85rem/1.5 ui-monospace, Menlo, monospace;
  white-space: pre-wrap; overflow-wrap: anywhere;
}
.card {
  padding: 14px; border: 1px solid var(--line); border-radius: 12px; background: var(--card);
}
.scroll { margin: 20px 0; overflow-x: auto; }
table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { caption-side: bottom; padding-top: 10px; text-align: left; }
th, td { padding: 6px 8px; text-align: right; }
tr > :first-child { text-align: left; }
thead th { color: var(--soft); font-size: .85rem; font-weight: 400; vertical-align: bottom; }
tbody tr { border-top: 1px solid var(--line); }
.cards { display: grid; gap: 16px; grid-template-columns: repeat(2, minmax(0, 1fr)); }
.card > .plot, .card > audio, .card > dl, .card > .note { margin-top: 10px; }
.plot {
  position: relative; margin: 0 0 10px; padding: 0 0 34px 40px;
  color: var(--soft); font-size: .75rem;
}
.plot img { display: block; width: 100%; height: auto; border-radius: 4px; background: #000004; }
.kilohertz { position: absolute; inset: 0 auto 34px 0; width: 34px; text-align: right; }
.seconds { position: absolute; inset: auto 0 0 40px; height: 32px; }
.plot span { position: absolute; line-height: 1; }
.kilohertz span { right: 0; transform: translateY(50%); }
.seconds span { top: 3px; transform: translateX(-50%); }
.plot .unit { transform: none; }
.kilohertz .unit {
  top: 50%; right: auto; left: 0; writing-mode: vertical-rl; rotate: 180deg; translate: 0 -50%;
}
.seconds .unit { top: 19px; left: 0; right: 0; text-align: center; }
audio { display: block; width: 100%; height: 44px; }
.note { margin-bottom: 0; }
dl { display: grid; grid-template-columns: repeat(4, auto); gap: 4px 12px; margin-bottom: 0; }
dd { margin: 0; font-variant-numeric: tabular-nums; }
@media (max-width: 760px) {
  .cards { grid-template-columns: minmax(0, 1fr); }
}
@media (max-width: 480px) {
  body { padding: 16px 12px 32px; }
  h1 { font-size: 1.35rem; }
  th, td { padding: 6px 3px; font-size: .85rem; }
  thead th { font-size: .75rem; }
  dl { grid-template-columns: repeat(2, 1fr); }
}
</style>
</head>
<body>
<header>
<h1>$title</h1>
<p>$clip &middot; model $model</p>
<code>$command</code>
</header>
<div class="card scroll">
<table>
<caption>Measured on the mean of the channels, at 16 kHz (SI-SDR at the model's own rate).
STOI and SI-SDR: higher is better; distances: lower is better. STOI is for speech only.</caption>
<thead><tr><th scope="col">Quantizers</th><th scope="col">kbps</th><th scope="col">STOI</th>
<th scope="col">Mel distance</th><th scope="col">STFT distance</th><th scope="col">SI-SDR, dB</th>
</tr></thead>
<tbody>
$rows
</tbody>
</table>
</div>
<main class="cards">
$cards
</main>
</body>
</html>
""")
