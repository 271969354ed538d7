"""The command `tributary`: starts at once, hands on, and says what is wrong."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from contracts.settings import Deployment
from contracts.steps import commands_of
from tributary import cli

PROJECT = Path(cli.__file__).parent.parent


def tributary(*arguments: str, env: dict[str, str] | None = None, cwd: Path = PROJECT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "tributary", *arguments], capture_output=True, text=True, check=False, cwd=cwd,
                          env=os.environ | {"PYTHONPATH": str(PROJECT)} | (env or {}))


@pytest.fixture
def stub(tmp_path: Path) -> Path:
    """An interpreter in the place of a folder's: it shows what it was given, and exits with 3."""
    path = tmp_path / "stub"
    path.write_text(f"#!{sys.executable}\nimport json, os, sys\n"
                    "print(json.dumps([os.environ.get('TRIBUTARY_HOME'), os.getpid(), *sys.argv[1:]]))\nsys.exit(3)\n")
    path.chmod(0o755)
    return path


def test_help_imports_almost_nothing() -> None:
    code = "import sys; from tributary.cli import main; main(['--help']); print(chr(10) + ' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT)
    loaded = set(done.stdout.splitlines()[-1].split())
    heavy = {"argparse", "subprocess", "json", "tomllib", "lake", "numpy", "pandas", "pyspark", "torch", "airflow",
             "great_expectations", "faiss", "contracts.settings", *cli.FOLDERS}
    assert "tributary.cli" in loaded
    assert loaded & heavy == set()


def test_help_lists_every_command() -> None:
    text = cli.help_text()
    for name in [*cli.OWN, *cli.FOLDERS, *(command for folder in cli.FOLDERS for command in commands_of(folder))]:
        assert f" {name} " in text, name


@pytest.mark.parametrize("folder", cli.FOLDERS)
def test_help_names_the_commands_that_the_folder_has(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    main = importlib.import_module(f"{folder}.cli").main
    for command in commands_of(folder):
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        assert ended.value.code == 0, capsys.readouterr().err
        assert f"tributary {folder} {command}" in capsys.readouterr().out


@pytest.mark.parametrize(("front", "home"), [(["--home", "/some/where"], "/some/where"), (["--home=/some/where"], "/some/where"),
                                             ([], None)])
def test_hands_on_to_a_folder_in_the_same_process(stub: Path, front: list[str], home: str | None) -> None:
    env = {name: value for name, value in os.environ.items() if name != "TRIBUTARY_HOME"} | {"TRIBUTARY_PYTHON_TRAINING": str(stub)}
    process = subprocess.Popen([sys.executable, "-m", "tributary", *front, "training", "tpm", "--home", "other"],
                               stdout=subprocess.PIPE, text=True, cwd=PROJECT, env=env)
    out, _ = process.communicate(timeout=20)
    assert json.loads(out) == [home, process.pid, "-m", "training", "tpm", "--home", "other"]
    assert process.returncode == 3


def test_folder_interpreter_that_is_none() -> None:
    done = tributary("training", "tpm", env={"TRIBUTARY_PYTHON_TRAINING": "/no/such/python"})
    assert done.returncode == 2
    assert "TRIBUTARY_PYTHON_TRAINING: expected a Python interpreter, found /no/such/python" in done.stderr


@pytest.mark.parametrize(("name", "hint"), [
    ("statsu", "Did you mean `tributary status`?"),
    ("build_samples", "Did you mean `tributary spark_jobs build_samples`?"),
    ("quux", "`tributary --help` lists them all."),
])
def test_unknown_command(name: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([name]) == 2
    assert capsys.readouterr().err.strip().endswith(f"found {name}. {hint}")


def test_home_without_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--home"]) == 2
    assert "--home: expected a folder, found nothing" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["before", "after"])
def test_init_writes_the_deployment(tmp_path: Path, place: str) -> None:
    home = ["--home", str(tmp_path / "home")]
    options = ["--history-start", "2022-04-08", "--history-end", "2022-05-08", "--actr-start", "2022-05-02", "--day-timezone",
               "Asia/Shanghai", "--anchor", "2022-04-25", "--month-days", "2", "--week-days", "2"]
    done = tributary(*(home if place == "before" else []), "init", *options, *(home if place == "after" else []))
    assert done.returncode == 0, done.stderr
    deployment = Deployment.load(tmp_path / "home")
    assert (deployment.day_timezone, str(deployment.history_end), deployment.periods.week_days) == ("Asia/Shanghai", "2022-05-08", 2)
    again = tributary("init", *home, "--history-start", "2022-04-09", "--actr-start", "2022-05-02")
    assert again.returncode == 2
    assert "expected no other settings there" in again.stderr
    assert Deployment.load(tmp_path / "home") == deployment


def test_init_refuses_what_the_contract_refuses(tmp_path: Path) -> None:
    done = tributary("init", "--home", str(tmp_path), "--history-start", "2026-02-01", "--actr-start", "2026-01-01")
    assert done.returncode == 2
    assert "actr_start: expected a day not before history_start 2026-02-01" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_up_without_a_deployment_starts_nothing(tmp_path: Path) -> None:
    done = tributary("up", "--home", str(tmp_path / "nowhere"))
    assert done.returncode == 2
    assert "tributary init" in done.stderr
    assert not (tmp_path / "nowhere").exists()
