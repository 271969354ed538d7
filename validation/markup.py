"""Pieces of a self-contained HTML page: escaped text, tables, and plots drawn as images. No script, no address outside.

Pages show log content, which is hostile: everything goes through `text`, and the page's policy forbids scripts and any
request but for images inside the page.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

from validation.masking import printable

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"

STYLE = """
:root { --ink: #1c2430; --soft: #5a6676; --line: #dde3ea; --paper: #ffffff; --back: #f4f6f9; --accent: #24569c;
  --pass: #12633a; --pass-back: #e3f4ea; --warn: #7a4a00; --warn-back: #fdf0d5; --fail: #9b1c1c; --fail-back: #fde8e8; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
main { max-width: 1140px; margin: 0 auto; padding: 28px 20px 60px; }
header { margin-bottom: 20px; }
h1 { font-size: 25px; line-height: 1.25; margin: 4px 0 8px; }
h2 { font-size: 17px; margin: 0 0 12px; }
p { margin: 6px 0; }
a { color: var(--accent); }
a:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
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
td { border-bottom: 1px solid var(--line); padding: 6px 12px 6px 0; vertical-align: top; min-width: 60px; }
td:last-child { min-width: 190px; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.name, td.name code { white-space: nowrap; overflow-wrap: normal; }
summary { cursor: pointer; color: var(--soft); font-size: 13.5px; margin: 12px 0 4px; }
.index tbody th { color: var(--ink); font-weight: 600; border-bottom: 1px solid var(--line); white-space: nowrap; }
tr:last-child td, .index tr:last-child th[scope=row] { border-bottom: 0; }
code { font: 13px ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
.plots { display: flex; flex-wrap: wrap; gap: 20px; margin-top: 20px; }
.plots figure { margin: 0; flex: 1 1 440px; }
.plots img { width: 100%; height: auto; display: block; }
figcaption { color: var(--soft); font-size: 13.5px; margin-bottom: 4px; }
.index td, .index th { padding: 5px 14px 5px 0; min-width: 0; }
.index thead th { position: sticky; top: 0; background: var(--paper); }
.index a { text-decoration: none; }
.index a:hover, .index a:focus-visible { text-decoration: underline; }
.index .month th { color: var(--soft); padding-top: 18px; font-size: 13.5px; }
.rows { color: var(--soft); font-size: 13px; margin-left: 8px; font-variant-numeric: tabular-nums; white-space: nowrap; }
"""


def text(value: object) -> str:
    """Any value as harmless HTML text, also inside a quoted attribute."""
    return escape("".join(char if char.isprintable() else printable(char) for char in str(value)), quote=True)


def page(title: str, body: str) -> str:
    """A whole page; `title` is escaped here, `body` is HTML."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<meta name="referrer" content="no-referrer">\n'
        f"<title>{text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def badge(status: str, label: str | None = None) -> str:
    """A verdict, told by its word as well as by its colour."""
    return f'<span class="badge {text(status)}">{text(label or status)}</span>'


def cards(values: Sequence[tuple[str, str]]) -> str:
    """A row of figures with their names."""
    return '<dl class="cards">' + "".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in values) + "</dl>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[int] = (), names: Sequence[int] = ()) -> str:
    """A table.

    Args:
        head: column titles; escaped here.
        rows: cells as HTML: escape them with `text`.
        numbers: indices of columns of numbers, set to the right.
        names: indices of columns that are not broken over lines.
    """
    def kind(index: int) -> str:
        return ' class="number"' if index in numbers else ' class="name"' if index in names else ""

    titles = "".join(f'<th scope="col"{kind(i)}>{text(title)}</th>' for i, title in enumerate(head))
    lines = ("<tr>" + "".join(f"<td{kind(i)}>{cell}</td>" for i, cell in enumerate(row)) + "</tr>" for row in rows)
    return f"<table><thead><tr>{titles}</tr></thead><tbody>\n" + "\n".join(lines) + "\n</tbody></table>"


def section(title: str, body: str) -> str:
    return f"<section>\n<h2>{text(title)}</h2>\n{body}\n</section>"


WIDTH, HEIGHT = 520, 190
LEFT, RIGHT, TOP, BOTTOM = 62, 10, 12, 26
INK, GRID, BAR, BAR_NOW = "#5a6676", "#dde3ea", "#9db8dc", "#24569c"


def plot(kind: str, labels: Sequence[str], values: Sequence[float], *, caption: str, ticks: Sequence[tuple[float, str]],
         strong: Sequence[bool]) -> str:
    """A small plot as an image inside the page.

    Args:
        kind: `bars` or `line`.
        labels: one a value, along the bottom; the first, middle and last are written.
        values: >= 0.
        caption: said above it, and to who cannot see it.
        ticks: (value, label) of the horizontal lines; the largest is the top.
        strong: which values belong to the days of the report, drawn darker.
    """
    top = max([value for value, _ in ticks] + [1e-12])
    inner_width, inner_height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    step = inner_width / max(len(values), 1)

    def x(index: float) -> float:
        return LEFT + (index + 0.5) * step

    def y(value: float) -> float:
        return TOP + inner_height * (1 - value / top)

    marks = [f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(v):.1f}" y2="{y(v):.1f}" stroke="{GRID}"/>'
             f'<text x="{LEFT - 8}" y="{y(v) + 4:.1f}" text-anchor="end">{text(label)}</text>' for v, label in ticks]
    if kind == "bars":
        marks += [f'<rect x="{x(i) - step * 0.36:.1f}" y="{y(v):.1f}" width="{step * 0.72:.1f}" height="{max(y(0) - y(v), 0):.1f}" rx="1.5"'
                  f' fill="{BAR_NOW if now else BAR}"/>' for i, (v, now) in enumerate(zip(values, strong, strict=True))]
    else:
        points = " ".join(f"{x(i):.1f},{y(v):.1f}" for i, v in enumerate(values))
        marks.append(f'<polyline points="{points}" fill="none" stroke="{BAR}" stroke-width="2"/>')
        marks += [f'<circle cx="{x(i):.1f}" cy="{y(v):.1f}" r="{3.6 if now else 2.6}" fill="{BAR_NOW if now else BAR}"/>'
                  for i, (v, now) in enumerate(zip(values, strong, strict=True))]
    places = sorted({0, (len(labels) - 1) // 2, len(labels) - 1}) if len(labels) > 2 else range(len(labels))
    for i in places:
        anchor = "middle" if len(labels) < 3 or 0 < i < len(labels) - 1 else "start" if i == 0 else "end"
        edge = x(i) + (-step * 0.36 if anchor == "start" else step * 0.36 if anchor == "end" else 0)
        marks.append(f'<text x="{edge:.1f}" y="{HEIGHT - 8}" text-anchor="{anchor}">{text(labels[i])}</text>')
    drawing = (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="system-ui, DejaVu Sans, sans-serif"'
               f' font-size="11.5" fill="{INK}">{"".join(marks)}</svg>')
    encoded = base64.b64encode(drawing.encode()).decode()
    spoken = f"{caption}: " + ", ".join(f"{label} {value:.6g}" for label, value in zip(labels, values, strict=True))
    return (f'<figure><figcaption>{text(caption)}</figcaption>'
            f'<img width="{WIDTH}" height="{HEIGHT}" alt="{text(spoken)}" src="data:image/svg+xml;base64,{encoded}"></figure>')
