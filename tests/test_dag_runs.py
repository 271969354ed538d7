"""`tributary dags tasks`, `logs` and `stop`, against a stand-in for Airflow's API."""

from __future__ import annotations

from typing import Any

import pytest
from stack_fixture import CALENDAR, FakeAirflow

from contracts.errors import EXIT_OK, BadInput
from tributary import dags_command, stack
from tributary.airflow_api import AirflowApi

DAG = "logs_daily"
PERIOD = ("--period", "2026-01-05")


def row(
    run_id: str, state: str = "running", *, queued: str = "2026-01-06T00:00:00Z", ds: str | None = None
) -> dict[str, Any]:
    return {
        "dag_id": DAG,
        "dag_run_id": run_id,
        "state": state,
        "run_type": "manual" if ds else "scheduled",
        "data_interval_start": None if ds else "2026-01-05T00:00:00Z",
        "conf": {"ds": ds} if ds else {},
        "duration": None,
        "queued_at": queued,
    }


def page(*rows: dict[str, Any]) -> tuple[int, Any]:
    return 200, {"dag_runs": list(rows), "total_entries": len(rows)}


def task(name: str, state: str | None, tries: int, began: str | None, seconds: float | None) -> dict[str, Any]:
    return {"task_id": name, "state": state, "try_number": tries, "start_date": began, "duration": seconds}


TASKS = (
    200,
    {
        "task_instances": [
            task("validate_logs", None, 0, None, None),
            task("ingest_logs", "running", 2, "2026-01-06T00:00:07.123Z", 12.345),
            task("wait_for_files", "success", 1, "2026-01-06T00:00:01Z", 1.0),
        ]
    },
)


@pytest.fixture
def airflow(fake: tuple[type[FakeAirflow], str], monkeypatch: pytest.MonkeyPatch) -> type[FakeAirflow]:
    handler, address = fake
    monkeypatch.setattr(stack, "api", lambda home: AirflowApi(address, "admin", "secret", deployment=CALENDAR))
    return handler


def asked(airflow: type[FakeAirflow]) -> list[tuple[str, str, Any]]:
    return [
        (method, path.removeprefix(f"/api/v2/dags/{DAG}/dagRuns"), body) for method, path, body in airflow.asked[1:]
    ]


def test_the_tasks_of_a_periods_newest_run(airflow: type[FakeAirflow], capsys: pytest.CaptureFixture[str]) -> None:
    other = row("by hand, of another day", queued="2026-01-09T00:00:00Z", ds="2026-01-04")
    by_hand = row("by hand", queued="2026-01-08T00:00:00Z", ds="2026-01-05")
    airflow.answers += [page(other, by_hand), page(row("scheduled", "failed")), TASKS]
    assert dags_command.main(["tasks", DAG, *PERIOD]) == EXIT_OK
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{DAG} by hand: running"
    assert [line.split() for line in lines[4:]] == [
        ["wait_for_files", "success", "1", "1.0", "2026-01-06", "00:00:01"],
        ["ingest_logs", "running", "2", "12.3", "2026-01-06", "00:00:07"],
        ["validate_logs", "to", "come", "0"],
    ]
    assert "run_type=manual" in asked(airflow)[0][1] and "logical_date_gte=2026-01-05" in asked(airflow)[1][1]


def test_a_run_by_its_name(airflow: type[FakeAirflow], capsys: pytest.CaptureFixture[str]) -> None:
    airflow.answers += [(200, row("one of all")), TASKS]
    assert dags_command.main(["tasks", DAG, "--run", "one of all"]) == EXIT_OK
    assert asked(airflow)[0][1] == "/one%20of%20all"


@pytest.mark.parametrize(("option", "number"), [((), 2), (("--try", "1"), 1)], ids=["last", "first"])
def test_the_log_of_a_try(
    airflow: type[FakeAirflow], capsys: pytest.CaptureFixture[str], option: tuple[str, ...], number: int
) -> None:
    airflow.answers += [
        page(),
        page(row("scheduled")),
        TASKS,
        (200, {"content": [{"event": "::group::x"}, {"event": "read 7"}]}),
    ]
    assert dags_command.main(["logs", DAG, "ingest_logs", *PERIOD, *option]) == EXIT_OK
    assert capsys.readouterr().out == "read 7\n"
    assert asked(airflow)[-1][1].startswith(f"/scheduled/taskInstances/ingest_logs/logs/{number}?")


def test_a_run_is_stopped(airflow: type[FakeAirflow], capsys: pytest.CaptureFixture[str]) -> None:
    ended = row("scheduled", "failed")
    airflow.answers += [page(), page(row("scheduled")), (200, ended), (200, ended), TASKS]
    assert dags_command.main(["stop", DAG, *PERIOD]) == EXIT_OK
    assert asked(airflow)[2] == ("PATCH", "/scheduled?update_mask=state", {"state": "failed"})
    out = capsys.readouterr().out
    assert f"{DAG} scheduled: failed" in out
    assert f"tributary dags backfill {DAG} --from 2026-01-05 --to 2026-01-05 --reprocess failed" in out


@pytest.mark.parametrize(
    ("line", "answers", "message"),
    [
        (["tasks", DAG], [], "run: expected either --period or --run, found neither"),
        (["tasks", DAG, *PERIOD, "--run", "x"], [], "expected either --period or --run, found both"),
        (["tasks", "lake_maintenance_weekly", *PERIOD], [], "--period: expected --run, since this DAG has no periods"),
        (["tasks", DAG, *PERIOD], [page(), page()], f"tributary dags backfill {DAG} --from 2026-01-05"),
        (
            ["logs", DAG, "ingest", *PERIOD],
            [page(), page(row("r")), TASKS],
            "one of validate_logs, ingest_logs, wait_for_files",
        ),
        (["logs", DAG, "validate_logs", *PERIOD], [page(), page(row("r")), TASKS], "expected a task that has begun"),
        (
            ["logs", DAG, "ingest_logs", *PERIOD, "--try", "3"],
            [page(), page(row("r")), TASKS],
            "--try: expected 1 .. 2, found 3",
        ),
        (
            ["stop", DAG, *PERIOD],
            [page(), page(row("r", "success"))],
            "expected one that runs or waits, found r: success",
        ),
    ],
    ids=["no_run", "two", "no_period", "never_ran", "no_such_task", "not_begun", "no_such_try", "over"],
)
def test_what_cannot_be_is_refused(
    airflow: type[FakeAirflow],
    line: list[str],
    answers: list[tuple[int, Any]],
    message: str,
) -> None:
    airflow.answers += answers
    with pytest.raises(BadInput) as refused:
        dags_command.main(line)
    assert message in str(refused.value)
    assert not [method for method, _, _ in airflow.asked if method == "PATCH"]
