"""Pieces of a self-contained HTML page: escaped text, tables, sections. No script, no address outside.

Pages show log content, which is hostile: everything goes through `text`, and the page's policy forbids scripts and any
request. Colours are variables, so that light and dark differ in them alone; the pictures (`pages.pictures`) use the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from contracts.masking import printable

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"

STYLE = """
:root { color-scheme: light dark;
  --ink: #1c2430; --soft: #566273; --line: #dde3ea; --paper: #ffffff; --back: #f4f6f9; --accent: #24569c; --bar: #9db8dc;
  --pass: #12633a; --pass-back: #d9f0e2; --warn: #7a4a00; --warn-back: #fbe6b8; --fail: #9b1c1c; --fail-back: #fbd5d5; }
@media (prefers-color-scheme: dark) { :root {
  --ink: #e3e8ef; --soft: #a0acbb; --line: #303b48; --paper: #18202a; --back: #0f151c; --accent: #8ab6f7; --bar: #4a6d9e;
  --pass: #86dfae; --pass-back: #143d27; --warn: #f2c566; --warn-back: #4a3508; --fail: #ffa3a3; --fail-back: #5a1c1f; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 28px 20px 60px; }
header { margin-bottom: 20px; }
h1 { font-size: 25px; line-height: 1.3; margin: 4px 0 8px; overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 0 0 12px; }
h3 { font-size: 15px; margin: 22px 0 6px; overflow-wrap: anywhere; }
p { margin: 6px 0; overflow-wrap: anywhere; }
a { color: var(--accent); }
a:focus-visible, summary:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
.soft { color: var(--soft); font-size: 13.5px; }
section { background: var(--paper); border: 1px solid var(--line); border-radius: 10px; padding: 18px 20px; margin: 16px 0;
  overflow-x: auto; }
.badge { display: inline-block; padding: 1px 10px; border-radius: 999px; font-weight: 600; font-size: 13px; white-space: nowrap; }
.pass { color: var(--pass); background: var(--pass-back); }
.warn, .accepted { color: var(--warn); background: var(--warn-back); }
.fail { color: var(--fail); background: var(--fail-back); }
.cards { display: flex; flex-wrap: wrap; gap: 10px 30px; margin: 0; }
.cards div { min-width: 84px; }
.cards dt { color: var(--soft); font-size: 13px; }
.cards dd { margin: 0; font-size: 21px; font-weight: 600; font-variant-numeric: tabular-nums; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th { text-align: left; font-weight: 600; color: var(--soft); font-size: 13px;
  border-bottom: 2px solid var(--line); padding: 6px 12px 6px 0; }
td { border-bottom: 1px solid var(--line); padding: 6px 12px 6px 0; vertical-align: top; overflow-wrap: anywhere; }
tr:last-child td { border-bottom: 0; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.name, td.name code { white-space: nowrap; overflow-wrap: normal; }
summary { cursor: pointer; color: var(--soft); font-size: 13.5px; margin: 14px 0 4px; }
code { font: 13px ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
pre { background: var(--back); border: 1px solid var(--line); border-radius: 6px; padding: 8px 10px; margin: 6px 0; overflow-x: auto; }
pre code { white-space: pre-wrap; }
.plots { display: flex; flex-wrap: wrap; gap: 20px; margin-top: 20px; }
.plots figure { margin: 0; flex: 1 1 280px; max-width: 520px; }
.plots svg { width: 100%; height: auto; display: block; }
figcaption { color: var(--soft); font-size: 13.5px; margin-bottom: 4px; }
svg text { fill: var(--soft); font-size: 11px; }
svg .grid { stroke: var(--line); } svg .bound { stroke: var(--soft); stroke-dasharray: 2 3; }
svg .trace { fill: none; stroke: var(--bar); stroke-width: 1.6; stroke-linejoin: round; }
svg .past { fill: var(--bar); } svg .now { fill: var(--accent); }
svg .held { fill: var(--pass); } svg .warned { fill: var(--warn); } svg .broke { fill: var(--fail); }
svg.spark { display: block; width: 124px; height: 28px; }
@media (max-width: 680px) {
  main { padding: 16px 10px 40px; } section { padding: 12px 10px; }
  .stack thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  .stack, .stack tbody, .stack tr, .stack td { display: block; width: 100%; }
  .stack tr { border-bottom: 1px solid var(--line); padding: 8px 0; } .stack tr:last-child { border-bottom: 0; }
  .stack td, .stack td.number { border: 0; padding: 2px 0; text-align: left; display: flex; gap: 8px; }
  .stack td.name, .stack td.name code { white-space: normal; overflow-wrap: anywhere; }
  .stack td::before { content: attr(data-label); flex: 0 0 92px; color: var(--soft); font-size: 12.5px; line-height: 1.7; }
  .stack td > span { min-width: 0; } .stack td.empty { display: none; }
}
"""


def text(value: object) -> str:
    """Any value as harmless HTML text, also inside a quoted attribute."""
    return escape("".join(char if char.isprintable() else printable(char) for char in str(value)), quote=True)


def page(title: str, body: str, *, style: str = "") -> str:
    """A whole page; `title` is escaped here, `body` is HTML, `style` are the page's own rules after the common ones."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<meta name="referrer" content="no-referrer">\n'
        f"<title>{text(title)}</title>\n<style>{STYLE}{style}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def badge(status: str, label: str | None = None) -> str:
    """A verdict, told by its word as well as by its colour."""
    return f'<span class="badge {text(status)}">{text(label or status)}</span>'


def cards(values: Sequence[tuple[str, str]]) -> str:
    """A row of figures with their names."""
    return '<dl class="cards">' + "".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in values) + "</dl>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[int] = (), names: Sequence[int] = ()) -> str:
    """A table; on a narrow screen each row becomes a block of named values.

    Args:
        head: column titles; escaped here.
        rows: cells as HTML: escape them with `text`.
        numbers: indices of columns of numbers, set to the right.
        names: indices of columns that are not broken over lines.
    """
    def kind(index: int, cell: str = "") -> str:
        classes = [name for name, there in (("number", index in numbers), ("name", index in names), ("empty", not cell)) if there]
        return f' class="{" ".join(classes)}"' if classes else ""

    titles = "".join(f'<th scope="col"{kind(i, title)}>{text(title)}</th>' for i, title in enumerate(head))
    lines = ("<tr>" + "".join(f'<td{kind(i, cell)} data-label="{text(head[i])}"><span>{cell}</span></td>' for i, cell in enumerate(row))
             + "</tr>" for row in rows)
    return f'<table class="stack"><thead><tr>{titles}</tr></thead><tbody>\n' + "\n".join(lines) + "\n</tbody></table>"


def section(title: str, body: str) -> str:
    return f"<section>\n<h2>{text(title)}</h2>\n{body}\n</section>"


def listing(code: object) -> str:
    """A line to copy, whole however narrow the screen."""
    return f"<pre><code>{text(code)}</code></pre>"
