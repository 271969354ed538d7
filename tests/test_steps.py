"""The pipeline is declared once: a step and a kind of model that are added there are found in everything that derives from it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest

import contracts
from contracts.kinds import KINDS
from contracts.settings import SETTINGS_FILE, Deployment
from contracts.steps import STEPS, awaited_table, commands_over, day_steps, next_command, producers
from contracts.tables import TABLES

PROJECT = Path(contracts.__file__).parent.parent

# One entry each, as a developer would add it.
MADE_STEP = """    Step(folder="spark_jobs", name="build_made", span="days", dag="features_daily", reads=("user_histories",),
         writes=("made_table",), meaning="a made table of a day"),
"""
MADE_TABLE = """    Table(name="made_table", grain="one made thing", columns=(_id("user_id", "the user"), _DS), owner=("ds",),
          unique=("user_id",)),
"""
MADE_KIND = """    Kind(name="made", meaning="a made model", cadence="week", model_version=1, vectors="made_vectors",
         vectors_meaning="a made vector", dag="made_weekly", makes="samples -> a made model", reads=("made_table",),
         parents=(ParentRule(role="snapshot", kind="tpm"), ParentRule(role="predecessor", kind="made", which="previous"))),
"""

DERIVED = """
import json, sys
from datetime import date
from pathlib import Path
from airflow.dag_processing.dagbag import DagBag
from click import Context
from contracts import steps
from pages import tables_page
from contracts.settings import Deployment
from contracts.tables import TABLES
from contracts.kinds import KINDS
from publishing.parents import missing_inputs
from lake.reader import LakeReader
from contracts.locations import Locations
from spark_jobs.staleness import Stale, repair_commands
from tributary import backfills, cli
from tributary.dags_command import DAG_IDS
from training import cli as training_cli
home = Path(sys.argv[1])
deployment = Deployment.load(home)
bag = DagBag(sys.argv[2])
week = deployment.lineage.period("made", date(2026, 2, 9))
print("RESULT" + json.dumps({
    "errors": bag.import_errors,
    "tasks": {dag.dag_id: {t.task_id: [sorted(a.name for a in t.inlets), sorted(a.name for a in t.outlets), sorted(t.downstream_task_ids)]
              for t in dag.tasks} for dag in bag.dags.values()},
    "pages": {dag.dag_id: dag.doc_md for dag in bag.dags.values()},
    "help": cli.tributary.get_help(Context(cli.tributary, terminal_width=200)),
    "tables": tables_page.page(), "dags": list(DAG_IDS), "order": list(backfills.ORDER),
    "chained": list(backfills.CHAINED), "spans": sorted(backfills.spans_of_days(deployment, date(2026, 2, 1), date(2026, 2, 20))),
    "over": [list(c) for c in steps.commands_over(("--ds", "D"))], "next": steps.next_command("build_samples"),
    "release": [list(c) for c in steps.release_commands("made", "P")],
    "rebuilt": repair_commands([Stale(table="made_table", owner="ds=2026-02-09", changed=("x",))]),
    "parents": [[p.role, p.kind, str(p.period)] for p in deployment.lineage.parents("made", week.start)],
    "waits": [[one.dag, one.what] for one in missing_inputs(LakeReader(Locations(home)), deployment, "made", week.start)],
    "command": training_cli.commands.commands["made"].make_context("made", ["--period", "2026-02-09"]).params["period"].isoformat(),
}))
"""


@pytest.fixture(scope="module")
def derived(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Everything that derives from the declarations, with a made-up step, table and kind of model in them."""
    home = tmp_path_factory.mktemp("made")
    shutil.copytree(PROJECT / "contracts", home / "contracts")
    for module, entry, what, before in (
        ("steps", MADE_STEP, "Step", "list_stale"),
        ("tables", MADE_TABLE, "Table", "quarantine"),
        ("kinds", MADE_KIND, "Kind", "actr"),
    ):
        path = home / "contracts" / f"{module}.py"
        text = path.read_text()
        (place,) = re.finditer(rf'^ *{what}\((?:\s*folder="\w+",)?\s*name="{before}",', text, re.MULTILINE)
        path.write_text(text[: place.start()] + entry + text[place.start() :])
    deployment = Deployment(history_start=date(2026, 1, 10), actr_start=date(2026, 2, 5))
    (home / SETTINGS_FILE).write_text(deployment.to_toml())
    done = subprocess.run(
        [sys.executable, "-c", DERIVED, str(home), str(PROJECT / "dags")],
        capture_output=True,
        text=True,
        check=False,
        cwd=home,
        env=os.environ
        | {
            "PYTHONPATH": f"{home}:{PROJECT}",
            "TRIBUTARY_HOME": str(home),
            "AIRFLOW_HOME": str(home / "airflow"),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT / "plugins"),
        },
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(
        json.loads(next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))[len("RESULT") :])
    )


@pytest.mark.airflow
class TestWhatIsAdded:
    def test_a_step_is_found_in_everything_that_makes_days(self, derived: dict[str, Any]) -> None:
        assert derived["errors"] == {}
        assert derived["tasks"]["features_daily"]["build_made"] == [["user_histories"], ["made_table"], []]
        assert "build_made" in derived["tasks"]["features_daily"]["build_histories"][2]
        assert "build_made" in derived["tasks"]["bootstrap"]
        assert all("`build_made`" in derived["pages"][dag] for dag in ("features_daily", "bootstrap"))
        assert ["spark_jobs", "build_made", "--ds", "D"] in derived["over"]
        assert " build_made " in derived["help"]
        assert derived["rebuilt"] == ["tributary spark_jobs build_made --ds 2026-02-09"]
        section = derived["tables"].split("\n## made_table\n")[1].split("\n## ")[0]
        assert "- producer: `spark_jobs build_made`" in section and "- readers: `training made`" in section

    def test_a_kind_is_found_in_everything_that_makes_models(self, derived: dict[str, Any]) -> None:
        tasks = derived["tasks"]["made_weekly"]
        assert set(tasks) == {
            "wait_for_parents",
            "oldest_first",
            "train_made",
            "gate_made",
            "audit_made",
            "publish_made",
        }
        assert tasks["train_made"][0] == ["made_release", "made_table", "tpm_release"]
        assert {"made_vectors", "made_release"} <= set(tasks["publish_made"][1])
        assert "tributary dags backfill made_weekly" in derived["pages"]["made_weekly"]
        assert (
            "made_weekly" in derived["dags"]
            and "made_weekly" in derived["chained"]
            and "made_weekly" in derived["spans"]
        )
        assert derived["order"].index("made_weekly") < derived["order"].index("ad_ctr_daily")
        assert derived["release"][0] == ["training", "made", "--period", "P"] and len(derived["release"]) == 4
        assert derived["parents"] == [["snapshot", "tpm", "2026-01-01"], ["predecessor", "made", "2026-02-02"]]
        assert [dag for dag, _ in derived["waits"]] == ["tpm_monthly", "made_weekly", "features_daily"]
        assert derived["waits"][-1][1].startswith("made_table of 7 days")
        assert (
            derived["command"] == "2026-02-09"
            and "\n## made_vectors\n" in derived["tables"]
            and " made  " in derived["help"]
        )


def test_every_table_is_written_by_a_step() -> None:
    assert {name for name in TABLES if not producers(name)} == {
        "builds"
    }  # with every partition, by the one way into a table


def test_steps_name_tables_that_are_declared() -> None:
    for step in STEPS:
        for name in (*step.reads, *step.writes, *step.judged):
            assert name in TABLES or name.startswith("landing_"), (step, name)


def test_days_are_made_in_an_order_in_which_what_is_read_is_there() -> None:
    made: set[str] = set()
    written = {table for step in day_steps() for table in step.writes}
    for step in day_steps():
        assert set(step.reads) & written <= made, step
        made |= {*step.writes}


def test_each_step_names_the_one_that_follows() -> None:
    commands = [" ".join(words[:-2]) for words in commands_over(("--ds", "2026-02-09"))]
    for place, step in enumerate(commands):
        if step.startswith("spark_jobs "):
            following = commands[place + 1] if place + 1 < len(commands) else None
            assert next_command(step.removeprefix("spark_jobs ")) == following


def test_a_model_waits_for_what_the_day_makes_last() -> None:
    assert {kind.name: awaited_table(kind) for kind in KINDS.values()} == {
        "tpm": "natural_samples",
        "cpm": "natural_samples",
        "fg_bert": "user_histories",
        "fg_bert_users": "user_histories",
        "bahe": "ad_samples",
        "actr": "ad_samples",
    }
