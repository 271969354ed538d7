"""How a day compares with the days before: spreads, drift, missing rates, and where the days before are read from."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import BadInput
from contracts.locations import Locations
from contracts.tables import TABLES, owner_key
from pages.files import write_atomically
from validation.distributions import (
    BUCKETS,
    PLACES,
    UNITS_PER_BIN,
    UNKNOWN,
    Counts,
    bins_of,
    distributions_of,
    stability_index,
    total,
)
from validation.figures import DayBuilds, DayFigures, Measured, compared, day_figures
from validation.found import found_of
from validation.suites import derive_suite
from validation.thresholds import Thresholds
from validation.trailing import known_before, week_before
from validation.verdict import Verdict, sidecar_path

DAY = date(2026, 1, 20)
START = date(2026, 1, 1)
LOG = TABLES["natural_log"]


def counts(**places: int) -> Counts:
    """`p3=5`: five rows in bucket 3; `unknown=2`: two nulls."""
    values = [0] * PLACES
    for name, rows in places.items():
        values[UNKNOWN if name == "unknown" else int(name[1:])] = rows
    return tuple(values)


def drawn(rows: int, seed: int, most: int = BUCKETS) -> Counts:
    generator = random.Random(seed)
    values = [0] * PLACES
    for _ in range(rows):
        values[int(most * generator.random() ** 2)] += 1
    return tuple(values)


def day(back: int, *, rows: int = 1000, clicks: int = 250, **changes: Any) -> DayFigures:
    return replace(
        DayFigures(
            ds=DAY - timedelta(days=back),
            rows=rows,
            rows_off_build=0,
            clicks=clicks,
            click_rate=clicks / rows,
            users=rows,
            requests=rows,
        ),
        **changes,
    )


def index_of(now: Counts, then: Counts, units: int = 6400) -> float | None:
    return stability_index(now, then, units=units, reference_units=units)


def test_a_stability_index_is_that_of_the_formula() -> None:
    found = index_of(counts(p0=500_000, p1=500_000), counts(p0=800_000, p1=200_000))
    assert found == pytest.approx(0.3 * 0.470004 + 0.3 * 0.916291, abs=1e-3)  # (p - q) ln(p / q), twice


def test_chance_alone_is_no_drift_however_many_rows() -> None:
    for rows in (120, 1000, 10_000):
        indices = [
            stability_index(drawn(rows, seed), drawn(7 * rows, seed + 1000), units=rows, reference_units=7 * rows)
            for seed in range(20)
        ]
        assert max(index for index in indices if index is not None) < 0.2


@pytest.mark.parametrize(
    ("now", "then"),
    [
        (counts(p2=1000), counts(p5=1000)),  # one constant instead of another, in either order of the buckets
        (counts(p5=1000), counts(p2=1000)),
        (counts(p5=700, unknown=300), counts(p5=1000)),  # unknown all at once
        (counts(p0=1000), drawn(1000, 1)),  # everything falls together
    ],
)
def test_a_shift_is_seen(now: Counts, then: Counts) -> None:
    found = index_of(now, then)
    assert found is not None and found > 0.25


def test_too_few_independent_draws_are_not_compared() -> None:
    now = counts(p0=10_000)
    assert stability_index(now, now, units=2 * UNITS_PER_BIN - 1, reference_units=10_000) is None
    assert stability_index(now, now, units=2 * UNITS_PER_BIN, reference_units=2 * UNITS_PER_BIN) == 0
    assert index_of(now, counts()) is None and index_of(counts(), now) is None


def test_bins_hold_every_place_once_and_are_few() -> None:
    for most in (2, 7, 64):
        bins = bins_of(drawn(5000, 3, most=40), most)
        assert sorted(place for places in bins for place in places) == list(range(PLACES))
        assert len(bins) <= most + 2  # what is left over, and what never was


def test_what_drift_is_watched_in() -> None:
    assert [spread.column for spread in distributions_of(TABLES["natural_log"])] == [
        "user_id",
        "item_id",
        "category_id",
        "user_segment_id",
        "position",
    ]
    assert {"campaign_id", "advertiser_id"} <= {spread.column for spread in distributions_of(TABLES["ad_log"])}
    samples = {spread.column: spread for spread in distributions_of(TABLES["ad_samples"])}
    assert {"hour", "history_end", "user_ad_clicks_7d_cnt"} <= set(samples) and "item_id" not in samples
    assert samples["history_end"].warm_up_days and not samples["hour"].warm_up_days
    assert distributions_of(TABLES["user_histories"]) == ()


def test_a_day_is_compared_with_the_rows_of_the_days_before_not_with_their_shares() -> None:
    past = [
        day(1, rows=100, clicks=10, missing_share={"item_text": 0.5}),
        day(2, rows=300, clicks=90, missing_share={"item_text": 0.1}),
    ]
    found = compared(LOG, day(0, missing_share={"item_text": 0.6, "arrival_ts": 1.0}), past, history_start=START)
    assert (found.compared_days, found.usual_click_rate, found.click_rate_to_usual) == (2, 0.25, 1.0)
    assert found.missing_rise == {"item_text": pytest.approx(0.4)}  # arrival_ts was not counted then


def test_drift_is_against_the_days_together_and_only_where_they_were_counted() -> None:
    now = day(0, distributions={"item_id": counts(p1=1000), "user_id": counts(p1=1000)})
    past = [
        day(1, distributions={"item_id": counts(p1=500)}),
        day(2, distributions={"item_id": counts(p2=500)}),
        day(3),
    ]
    found = compared(LOG, now, past, history_start=START)
    together = total([past[0].distributions["item_id"], past[1].distributions["item_id"]])
    assert found.drift == {"item_id": stability_index(counts(p1=1000), together, units=1000, reference_units=2000)}
    assert found.figure("drift(item_id)") == found.drift["item_id"] and found.figure("drift(user_id)") is None


def test_sums_over_the_past_are_not_compared_while_the_lake_is_young() -> None:
    spread = {"history_end": drawn(1000, 1), "hour": drawn(1000, 2, most=24)}
    past = [day(back, distributions=spread) for back in (1, 2)]
    now = day(0, distributions=spread)
    drift = {
        start: set(compared(TABLES["ad_samples"], now, past, history_start=start).drift)
        for start in (DAY - timedelta(days=8), DAY - timedelta(days=7))
    }
    assert drift == {DAY - timedelta(days=8): {"hour", "history_end"}, DAY - timedelta(days=7): {"hour"}}


def test_without_days_before_there_is_nothing_to_compare_with() -> None:
    found = compared(
        LOG,
        day(0, distributions={"item_id": counts(p1=9)}, missing_share={"item_text": 1.0}),
        [day(1, rows=1, clicks=0)][:0],
        history_start=START,
    )
    assert (found.compared_days, found.click_rate_to_usual, found.missing_rise, found.drift) == (0, None, {}, {})
    for check in derive_suite(LOG):
        if check.name in ("drift", "missing", "click_rate_as_usual"):
            assert found_of(check, {"success": True}, [found], total_rows=1, columns=()) == "nothing to compare with"


def test_what_was_found_names_the_context_figures_too() -> None:
    figures = day(
        0,
        click_rate_to_usual=0.5,
        usual_click_rate=0.5,
        drift={"item_id": 0.31},
        drift_bins={"item_id": 8},
        missing_rise={"item_text": 0.2},
        missing_share={"item_text": 0.9},
    )
    found = {
        check.id: found_of(check, {"success": True}, [figures], total_rows=1, columns=())
        for check in derive_suite(LOG)
        if check.subject == "figures"
    }
    assert found["click_rate_as_usual(click)"] == "0.50 (25.00 %, usual 50.00 %)"
    assert found["drift(item_id)"] == "0.310 (up to 8 bins)"
    assert found["missing(item_text)"] == "+20.00 points (share 90.00 %)"


def test_figures_of_a_log_count_texts_late_rows_and_undeclared_columns() -> None:
    build = {
        "row_cnt": 100,
        "counts": {"read": 100, "kept": 100, "duplicates": 0, "quarantined": 0, "late": 4, "undeclared_columns": 2},
    }
    measured = Measured(rows=100, nulls={"item_text": 30}, rows_outside_day=1)
    figures = day_figures(LOG, DAY, measured, DayBuilds(own={DAY: build}, log={}), usual_days=7)
    assert (figures.late_share, figures.text_share, figures.undeclared_columns, figures.rows_outside_day) == (
        0.04,
        0.7,
        2,
        1,
    )


def judged(locations: Locations, *days: DayFigures, digest: str = "1") -> None:
    days = tuple(sorted(days, key=lambda figures: figures.ds))
    verdict = Verdict(
        table="natural_log",
        first_day=days[0].ds,
        last_day=days[-1].ds,
        run_ts=datetime(2026, 2, 1, tzinfo=UTC),
        results=(),
        days=days,
        digests={owner_key(ds=figures.ds): digest for figures in days},
    )
    write_atomically(sidecar_path(locations, "natural_log", verdict.last_day), verdict.to_json())


def test_days_before_are_read_from_their_files_unless_built_again_or_counted_otherwise(tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    spread = {distribution.column: drawn(1000, 1) for distribution in distributions_of(LOG)}
    judged(locations, day(1, distributions=spread))
    judged(locations, day(2, distributions=spread), digest="0")  # another build
    judged(locations, day(3))  # before the columns were counted
    judged(
        locations, day(4, distributions=spread), day(5, distributions=spread), day(6, distributions=spread)
    )  # a range
    judged(locations, day(8, distributions=spread))  # too old
    builds = {DAY - timedelta(days=back): {"digest": "1"} for back in (1, 2, 3, 4, 5)}
    found = known_before(locations, LOG, builds, DAY, 7)
    assert {figures.ds: figures for figures in found.values()} == found
    assert sorted((DAY - ds).days for ds in found) == [1, 4, 5]
    assert found[DAY - timedelta(days=1)] == day(1, distributions=spread)


def test_a_range_that_ends_later_tells_its_days_too(tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    spread = {distribution.column: drawn(1000, 1) for distribution in distributions_of(LOG)}
    judged(locations, *(day(back, distributions=spread) for back in range(-9, 4)))
    builds = {DAY - timedelta(days=back): {"digest": "1"} for back in range(-9, 4)}
    assert sorted((DAY - ds).days for ds in known_before(locations, LOG, builds, DAY, 7)) == [1, 2, 3]


def test_each_day_of_a_range_has_its_own_week_before() -> None:
    days = [day(back) for back in range(10)]
    assert [(DAY - figures.ds).days for figures in week_before(days, DAY - timedelta(days=2), 3)] == [3, 4, 5]


@pytest.mark.parametrize(
    "wrong",
    [{"drift_warn": 0.0}, {"usual_days": 0}, {"shared_users_warn": 2.0}, {"click_rate_to_usual_warn": (2.0, 1.0)}],
)
def test_thresholds_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=next(iter(wrong))):
        Thresholds(**wrong)
