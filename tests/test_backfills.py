"""What a range of days means to each DAG, the order in which backfills start, and waiting for all of them."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from contracts.kinds import KINDS
from contracts.locations import Locations
from contracts.periods import days_between
from contracts.quality import StaleReport
from contracts.settings import HOME_VARIABLE, Deployment
from contracts.steps import CADENCES
from contracts.transfer import reads
from sources import deployments
from tributary import backfills, dags_command, stack
from tributary.airflow_api import Run, RunFailed
from tributary.backfills import BackfillsLate, spans_of_days, start_all, table_of, wait_for_all

CALENDAR = deployments.simulator(start=date(2026, 1, 1), days=119)  # A-CTR from 27 April on
APRIL_26, APRIL_30 = date(2026, 4, 26), date(2026, 4, 30)


def run(dag: str, number: int, state: str) -> Run:
    return Run(
        dag_id=dag,
        run_id=f"{dag} {number}",
        state=state,
        run_type="backfill",
        period=date(2026, 4, number),
        seconds=2.0,
    )


class FakeApi:
    """Answers `runs` with one look after the other, the last for ever."""

    address = "http://127.0.0.1:1"
    deployment = CALENDAR

    def __init__(self, looks: list[dict[str, list[Run]]]) -> None:
        self._looks, self.calls = looks, list[Any]()
        self._seen: dict[str, Iterator[list[Run]]] = {}

    def runs(self, dag: str, first: date, last: date) -> list[Run]:
        seen = self._seen.setdefault(dag, iter([look[dag] for look in self._looks]))
        return next(seen, self._looks[-1][dag])

    def unpause(self, dag: str) -> None:
        self.calls.append(("unpause", dag))

    def create_backfill(self, dag: str, first: date, last: date, **options: object) -> int:
        self.calls.append((dag, first, last, options))
        return len(self.calls)

    def failures(self, dag: str, run_id: str) -> str:
        return f"the log of {run_id}"


@pytest.fixture(autouse=True)
def no_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)


def test_a_range_means_the_periods_that_end_within_it() -> None:
    found = spans_of_days(CALENDAR, APRIL_26, APRIL_30)
    assert found == {
        "logs_daily": (APRIL_26, APRIL_30),
        "features_daily": (APRIL_26, APRIL_30),
        "tpm_monthly": (date(2026, 4, 1), date(2026, 4, 1)),  # it ends with the 30th
        "cpm_weekly": (date(2026, 4, 20), date(2026, 4, 20)),
        "fg_bert_weekly": (date(2026, 4, 20), date(2026, 4, 20)),
        "fg_bert_users_daily": (date(2026, 4, 27), APRIL_30),
        "bahe_daily": (APRIL_26, APRIL_30),
        "ad_ctr_daily": (date(2026, 4, 27), APRIL_30),
    }
    assert list(found) == list(backfills.ORDER), "those that others wait for come first"


def test_a_kind_that_nothing_reads_or_whose_first_period_comes_later_is_left_out() -> None:
    found = spans_of_days(replace(CALENDAR, variants=("none", "tpm+cpm")), date(2026, 4, 20), date(2026, 4, 25))
    assert list(found) == ["logs_daily", "features_daily"]
    assert "fg_bert_weekly" not in spans_of_days(replace(CALENDAR, variants=("none", "tpm+cpm")), APRIL_26, APRIL_30)


@pytest.mark.parametrize(
    "deployment", [CALENDAR, deployments.kuairand(), deployments.movielens(start=date(2001, 1, 1), days=30)]
)
def test_every_parent_of_a_day_is_in_the_range_of_the_whole_history(deployment: Deployment) -> None:
    assert deployment.history_end is not None
    found = spans_of_days(deployment, deployment.history_start, deployment.history_end)
    kinds = {kind.name: kind.dag for kind in KINDS.values()}
    for name, dag in kinds.items():
        if dag not in found:
            continue
        start, last = found[dag]
        for first_day in {deployment.periods.containing(CADENCES[dag], day).start for day in days_between(start, last)}:
            for parent in deployment.lineage.parents(name, first_day):
                if reads(parent.role, deployment.variants):
                    begin, end = found[kinds[parent.kind]]
                    assert begin <= parent.period <= end, (name, first_day, parent)


def test_days_before_the_logs_have_nothing() -> None:
    assert spans_of_days(CALENDAR, date(2025, 12, 1), date(2025, 12, 31)) == {}


def test_backfills_start_in_order_with_their_dags_let_run() -> None:
    api = FakeApi([])
    spans = {
        "ad_ctr_daily": (APRIL_30, APRIL_30),
        "logs_daily": (APRIL_26, APRIL_30),
        "bahe_daily": (APRIL_30, APRIL_30),
    }
    start_all(
        api,  # type: ignore[arg-type]
        spans,
        max_active_runs={"logs_daily": 2},
        backwards=True,
        recipe="quick",
        transfer="tpm",
        say=lambda _: None,
    )
    of_logs = {"max_active_runs": 2, "reprocess": "failed", "conf": {}, "backwards": True}
    of_models = {
        "max_active_runs": 1,
        "reprocess": "failed",
        "conf": {"recipe": "quick"},
        "backwards": False,
    }  # Airflow refuses chains
    of_ads = of_models | {"conf": {"recipe": "quick", "transfer": "tpm"}}
    assert api.calls == [
        ("unpause", "logs_daily"),
        ("logs_daily", APRIL_26, APRIL_30, of_logs),
        ("unpause", "bahe_daily"),
        ("bahe_daily", APRIL_30, APRIL_30, of_models),
        ("unpause", "ad_ctr_daily"),
        ("ad_ctr_daily", APRIL_30, APRIL_30, of_ads),
    ]
    start_all(api, {"ad_ctr_daily": (APRIL_30, APRIL_30)}, backwards=True, say=lambda _: None)  # type: ignore[arg-type]
    assert api.calls[-1][3]["backwards"], "of one DAG it is asked for, and Airflow gives the reason if it refuses"


LOOKS = [
    {"logs_daily": []},
    {"logs_daily": [run("logs_daily", 1, "running"), run("logs_daily", 2, "queued")]},
    {"logs_daily": [run("logs_daily", 1, "failed"), run("logs_daily", 2, "running")]},
    {"logs_daily": [run("logs_daily", 1, "failed"), run("logs_daily", 2, "success")]},
]
SPANS = {"logs_daily": (date(2026, 4, 1), date(2026, 4, 2))}


def test_waiting_goes_on_to_the_end_of_all_and_tells_what_failed() -> None:
    said: list[str] = []
    ended = wait_for_all(FakeApi(LOOKS), SPANS, at_first_failure=False, say=said.append)  # type: ignore[arg-type]
    assert [line.split("s  logs_daily ")[1] for line in said] == ["0/0", "0/2", "0/2 (1 failed)", "1/2 (1 failed)"]
    assert [word.strip() for word in table_of(ended).splitlines()[2].split("  ") if word] == [
        "logs_daily",
        "2026-04-01 .. 2026-04-02",
        "1",
        "2026-04-01",
        "4",
    ]


def test_waiting_may_end_with_the_first_failure_and_with_its_log() -> None:
    with pytest.raises(RunFailed, match=r"logs_daily 2026-04-01: failed\.\nthe log of logs_daily 1"):
        wait_for_all(FakeApi(LOOKS), SPANS, say=lambda _: None)  # type: ignore[arg-type]


def test_waiting_ends_in_time() -> None:
    with pytest.raises(
        BackfillsLate, match=r"logs_daily 0/2: expected all runs to end within 0 s. They go on: see http"
    ):
        wait_for_all(FakeApi(LOOKS[1:2]), SPANS, timeout_seconds=0, say=lambda _: None)  # type: ignore[arg-type]


def test_the_command_backfills_all_dags_and_ends_with_a_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    states = {dag: [run(dag, 26, "failed" if dag == "bahe_daily" else "success")] for dag in backfills.ORDER}
    api = FakeApi([states])
    monkeypatch.setattr(stack, "api", lambda home: api)
    assert dags_command.main(["backfill", "--from", "2026-04-26", "--to", "2026-04-30"]) == 1
    output, errors = capsys.readouterr()
    assert [call[0] for call in api.calls if call[0] != "unpause"] == list(backfills.ORDER)
    assert "bahe_daily           2026-04-26 .. 2026-04-26          0  2026-04-26" in output
    assert "the log of bahe_daily 26" in errors
    assert errors.endswith(
        "  tributary dags backfill bahe_daily --from 2026-04-26 --to 2026-04-26 --reprocess failed\n"
    )


@pytest.mark.parametrize(
    "periods", [(), (("bahe_daily", APRIL_26, APRIL_30), ("ad_ctr_daily", date(2026, 4, 27), APRIL_30))]
)
def test_a_repair_builds_stale_days_and_then_makes_models_again(
    periods: tuple[tuple[str, date, date], ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = StaleReport(looked_ts=datetime(2026, 5, 1, tzinfo=UTC), days=(), releases=(), commands=(), periods=periods)
    locations = Locations(tmp_path)

    def repaired(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        assert command[1:] == ["-m", "spark_jobs", "repair"]
        locations.stale_found.parent.mkdir(parents=True, exist_ok=True)
        locations.stale_found.write_text(found.to_json())
        return subprocess.CompletedProcess(command, 0)

    api = FakeApi([{dag: [run(dag, 30, "success")] for dag in backfills.ORDER}])
    monkeypatch.setattr(stack, "api", lambda home: api)
    monkeypatch.setattr(subprocess, "run", repaired)
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path))
    assert dags_command.main(["repair"]) == 0
    assert [(call[0], call[1], call[2]) for call in api.calls if call[0] != "unpause"] == list(periods)
    assert all(call[3]["reprocess"] == "completed" for call in api.calls if call[0] != "unpause")
    assert ("no model has to be rebuilt" in capsys.readouterr().out) == (not periods)


def test_a_mend_that_stops_starts_no_backfill(monkeypatch: pytest.MonkeyPatch) -> None:
    api = FakeApi([])
    monkeypatch.setattr(stack, "api", lambda home: api)
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 3))
    assert dags_command.main(["repair"]) == 3
    assert not api.calls
