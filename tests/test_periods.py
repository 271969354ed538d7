"""Periods, and which parents a period has: the same answer whenever it is asked."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import BadInput
from contracts.kinds import Cadence
from contracts.periods import Lineage, Parent, PeriodSettings

CALENDAR = PeriodSettings()
BLOCKS = PeriodSettings(anchor=date(2022, 4, 25), month_days=2, week_days=2)
SIMULATED = Lineage(settings=CALENDAR, history_start=date(2026, 1, 1), actr_start=date(2026, 4, 27))
KUAIRAND = Lineage(settings=BLOCKS, history_start=date(2022, 4, 25), actr_start=date(2022, 5, 1))

days = st.dates(min_value=date(2015, 1, 1), max_value=date(2035, 1, 1))
settings = st.one_of(
    st.just(CALENDAR),
    st.builds(
        lambda anchor, month, week: PeriodSettings(anchor=anchor, month_days=month, week_days=week),
        days,
        st.integers(1, 40),
        st.integers(1, 10),
    ),
)


@given(settings, days, st.sampled_from(["day", "week", "month"]))
def test_periods_tile_the_days(how: PeriodSettings, day: date, cadence: Cadence) -> None:
    period = how.containing(cadence, day)
    assert period.start <= day < period.end
    assert how.previous(period).end == period.start
    assert how.named(cadence, period.start) == period
    assert {how.containing(cadence, other) for other in period.days()} == {period}


@given(settings, days, st.sampled_from(["day", "week", "month"]))
def test_closed_before_is_the_last_that_ended(how: PeriodSettings, day: date, cadence: Cadence) -> None:
    period = how.closed_before(cadence, day)
    assert period.end <= day < how.containing(cadence, period.end).end


def test_a_sunday_takes_the_week_before() -> None:
    sunday = date(2026, 4, 26)
    assert CALENDAR.closed_before("week", sunday).start == date(2026, 4, 13)
    assert CALENDAR.closed_before("week", sunday + timedelta(days=1)).start == date(2026, 4, 20)


def test_parents_of_the_calendar() -> None:
    assert SIMULATED.parents("tpm", date(2026, 1, 1)) == []
    assert SIMULATED.parents("tpm", date(2026, 2, 1)) == [
        Parent(role="predecessor", kind="tpm", period=date(2026, 1, 1))
    ]
    assert [p.period for p in SIMULATED.parents("cpm", date(2026, 4, 20))] == [
        date(2026, 1, 1),
        date(2026, 2, 1),
        date(2026, 3, 1),
    ]
    weekly = [
        Parent(role="pretrained", kind="cpm", period=date(2026, 4, 20)),
        Parent(role="encoder", kind="fg_bert", period=date(2026, 4, 20)),
    ]
    texts = [Parent(role="texts", kind="bahe", period=date(2026, 4, day)) for day in (26, 27)]
    assert SIMULATED.parents("actr", date(2026, 4, 27)) == [*weekly, texts[0]]
    assert SIMULATED.parents("actr", date(2026, 4, 28)) == [
        *weekly,
        texts[1],
        Parent(role="predecessor", kind="actr", period=date(2026, 4, 27)),
    ]
    assert SIMULATED.parents("bahe", date(2026, 4, 26)) == [], "the first A-CTR's rows see vectors of the day before"
    assert SIMULATED.parents("bahe", date(2026, 4, 27)) == [
        Parent(role="predecessor", kind="bahe", period=date(2026, 4, 26))
    ]
    assert SIMULATED.parents("fg_bert", date(2026, 4, 27)) == [
        Parent(role="predecessor", kind="fg_bert", period=date(2026, 4, 20))
    ]
    assert SIMULATED.parents("fg_bert", date(2026, 4, 20)) == [], "the first one that an A-CTR reads"
    assert SIMULATED.parents("fg_bert_users", date(2026, 4, 28)) == weekly[1:]


def test_users_are_encoded_once_there_is_an_encoder() -> None:
    """Where no week closed before the first A-CTR, the first FG-BERT is that of the week of `history_start`."""
    early = Lineage(settings=BLOCKS, history_start=date(2022, 4, 29), actr_start=date(2022, 4, 29))
    assert (early.encoder_start, early.encoded_start) == (date(2022, 4, 29), date(2022, 5, 1))
    assert [parent.period for parent in early.parents("fg_bert_users", date(2022, 5, 1))] == [date(2022, 4, 29)]
    with pytest.raises(BadInput, match="expected a fg_bert_users period not before 2022-05-01"):
        early.parents("fg_bert_users", date(2022, 4, 30))


def test_parents_of_blocks() -> None:
    """KuaiRand's day 2022-05-03 is the first to rest on the CPM of the week 05-01 .. 05-02."""
    assert [p.period for p in KUAIRAND.parents("actr", date(2022, 5, 2)) if p.kind == "cpm"] == [date(2022, 4, 29)]
    assert [p.period for p in KUAIRAND.parents("actr", date(2022, 5, 3)) if p.kind == "cpm"] == [date(2022, 5, 1)]
    assert [p.period for p in KUAIRAND.parents("cpm", date(2022, 5, 1))] == [
        date(2022, 4, 25),
        date(2022, 4, 27),
        date(2022, 4, 29),
    ]


def test_snapshots_of_a_row_closed_before_its_day() -> None:
    assert SIMULATED.snapshots_of_day(date(2026, 3, 31)) == [date(2026, 2, 1), date(2026, 1, 1), None]
    assert SIMULATED.snapshots_of_day(date(2026, 4, 1)) == [date(2026, 3, 1), date(2026, 2, 1), date(2026, 1, 1)]


@given(days)
def test_a_parent_never_ends_after_its_child_begins(day: date) -> None:
    lineage = Lineage(settings=CALENDAR, history_start=date(2014, 1, 1), actr_start=date(2014, 6, 1))
    for parent in lineage.parents("actr", day):
        assert lineage.period(parent.kind, parent.period).end <= day


def test_checkpoints_every_ten_days_from_the_start() -> None:
    start = SIMULATED.history_start
    assert SIMULATED.checkpoint_before(start + timedelta(days=9)) is None
    assert SIMULATED.checkpoint_before(start + timedelta(days=10)) == start + timedelta(days=10)
    assert SIMULATED.checkpoint_before(start + timedelta(days=19)) == start + timedelta(days=10)


@pytest.mark.parametrize(
    ("kind", "period", "message"),
    [
        ("cpm", date(2026, 4, 21), r"--period: week: expected the first day of a week, found 2026-04-21"),
        ("actr", date(2026, 4, 26), r"actr_start: expected a actr period not before 2026-04-27, found 2026-04-26"),
        ("tpm", date(2025, 12, 1), r"history_start: expected a tpm period not before 2026-01-01, found 2025-12-01"),
        (
            "fg_bert",
            date(2026, 4, 13),
            r"actr_start: expected a fg_bert period not before 2026-04-20, found 2026-04-13",
        ),
        ("din", date(2026, 4, 20), r"kind: expected one of tpm, cpm, fg_bert, fg_bert_users, bahe, actr, found din"),
    ],
)
def test_a_wrong_period_is_named(kind: str, period: date, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        SIMULATED.parents(kind, period)


def test_block_lengths_need_an_anchor() -> None:
    with pytest.raises(BadInput, match="anchor: expected a day, since month_days or week_days is set, found none"):
        PeriodSettings(month_days=2)
    with pytest.raises(BadInput, match="week_days: expected a number of days >= 1"):
        PeriodSettings(anchor=date(2022, 4, 25), month_days=2)
