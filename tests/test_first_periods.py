"""Which periods the models of a deployment can have, as `init` and `status --periods` print them."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest

from contracts.errors import EXIT_OK
from contracts.kinds import KINDS
from contracts.periods import Parent, PeriodSettings
from contracts.settings import SETTINGS_FILE, Deployment
from sources import deployments
from tributary.cli import main
from tributary.first_periods import ancestors, first_period, gaps, report

START = date(2026, 1, 14)  # a Wednesday in the middle of a month
CALENDAR = Deployment(history_start=START, actr_start=START)
BLOCKS = replace(CALENDAR, periods=PeriodSettings(anchor=START, month_days=6, week_days=2))


def below_first(deployment: Deployment) -> list[tuple[str, date]]:
    first = Parent(role="predecessor", kind="actr", period=deployment.actr_start)
    return [(one.kind, one.period) for one in ancestors(deployment, [first])[:-1]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "deployment", [CALENDAR, BLOCKS, deployments.kuairand()], ids=["calendar", "blocks", "kuairand"]
)
def test_the_first_period_is_the_first_that_the_lineage_takes(kind: str, deployment: Deployment) -> None:
    lineage = deployment.lineage
    first = first_period(deployment, kind)
    assert lineage.is_made(kind, first)
    assert not lineage.is_made(kind, deployment.periods.previous(first))


@pytest.mark.parametrize("deployment", [CALENDAR, BLOCKS], ids=["calendar", "blocks"])
def test_the_day_that_a_warning_names_is_the_first_without_it(deployment: Deployment) -> None:
    """The named days, found by trying each day as the first A-CTR's, whose parents are looked at."""
    days = [START + timedelta(days=after) for after in range(60)]
    tried = {day: replace(deployment, actr_start=day) for day in days}
    warned = {day: gaps(one) for day, one in tried.items()}
    for kind, word in (("cpm", "no CPM"), ("tpm", "no TPM")):
        enough = next(day for day in days if not any(word in gap for gap in warned[day]))
        for day in days:
            (named,) = [gap for gap in warned[day] if word in gap] or [""]
            assert bool(named) == (day < enough)
            assert not named or f"With actr_start {enough} or later it would." in named
        assert any(made == kind and period >= START for made, period in below_first(tried[enough]))
    assert not any(period >= START for made, period in below_first(tried[START]))


def test_what_a_deployment_does_not_read_is_not_missed() -> None:
    assert len(gaps(CALENDAR)) == 2
    assert len(gaps(replace(CALENDAR, variants=("cpm",)))) == 1
    assert gaps(replace(CALENDAR, variants=("none", "srp4ctr"))) == []


def test_a_day_that_will_not_come_is_told() -> None:
    closed = replace(CALENDAR, history_end=START + timedelta(days=5))
    assert all("but the logs end on 2026-01-19: declare shorter weeks and months" in gap for gap in gaps(closed))


def test_the_sources_of_this_project_warn_of_nothing() -> None:
    for one in (deployments.kuairand(), deployments.simulator(start=date(2026, 1, 1), days=119)):
        assert gaps(one) == []
        assert f"rests on: {below_first(one)[0][0]} {below_first(one)[0][1]}" in report(one)[2]


def test_init_and_status_print_the_periods(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--home", str(tmp_path), "init", "--history-start", "2026-01-14", "--actr-start", "2026-01-27"]
    assert main(arguments) == EXIT_OK
    printed = capsys.readouterr().out
    lines = report(Deployment.load(tmp_path))
    assert "\n".join(lines) in printed and SETTINGS_FILE in printed
    rows = {line.split()[0]: line.split() for line in lines[0].splitlines()}
    assert rows["tpm"][1:] == [
        "month",
        "2026-01-01",
        "..",
        "2026-01-31",
        "2026-01-14",
        "..",
        "2026-01-31",
        "18",
        "2026-01-31",
    ]
    assert rows["actr"][1:] == ["2026-01-27", "2026-01-14", "..", "2026-01-27", "14", "2026-01-27"]
    assert lines[2] == "the first A-CTR, of 2026-01-27, rests on: cpm 2026-01-19"
    assert main(["--home", str(tmp_path), "status", "--periods"]) == EXIT_OK
    assert capsys.readouterr().out == "\n".join(lines) + "\n"
