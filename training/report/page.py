"""The report as a page: the verdict first, then the figures behind it, and last what they rest on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from itertools import groupby
from math import isnan

from contracts.periods import ONE_DAY
from contracts.transfer import NO_TRANSFER
from lake.metrics import CALIBRATION_BINS, evaluate, figure_text, predicted_over_observed
from pages import charts, markup
from pages.charts import Series
from training.compare import TRUTH, Scored, difference
from training.intervals import DRAWS, LEAST_USERS, NOT_A_NUMBER, Estimate
from training.report.drift import ENTITIES
from training.report.encoder import Cost, Encoders
from training.report.figures import Bin, by_day, calibration_of, gauc_of, logloss_of
from training.report.forgetting import AGES, Forgetting, Remembered
from training.report.gather import Gathered
from training.slices import LONG_TAIL_SHARE, NEW_DAYS
from training.tasks.fg_bert import HIT_AT

ALL_BANDS = 3  # of more settings, the bands hide each other: each has a panel of its own, beside no transfer
SLICES = {"long_tail_items": f"Items that are rare: the {LONG_TAIL_SHARE:.0%} of a day's items seen least often",
          "new_items": f"Items that are new: no impression before the last {NEW_DAYS} days",
          "users_without_natural_history": "Users without a natural impression"}
STYLE = """
.even { color: var(--soft); background: var(--line); } .lead { font-size: 16.5px; } ul.lead { padding-left: 20px; margin: 8px 0 18px; }
.key { width: 14px; height: 12px; vertical-align: -1px; } td small { color: var(--soft); white-space: nowrap; }
td.number small, td.number .badge { display: block; width: fit-content; margin-left: auto; }
.plots svg.key { width: 14px; display: inline; }
.plots { margin-top: 6px; }
@media (max-width: 680px) { td.number small, td.number .badge { display: inline-block; margin: 0; }
  .stack td.number { white-space: normal; } }
"""
_AGES_WORDS = ", ".join(str(age) for age in AGES[1:-1]) + f" and {AGES[-1]}"
BADGES = {"above zero": ("pass", "better"), "below zero": ("fail", "worse"), NOT_A_NUMBER: ("fail", NOT_A_NUMBER)}
Estimates = Mapping[str, Estimate]


def render(found: Gathered) -> str:
    """The page."""
    parts = [_header(found)]
    if len(found.scored.clicks):
        parts += [markup.section("All scored days together", _settings(found)), markup.section("Day by day", _days(found))]
        if found.slices:
            parts.append(markup.section("Slices", _slices(found)))
        parts.append(markup.section("Calibration", _calibration(found)))
    if found.forgetting is not None:
        parts.append(markup.section("Forgetting: models on older days", _forgetting(found, found.forgetting)))
    if found.moved:
        parts.append(markup.section("Drift of the embeddings", _drift(found)))
    if found.encoders is not None:
        parts.append(markup.section("The sequence encoder", _encoders(found, found.encoders)))
    if found.texts:
        parts.append(markup.section("Behaviour texts", _texts(found)))
    parts.append(markup.section("What it rests on", _basis(found)))
    return markup.page(f"Ad models, {_period(found)}", "\n".join(parts), style=charts.STYLE + STYLE)


def verdicts(found: Gathered) -> list[str]:
    """A sentence for each setting: whether it beats no transfer."""
    if not len(found.scored.clicks):
        return []
    if NO_TRANSFER not in found.variants:
        return [f"No row was scored without transfer ({NO_TRANSFER}): there is nothing to compare with."]
    said = []
    for name in _compared(found):
        gain = difference(found.scored, name)
        if gain is None:
            said.append(f"{name}: no user has both a click and an impression without one, so there is no GAUC.")
            continue
        if gain.verdict == NOT_A_NUMBER:
            said.append(f"{name} and {NO_TRANSFER} cannot be compared: scores are not numbers.")
            continue
        by = f"GAUC {gain.value:+.4f}, {_interval_words(gain)}"
        said.append({"above zero": f"{name} beats {NO_TRANSFER}: {by}.", "below zero": f"{name} is worse than {NO_TRANSFER}: {by}."}.get(
            gain.verdict, f"{name} and {NO_TRANSFER} cannot be told apart: {by}."))
    return said


def _interval_words(gain: Estimate) -> str:
    return f"of fewer than {LEAST_USERS} users" if gain.low is None else f"95 % interval {gain.low:+.4f} .. {gain.high:+.4f}"


def _header(found: Gathered) -> str:
    scored = found.scored
    num_days = len(found.days) - len(found.missing)
    if num_days:
        lines = [*(f"{line}." for line in scored.not_numbers.values()), *verdicts(found)]
        said = "".join(f"<li>{markup.text(line)}</li>" for line in lines)
        body = f'<ul class="lead">{said}</ul>' if said else '<p class="lead">There is one setting alone: nothing to compare.</p>'
        body += markup.cards([("scored days", f"{num_days} of {len(found.days)}"), ("rows", f"{len(scored.clicks):,}"),
                              ("clicks", f"{int(scored.clicks.sum()):,}"), ("users", f"{len(set(scored.user_ids.tolist())):,}"),
                              ("of them with both labels", f"{scored.num_judged:,}")])
    else:
        body = ('<p class="lead">No day of these has scored rows yet. A day is scored by the models of the day before: train and publish '
                "two days in a row, and make this report again.</p>")
    return (f'<header>\n<p><a href="../index.html">All reports</a></p>\n<h1>Ad models, {markup.text(_period(found))}</h1>\n'
            f'<p class="soft">Source of the logs: {markup.text(found.source)}. Each day was scored by the models of the day before, '
            f"before any ad model was trained on it; all settings on the same rows.</p>\n{body}\n</header>")


def _settings(found: Gathered) -> str:
    scored = found.scored
    plain, weighted, losses = gauc_of(scored, weighted=False), gauc_of(scored), logloss_of(scored)
    loss_gains = logloss_of(scored, minus=NO_TRANSFER) if NO_TRANSFER in found.variants else {}
    head = ["Setting", "GAUC", "GAUC, plain mean", "AUC", "LogLoss", "ECE", "Predicted / observed"]
    compared = bool(loss_gains)
    rows, gains = [], []
    for name in _shown(found):
        figures = evaluate(scored.scores[name], scored.clicks, scored.user_ids)
        row = [charts.key(name, _place(found, name)), _cell(weighted.get(name)), _cell(plain.get(name)), _number(figures["auc"]),
               _cell(losses.get(name)), _number(figures["ece"]), _number(figures["predicted_over_observed"], 3)]
        gain = difference(scored, name) if compared and name not in (NO_TRANSFER, TRUTH) else None
        if compared:
            of_truth = name in (NO_TRANSFER, TRUTH)
            row += ["" if gain is None else _cell(gain, signed=True) + " " + _badge(gain),
                    "" if of_truth else _cell(loss_gains.get(name), signed=True)]
        if gain is not None and not isnan(gain.value):
            gains.append((name, _place(found, name), gain.value, _pair(gain)))
        rows.append(row)
    head += [f"GAUC - {NO_TRANSFER}", f"LogLoss - {NO_TRANSFER}"] if compared else []
    table = markup.table(head, rows, numbers=range(1, len(head)), names=(0,))
    several = (" Each interval speaks for one setting; they are not widened for their number." if len(gains) > 1 else "")
    truth = f" <code>{TRUTH}</code> is the simulator's own probability: the most that a model can reach." if TRUTH in scored.scores else ""
    note = (f'<p class="soft">In brackets: 95 % intervals.{several} A LogLoss below that of {NO_TRANSFER} is better; ECE: expected '
            f"calibration error over {CALIBRATION_BINS} bins.{truth}</p>")
    chart = charts.from_zero(gains, caption=f"GAUC minus that of {NO_TRANSFER}") if gains else ""
    return table + note + (f'<div class="plots">{chart}</div>' if chart else "")


def _days(found: Gathered) -> str:
    figures = by_day(found.scored, found.days)
    drawn = [_day_charts(found, {day: pair[which] for day, pair in figures.items()}, title)
             for which, title in ((0, "GAUC"), (1, "LogLoss"))]
    if len(found.variants) <= ALL_BANDS:
        drawn = ["".join(drawn)]  # beside each other
    names = _shown(found)
    head = ["Day", "Rows", *(f"{title} {name}" for title in ("GAUC", "LogLoss") for name in names)]
    rows = [[str(day), f"{len(found.scored.on(day).clicks):,}", *(_cell(pair[which].get(name)) for which in (0, 1) for name in names)]
            for day, pair in reversed(figures.items())]
    table = markup.table(head, rows, numbers=range(1, len(head)), names=(0,))
    plots = "".join(f'<div class="plots">{one}</div>' for one in drawn)
    return (f"<p class=\"soft\">Bands and brackets: 95 % intervals over the day's users; none where fewer than {LEAST_USERS} users are "
            f"behind a figure.</p>{plots}<details><summary>The figures of {len(rows)} days</summary>\n{table}</details>")


def _day_charts(found: Gathered, of_days: Mapping[date, Estimates], title: str) -> str:
    days = [found.days[0] + ONE_DAY * i for i in range((found.days[-1] - found.days[0]).days + 1)]
    days = [day for day in days if min(of_days) <= day <= max(of_days)] if of_days else days
    labels = [_short(day) for day in days]

    def series(name: str, *, bands: bool = True) -> Series:
        return _series(name, _place(found, name), [of_days.get(day, {}).get(name) for day in days], bands=bands and name != TRUTH)

    names = _shown(found)
    if len(found.variants) <= ALL_BANDS:
        return charts.lines([series(name) for name in names], labels, caption=f"{title} by day")
    overview = charts.lines([series(name, bands=False) for name in names], labels, caption=f"{title} by day, all settings")
    base = [NO_TRANSFER] if NO_TRANSFER in found.variants else []
    return overview + "".join(charts.lines([series(other) for other in [*base, name]], labels, caption=f"{title} by day: {name}")
                              for name in found.variants if name not in base)


def _slices(found: Gathered) -> str:
    parts = []
    for name, mask in found.slices.items():
        part = found.scored.select(mask)
        heading = f"<h3>{markup.text(SLICES.get(name, name))}</h3>"
        gaucs, losses = gauc_of(part), logloss_of(part)
        if not len(part.clicks):
            parts.append(f'{heading}<p class="soft">No scored row is in it.</p>')
            continue
        base = NO_TRANSFER in found.variants
        gains = gauc_of(part, minus=NO_TRANSFER) if base else {}
        rows = [[charts.key(setting, _place(found, setting)), _cell(gaucs.get(setting)),
                 "" if setting == TRUTH or setting not in gains else _cell(gains[setting], signed=True) + " " + _badge(gains[setting]),
                 _cell(losses.get(setting)), _number(predicted_over_observed(part.scores[setting], part.clicks), 3)]
                for setting in _shown(found)]
        share = len(part.clicks) / len(found.scored.clicks)
        parts.append(f'{heading}<p class="soft">{len(part.clicks):,} rows ({share:.1%}), {part.num_judged:,} users with both labels</p>'
                     + markup.table(["Setting", "GAUC", f"GAUC - {NO_TRANSFER}", "LogLoss", "Predicted / observed"], rows,
                                    numbers=range(1, 5), names=(0,)))
    return "".join(parts)


def _calibration(found: Gathered) -> str:
    bins = calibration_of(found.scored)
    highest = max((max(one.mean_score, one.click_rate.high or one.click_rate.value) for parts in bins.values() for one in parts),
                  default=0.0)
    top = charts.scale(0.0, highest)[-1]
    panels = "".join(charts.against_diagonal(_series(name, _place(found, name), [one.click_rate for one in bins[name]]),
                                             [one.mean_score for one in bins[name]], top=top) for name in _shown(found) if bins[name])
    return (f'<p class="soft">Click rate (upwards) over mean score (to the right), in {CALIBRATION_BINS} bins of equal count, with 95 % '
            "intervals; on the dashed line they agree.</p>"
            f'<div class="plots">{panels}</div><details><summary>The figures of the bins</summary>{_bins(found, bins)}</details>')


def _bins(found: Gathered, bins: Mapping[str, Sequence[Bin]]) -> str:
    rows = [[charts.key(name, _place(found, name)), str(i + 1), f"{one.row_cnt:,}", _number(one.mean_score), _cell(one.click_rate)]
            for name in _shown(found) for i, one in enumerate(bins[name])]
    return markup.table(["Setting", "Bin", "Rows", "Mean score", "Click rate"], rows, numbers=range(1, 5), names=(0,))


def _forgetting(found: Gathered, forgetting: Forgetting) -> str:
    left_out = "".join(f"<p>Left out: {markup.text(line)}</p>" for line in forgetting.left_out)
    if not forgetting.ages:
        return f"<p>No model of these days could score an older day.</p>{left_out}"
    held_out = {one.age: one.scored.select(one.held_out) for one in forgetting.ages}
    labels = ["own day" if one.age == 0 else f"{one.age} days before" for one in forgetting.ages]
    names = [name for name in (*found.variants, TRUTH) if all(name in one.scored.scores for one in forgetting.ages)] or list(
        forgetting.ages[0].scored.scores)
    whole = {one.age: one.scored for one in forgetting.ages}
    plots = "".join(_ages_charts(found, parts, labels, names, which) for parts, which in (
        (held_out, "held-out rows"), (whole, "all rows, most of them trained on")))
    models = max(one.models for one in forgetting.ages)
    sizes = "; ".join(f"{label} {len(held_out[one.age].clicks):,} rows, {held_out[one.age].num_judged:,} users with both labels"
                      for label, one in zip(labels, forgetting.ages, strict=True))
    return (f'<p class="soft">The released models of {models} days score the ad rows of their own day and of {_AGES_WORDS} days before. '
            "Held-out requests (1 in 50) are in no training of any model; most of all rows were trained on, which flatters a model: there "
            "a model is judged too well. Days differ in difficulty: compare settings at one age, and a setting with "
            f'<code>{TRUTH}</code> where it is there.</p><p class="soft">Held out: {sizes}. Of fewer than {LEAST_USERS} users there is no '
            f'interval, and the point says little.</p>{plots}'
            + _ages_table(found, forgetting.ages, names) + left_out)


def _ages_charts(found: Gathered, parts: Mapping[int, Scored], labels: Sequence[str], names: Sequence[str], which: str) -> str:
    """GAUC and LogLoss over the age of the rows."""
    plots = []
    for title, figure in (("GAUC", gauc_of), ("LogLoss", logloss_of)):
        of_ages = [figure(part) for part in parts.values()]
        series = [_series(name, _place(found, name), [of_age.get(name) for of_age in of_ages],
                          bands=name != TRUTH and len(found.variants) <= ALL_BANDS) for name in names]
        plots.append(charts.lines(series, labels, caption=f"{title} by age: {which}"))
    return f'<div class="plots">{"".join(plots)}</div>'


def _ages_table(found: Gathered, ages: Sequence[Remembered], names: Sequence[str]) -> str:
    rows = []
    for one in ages:
        for kind, part in (("held out", one.scored.select(one.held_out)), ("all, most trained on", one.scored)):
            gaucs, losses = gauc_of(part), logloss_of(part)
            rows += [[str(one.age), kind, charts.key(name, _place(found, name)), f"{len(part.clicks):,}", f"{part.num_judged:,}",
                      _cell(gaucs.get(name)), _cell(losses.get(name))] for name in names]
    return ("<details><summary>The figures by age, of held-out rows and of all</summary>"
            + markup.table(["Days before", "Which", "Setting", "Rows", "Users with both labels", "GAUC", "LogLoss"], rows,
                           numbers=(0, 3, 4, 5, 6), names=(1, 2)) + "</details>")


def _drift(found: Gathered) -> str:
    days = sorted({one.day for one in found.moved})
    days = [days[0] + ONE_DAY * i for i in range((days[-1] - days[0]).days + 1)]
    names = [name for name in dict.fromkeys(one.variant for one in found.moved)]
    again = [i for i, day in enumerate(days) if any(one.day == day and one.restarted for one in found.moved)]
    plots = []
    for entity in ENTITIES:
        cosine = {(one.variant, one.day): one.cosine for one in found.moved if one.entity == entity}
        series = [Series(name=name, place=_place(found, name), values=[cosine.get((name, day)) for day in days]) for name in names]
        plots.append(charts.lines(series, [_short(day) for day in days], caption=f"Mean cosine of {entity} vectors with the day before",
                                  flags=again, flag_meaning="a setting started again from a CPM"))
    rows = [[str(one.day), charts.key(one.variant, _place(found, one.variant)), one.entity, _number(one.cosine), f"{one.shared:,}",
             f"{one.new:.2%}", f"{one.lost:.2%}", "started again" if one.restarted else ""] for one in sorted(
                 found.moved, key=lambda one: one.day, reverse=True)]
    table = markup.table(["Day", "Setting", "Entity", "Mean cosine", "Shared ids", "New ids", "Lost ids", ""], rows, numbers=range(3, 7),
                         names=(0, 1))
    triangles = " Triangles: days on which a setting started again from a CPM." if again else ""
    return (f'<p class="soft">Published vectors of ids that both releases have.{triangles}</p><div class="plots">{"".join(plots)}</div>'
            f"<details><summary>The figures by day, with new and lost ids</summary>\n{table}</details>")


def _encoders(found: Gathered, encoders: Encoders) -> str:
    rows = [[str(week.period), *map(_number, (week.hit_rate, week.auc, week.loss)), f"<code>{markup.text(week.release_id)}</code>"]
            for week in encoders.weeks]
    weeks = markup.table(["Week from", f"Hit rate at {HIT_AT}", "AUC", "Training loss", "Release"], rows, numbers=(1, 2, 3), names=(4,))
    none = next((cost for cost in encoders.costs if cost.variant == NO_TRANSFER), None)

    def ratio(cost: Cost, candidates: int) -> str:
        return "-" if none is None else f"{cost.flops.by_sample(candidates) / none.flops.by_sample(candidates):.2f}"

    rows = [[charts.key(cost.variant, _place(found, cost.variant)), f"{cost.flops.user:,.0f}", f"{cost.flops.candidate:,.0f}",
             f"{cost.flops.by_sample(1):,.0f}", ratio(cost, 1), f"{cost.flops.by_sample(100):,.0f}", ratio(cost, 100)]
            for cost in encoders.costs]
    head = ["Setting", "User's part", "Candidate's part", "Sample, 1 candidate", f"/ {NO_TRANSFER}", "Sample, 100 candidates",
            f"/ {NO_TRANSFER}"]
    lengths = "{} and {} behaviours".format(*encoders.costs[0].lengths) if encoders.costs else ""
    costs = (f'<p class="soft">FLOPs of the matrix products, a user with {lengths} in the two histories; what depends on the user alone is '
             f"done once for all candidates of a request.</p>\n{markup.table(head, rows, numbers=range(1, len(head)), names=(0,))}"
             if encoders.costs else "")
    return (f'<p class="soft">FG-BERT, trained week by week. Of users who were kept out of its training it is asked for the item of their '
            f"newest behaviour: how often that is among the {HIT_AT} likeliest of all items, and how it ranks against one drawn by "
            f"frequency.</p>\n{weeks}{costs}")


def _texts(found: Gathered) -> str:
    rows = [[str(one.period), *map(_number, (one.auc, one.gauc, one.logloss)),
             "-" if one.with_vector is None else f"{one.with_vector:.1%}", "-" if one.unknown is None else f"{one.unknown:,.0f}",
             f"<code>{markup.text(one.release_id)}</code>"] for one in found.texts]
    head = ["Day", "AUC", "GAUC", "LogLoss", "Texts with a vector", "Unknown texts", "Release"]
    said = ("BAHE, trained day by day; what it makes of users and items the ad models of the next day read. Its figures are of the day's "
            "ads by itself, before it was trained on them. A text without a vector is encoded on demand, or is unknown.")
    return f'<p class="soft">{said}</p>\n' + markup.table(head, rows, numbers=(1, 2, 3, 4, 5), names=(6,))


def _basis(found: Gathered) -> str:
    parts = []
    if found.silent:
        parts.append(f"<p>Settings of the deployment that scored nothing on these days: {markup.text(', '.join(found.silent))}.</p>")
    for reason, run in groupby(found.missing, key=lambda pair: pair[1]):
        days = [day for day, _ in run]
        span = str(days[0]) if len(days) == 1 else f"{days[0]} .. {days[-1]} ({len(days)} days)"
        parts.append(f"<p>Not scored: {markup.text(span)}: {markup.text(reason)}.</p>")
    if not found.missing:
        parts.append("<p>Every day of the range was scored.</p>")
    cpms = sorted({one.cpm for one in found.served if one.cpm})
    if cpms:
        parts.append("<p>CPM releases that settings with transfer are bound to: "
                     + ", ".join(f"<code>{markup.text(cpm)}</code>" for cpm in cpms) + ".</p>")
    rows = [[str(one.day), charts.key(one.variant, _place(found, one.variant)), f"<code>{markup.text(one.release_id)}</code>",
             "started again" if one.restarted else "continued", f"<code>{markup.text(one.cpm)}</code>" if one.cpm else "",
             f"{one.row_cnt:,}", f"<code>{markup.text(one.scored_by)}</code>" if one.scored_by else ""] for one in reversed(found.served)]
    head = ["Day", "Setting", "Active release", "It", "Bound to CPM", "Rows scored", "Scored by"]
    table = markup.table(head, rows, numbers=(5,), names=(0, 1))
    none = "<p>No release of these days is active.</p>"
    parts.append(f"<details><summary>{len(rows)} releases</summary>\n{table}</details>" if rows else none)
    parts.append(f'<p class="soft">Intervals are percentiles (2.5 and 97.5) of {DRAWS:,} bootstrap draws of users with replacement, all '
                 "rows of a user together; differences are paired: both settings on the same draw. GAUC is the AUC within each user, over "
                 "users with both labels, weighted by their impressions.</p>")
    return "".join(parts)


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
    return Series(name=name, place=place, values=[None if one is None or isnan(one.value) else one.value for one in estimates],
                  low=[None if one is None else one.low for one in estimates] if bands else (),
                  high=[None if one is None else one.high for one in estimates] if bands else ())


def _pair(estimate: Estimate) -> tuple[float, float] | None:
    return None if estimate.low is None or estimate.high is None else (estimate.low, estimate.high)


def _badge(gain: Estimate) -> str:
    status, label = BADGES.get(gain.verdict, ("even", "too few users" if gain.low is None else "not told apart"))
    return markup.badge(status, label)


def _cell(estimate: Estimate | None, *, signed: bool = False) -> str:
    if estimate is None:
        return "-"
    sign = "+" if signed else ""
    interval = "" if estimate.low is None else f" <small>({estimate.low:{sign}.4f} .. {estimate.high:{sign}.4f})</small>"
    return f"{figure_text(estimate.value, f'{sign}.4f')}{interval}"


def _number(value: float | None, digits: int = 4) -> str:
    return figure_text(value, f".{digits}f")


def _short(day: date) -> str:
    return f"{day:%b} {day.day}"


def _period(found: Gathered) -> str:
    first, last = found.days[0], found.days[-1]
    return str(first) if first == last else f"{first} .. {last}"
