"""Pages that are made from the contracts are current, and the commands that they show work."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from contracts.features import LOGS
from contracts.locations import Locations
from contracts.settings import SETTINGS_FILE, Deployment
from contracts.steps import FOLDERS, REGISTRY, producers, readers
from contracts.tables import LANDING_COLUMNS, TABLES
from lake.reader import LakeReader
from pages import tables_page
from spark_jobs import ingest_logs
from spark_jobs.check_landing import check_files, declared

DOCS = Path(tables_page.__file__).parent.parent / "docs"
OWN_LOGS = (DOCS / "your_own_logs.md").read_text(encoding="utf-8")
EXPORTS = {
    "views": "view,time,session,customer,product,department,club,slot,opened,bought,seconds,title\n"
    "v1,2026-03-01T00:00:29+0100,s0,K00033,353,5,0,0,0,0,3.6,Product 353\n"
    'v2,2026-03-01T00:01:16+0100,s0,K00385,349,1,1,1,1,1,2.6,"Product, 349"\n',
    "ads": "view,time,session,customer,product,department,club,slot,opened,bought,seconds,title,campaign,shop\n"
    "a1,2026-03-01T00:00:29+0100,s0,K00033,353,5,0,0,1,0,3.6,Product 353,23,7\n",
}


def test_the_page_of_tables_is_current(capsys: pytest.CaptureFixture[str]) -> None:
    assert tables_page.main(["--check"]) == 0, f"run {tables_page.COMMAND}"
    assert "is current" in capsys.readouterr().out


def test_a_page_that_is_not_current_is_reported_and_repaired(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables_page, "PAGE", tmp_path / "docs" / "tables.md")
    assert tables_page.main(["--check"]) == 2
    assert tables_page.main([]) == 0 == tables_page.main(["--check"])
    changed = TABLES["ad_log"]
    monkeypatch.setitem(TABLES, "ad_log", replace(changed, grain="one thing"))
    assert tables_page.main(["--check"]) == 2


def test_the_page_states_all_of_every_column() -> None:
    for table in TABLES.values():
        section = tables_page.page().split(f"\n## {table.name}\n")[1].split("\n## ")[0]
        assert table.grain in section
        for step in (*producers(table.name), *readers(table.name)):
            assert f"`{step}`" in section or table.name in REGISTRY
        for column in table.columns:
            (line,) = re.findall(rf"^\| `{column.name}` \|.*$", section, re.M)
            assert column.meaning in line and f"`{column.type}`" in line
            legal = line.split(" | ")[-1].removesuffix(" |").split("; ")
            assert ("nullable" in legal, "volatile" in legal) == (column.nullable, column.volatile)
            for value in column.allowed or ():
                assert str(value) in line
            for bound in (column.minimum, column.maximum, column.longest):
                assert bound is None or str(bound) in line


def test_the_delivered_columns_are_those_of_the_contracts() -> None:
    assert tables_page.landing_columns() in OWN_LOGS
    for log in LOGS:
        for name in LANDING_COLUMNS[log]:
            assert re.search(rf"^\| `{name}` \| (both|{log}) \|", OWN_LOGS, re.M), name


@pytest.mark.spark
def test_the_example_reads_the_exports_as_they_are(spark: Any, tmp_path: Path) -> None:
    example = OWN_LOGS.split("\n## From your own files")[1]
    (sections,) = re.findall(r"^```toml\n(\[landing.*?)^```", example, re.M | re.S)
    (tmp_path / "exports").mkdir()
    for kind, text in EXPORTS.items():
        (tmp_path / "exports" / f"{kind}_2026-03-01.csv").write_text(text)
    (init,) = re.findall(r"^tributary (init .*?)\n```", OWN_LOGS, re.M | re.S)
    done = subprocess.run(
        [sys.executable, "-m", "tributary", *init.replace("\\\n", " ").split()],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(DOCS.parent)},
    )
    assert done.returncode == 0, done.stderr
    settings = tmp_path / "home" / SETTINGS_FILE
    settings.write_text(settings.read_text() + sections.replace("/srv/exports", str(tmp_path / "exports")))
    locations, deployment = Locations(tmp_path / "home"), Deployment.load(tmp_path / "home")
    given = declared(locations, deployment, None, date(2026, 3, 1))
    for checked in check_files(spark, locations, deployment, given, by_folder=False):
        rows = {"natural": 2, "ad": 1}[checked.log]
        assert (checked.counts["kept"], checked.problems, checked.all_warnings) == (rows, [], [])
    ingest_logs.run(spark, locations, deployment, [date(2026, 3, 1)])
    kept = LakeReader(locations).read("natural_log", columns=["click", "action", "item_text"]).to_pylist()
    assert sorted((row["click"], row["action"], row["item_text"]) for row in kept) == [
        (0, 0, "Product 353"),
        (1, 6, "Product, 349"),
    ]


def test_commands_that_pages_name_exist(capsys: pytest.CaptureFixture[str]) -> None:
    named = {pair for pair in re.findall(r"tributary (\w+) (\w+)", OWN_LOGS) if pair[0] in FOLDERS}
    assert len(named) > 4
    for folder, command in sorted(named):
        assert importlib.import_module(f"{folder}.cli").main([command, "--help"]) == 0, capsys.readouterr().err


def test_links_between_pages_lead_somewhere() -> None:
    for page in (DOCS / "your_own_logs.md", DOCS / "tables.md"):
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)]+)\)", text):
            name, _, anchor = target.partition("#")
            assert (DOCS / name).exists() if name else f"\n## {anchor}\n" in text, target
