"""What the demo loads as history, trains by hand and leaves to Airflow."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest

from contracts.errors import BadInput
from contracts.locations import Locations
from contracts.settings import Deployment
from sources import deployments
from tributary.demo import BACKFILLED_DAYS, landing_days, plan_of


def days_of(deployment: Deployment) -> list[date]:
    assert deployment.history_end is not None
    return [deployment.history_start + timedelta(days=n) for n in range((deployment.history_end - deployment.history_start).days + 1)]


def test_the_simulator_trains_three_months_and_a_week() -> None:
    deployment = deployments.simulator(start=date(2026, 1, 1), days=120)
    plan = plan_of(deployment, days_of(deployment))
    assert plan.history == (date(2026, 1, 1), date(2026, 4, 26))
    assert plan.backfilled[0] == deployment.actr_start
    assert len(plan.backfilled) == BACKFILLED_DAYS
    assert [(p.kind, p.period) for p in plan.trained] == [
        ("tpm", date(2026, 1, 1)), ("tpm", date(2026, 2, 1)), ("tpm", date(2026, 3, 1)), ("cpm", date(2026, 4, 20)),
        ("fg_bert", date(2026, 4, 20)), ("bahe", date(2026, 4, 26))]
    assert [(p.kind, p.period) for p in plan.scheduled] == [("bahe", date(2026, 4, day)) for day in (27, 28, 29)]


def test_an_encoder_that_no_setting_reads_is_not_trained() -> None:
    deployment = replace(deployments.simulator(start=date(2026, 1, 1), days=120), variants=("none", "tpm+cpm"))
    assert "fg_bert" not in [parent.kind for parent in plan_of(deployment, days_of(deployment)).trained]


def test_kuairand_closes_a_week_while_it_is_backfilled() -> None:
    deployment = deployments.kuairand()
    plan = plan_of(deployment, days_of(deployment))
    assert plan.backfilled == tuple(date(2022, 5, day) for day in (1, 2, 3, 4))
    assert ("cpm", date(2022, 4, 29)) in [(p.kind, p.period) for p in plan.trained]
    assert [(p.kind, p.period) for p in plan.scheduled] == [("cpm", date(2022, 5, 1)), ("fg_bert", date(2022, 5, 1))]


@pytest.mark.parametrize("deployment", [deployments.kuairand(), deployments.movielens(start=date(2001, 1, 1), days=30)])
def test_parents_come_before_their_children(deployment: Deployment) -> None:
    plan = plan_of(deployment, days_of(deployment))
    made = [*plan.trained, *plan.scheduled]
    for place, release in enumerate(made):
        before = {(p.kind, p.period) for p in made[:place]}
        assert {(p.kind, p.period) for p in deployment.lineage.parents(release.kind, release.period)} <= before


def test_what_a_killed_source_left_is_no_landing_day(tmp_path: Path) -> None:
    for name in ("2026-01-02", "2026-01-01", ".2026-01-03.tmp"):
        (tmp_path / "landing" / "natural" / name).mkdir(parents=True)
    assert landing_days(Locations(tmp_path)) == [date(2026, 1, 1), date(2026, 1, 2)]


def test_too_few_days_are_refused() -> None:
    deployment = deployments.simulator(start=date(2026, 1, 1), days=5)
    with pytest.raises(BadInput, match="--days: expected more than 4 days, found 4"):
        plan_of(deployment, days_of(deployment)[:4])
