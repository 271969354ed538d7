"""Small pictures drawn into the page as SVG, in the page's own colours, so that they follow light and dark.

They hold numbers, dates and our own words only; every label is escaped all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, log10
from typing import Literal

from markupsafe import Markup

from pages.markup import text

State = Literal["pass", "warn", "fail"]
WIDTH, HEIGHT = 380, 160
LEFT, RIGHT, TOP, BOTTOM = 54, 8, 10, 22
SPARK_WIDTH, SPARK_HEIGHT, SPARK_MARGIN = 124, 28, 4
CLASSES: dict[State, str] = {"pass": "held", "warn": "warned", "fail": "broke"}
TICK_HEIGHTS: dict[State, float] = {
    "pass": 0.35,
    "warn": 0.65,
    "fail": 1.0,
}  # statuses differ in height too, not only in colour


def plot(
    kind: Literal["bars", "line"],
    labels: Sequence[str],
    values: Sequence[float],
    *,
    caption: str,
    ticks: Sequence[tuple[float, str]],
    strong: Sequence[bool],
) -> Markup:
    """A plot with an axis.

    Args:
        kind: `bars` or `line`.
        labels: the label of each value, along the bottom; the first, middle and last are written.
        values: the values, all >= 0.
        caption: the text above the plot, which a screen reader reads too.
        ticks: (value, label) of the horizontal lines; the largest is the top.
        strong: which values belong to the days of the report; these are drawn stronger.
    """
    top = max([value for value, _ in ticks] + [1e-12])
    step = (WIDTH - LEFT - RIGHT) / max(len(values), 1)

    def x(index: float) -> float:
        return LEFT + (index + 0.5) * step

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / top)

    marks = [
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(v):.1f}" y2="{y(v):.1f}"/>'
        f'<text x="{LEFT - 7}" y="{y(v) + 4:.1f}" text-anchor="end">{text(label)}</text>'
        for v, label in ticks
    ]
    drawn = list(zip(values, ["now" if now else "past" for now in strong], strict=True))
    if kind == "bars":
        marks += [
            f'<rect class="{name}" x="{x(i) - step * 0.36:.1f}" y="{y(v):.1f}" width="{step * 0.72:.1f}"'
            f' height="{max(y(0) - y(v), 0):.1f}" rx="1.5"/>'
            for i, (v, name) in enumerate(drawn)
        ]
    else:
        marks.append(
            f'<polyline class="trace" points="{" ".join(f"{x(i):.1f},{y(v):.1f}" for i, v in enumerate(values))}"/>'
        )
        marks += [
            f'<circle class="{name}" cx="{x(i):.1f}" cy="{y(v):.1f}" r="{3.6 if name == "now" else 2.4}"/>'
            for i, (v, name) in enumerate(drawn)
        ]
    places = sorted({0, (len(labels) - 1) // 2, len(labels) - 1}) if len(labels) > 2 else range(len(labels))
    for i in places:
        anchor = "middle" if len(labels) < 3 or 0 < i < len(labels) - 1 else "start" if i == 0 else "end"
        edge = x(i) + (-step * 0.36 if anchor == "start" else step * 0.36 if anchor == "end" else 0)
        marks.append(f'<text x="{edge:.1f}" y="{HEIGHT - 6}" text-anchor="{anchor}">{text(labels[i])}</text>')
    spoken = f"{caption}: " + ", ".join(f"{label} {value:.6g}" for label, value in zip(labels, values, strict=True))
    return Markup(
        f'<figure><figcaption>{text(caption)}</figcaption><svg role="img" aria-label="{text(spoken)}"'
        f' viewBox="0 0 {WIDTH} {HEIGHT}">{"".join(marks)}</svg></figure>'
    )


def sparkline(
    values: Sequence[float | None],
    states: Sequence[State | None],
    *,
    low: float | None = None,
    high: float | None = None,
    spoken: str,
) -> Markup:
    """A check's figure over the last days: a line, its bounds where they are near, and a mark where it broke them.

    Args:
        values: one a day, the last one today's; None where there is none.
        states: what the check came to on each day.
        low: today's lower bound; None is unbounded.
        high: today's upper bound; None is unbounded.
        spoken: the text that a screen reader reads.
    """
    known = [value for value in values if value is not None]
    bottom, top = _scale(known, low, high)

    def x(index: int) -> float:
        return SPARK_MARGIN + index * (SPARK_WIDTH - 2 * SPARK_MARGIN) / max(len(values) - 1, 1)

    def y(value: float) -> float:
        return SPARK_MARGIN + (SPARK_HEIGHT - 2 * SPARK_MARGIN) * (top - value) / (top - bottom)

    marks = [
        f'<line class="bound" x1="0" x2="{SPARK_WIDTH}" y1="{y(bound):.1f}" y2="{y(bound):.1f}"/>'
        for bound in dict.fromkeys((low, high))
        if bound is not None and bottom <= bound <= top
    ]
    for run in runs(values):
        marks.append(f'<polyline class="trace" points="{" ".join(f"{x(i):.1f},{y(v):.1f}" for i, v in run)}"/>')
        if len(run) == 1 and run[0][0] < len(values) - 1:
            marks.append(f'<circle class="past" cx="{x(run[0][0]):.1f}" cy="{y(run[0][1]):.1f}" r="1.6"/>')
    for i, (value, state) in enumerate(zip(values, states, strict=True)):
        if value is not None and (state in ("warn", "fail") or i == len(values) - 1):
            marks.append(_mark(state or "pass", x(i), y(value), 3.2 if i == len(values) - 1 else 2.6))
    return _spark(marks, spoken)


def strip(states: Sequence[State | None], *, spoken: str) -> Markup:
    """What a check came to on each of the last days: a bar a day, the higher the graver."""
    width = (SPARK_WIDTH - 2) / max(len(states), 1)
    inner = SPARK_HEIGHT - 6
    marks = [
        f'<rect class="{CLASSES[state]}" x="{1 + i * width:.1f}" y="{3 + inner * (1 - TICK_HEIGHTS[state]):.1f}"'
        f' width="{width * 0.7:.1f}" height="{inner * TICK_HEIGHTS[state]:.1f}"/>'
        for i, state in enumerate(states)
        if state is not None
    ]
    return _spark(marks, spoken)


def _spark(marks: Sequence[str], spoken: str) -> Markup:
    return Markup(
        f'<svg class="spark" role="img" aria-label="{text(spoken)}" viewBox="0 0 {SPARK_WIDTH} {SPARK_HEIGHT}">'
        f"{''.join(marks)}</svg>"
    )


def _mark(state: State, x: float, y: float, size: float) -> str:
    """A dot where it held, a triangle for a warning, a square for a failure."""
    if state == "pass":
        return f'<circle class="now" cx="{x:.1f}" cy="{y:.1f}" r="{size:.1f}"/>'
    if state == "fail":
        return f'<rect class="broke" x="{x - size:.1f}" y="{y - size:.1f}" width="{2 * size:.1f}" height="{2 * size:.1f}"/>'
    corners = f"{x:.1f},{y - size:.1f} {x - size:.1f},{y + size:.1f} {x + size:.1f},{y + size:.1f}"
    return f'<polygon class="warned" points="{corners}"/>'


def _scale(known: Sequence[float], low: float | None, high: float | None) -> tuple[float, float]:
    """From the values, and from a bound that lies so near that the line is still seen to move."""
    if not known:
        return 0.0, 1.0
    bottom, top = min(known), max(known)
    span = max(top - bottom, abs(top) * 0.2, 1e-9)
    bounds = [bound for bound in (low, high) if bound is not None and bottom - 3 * span <= bound <= top + 3 * span]
    bottom, top = min([bottom, *bounds]), max([top, *bounds])
    return (bottom, top) if top > bottom else (bottom - span / 2, top + span / 2)


def runs(values: Sequence[float | None]) -> list[list[tuple[int, float]]]:
    """Consecutive days that have a value."""
    runs: list[list[tuple[int, float]]] = [[]]
    for i, value in enumerate(values):
        if value is not None:
            runs[-1].append((i, value))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def nice_ticks(largest: float) -> list[float]:
    """0, a middle and a top that are round numbers, the top not below `largest`."""
    if largest <= 0:
        return [0.0, 1.0]
    power = 10.0 ** (ceil(log10(largest)) - 1)
    top = next(power * factor for factor in (1, 2, 4, 6, 8, 10, 20) if power * factor >= largest * (1 - 1e-9))
    return [0.0, top / 2, top]
