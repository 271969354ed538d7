"""The one command: `tributary <folder> <command>` hands on to a folder's own command line, and imports none of them.

`tributary --help` must come at once, so this module needs little of the standard library and nothing else.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from contracts.errors import BadInput, run_command

# What each folder does, and its commands; a test compares the names with the folders' own parsers.
FOLDERS: dict[str, tuple[str, dict[str, str]]] = {
    "sources": ("make landing files", {
        "simulate": "write the landing files of a simulated platform, and the true click probabilities beside",
        "kuairand": "cut the original files of KuaiRand into landing days",
        "movielens": "cut the original files of MovieLens-1M into landing days",
        "taobao": "cut the original files of Ali_Display_Ad_Click into landing days",
        "check": "show what ingestion would make of landing files; writes nothing",
    }),
    "spark_jobs": ("landing files -> logs -> features -> samples, and every write to a table", {
        "ingest_logs": "landing files of a day -> natural_log, ad_log, quarantine",
        "build_partials": "what a day adds to histories and statistics",
        "collect_behaviour_texts": "the distinct texts of a day's behaviours",
        "check_landing": "what `tributary sources check` runs",
        "check_partials": "say whether every day before has its partials (exit 75: not yet)",
        "build_checkpoints": "running merges of the partials, every ten days",
        "build_user_histories": "each active user's behaviours up to a day",
        "build_statistics": "impressions, clicks and smoothed rates of users, items and categories up to a day",
        "build_samples": "natural_samples and ad_samples of a day, point in time",
        "list_stale": "partitions whose inputs have changed since, and the commands that mend them",
        "mend": "build again whatever is stale, and what lies behind it",
        "compare_tables": "say whether two deployments hold equal logs and features, row by row",
        "maintain_lake": "few large files: OPTIMIZE and VACUUM",
        "add_text_vectors": "add staged vectors of behaviour texts to their table",
        "publish_release": "commit an audited release to the tables",
        "activate_release": "let a release that was published before serve its period again",
        "forget_user": "what `tributary forget` runs when it was told to go on",
    }),
    "training": ("samples -> models -> staged vectors; PyTorch, no Spark", {
        "tpm": "the model of long histories, month by month",
        "cpm": "the model of the last month, with the snapshots of three",
        "fg_bert": "the encoder of behaviour sequences, week by week",
        "fg_bert_users": "vectors of a day's active users, by that encoder",
        "bahe": "the model over behaviour texts: learns a day, leaves vectors of its users and items",
        "actr": "the ad model: score a day with the model of the day before, then train on it",
        "encode_texts": "vectors of the behaviour texts that have none yet, by a language model's low layers",
        "compare": "scored days side by side: rows, quality, GAUC with and without transfer",
        "report": "the same as a page: days, slices, calibration, forgetting, drift, with intervals",
        "score": "a day's ad samples by any release",
        "export": "a release as a folder that scores requests with torch alone",
        "forget_user": "take a user out of run folders, scores and exports: a part of `tributary forget`",
    }),
    "validation": ("quality checks and their reports", {
        "run": "judge tables of a day; exit 3 if a check that stops the day failed",
        "show": "print what was found on a day",
        "accept": "let a failed day pass as it is, with a reason that is kept",
        "gate": "judge staged models by held-out rows; a refused A-CTR gets a fallback",
        "index": "make the index of all reports again",
    }),
    "publishing": ("audit staged vectors, release them, search in them", {
        "parents": "say whether the parents of a period exist (exit 75: not yet)",
        "audit": "check what a training run staged, and build its index",
        "releases": "the releases that serve, newest first; which are current, which stale",
        "neighbours": "entities nearest to one, with their titles, from a release",
    }),
}

OWN: dict[str, str] = {
    "init": "write a deployment's settings",
    "up": "start PostgreSQL, Spark Connect and Airflow on this machine",
    "down": "end them",
    "status": "say what runs, and where",
    "dags": "backfill, trigger and watch the DAGs of the running stack",
    "demo": "the whole platform on made or real logs, from nothing",
    "drill": "kill parts of a stack of its own at random, and see that nothing is lost",
    "forget": "delete every trace of a user: landing files, tables and their old versions, models",
    "compose-env": "write the secrets of the stack in containers (docker-compose.yml) into .env",
}

USAGE = "usage: tributary [--home FOLDER] <command> ...   or   tributary [--home FOLDER] <folder> <command> ..."


def main(argv: Sequence[str] | None = None) -> int:
    """The console command; returns the exit code, unless a folder's command takes this process over."""
    try:
        return run_command(_main, argv)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _main(argv: Sequence[str] | None = None) -> int:
    arguments = _take_home(list(sys.argv[1:] if argv is None else argv))
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(help_text())
        return 0 if arguments else 2
    name, rest = arguments[0], arguments[1:]
    if name in FOLDERS:
        hand_on(name, rest)
    if name in OWN:
        from tributary import commands

        return commands.main(name, _take_home(rest, anywhere=True))
    raise _unknown(name)


def hand_on(folder: str, arguments: Sequence[str]) -> None:
    """Becomes `python -m <folder> ...`: same process, so signals and the exit code need no handling."""
    from contracts.settings import folder_python

    python = folder_python(folder) or sys.executable
    if not os.access(python, os.X_OK):
        raise BadInput("environment", f"TRIBUTARY_PYTHON_{folder.upper()}", expected="a Python interpreter", found=python)
    sys.stdout.flush()
    os.execv(python, [python, "-m", folder, *arguments])


def help_text() -> str:
    lines = [USAGE, "", "Carries knowledge from rich natural traffic to sparse ad traffic, every day.", "", "commands:"]
    lines += [f"  {name:<27}{meaning}" for name, meaning in OWN.items()]
    lines += ["", "folders (`tributary <folder> <command> --help` explains each; `python -m <folder> ...` is the same):"]
    for folder, (meaning, commands) in FOLDERS.items():
        lines.append(f"  {folder:<27}{meaning}")
        lines += [f"    {name:<25}{line}" for name, line in commands.items()]
    lines += ["", "--home FOLDER is the deployment's folder: TRIBUTARY_HOME by default, else ./tributary-home."]
    return "\n".join(lines)


def _take_home(arguments: list[str], *, anywhere: bool = False) -> list[str]:
    """Moves `--home FOLDER` into the environment, where every command and its children find it.

    For a folder's command only in front: what follows the folder's name is that folder's own.
    """
    for place, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == "--home":
            rest = arguments[place + 1:]
            if not equals:
                if not rest:
                    raise BadInput("tributary", "--home", expected="a folder", found="nothing")
                value, rest = rest[0], rest[1:]
            set_home(value)
            return [*arguments[:place], *rest]
        if not anywhere:
            break
    return arguments


def set_home(folder: str) -> None:
    from contracts.settings import HOME_VARIABLE

    os.environ[HOME_VARIABLE] = os.path.abspath(os.path.expanduser(folder))


def _unknown(name: str) -> BadInput:
    import difflib

    inside = [f"{folder} {command}" for folder, (_, commands) in FOLDERS.items() for command in commands if command == name]
    close = inside or difflib.get_close_matches(name, [*OWN, *FOLDERS], n=1)
    hint = f"Did you mean `tributary {close[0]}`?" if close else "`tributary --help` lists them all."
    return BadInput("tributary", "command", expected=f"one of {', '.join([*OWN, *FOLDERS])}", found=name, hint=hint)
