"""Deployment settings that go with each source."""

from __future__ import annotations

from dataclasses import fields
from datetime import date, timedelta
from pathlib import Path

from contracts.errors import BadInput
from contracts.periods import PeriodSettings
from contracts.settings import SETTINGS_FILE, Deployment
from contracts.transfer import SHOWN_VARIANTS, SHOWN_WITH_TEXTS

KUAIRAND_DAYS = (date(2022, 4, 25), date(2022, 5, 4))  # first and last whole day of the standard log, in Asia/Shanghai
TAOBAO_DAYS = (date(2017, 4, 22), date(2017, 5, 13))  # days of behaviours, in Asia/Shanghai
TAOBAO_FIRST_AD_DAY = date(2017, 5, 6)
CALENDAR_FROM_DAYS = 120  # three months for the snapshots, and one of ads
SCORED = 3  # days with an A-CTR of the day before
SCORED_OF_SIMULATOR = 2  # a day costs the demo a minute and a half


def simulator(*, start: date, days: int) -> Deployment:
    """Calendar months and ISO weeks, UTC; the quick recipe, since a simulated world is for trying things out."""
    return Deployment(
        source="simulator",
        history_start=start,
        history_end=_last(start, days),
        actr_start=_before_last(SCORED_OF_SIMULATOR, start, days),
        feedback_delay_seconds=600,
        recipe="quick",
        variants=SHOWN_WITH_TEXTS,
    )


def kuairand() -> Deployment:
    """Ten days of Beijing time, with months and weeks of two days; the log's keys are strings."""
    first_day = KUAIRAND_DAYS[0]
    return Deployment(
        source="kuairand",
        day_timezone="Asia/Shanghai",
        history_start=first_day,
        history_end=KUAIRAND_DAYS[1],
        actr_start=date(2022, 5, 1),
        periods=PeriodSettings(anchor=first_day, month_days=2, week_days=2),
        feedback_delay_seconds=600,
        string_ids=("event_id", "request_id"),
        variants=SHOWN_VARIANTS,
    )


def movielens(*, start: date, days: int) -> Deployment:
    """Days of equal count; feedback is known without delay. Months and weeks are the calendar's, or of five days where days are few."""
    return Deployment(
        source="movielens",
        history_start=start,
        history_end=_last(start, days),
        actr_start=_before_last(SCORED, start, days),
        periods=PeriodSettings()
        if days >= CALENDAR_FROM_DAYS
        else PeriodSettings(anchor=start, month_days=5, week_days=5),
        feedback_delay_seconds=0,
        variants=SHOWN_WITH_TEXTS,
    )


def taobao(*, first: date, last: date) -> Deployment:
    """Days of Beijing time; three months of five days and weeks of two lie before the first A-CTR day, where all 22 days are taken."""
    days = (last - first).days + 1
    ad_start = max(first, TAOBAO_FIRST_AD_DAY)
    return Deployment(
        source="taobao",
        day_timezone="Asia/Shanghai",
        history_start=first,
        history_end=last,
        actr_start=max(_before_last(SCORED, first, days), ad_start),
        periods=PeriodSettings(anchor=first, month_days=5 if days > 16 else 2, week_days=2),
        feedback_delay_seconds=600,
        ad_start=ad_start,
        variants=SHOWN_VARIANTS,
    )


def write(home: Path, deployment: Deployment) -> Path:
    """Writes `deployment.toml`, unless the same settings are there already.

    Raises:
        BadInput: the folder belongs to a deployment with other settings; the message names the first that differs.
    """
    path = home / SETTINGS_FILE
    if not path.exists():
        home.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(deployment.to_toml(), encoding="utf-8")
        temporary.rename(path)
        return path
    present = Deployment.load(home)
    for name in sorted((field.name for field in fields(Deployment)), key=lambda name: name != "source"):  # source first
        wanted, actual = getattr(deployment, name), getattr(present, name)
        if wanted != actual:
            raise BadInput(
                path,
                name,
                expected=_shown(wanted),
                found=_shown(actual),
                hint="This folder belongs to another deployment: use another --home, or remove it.",
            )
    return path


def _shown(value: object) -> str:
    return str(value) if isinstance(value, (date, str)) else repr(value)


def _last(start: date, days: int) -> date:
    return start + timedelta(days=days - 1)


def _before_last(scored: int, start: date, days: int) -> date:
    """The day before the last `scored` days."""
    return start + timedelta(days=max(days - 1 - scored, 0))
