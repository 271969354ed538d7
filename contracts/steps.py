"""The pipeline, declared once: every command of the working folders, what it reads and writes, and which DAG runs it.

Tasks, assets and waits of the DAGs, `bootstrap`, the demo, the drill, backfills, what is stale, the hints that name the
next command, `tributary --help`, and the producers and readers in `docs/tables.md` derive from this file, and from the
kinds of model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from contracts.features import LOGS
from contracts.kinds import KINDS, Cadence, Kind

LANDING = tuple(f"landing_{log}" for log in LOGS)  # what a team delivers: read like tables, by ingestion only
LOG_TABLES = tuple(f"{log}_log" for log in LOGS)
SAMPLE_TABLES = tuple(f"{log}_samples" for log in LOGS)
REGISTRY = ("builds", "releases", "activations")  # open to every command: what was built from what, and what serves

TRIED_AGAIN = "unexpected: it is tried again by itself, twice."
LOOK_AT_REPORT = "the log ends with the report's address. "


@dataclass(frozen=True, kw_only=True)
class Step:
    """A command of the platform.

    Attributes:
        folder: the working folder that it belongs to.
        name: its name there: `tributary <folder> <name>`.
        meaning: one line for people.
        reads: tables, or landing files, that it reads.
        writes: tables that it writes; no other step writes them, unless the names show that both are parts of a shared
            writing.
        span: the days it takes: `days` (a day or a range), `until` (all days before one), or none.
        dag: the daily DAG whose runs it belongs to.
        task: its task there; its name by default.
        judged: tables whose checks follow it; whoever reads them in the same DAG comes after the checks.
        check_task: the task of these checks.
        begins: the DAG that waits until this command exits with 0, before anything else.
        awaits: what makes the inputs that it finds missing: other runs; or a delivery, which only a deployment with
            `[completeness]` in its settings waits for.
        when_it_stops: what a person should do.
        checks_stop: what a person should do when the checks stop the day.
        options: those of its example; a range of days by default, where it takes one.
    """

    folder: str
    name: str
    meaning: str
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    span: Literal["days", "until"] | None = None
    dag: str | None = None
    task: str = ""
    judged: tuple[str, ...] = ()
    check_task: str = ""
    begins: str | None = None
    awaits: Literal["runs", "delivery"] = "runs"
    when_it_stops: str = TRIED_AGAIN
    checks_stop: str = ""
    options: str = ""

    @property
    def example(self) -> str:
        """A command line to try."""
        days = "--from 2026-01-01 --to 2026-01-31" if self.span == "days" else ""
        return f"tributary {self} {self.options or days}".rstrip()

    @property
    def command(self) -> tuple[str, str]:
        """What follows `tributary`."""
        return self.folder, self.name

    @property
    def task_id(self) -> str:
        """The id of its task in Airflow."""
        return self.task or self.name

    @property
    def check_command(self) -> tuple[str, ...]:
        """The command that judges its tables."""
        return "validation", "run", *(word for table in self.judged for word in ("--table", table))

    def __str__(self) -> str:
        return f"{self.folder} {self.name}"


# The daily DAGs, each with what it makes; their tasks are the steps that name them, in the order of `STEPS`.
DAY_DAGS: dict[str, str] = {
    "logs_daily": "landing files of a day -> logs, quality report, partials, behaviour texts",
    "features_daily": "partials of all days up to a day -> histories, statistics, samples of the day",
}
_PARTIALS = ("behaviour_partials", "statistic_partials")
_CHECKPOINTS = ("behaviour_checkpoints", "statistic_checkpoints")


def _training(kind: Kind) -> Step:
    return Step(
        folder="training",
        name=kind.name,
        meaning=kind.meaning,
        reads=kind.reads,
        options=f"{kind.period_option} 2026-03-02",
    )


STEPS: tuple[Step, ...] = (
    Step(
        folder="sources",
        name="simulate",
        options="--days 30 --users 500",
        meaning="write the landing files of a simulated platform, and the true click probabilities",
    ),
    Step(
        folder="sources",
        name="kuairand",
        options="--data ~/data/kuairand-pure",
        meaning="cut the original files of KuaiRand into landing days",
    ),
    Step(
        folder="sources",
        name="movielens",
        options="--data ~/data/movielens-1m",
        meaning="cut the original files of MovieLens-1M into landing days",
    ),
    Step(
        folder="sources",
        name="taobao",
        options="--data ~/data/taobao --from 2017-05-06 --to 2017-05-13",
        meaning="cut the original files of Ali_Display_Ad_Click into landing days",
    ),
    Step(
        folder="sources",
        name="look",
        options="~/exports/feed --log natural",
        meaning="propose settings for a log that lies elsewhere, from a sample of its rows; writes nothing but a proposal",
    ),
    Step(
        folder="sources",
        name="check",
        options="tributary-home/landing/ad/2026-01-31 --strict",
        meaning="show what ingestion would make of landing files; writes nothing",
    ),
    Step(
        folder="sources",
        name="ready",
        options="--ds 2026-01-31",
        task="wait_for_delivery",
        begins="logs_daily",
        awaits="delivery",
        meaning="whether a landing day may be read, by the rules of `[completeness]` in the settings (exit 75: not yet)",
        when_it_stops="its log names what is still missing after the deadline. Deliver it and clear the task; or, if the day "
        "is as it should be, mark the task as a success.",
    ),
    Step(
        folder="spark_jobs",
        name="ingest_logs",
        span="days",
        dag="logs_daily",
        reads=(*LANDING, "forgotten"),
        writes=(*LOG_TABLES, "quarantine", "id_strings"),
        judged=LOG_TABLES,
        check_task="validate_logs",
        meaning="landing files -> the logs: rows that arrive for the first time; bad ones are set aside in quarantine",
        when_it_stops="a file or a column is missing: the message names it. Deliver it, clear the task.",
        checks_stop=LOOK_AT_REPORT + "Repair the landing files and clear the run from `ingest_logs` on.",
    ),
    Step(
        folder="spark_jobs",
        name="build_partials",
        span="days",
        dag="logs_daily",
        reads=LOG_TABLES,
        writes=_PARTIALS,
        meaning="what a day adds to histories and statistics",
        when_it_stops=TRIED_AGAIN + " `features_daily` of this day and of all later ones waits for it.",
    ),
    Step(
        folder="spark_jobs",
        name="collect_behaviour_texts",
        span="days",
        dag="logs_daily",
        task="collect_texts",
        reads=LOG_TABLES,
        writes=("behaviour_texts",),
        meaning="the texts of behaviours that were not known yet, each once",
    ),
    Step(
        folder="spark_jobs",
        name="check_landing",
        options="tributary-home/landing/ad/2026-01-31",
        reads=(*LANDING, "forgotten"),
        meaning="what `tributary sources check` runs",
    ),
    Step(
        folder="spark_jobs",
        name="check_partials",
        options="--ds 2026-01-31",
        begins="features_daily",
        meaning="whether every day since `history_start` has its partials (exit 75: not yet)",
    ),
    Step(
        folder="spark_jobs",
        name="build_checkpoints",
        options="--ds 2026-01-31",
        span="until",
        reads=(*_PARTIALS, *_CHECKPOINTS),
        writes=_CHECKPOINTS,
        meaning="running merges of the partials, every ten days; made when first needed, rarely by hand",
    ),
    Step(
        folder="spark_jobs",
        name="build_user_histories",
        span="days",
        dag="features_daily",
        task="build_histories",
        reads=(*_PARTIALS, "behaviour_checkpoints"),
        writes=("user_histories",),
        meaning="each active user's behaviours up to a day",
        when_it_stops="its log names the first day without partials: run `logs_daily`, or `bootstrap`, from that day on.",
    ),
    Step(
        folder="spark_jobs",
        name="build_statistics",
        span="days",
        dag="features_daily",
        reads=("statistic_partials", "statistic_checkpoints"),
        writes=("entity_statistics",),
        meaning="impressions, clicks and smoothed rates of users, items and categories up to a day",
        when_it_stops="as `build_histories`.",
    ),
    Step(
        folder="spark_jobs",
        name="build_samples",
        span="days",
        dag="features_daily",
        reads=(*LOG_TABLES, "user_histories", "entity_statistics"),
        writes=SAMPLE_TABLES,
        judged=("user_histories", *SAMPLE_TABLES),
        check_task="validate_features",
        meaning="natural and ad samples of a day, point-in-time correct",
        checks_stop=LOOK_AT_REPORT + "No model trains on these days until they are repaired.",
    ),
    Step(
        folder="spark_jobs",
        name="list_stale",
        meaning="partitions whose inputs have changed since, and the commands that rebuild them",
    ),
    Step(folder="spark_jobs", name="repair", meaning="rebuild whatever is stale, and what lies behind it"),
    Step(
        folder="spark_jobs",
        name="compare_tables",
        options="--with other-home --table ad_samples",
        meaning="whether two deployments hold equal logs and features, row by row (exit 1: no)",
    ),
    Step(
        folder="spark_jobs",
        name="maintain_lake",
        options="--table builds",
        meaning="few large files: OPTIMIZE and VACUUM; no row changes",
    ),
    Step(
        folder="spark_jobs",
        name="add_text_vectors",
        writes=("behaviour_text_vectors",),
        meaning="checks staged vectors of behaviour texts and adds them to their table",
        when_it_stops="the log names the file at fault; clear the run from `encode_texts` on.",
    ),
    Step(
        folder="spark_jobs",
        name="publish_release",
        options="--kind actr --period 2026-03-02",
        reads=("id_strings",),
        writes=(*(kind.vectors for kind in KINDS.values()), "predictions", "model_metrics", "releases", "activations"),
        meaning="commits the vectors and metrics of an audited release to the tables, the release last",
        when_it_stops="it is safe to run again: the same release is a no-op.",
    ),
    Step(
        folder="spark_jobs",
        name="activate_release",
        options="--release actr-2026-03-02-0123456789ab",
        writes=("activations",),
        meaning="let a release that was published before serve its period again",
    ),
    Step(
        folder="spark_jobs",
        name="forget_user",
        options="--user 17 --dry-run",
        reads=(*LOG_TABLES, "quarantine", "id_strings"),
        writes=("forgotten",),
        meaning="delete every trace of a user; `tributary forget` asks before it does",
    ),
    *map(_training, KINDS.values()),
    Step(
        folder="training",
        name="encode_texts",
        options="--ds 2026-01-31",
        reads=("behaviour_texts", "behaviour_text_vectors"),
        meaning="sends behaviour texts that have no vector yet through a language model's low layers, stages their vectors as files",
        when_it_stops="it is tried again by itself, twice, and goes on where it was.",
    ),
    Step(
        folder="training",
        name="compare",
        options="--from 2026-03-03 --to 2026-03-09",
        reads=("predictions", "quality_results"),
        meaning="scored days next to each other: rows, quality, GAUC with and without transfer",
    ),
    Step(
        folder="training",
        name="report",
        options="--from 2026-03-03 --to 2026-03-09",
        reads=("predictions", "quality_results", "actr_embeddings", "ad_samples", "user_histories"),
        meaning="the same as a page: days, slices, calibration, forgetting, drift, with intervals",
    ),
    Step(
        folder="training",
        name="score",
        options="--ds 2026-03-03 --release actr-2026-03-02-0123456789ab",
        reads=("ad_samples", "user_histories"),
        meaning="a day's ad samples, scored by any release",
    ),
    Step(
        folder="training",
        name="export",
        options="--release actr-2026-03-02-0123456789ab",
        reads=("ad_samples", "user_histories"),
        meaning="a release as a folder that scores requests with torch only",
    ),
    Step(
        folder="training",
        name="forget_user",
        options="--user 17 --dry-run",
        meaning="take a user out of run folders, scores and exports: a part of `tributary forget`",
    ),
    Step(
        folder="validation",
        name="run",
        options="--table natural_log --table ad_log --ds 2026-01-31",
        writes=("quality_results",),
        reads=(*LOG_TABLES, "quarantine", "statistic_partials", "user_histories", *SAMPLE_TABLES),
        meaning="judge tables of a day; exit 3 if a check that stops the day failed",
    ),
    Step(
        folder="validation",
        name="show",
        options="--table natural_log --ds 2026-01-31",
        meaning="print the results of a day's checks",
    ),
    Step(
        folder="validation",
        name="accept",
        options='--table natural_log --ds 2026-01-31 --reason "a holiday"',
        writes=("quality_results",),
        meaning="let a failed day pass as it is, with a reason that is kept",
    ),
    Step(
        folder="validation",
        name="gate",
        options="--kind actr --period 2026-03-02",
        meaning="judge staged models by held-out rows; a refused A-CTR gets a fallback",
    ),
    Step(folder="validation", name="index", meaning="make the index of all reports again"),
    Step(
        folder="publishing",
        name="parents",
        options="--kind actr --period 2026-03-02",
        meaning="whether the parents of a period exist (exit 75: not yet)",
    ),
    Step(
        folder="publishing",
        name="audit",
        options="--kind actr --period 2026-03-02",
        reads=tuple(kind.vectors for kind in KINDS.values()),
        meaning="checks the staged vectors, builds their index",
        when_it_stops="readers see nothing of this run; the log names the check.",
    ),
    Step(
        folder="publishing",
        name="releases",
        meaning="the releases that serve, newest first; which are current, which stale",
    ),
    Step(
        folder="publishing",
        name="neighbours",
        options="--table actr_embeddings --id 17",
        reads=(*LOG_TABLES, "id_strings", *(kind.vectors for kind in KINDS.values())),
        meaning="entities nearest to one, with their titles and strings, from a release",
    ),
)

FOLDERS: dict[str, str] = {
    "sources": "make landing files",
    "spark_jobs": "landing files -> logs -> features -> samples, and every write to a table",
    "training": "samples -> models -> staged vectors; PyTorch, no Spark",
    "validation": "quality checks and their reports",
    "publishing": "audit staged vectors, release them, search in them",
}

# DAGs that make periods, and how often.
CADENCES: dict[str, Cadence] = {**dict.fromkeys(DAY_DAGS, "day"), **{kind.dag: kind.cadence for kind in KINDS.values()}}

BOOTSTRAP, MAINTENANCE = "bootstrap", "lake_maintenance_weekly"  # a range of days by hand; and no period at all
DAG_IDS = (*CADENCES, BOOTSTRAP, MAINTENANCE)

# Tables that checks judge day by day, in the order in which they are made.
VALIDATED_TABLES = tuple(table for one in STEPS for table in one.judged)


def step(folder: str, name: str) -> Step:
    """The step of this command."""
    return next(one for one in STEPS if one.command == (folder, name))


def commands_of(folder: str) -> dict[str, Step]:
    """The commands of a working folder by name, in order."""
    return {one.name: one for one in STEPS if one.folder == folder}


def day_steps(dag: str | None = None) -> tuple[Step, ...]:
    """The steps that make days, in order: those of a DAG, or of all daily DAGs."""
    return tuple(one for one in STEPS if one.dag and dag in (None, one.dag))


DAY_JOBS = tuple(one.name for one in day_steps())


def rebuilt_steps() -> tuple[Step, ...]:
    """The steps whose partitions go stale when what they read changes, in the order in which a change flows through them."""
    return tuple(one for one in STEPS if one.span)


def begin_steps(dag: str, *, has_completeness: bool) -> tuple[Step, ...]:
    """The steps for which a daily DAG waits before anything else.

    Args:
        dag: the DAG.
        has_completeness: whether the deployment has rules of when a landing day may be read.
    """
    return tuple(one for one in STEPS if one.begins == dag and (has_completeness or one.awaits != "delivery"))


def producers(table: str) -> tuple[Step, ...]:
    """The steps that write a table."""
    return tuple(one for one in STEPS if table in one.writes)


def maker(table: str) -> Step:
    """The step that makes a table's partitions."""
    return producers(table)[0]


def readers(table: str) -> tuple[Step, ...]:
    """The steps that read a table."""
    return tuple(one for one in STEPS if table in one.reads)


def awaited_table(kind: Kind) -> str:
    """Returns the table that the daily DAGs make last of those that a kind of model reads: once it is built, all are."""
    made = [table for one in day_steps() for table in one.writes]
    return max((table for table in kind.reads if table in made), key=made.index)


def next_command(name: str) -> str | None:
    """What follows a step that makes days, without its days: its checks, else the next step; None after the last."""
    steps = day_steps()
    at = next(place for place, one in enumerate(steps) if one.name == name)
    if steps[at].judged:
        return " ".join(steps[at].check_command)
    return str(steps[at + 1]) if at + 1 < len(steps) else None


def commands_over(span: Sequence[str], *, dag: str | None = None) -> Iterator[tuple[str, ...]]:
    """The commands that make and judge days, in order.

    Args:
        span: the options that name the days: `--ds`, or `--from` and `--to`.
        dag: only those of this daily DAG.
    """
    for one in day_steps(dag):
        yield (*one.command, *span)
        if one.judged:
            yield (*one.check_command, *span)


@dataclass(frozen=True, kw_only=True)
class Part:
    """One of the commands that make the release of a period.

    Attributes:
        task: its task in the DAG.
        step: the command.
        options: what its command line names besides the period.
        period_option: what names the period; None of a command that is about none.
        trains: whether it takes a recipe, and a slot of the GPU pool.
    """

    task: str
    step: Step
    options: tuple[str, ...] = ()
    period_option: str | None = "--period"
    trains: bool = False

    def command(self, period: object) -> tuple[str, ...]:
        """What follows `tributary` for a period."""
        return (*self.step.command, *self.options, *((self.period_option, str(period)) if self.period_option else ()))


def release_parts(kind: Kind) -> tuple[Part, ...]:
    """What trains, judges, audits and publishes a period's models, in order."""
    prepared = [
        Part(
            task=name,
            step=step(folder, name),
            period_option="--ds" if folder == "training" else None,
            trains=folder == "training",
        )
        for folder, name in kind.prepared_by
    ]
    train = Part(
        task=f"train_{kind.name}", step=step("training", kind.name), period_option=kind.period_option, trains=True
    )
    after = [
        Part(task=f"{task}_{kind.name}", step=step(*command), options=("--kind", kind.name))
        for task, command in (
            ("gate", ("validation", "gate")),
            ("audit", ("publishing", "audit")),
            ("publish", ("spark_jobs", "publish_release")),
        )
    ]
    return (*prepared, train, *after)


def release_commands(kind: str, period: object) -> Iterator[tuple[str, ...]]:
    """The commands that train, judge, audit and publish a period's models, in order."""
    for part in release_parts(KINDS[kind]):
        yield part.command(period)
