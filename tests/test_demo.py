"""What the demo loads as history, trains by hand and leaves to Airflow."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import EXIT_BAD_INPUT, EXIT_OK, BadInput
from contracts.landing import LandingSettings, LandingSource
from contracts.locations import Locations
from contracts.periods import Parent
from contracts.settings import Deployment
from sources import deployments
from tributary import demo, stack
from tributary.cli import main
from tributary.demo_plan import MOST_BACKFILLED, landing_days, plan_of, whole_days


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
        match=f"landing days: expected days before actr_start {deployment.actr_start}, and two or more from it on, found {landed} ",
    ):
        plan_of(deployment, days_of(deployment)[:landed])


FIRST = date(2026, 1, 1)
OWN = Deployment(history_start=FIRST, actr_start=date(2026, 1, 4), source="shop")
LONG_PAST = datetime(2027, 1, 1, tzinfo=UTC)


def land(home: Path, *, natural: range, ad: range) -> Locations:
    """Folders of landing days, numbered from the first."""
    locations = Locations(home)
    for log, numbers in (("natural", natural), ("ad", ad)):
        for number in numbers:
            locations.landing_day(log, FIRST + timedelta(days=number)).mkdir(parents=True)
    return locations


def test_the_days_of_a_teams_own_deployment_are_those_that_landed(tmp_path: Path) -> None:
    locations = land(tmp_path, natural=range(-1, 9), ad=range(9))
    days = [FIRST + timedelta(days=number) for number in range(9)]
    assert whole_days(OWN, locations, LONG_PAST) == days  # the day before history_start is none of them
    assert whole_days(replace(OWN, history_end=days[5]), locations, LONG_PAST) == days[:6]
    elsewhere = replace(
        OWN, history_end=days[3], landing=LandingSettings(natural=LandingSource(table="/lake/feed", day="dt"))
    )
    assert whole_days(elsewhere, land(tmp_path / "other", natural=range(0), ad=range(9)), LONG_PAST) == days[:4]
    evening = datetime(2026, 1, 5, 23, 30, tzinfo=UTC)
    assert whole_days(OWN, locations, evening)[-1] == date(2026, 1, 4)  # the fifth has not ended
    assert whole_days(replace(OWN, day_timezone="Asia/Shanghai"), locations, evening)[-1] == date(2026, 1, 5)


@pytest.mark.parametrize(
    ("natural", "ad", "changes", "message"),
    [
        (
            range(0),
            range(0),
            {},
            "natural.*expected a folder for each day from history_start 2026-01-01 on.*found none",
        ),
        (
            range(2, 9),
            range(9),
            {},
            "natural.*each day 2026-01-01 .. 2026-01-09, found 2 missing: 2026-01-01, 2026-01-02",
        ),
        (range(9), range(3, 9), {}, "ad.*found 3 missing: .*correct ad_start"),
        (
            range(9),
            range(3, 8),
            {"ad_start": date(2026, 1, 4)},
            "ad.*each day 2026-01-04 .. 2026-01-09, found 1 missing: 2026-01-09",
        ),
    ],
    ids=["nothing", "begins_later", "no_ads_yet", "last_ads_missing"],
)
def test_landing_days_that_are_missing_are_named(
    tmp_path: Path, natural: range, ad: range, changes: dict[str, Any], message: str
) -> None:
    locations = land(tmp_path, natural=natural, ad=ad)
    with pytest.raises(BadInput, match=f"(?s){message}"):
        whole_days(replace(OWN, **changes), locations, LONG_PAST)


def test_a_folder_that_is_no_day_is_refused_by_name(tmp_path: Path) -> None:
    land(tmp_path, natural=range(2), ad=range(2))
    (tmp_path / "landing" / "natural" / "January").mkdir()
    with pytest.raises(BadInput, match="found January"):
        landing_days(Locations(tmp_path))


def test_of_many_ad_days_the_last_go_through_airflow_and_the_others_are_trained_before() -> None:
    days = [FIRST + timedelta(days=number) for number in range(1500)]
    plan = plan_of(OWN, days)
    assert plan.backfilled == tuple(days[-MOST_BACKFILLED:])
    assert plan.history == (FIRST, days[-MOST_BACKFILLED - 1])
    by_hand = [one.period for one in plan.trained if one.kind == "actr"]
    assert by_hand == days[3:-MOST_BACKFILLED]  # from actr_start on, each after its predecessor
    assert not [one for one in plan.scheduled if one.kind == "actr"]


def test_a_folder_tells_whose_logs_it_holds(tmp_path: Path) -> None:
    assert demo.source_of(tmp_path) == "simulator"
    for source, expected in (("simulator", "simulator"), ("kuairand", "kuairand"), ("taobao", "own"), ("shop", "own")):
        (tmp_path / "deployment.toml").write_text(replace(OWN, source=source).to_toml())
        assert demo.source_of(tmp_path) == expected


def test_what_a_team_lacks_is_told_before_anything_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = ["--home", str(tmp_path), "demo", "--source", "own"]
    assert main(own) == EXIT_BAD_INPUT
    assert f"{tmp_path / 'deployment.toml'}: file: expected a deployment's settings" in capsys.readouterr().err
    (tmp_path / "deployment.toml").write_text(OWN.to_toml())
    assert main([*own, "--data", str(tmp_path)]) == EXIT_BAD_INPUT
    assert "--data: expected none with --source own" in capsys.readouterr().err
    land(tmp_path, natural=range(4), ad=range(4))
    assert main(own) == EXIT_BAD_INPUT
    assert "landing days: expected days before actr_start 2026-01-04, and two or more" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deployment.toml", "landing"]


def test_a_teams_own_deployment_goes_through_all_stages_but_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "deployment.toml").write_text(OWN.to_toml())
    land(tmp_path, natural=range(6), ad=range(6))
    done: list[str] = []
    monkeypatch.setattr(demo, "command", lambda *arguments, prefix="": done.append(" ".join(arguments)))
    monkeypatch.setattr(
        demo, "backfill", lambda api, plan: done.append(f"backfill {plan.backfilled[0]} .. {plan.backfilled[-1]}")
    )
    monkeypatch.setattr(demo, "_print_addresses", lambda home: done.append(f"addresses of {home.name}"))
    for name in ("up_spark", "up", "api"):
        monkeypatch.setattr(stack, name, lambda home, name=name: done.append(name))
    assert main(["--home", str(tmp_path), "demo"]) == EXIT_OK
    assert done[0] == "up_spark" and done[-1] == f"addresses of {tmp_path.name}"
    assert not [line for line in done if line.startswith("sources")]
    assert done[1] == "spark_jobs ingest_logs --from 2026-01-01 --to 2026-01-03"
    assert done.index("up") + 2 == done.index("backfill 2026-01-04 .. 2026-01-06")
    printed = capsys.readouterr().out
    assert "history:  2026-01-01 .. 2026-01-03" in printed and "warning: the first A-CTR" in printed
