"""What the demo loads as history, trains by hand and leaves to Airflow."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest

from contracts.errors import BadInput
from contracts.locations import Locations
from contracts.periods import Parent
from contracts.settings import Deployment
from sources import deployments
from tributary import demo
from tributary.demo import landing_days, plan_of


def days_of(deployment: Deployment) -> list[date]:
    assert deployment.history_end is not None
    return [
        deployment.history_start + timedelta(days=n)
        for n in range((deployment.history_end - deployment.history_start).days + 1)
    ]


def test_the_simulator_trains_three_months_and_a_week() -> None:
    deployment = deployments.simulator(start=date(2026, 1, 1), days=119)
    plan = plan_of(deployment, days_of(deployment))
    assert plan.history == (date(2026, 1, 1), date(2026, 4, 26))
    assert plan.backfilled == tuple(date(2026, 4, day) for day in (27, 28, 29))
    assert [(p.kind, p.period) for p in plan.trained] == [
        ("tpm", date(2026, 1, 1)),
        ("tpm", date(2026, 2, 1)),
        ("tpm", date(2026, 3, 1)),
        ("cpm", date(2026, 4, 20)),
        ("fg_bert", date(2026, 4, 20)),
        ("bahe", date(2026, 4, 26)),
    ]
    assert [(p.kind, p.period) for p in plan.scheduled] == [("bahe", date(2026, 4, day)) for day in (27, 28)]


def test_an_encoder_that_no_setting_reads_is_not_trained() -> None:
    deployment = replace(deployments.simulator(start=date(2026, 1, 1), days=119), variants=("none", "tpm+cpm"))
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


def test_a_model_is_trained_when_its_parents_are_there_and_two_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = deployments.simulator(start=date(2026, 1, 1), days=119)
    trained = plan_of(deployment, days_of(deployment)).trained
    made: set[tuple[str, date]] = set()
    at_work: set[tuple[str, date]] = set()
    most = 0

    def make(release: Parent) -> None:
        nonlocal most
        assert {(p.kind, p.period) for p in deployment.lineage.parents(release.kind, release.period)} <= made
        at_work.add((release.kind, release.period))
        most = max(most, len(at_work))
        time.sleep(0.02)
        at_work.discard((release.kind, release.period))
        made.add((release.kind, release.period))

    monkeypatch.setattr(demo, "_train", make)
    demo.train(deployment, trained)
    assert made == {(p.kind, p.period) for p in trained}
    assert most == demo.TRAINED_AT_ONCE


def test_after_a_failed_model_none_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = deployments.simulator(start=date(2026, 1, 1), days=119)
    begun: list[str] = []

    def fail(release: Parent) -> None:
        begun.append(release.kind)
        if release.kind == "tpm":
            raise demo.StageFailed("why")
        time.sleep(0.05)

    monkeypatch.setattr(demo, "_train", fail)
    with pytest.raises(demo.StageFailed, match="why"):
        demo.train(deployment, plan_of(deployment, days_of(deployment)).trained)
    assert "tpm" in begun and len(begun) <= demo.TRAINED_AT_ONCE


def test_lines_of_what_runs_beside_others_say_whose_they_are(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(demo.StageFailed, match=r"`tributary contracts\.nothing x` ended with exit code 1"):
        demo.command("contracts.nothing", "x", prefix="tpm | ")
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == "tpm | $ tributary contracts.nothing x"
    assert len(lines) > 1 and all(line.startswith("tpm | ") for line in lines)


def test_what_a_killed_source_left_is_no_landing_day(tmp_path: Path) -> None:
    for name in ("2026-01-02", "2026-01-01", ".2026-01-03.tmp"):
        (tmp_path / "landing" / "natural" / name).mkdir(parents=True)
    assert landing_days(Locations(tmp_path)) == [date(2026, 1, 1), date(2026, 1, 2)]


@pytest.mark.parametrize(("days", "landed"), [(3, 3), (5, 3)], ids=["none_before", "one_to_backfill"])
def test_too_few_days_are_refused(days: int, landed: int) -> None:
    deployment = deployments.simulator(start=date(2026, 1, 1), days=days)
    with pytest.raises(
        BadInput,
        match=f"--days: expected days before {deployment.actr_start}, and two or more from it on, found {landed}",
    ):
        plan_of(deployment, days_of(deployment)[:landed])
