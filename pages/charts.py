"""Charts of several series with intervals, as SVG: lines over days or ages, points against a diagonal, differences from zero.

A series is recognized by its colour, its mark, its dashes and the name next to it, never only by colour. Colours are the
page's, so that they follow light and dark; a page that holds a chart includes `templates/charts.css`. They are drawn by
hand: a library would bring scripts or colours of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import floor, log10

from markupsafe import Markup

from pages.markup import text
from pages.pictures import runs

WIDTH, HEIGHT = 480, 250
TOP, BOTTOM = 14, 28
PANEL, PANEL_EDGE = 230, 36
LABEL_STEP, LABEL_CHAR, LONGEST_LABEL = 14.0, 7.6, 18
MARKED_POINTS = 31  # a line with more points has a mark only at its end
X_LABELS = 5
REFERENCE = -1  # the place of a series that is no setting: dashed, in the colour of text

DASHES = ("", "7 3", "2 3")
SHAPES = 5
Axis = Callable[[float], float]


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line, or one set of points.

    Attributes:
        name: the name that is written next to it.
        place: its colour, mark and dashes; `REFERENCE` for what is no setting.
        values: one a place on the axis; None where there is none.
        low, high: its intervals, None where there is none; empty for a series without.
    """

    name: str
    place: int
    values: Sequence[float | None]
    low: Sequence[float | None] = field(default=())
    high: Sequence[float | None] = field(default=())

    def interval(self, index: int) -> tuple[float, float] | None:
        """The lower and upper bound at a place; None where there is none."""
        if not self.low or not self.high:
            return None
        low, high = self.low[index], self.high[index]
        return None if low is None or high is None else (low, high)


def lines(
    series: Sequence[Series],
    labels: Sequence[str],
    *,
    caption: str,
    flags: Sequence[int] = (),
    flag_meaning: str = "",
    digits: int = 3,
) -> Markup:
    """Lines over the places of an axis, each with a band and its name at its end.

    Args:
        series: the lines; those without any value are left out.
        labels: the label of each place on the axis; at most five are written.
        caption: the text above the chart.
        flags: places that are marked below the lines.
        flag_meaning: what such a mark means.
        digits: how many decimals values have in the text for screen readers.
    """
    drawn = [one for one in series if any(value is not None for value in one.values)]
    if not drawn:
        return Markup(f"<figure><figcaption>{text(caption)}: no figure</figcaption></figure>")
    spans = [
        bound
        for one in drawn
        for i, value in enumerate(one.values)
        if value is not None
        for bound in (value, *(one.interval(i) or ()))
    ]
    ticks = scale(min(spans), max(spans))
    left = 14 + 6.8 * max(len(_number(tick)) for tick in ticks)
    right = WIDTH - 22 - LABEL_CHAR * max(len(_cut(one.name)) for one in drawn)

    def x(index: float) -> float:
        return (
            left
            + (right - left - 10) * ((index + 0.5) / len(labels) if len(labels) < 4 else index / (len(labels) - 1))
            + 4
        )

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (ticks[-1] - value) / (ticks[-1] - ticks[0])

    marks = _grid(ticks, y, left, right)
    marks += [
        f'<polygon class="flag" points="{_corners(x(i), HEIGHT - BOTTOM - 2, 5)}"><title>{text(f"{labels[i]}: {flag_meaning}")}'
        "</title></polygon>"
        for i in flags
    ]
    places = (
        range(len(labels))
        if len(labels) <= X_LABELS
        else [round(i * (len(labels) - 1) / (X_LABELS - 1)) for i in range(X_LABELS)]
    )
    marks += [f'<text x="{x(i):.1f}" y="{HEIGHT - 8}" text-anchor="middle">{text(labels[i])}</text>' for i in places]
    marks += [
        _line(one, labels, x, y, shift, digits)
        for one, shift in zip(drawn, _shifts(drawn, len(labels), x), strict=True)
    ]
    marks += _end_labels(drawn, y, right)
    flagged = f" {flag_meaning}: {', '.join(labels[i] for i in flags)}." if flags else ""
    return _figure(caption, _spoken(drawn, labels, digits) + flagged, "".join(marks), WIDTH, HEIGHT)


def against_diagonal(one: Series, at: Sequence[float], *, top: float) -> Markup:
    """Draws points in a small panel with the diagonal on which they should lie.

    Args:
        one: the points' heights, with their intervals.
        at: the place of each point along the bottom.
        top: where both axes end.
    """
    span = PANEL - PANEL_EDGE - 14

    def x(value: float) -> float:
        return PANEL_EDGE + span * value / top

    def y(value: float) -> float:
        return 10 + span * (1 - min(value, top) / top)

    ticks = [0.0, top / 2, top]
    marks = _grid(ticks, y, PANEL_EDGE, x(top))
    marks += [
        f'<text x="{x(tick):.1f}" y="{PANEL - 10}" text-anchor="{"end" if tick == top else "middle"}">{_number(tick)}</text>'
        for tick in ticks
    ]
    marks.append(f'<line class="zero" x1="{x(0):.1f}" y1="{y(0):.1f}" x2="{x(top):.1f}" y2="{y(top):.1f}"/>')
    for i, (place, value) in enumerate(zip(at, one.values, strict=True)):
        if value is not None:
            interval = one.interval(i)
            marks.append(
                _group(
                    one.place,
                    _whisker(x(place), interval, y)
                    + _mark(one.place, x(place), y(value), 3.4, f"{place:.3f}: {value:.3f}"),
                )
            )
    spoken = ", ".join(
        f"{place:.3f} {value:.3f}" for place, value in zip(at, one.values, strict=True) if value is not None
    )
    return _figure(one.name, spoken, "".join(marks), PANEL, PANEL, kind="panel", heading=key(one.name, one.place))


def from_zero(
    rows: Sequence[tuple[str, int, float, tuple[float, float] | None]], *, caption: str, digits: int = 4
) -> Markup:
    """Differences with their intervals, a line each, about zero.

    Args:
        rows: the name, place, value and interval of each difference.
        caption: the text above the chart.
        digits: how many decimals values are written with.
    """
    label = 16 + LABEL_CHAR * max(len(_cut(name)) for name, *_ in rows)
    height = 34 + 30 * len(rows)
    spans = [0.0] + [bound for _, _, value, interval in rows for bound in (value, *(interval or ()))]
    ticks = scale(min(spans), max(spans))
    left, right = label + 14, WIDTH - 16

    def x(value: float) -> float:
        return left + (right - left) * (value - ticks[0]) / (ticks[-1] - ticks[0])

    marks = [
        f'<line class="{"zero" if tick == 0 else "grid"}" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="6" y2="{height - 24}"/>'
        f'<text x="{x(tick):.1f}" y="{height - 8}" text-anchor="middle">{_number(tick, signed=True)}</text>'
        for tick in ticks
    ]
    spoken = []
    for i, (name, place, value, interval) in enumerate(rows):
        at = 22.0 + 30 * i
        bar = (
            ""
            if interval is None
            else f'<path class="whisker" d="M{x(interval[0]):.1f} {at}H{x(interval[1]):.1f}"/>'
            + "".join(f'<path class="whisker" d="M{x(bound):.1f} {at - 5}V{at + 5}"/>' for bound in interval)
        )
        words = f"{name} {value:+.{digits}f}" + (
            "" if interval is None else f" ({interval[0]:+.{digits}f} .. {interval[1]:+.{digits}f})"
        )
        spoken.append(words)
        marks.append(_group(place, bar + _mark(place, x(value), at, 4.2, words)))
        marks.append(f'<text class="label" x="{label:.1f}" y="{at + 4}" text-anchor="end">{text(_cut(name))}</text>')
    return _figure(caption, ", ".join(spoken), "".join(marks), WIDTH, height)


def key(name: str, place: int) -> Markup:
    """A setting's name with its mark before it, for tables."""
    mark = _group(place, _mark(place, 7, 6, 4.2))
    return Markup(
        f'<svg class="key" width="14" height="12" viewBox="0 0 14 12" aria-hidden="true">{mark}</svg> {text(name)}'
    )


def scale(low: float, high: float, steps: int = 4) -> list[float]:
    """Ticks at round numbers from not above `low` to not below `high`, about `steps` of them."""
    if high - low < 1e-9:
        low, high = low - 0.05, high + 0.05
    raw = (high - low) / steps
    power = 10.0 ** floor(log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * (1 - 1e-9))
    first = floor(low / step + 1e-9)
    ticks = [round(first * step, 10)]
    while ticks[-1] < high - 1e-9 * step:
        ticks.append(round((first + len(ticks)) * step, 10))
    return ticks


def _grid(ticks: Sequence[float], y: Axis, left: float, right: float) -> list[str]:
    return [
        f'<line class="grid" x1="{left}" x2="{right:.1f}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
        f'<text x="{left - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{_number(tick)}</text>'
        for tick in ticks
    ]


def _line(one: Series, labels: Sequence[str], x: Axis, y: Axis, shift: float, digits: int) -> str:
    marks = []
    for run in runs(one.values):
        band = [(i, interval) for i, _ in run if (interval := one.interval(i)) is not None]
        if len(band) > 1 and len(labels) > 3:
            edge = [(x(i), y(high)) for i, (_, high) in band] + [(x(i), y(low)) for i, (low, _) in reversed(band)]
            marks.append(f'<polygon class="band" points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in edge)}"/>')
        else:
            marks += [_whisker(x(i) + shift, interval, y) for i, interval in band]
        dash = f' stroke-dasharray="{_dash(one.place)}"' if _dash(one.place) else ""
        marks.append(
            f'<polyline class="line"{dash} points="{" ".join(f"{x(i) + shift:.1f},{y(value):.1f}" for i, value in run)}"/>'
        )
        if len(labels) <= MARKED_POINTS or len(run) == 1:
            marks += [
                _mark(
                    one.place, x(i) + shift, y(value), 3.2, f"{one.name}, {labels[i]}: {_with_interval(one, i, digits)}"
                )
                for i, value in run
            ]
    return _group(one.place, "".join(marks))


def _shifts(drawn: Sequence[Series], places: int, x: Axis) -> list[float]:
    """Returns how far each series is moved sideways: with few places, so that whiskers do not hide each other."""
    if places > 3:
        return [0.0] * len(drawn)
    step = min(12.0, (x(1) - x(0)) * 0.6 / len(drawn))
    return [(i - (len(drawn) - 1) / 2) * step for i in range(len(drawn))]


def _end_labels(drawn: Sequence[Series], y: Axis, right: float) -> list[str]:
    """Names at the lines' ends, moved apart where they would overlap."""
    ends = [next(value for value in reversed(one.values) if value is not None) for one in drawn]
    wanted = sorted(((y(end), one) for end, one in zip(ends, drawn, strict=True)), key=lambda pair: pair[0])
    heights: list[float] = []
    for height, _ in wanted:
        heights.append(max(height, heights[-1] + LABEL_STEP if heights else TOP))
    over = heights[-1] - (HEIGHT - BOTTOM)
    if over > 0:  # push back up from the bottom
        heights[-1] -= over
        for i in range(len(heights) - 2, -1, -1):
            heights[i] = min(heights[i], heights[i + 1] - LABEL_STEP)
    return [
        _group(one.place, _mark(one.place, right + 6, height, 3.6))
        + f'<text class="label" x="{right + 14:.1f}" y="{height + 4:.1f}">{text(_cut(one.name))}</text>'
        for height, (_, one) in zip(heights, wanted, strict=True)
    ]


def _mark(place: int, x: float, y: float, size: float, words: str = "") -> str:
    """Circle, square, triangle, diamond or downward triangle; a reference has a small ring."""
    title = f"<title>{text(words)}</title>" if words else ""
    if place == REFERENCE:
        return f'<circle class="whisker" cx="{x:.1f}" cy="{y:.1f}" r="{size * 0.7:.1f}">{title}</circle>'
    shape = place % SHAPES
    if shape == 0:
        return f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="{size:.1f}">{title}</circle>'
    if shape == 1:
        side = size * 1.8
        return f'<rect class="dot" x="{x - side / 2:.1f}" y="{y - side / 2:.1f}" width="{side:.1f}" height="{side:.1f}">{title}</rect>'
    if shape == 3:
        tip = size * 1.35
        return (
            f'<polygon class="dot" points="{x:.1f},{y - tip:.1f} {x + tip:.1f},{y:.1f} {x:.1f},{y + tip:.1f} {x - tip:.1f},{y:.1f}">'
            f"{title}</polygon>"
        )
    return f'<polygon class="dot" points="{_corners(x, y, size * (1.2 if shape == 2 else -1.2))}">{title}</polygon>'


def _corners(x: float, y: float, size: float) -> str:
    """A triangle, its tip up; down where `size` is negative."""
    return f"{x:.1f},{y - size:.1f} {x - abs(size):.1f},{y + size * 0.8:.1f} {x + abs(size):.1f},{y + size * 0.8:.1f}"


def _whisker(x: float, interval: tuple[float, float] | None, y: Axis) -> str:
    return "" if interval is None else f'<path class="whisker" d="M{x:.1f} {y(interval[0]):.1f}V{y(interval[1]):.1f}"/>'


def _group(place: int, inner: str) -> str:
    return f'<g class="{"reference" if place == REFERENCE else f"s{place % 9}"}">{inner}</g>'


def _dash(place: int) -> str:
    return "4 4" if place == REFERENCE else DASHES[place % len(DASHES)]


def _figure(
    caption: str, spoken: str, inner: str, width: int, height: int, *, kind: str = "", heading: str = ""
) -> Markup:
    classes = f' class="{kind}"' if kind else ""
    return Markup(
        f"<figure{classes}><figcaption>{heading or text(caption)}</figcaption>"
        f'<svg role="img" viewBox="0 0 {width} {height}"><title>{text(caption)}</title><desc>{text(spoken)}</desc>{inner}</svg></figure>'
    )


def _spoken(drawn: Sequence[Series], labels: Sequence[str], digits: int) -> str:
    return (
        ". ".join(
            f"{one.name}: "
            + ", ".join(
                f"{labels[i]} {_with_interval(one, i, digits)}"
                for i, value in enumerate(one.values)
                if value is not None
            )
            for one in drawn
        )
        + "."
    )


def _with_interval(one: Series, index: int, digits: int) -> str:
    interval = one.interval(index)
    return f"{one.values[index]:.{digits}f}" + (
        "" if interval is None else f" ({interval[0]:.{digits}f} .. {interval[1]:.{digits}f})"
    )


def _cut(name: str) -> str:
    return name if len(name) <= LONGEST_LABEL else name[: LONGEST_LABEL - 1] + "…"


def _number(value: float, *, signed: bool = False) -> str:
    return f"{value:+.6g}" if signed and value else f"{value:.6g}"
