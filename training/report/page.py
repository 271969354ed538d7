"""The report as a page: the verdict first, then the figures behind it, and last what they rest on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from itertools import groupby
from math import isnan
from typing import Any

from markupsafe import Markup

from contracts.periods import ONE_DAY
from contracts.transfer import NO_TRANSFER
from lake.metrics import CALIBRATION_BINS, evaluate, figure_text, predicted_over_observed
from pages import charts, markup
from pages.charts import Series
from training.compare import TRUTH, Scored, difference
from training.intervals import DRAWS, LEAST_USERS, NOT_A_NUMBER, Estimate
from training.report.drift import ENTITIES
from training.report.figures import by_day, calibration_of, gauc_of, logloss_of
from training.report.forgetting import AGES, Forgetting
from training.report.gather import Gathered
from training.slices import LONG_TAIL_SHARE, NEW_DAYS
from training.tasks.fg_bert import HIT_AT

ALL_BANDS = 3  # the bands of more settings would hide each other, so each setting gets a panel of its own, with no transfer in it
SLICES = {
    "long_tail_items": f"Items that are rare: the {LONG_TAIL_SHARE:.0%} of a day's items seen least often",
    "new_items": f"Items that are new: no impression before the last {NEW_DAYS} days",
    "users_without_natural_history": "Users without a natural impression",
}
_AGES_WORDS = ", ".join(str(age) for age in AGES[1:-1]) + f" and {AGES[-1]}"
BADGES = {"above zero": ("pass", "better"), "below zero": ("fail", "worse"), NOT_A_NUMBER: ("fail", NOT_A_NUMBER)}
Estimates = Mapping[str, Estimate]
View = dict[str, Any]  # what a section of the template shows


def render(found: Gathered) -> str:
    """The page."""
    has_rows = bool(len(found.scored.clicks))
    return markup.render(
        "training/report/templates/models.html.jinja",
        found=found,
        period=_period(found),
        verdicts=verdicts(found),
        key=lambda name: charts.key(name, _place(found, name)),
        figure=figure_text,
        badge_of=_badge,
        no_transfer=NO_TRANSFER,
        truth=TRUTH,
        least_users=LEAST_USERS,
        draws=DRAWS,
        bins=CALIBRATION_BINS,
        hit_at=HIT_AT,
        ages_words=_AGES_WORDS,
        settings=_settings(found) if has_rows else None,
        days=_days(found) if has_rows else None,
        slices=_slices(found) if has_rows else (),
        calibration=_calibration(found) if has_rows else None,
        forgetting=_forgetting(found, found.forgetting) if found.forgetting is not None else None,
        drift=_drift(found) if found.moved else None,
        missing=_missing(found),
    )


def verdicts(found: Gathered) -> list[str]:
    """A sentence for each setting: whether it beats no transfer."""
    if not len(found.scored.clicks):
        return []
    if NO_TRANSFER not in found.variants:
        return [f"No row was scored without transfer ({NO_TRANSFER}): there is nothing to compare with."]
    sentences = []
    for name in _compared(found):
        gain = difference(found.scored, name)
        if gain is None:
            sentences.append(f"{name}: no user has both a click and an impression without one, so there is no GAUC.")
            continue
        if gain.verdict == NOT_A_NUMBER:
            sentences.append(f"{name} and {NO_TRANSFER} cannot be compared: scores are not numbers.")
            continue
        by = f"GAUC {gain.value:+.4f}, {_interval_words(gain)}"
        sentences.append(
            {
                "above zero": f"{name} beats {NO_TRANSFER}: {by}.",
                "below zero": f"{name} is worse than {NO_TRANSFER}: {by}.",
            }.get(gain.verdict, f"{name} does not differ measurably from {NO_TRANSFER}: {by}.")
        )
    return sentences


def _interval_words(gain: Estimate) -> str:
    return (
        f"of fewer than {LEAST_USERS} users"
        if gain.low is None
        else f"95 % interval {gain.low:+.4f} .. {gain.high:+.4f}"
    )


def _settings(found: Gathered) -> View:
    """Figures of each setting over all days, and a chart of what each gains over no transfer."""
    scored = found.scored
    plain, weighted, losses = gauc_of(scored, weighted=False), gauc_of(scored), logloss_of(scored)
    loss_gains = logloss_of(scored, minus=NO_TRANSFER) if NO_TRANSFER in found.variants else {}
    rows, gains = [], []
    for name in _shown(found):
        gain = difference(scored, name) if loss_gains and name not in (NO_TRANSFER, TRUTH) else None
        rows.append(
            {
                "name": name,
                "gauc": weighted.get(name),
                "plain": plain.get(name),
                "loss": losses.get(name),
                "gain": gain,
                "loss_gain": loss_gains.get(name),
                "figures": evaluate(scored.scores[name], scored.clicks, scored.user_ids),
            }
        )
        if gain is not None and not isnan(gain.value):
            gains.append((name, _place(found, name), gain.value, _pair(gain)))
    return {
        "rows": rows,
        "compared": bool(loss_gains),
        "several": len(gains) > 1,
        "charts": [charts.from_zero(gains, caption=f"GAUC minus that of {NO_TRANSFER}")] if gains else [],
    }


def _days(found: Gathered) -> View:
    """Charts and figures of each day, the newest first."""
    figures = by_day(found.scored, found.days)
    drawn = [
        _day_charts(found, {day: pair[which] for day, pair in figures.items()}, title)
        for which, title in ((0, "GAUC"), (1, "LogLoss"))
    ]
    if len(found.variants) <= ALL_BANDS:
        drawn = [[*drawn[0], *drawn[1]]]  # in one line, next to each other
    names = _shown(found)
    return {
        "plots": drawn,
        "head": ["Day", "Rows", *(f"{title} {name}" for title in ("GAUC", "LogLoss") for name in names)],
        "rows": [
            (day, len(found.scored.on(day).clicks), [pair[which].get(name) for which in (0, 1) for name in names])
            for day, pair in reversed(figures.items())
        ],
    }


def _day_charts(found: Gathered, of_days: Mapping[date, Estimates], title: str) -> list[Markup]:
    days = [found.days[0] + ONE_DAY * i for i in range((found.days[-1] - found.days[0]).days + 1)]
    days = [day for day in days if min(of_days) <= day <= max(of_days)] if of_days else days
    labels = [_short(day) for day in days]

    def series(name: str, *, bands: bool = True) -> Series:
        return _series(
            name, _place(found, name), [of_days.get(day, {}).get(name) for day in days], bands=bands and name != TRUTH
        )

    names = _shown(found)
    if len(found.variants) <= ALL_BANDS:
        return [charts.lines([series(name) for name in names], labels, caption=f"{title} by day")]
    overview = charts.lines(
        [series(name, bands=False) for name in names], labels, caption=f"{title} by day, all settings"
    )
    base = [NO_TRANSFER] if NO_TRANSFER in found.variants else []
    return [
        overview,
        *(
            charts.lines([series(other) for other in [*base, name]], labels, caption=f"{title} by day: {name}")
            for name in found.variants
            if name not in base
        ),
    ]


def _slices(found: Gathered) -> list[View]:
    """Figures of each setting on the rows of each slice."""
    parts = []
    for name, mask in found.slices.items():
        part = found.scored.select(mask)
        gaucs, losses = gauc_of(part), logloss_of(part)
        gains = gauc_of(part, minus=NO_TRANSFER) if NO_TRANSFER in found.variants and len(part.clicks) else {}
        rows = (
            [
                (
                    setting,
                    gaucs.get(setting),
                    None if setting == TRUTH else gains.get(setting),
                    losses.get(setting),
                    predicted_over_observed(part.scores[setting], part.clicks),
                )
                for setting in _shown(found)
            ]
            if len(part.clicks)
            else []
        )
        parts.append(
            {
                "title": SLICES.get(name, name),
                "count": len(part.clicks),
                "judged": part.num_judged,
                "rows": rows,
                "share": len(part.clicks) / len(found.scored.clicks),
            }
        )
    return parts


def _calibration(found: Gathered) -> View:
    bins = calibration_of(found.scored)
    highest = max(
        (max(one.mean_score, one.click_rate.high or one.click_rate.value) for parts in bins.values() for one in parts),
        default=0.0,
    )
    top = charts.scale(0.0, highest)[-1]
    return {
        "panels": [
            charts.against_diagonal(
                _series(name, _place(found, name), [one.click_rate for one in bins[name]]),
                [one.mean_score for one in bins[name]],
                top=top,
            )
            for name in _shown(found)
            if bins[name]
        ],
        "rows": [(name, i, one) for name in _shown(found) for i, one in enumerate(bins[name], 1)],
    }


def _forgetting(found: Gathered, forgetting: Forgetting) -> View:
    """Figures of models on rows of their own day and of older ones, of held-out rows and of all."""
    if not forgetting.ages:
        return {"ages": (), "left_out": forgetting.left_out}
    held_out = {one.age: one.scored.select(one.held_out) for one in forgetting.ages}
    whole = {one.age: one.scored for one in forgetting.ages}
    labels = ["own day" if one.age == 0 else f"{one.age} days before" for one in forgetting.ages]
    names = [
        name for name in (*found.variants, TRUTH) if all(name in one.scored.scores for one in forgetting.ages)
    ] or list(forgetting.ages[0].scored.scores)
    rows = []
    for age in whole:
        for kind, part in (("held out", held_out[age]), ("all, most trained on", whole[age])):
            gaucs, losses = gauc_of(part), logloss_of(part)
            rows += [(age, kind, name, part, gaucs.get(name), losses.get(name)) for name in names]
    return {
        "ages": forgetting.ages,
        "left_out": forgetting.left_out,
        "models": max(one.models for one in forgetting.ages),
        "rows": rows,
        "sizes": [
            f"{label} {len(part.clicks):,} rows, {part.num_judged:,} users with both labels"
            for label, part in zip(labels, held_out.values(), strict=True)
        ],
        "plots": [
            _ages_charts(found, parts, labels, names, which)
            for parts, which in ((held_out, "held-out rows"), (whole, "all rows, most of them trained on"))
        ],
    }


def _ages_charts(
    found: Gathered, parts: Mapping[int, Scored], labels: Sequence[str], names: Sequence[str], which: str
) -> list[Markup]:
    """GAUC and LogLoss over the age of the rows."""
    plots = []
    for title, figure in (("GAUC", gauc_of), ("LogLoss", logloss_of)):
        of_ages = [figure(part) for part in parts.values()]
        series = [
            _series(
                name,
                _place(found, name),
                [of_age.get(name) for of_age in of_ages],
                bands=name != TRUTH and len(found.variants) <= ALL_BANDS,
            )
            for name in names
        ]
        plots.append(charts.lines(series, labels, caption=f"{title} by age: {which}"))
    return plots


def _drift(found: Gathered) -> View:
    days = sorted({one.day for one in found.moved})
    days = [days[0] + ONE_DAY * i for i in range((days[-1] - days[0]).days + 1)]
    names = list(dict.fromkeys(one.variant for one in found.moved))
    again = [i for i, day in enumerate(days) if any(one.day == day and one.restarted for one in found.moved)]
    plots = []
    for entity in ENTITIES:
        cosine = {(one.variant, one.day): one.cosine for one in found.moved if one.entity == entity}
        series = [
            Series(name=name, place=_place(found, name), values=[cosine.get((name, day)) for day in days])
            for name in names
        ]
        plots.append(
            charts.lines(
                series,
                [_short(day) for day in days],
                caption=f"Mean cosine of {entity} vectors with the day before",
                flags=again,
                flag_meaning="a setting started again from a CPM",
            )
        )
    return {"plots": plots, "again": again, "moved": sorted(found.moved, key=lambda one: one.day, reverse=True)}


def _missing(found: Gathered) -> list[tuple[str, str]]:
    """Days that were not scored, those of one reason together, and the reason."""
    runs = [([day for day, _ in run], reason) for reason, run in groupby(found.missing, key=lambda pair: pair[1])]
    return [
        (str(days[0]) if len(days) == 1 else f"{days[0]} .. {days[-1]} ({len(days)} days)", reason)
        for days, reason in runs
    ]


def _compared(found: Gathered) -> list[str]:
    return [name for name in found.variants if name != NO_TRANSFER]


def _shown(found: Gathered) -> list[str]:
    """Settings in the order of the deployment, and the truth last."""
    return [name for name in (*found.variants, TRUTH) if name in found.scored.scores]


def _place(found: Gathered, name: str) -> int:
    """No transfer is always grey; the others follow in their order."""
    if name == TRUTH:
        return charts.REFERENCE
    order = [NO_TRANSFER, *(other for other in (*found.variants, *found.silent) if other != NO_TRANSFER)]
    return order.index(name)


def _series(name: str, place: int, estimates: Sequence[Estimate | None], *, bands: bool = True) -> Series:
    return Series(
        name=name,
        place=place,
        values=[None if one is None or isnan(one.value) else one.value for one in estimates],
        low=[None if one is None else one.low for one in estimates] if bands else (),
        high=[None if one is None else one.high for one in estimates] if bands else (),
    )


def _pair(estimate: Estimate) -> tuple[float, float] | None:
    return None if estimate.low is None or estimate.high is None else (estimate.low, estimate.high)


def _badge(gain: Estimate) -> tuple[str, str]:
    """The CSS class and the words of the badge of a gain."""
    return BADGES.get(gain.verdict, ("even", "too few users" if gain.low is None else "no measurable difference"))


def _short(day: date) -> str:
    return f"{day:%b} {day.day}"


def _period(found: Gathered) -> str:
    first, last = found.days[0], found.days[-1]
    return str(first) if first == last else f"{first} .. {last}"
