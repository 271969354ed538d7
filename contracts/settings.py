"""One deployment's settings (`deployment.toml` in its home folder) and the environment variables, which are read only here."""

from __future__ import annotations

import os
import re
import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from datetime import date, datetime
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from contracts import zones
from contracts.completeness import Completeness
from contracts.errors import BadInput
from contracts.features import LOGS, Log
from contracts.kinds import RECIPES
from contracts.landing import LandingSettings
from contracts.locations import Locations
from contracts.periods import ONE_DAY, Lineage, Period, PeriodSettings
from contracts.tables import ENTITY_ID_COLUMNS, LANDING_COLUMNS, LANDING_ID_COLUMNS, VECTOR_ID_COLUMNS
from contracts.transfer import DEFAULT_VARIANTS, TRANSFER_SETTINGS

HOME_VARIABLE = "TRIBUTARY_HOME"
DATA_VARIABLE = "TRIBUTARY_DATA"
JARS_VARIABLE = "TRIBUTARY_JARS"
LAKE_VARIABLE = "TRIBUTARY_LAKE"
DATABASE_VARIABLE = "TRIBUTARY_DATABASE"
DEFAULT_HOME = "tributary-home"
SETTINGS_FILE = "deployment.toml"


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """The settings of one deployment, which its team chooses once.

    Attributes:
        day_timezone: IANA name of the time zone at whose midnight a day begins.
        history_start: first day with logs.
        actr_start: the one A-CTR day without a predecessor.
        periods: how days fall into weeks and months.
        allowed_lateness_days: how many days after its own an event may arrive and still count.
        feedback_delay_seconds: a sample at time t sees behaviours with `event_ts + feedback_delay < t`.
        string_ids: landing columns that hold strings; they are hashed once, at ingest. Other ids are integers >= 0.
        kept_strings: columns of `string_ids` whose strings are kept next to their hashes, in the table `id_strings`.
        published_strings: columns of `kept_strings`, of those that vectors are published of, whose strings lie next to
            the ids in the published tables.
        variants: transfer settings that A-CTR trains side by side, on the same rows and days.
        replay_days: ad days that an A-CTR replays when it starts from a new CPM.
        recipe: recipe of the models, unless a command or a run names another; a chain of models keeps the one that it
            began with.
        source: where the landing files come from; for people, and for the simulator's truth.
        history_end: last day with logs of a closed data set: no day after it is scheduled. None: days keep coming.
        ad_start: first day with advertisements: a day before it needs no ad folder, and may have ad files without a
            row. None: history_start.
        notify: a command line that is run when a task has failed or a run is late, with a JSON object on its standard
            input. None: nobody is notified.
        landing: where logs and side tables are delivered, and how their rows become landing rows.
        completeness: when a landing day may be read by the daily pipeline. None: it is read at its end, and refused if a
            log has no row.
    """

    day_timezone: str = "UTC"
    history_start: date
    actr_start: date
    periods: PeriodSettings = field(default_factory=PeriodSettings)
    allowed_lateness_days: int = 1
    feedback_delay_seconds: int = 600
    string_ids: tuple[str, ...] = ()
    kept_strings: tuple[str, ...] = ()
    published_strings: tuple[str, ...] = ()
    variants: tuple[str, ...] = DEFAULT_VARIANTS
    replay_days: int = 30
    recipe: str = RECIPES[0]
    source: str = "own"
    history_end: date | None = None
    ad_start: date | None = None
    notify: str | None = None
    landing: LandingSettings = field(default_factory=LandingSettings)
    completeness: Completeness | None = None

    def __post_init__(self) -> None:
        def check(name: str, ok: bool, expected: str) -> None:
            if not ok:
                raise BadInput(SETTINGS_FILE, name, expected=expected, found=repr(getattr(self, name)))

        try:
            ZoneInfo(self.day_timezone)
        except (ZoneInfoNotFoundError, ValueError):
            check("day_timezone", False, "an IANA time zone such as Asia/Shanghai")
        check(
            "actr_start", self.actr_start >= self.history_start, f"a day not before history_start {self.history_start}"
        )
        check(
            "history_end",
            self.history_end is None or self.history_end >= self.actr_start,
            f"a day not before actr_start {self.actr_start}, or none",
        )
        check(
            "ad_start",
            self.ad_start is None or self.history_start <= self.ad_start <= self.actr_start,
            f"a day of history_start {self.history_start} .. actr_start {self.actr_start}, or none",
        )
        check("allowed_lateness_days", self.allowed_lateness_days >= 0, "a number >= 0")
        check("feedback_delay_seconds", self.feedback_delay_seconds >= 0, "a number >= 0")
        check("replay_days", self.replay_days >= 1, "a number >= 1")
        check("recipe", self.recipe in RECIPES, f"one of {', '.join(RECIPES)}")
        check(
            "string_ids",
            set(self.string_ids) <= set(LANDING_ID_COLUMNS),
            f"ids of the landing files: {', '.join(LANDING_ID_COLUMNS)}",
        )
        keepable = [name for name in ENTITY_ID_COLUMNS if name in self.string_ids]
        check(
            "kept_strings",
            set(self.kept_strings) <= set(keepable),
            f"columns that string_ids names, of {', '.join(ENTITY_ID_COLUMNS)}: {', '.join(keepable) or 'here none'}",
        )
        publishable = [name for name in VECTOR_ID_COLUMNS if name in self.kept_strings]
        check(
            "published_strings",
            set(self.published_strings) <= set(publishable),
            f"columns that kept_strings names, of {', '.join(VECTOR_ID_COLUMNS)}: {', '.join(publishable) or 'here none'}",
        )
        check(
            "variants",
            bool(self.variants)
            and set(self.variants) <= set(TRANSFER_SETTINGS)
            and len(set(self.variants)) == len(self.variants),
            f"distinct values of {', '.join(TRANSFER_SETTINGS)}",
        )
        check(
            "notify",
            self.notify is None or _is_command(self.notify),
            "a command line such as /opt/tell_on_call --channel ads, or none",
        )
        self.landing.check(LANDING_COLUMNS, SETTINGS_FILE)
        if self.completeness is not None:
            sections = [(f"[landing.{log}]", self.landing.of(log)) for log in LOGS]
            self.completeness.check(sections, f"{SETTINGS_FILE} [completeness]")

    @property
    def timezone(self) -> ZoneInfo:
        """The time zone in which days begin and end."""
        return ZoneInfo(self.day_timezone)

    @property
    def lineage(self) -> Lineage:
        """Which periods depend on which, under these settings."""
        return Lineage(settings=self.periods, history_start=self.history_start, actr_start=self.actr_start)

    def day_start(self, day: date) -> datetime:
        """The instant at which `day` begins, in UTC."""
        return zones.day_start(self.timezone, day)

    def tick(self, period: Period) -> datetime:
        """Where the data interval of the DAG run that makes `period` begins: Airflow's logical date of it.

        A week or month of a fixed number of days is made by the run of its last day, since its DAG runs daily.
        """
        whole = period.cadence == "day" or self.periods.is_calendar
        return self.day_start(period.start if whole else period.days()[-1])

    def day_end(self, day: date) -> datetime:
        """The instant at which `day` ends, in UTC."""
        return self.day_start(day + ONE_DAY)

    def may_be_empty(self, log: Log, day: date) -> bool:
        """Whether a landing day without a row is what this deployment expects."""
        return log == "ad" and self.ad_start is not None and day < self.ad_start

    def refuse_unfinished(self, day: date, now: datetime) -> None:
        """Raises BadInput if `day` has not ended at `now`."""
        today = now.astimezone(self.timezone).date()
        if day >= today:
            raise BadInput(
                "--ds", "ds", expected=f"a day that has ended in {self.day_timezone} (before {today})", found=day
            )

    def to_toml(self) -> str:
        """The settings as `from_toml` reads them; one that is not set, and a calendar's periods, are left out."""
        import tomli_w

        return tomli_w.dumps(_set_values(self))

    @classmethod
    def from_toml(cls, text: str) -> Deployment:
        """Reads what `to_toml` or a person wrote.

        Raises:
            BadInput: no TOML, an unknown or missing setting, one of a wrong type or value.
        """
        try:
            values = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise BadInput(SETTINGS_FILE, "syntax", expected="TOML", found=str(error)) from None
        read: Deployment = _read(cls, values, where=SETTINGS_FILE, section="")
        return read

    @classmethod
    def load(cls, home: Path) -> Deployment:
        """Reads the settings in a deployment's folder.

        Raises:
            BadInput: there are none, or as `from_toml`.
        """
        path = home / SETTINGS_FILE
        if not path.is_file():
            raise BadInput(
                path,
                "file",
                expected="a deployment's settings",
                found="no such file",
                hint=f"Set {HOME_VARIABLE} to the deployment's folder, or make one with `tributary init`.",
            )
        return cls.from_toml(path.read_text())


def _is_command(text: str) -> bool:
    try:
        return bool(shlex.split(text))
    except ValueError:  # a quotation that does not end
        return False


# What a person writes for a value of a type, in words.
_AS_WRITTEN: dict[type, str] = {
    str: "a text in quotation marks",
    int: "a whole number, unquoted",
    float: "a number, unquoted",
    bool: "true or false, unquoted",
    date: "a date such as 2026-01-31, unquoted",
    tuple: 'a list of texts such as ["user_id"]',
    Mapping: "a section of texts in quotation marks",
}


def _set_values(settings: object) -> dict[str, Any]:
    """The settings of a dataclass that are set and are not a section's default, sections last, as TOML takes them."""
    assert is_dataclass(settings)
    values = {one.name: (one, getattr(settings, one.name)) for one in fields(settings)}
    plain = {
        name: list(value) if isinstance(value, tuple) else value
        for name, (_, value) in values.items()
        if value is not None and not _is_section(value)
    }
    sections = {
        name: dict(value) if isinstance(value, Mapping) else _set_values(value)
        for name, (one, value) in values.items()
        if _is_section(value) and (one.default_factory is MISSING or value != one.default_factory())
    }
    return plain | sections


def _is_section(value: object) -> bool:
    return is_dataclass(value) or isinstance(value, Mapping)


def _read(settings: type, values: dict[str, Any], *, where: str, section: str) -> Any:
    """A dataclass of settings from what TOML holds; a field that is a dataclass is a section.

    Args:
        settings: the dataclass.
        values: what TOML holds.
        where: the file, for messages.
        section: name of the section that `values` are of, for messages; empty for the whole file.

    Raises:
        BadInput: a setting is unknown, missing, or of another type.
    """
    place = f"{where} [{section}]" if section else where
    types = {name: _plain_type(hint) for name, hint in get_type_hints(settings).items()}
    known = {one.name: one for one in fields(settings)}
    read: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise BadInput(place, name, expected=f"one of {', '.join(sorted(known))}", found="an unknown setting")
        if is_dataclass(types[name]):
            inner = f"{section}.{name}" if section else name
            if not isinstance(value, dict):
                raise BadInput(place, name, expected=f"a section [{inner}]", found=repr(value))
            read[name] = _read(types[name], value, where=where, section=inner)
        elif not _is_written_as(value, types[name]):
            raise BadInput(place, name, expected=_AS_WRITTEN[types[name]], found=repr(value))
        else:
            read[name] = tuple(value) if isinstance(value, list) else value
    for name, one in known.items():
        if one.default is MISSING and one.default_factory is MISSING and name not in values:
            raise BadInput(place, name, expected=_AS_WRITTEN[types[name]], found="nothing")
    return settings(**read)


def _is_written_as(value: Any, kind: type) -> bool:
    """Whether a value that TOML holds is of this type: no boolean for a number, no time for a date."""
    if kind is tuple:
        return type(value) is list and all(type(item) is str for item in value)
    if kind is Mapping:
        return type(value) is dict and all(type(item) is str for item in value.values())
    if kind is float:
        return type(value) in (int, float)
    return type(value) is kind


def _plain_type(hint: Any) -> type:
    """The type that a value of a field has where it is set: `int` of `int | None`, `tuple` of `tuple[str, ...]`."""
    hint = next((one for one in get_args(hint) if one is not NoneType), hint) if isinstance(hint, UnionType) else hint
    kind: type = get_origin(hint) or hint
    return kind


def home_folder(default: str = DEFAULT_HOME) -> Path:
    """The deployment's folder: TRIBUTARY_HOME, else `tributary-home` under the working folder."""
    return Path(os.environ.get(HOME_VARIABLE) or default).resolve()


def data_folder() -> Path | None:
    """Where the original files of public data sets lie, from TRIBUTARY_DATA."""
    value = os.environ.get(DATA_VARIABLE)
    return Path(value).resolve() if value else None


def jars_folder() -> Path | None:
    """A folder of Delta jars to use instead of Maven Central, from TRIBUTARY_JARS."""
    value = os.environ.get(JARS_VARIABLE)
    return Path(value).resolve() if value else None


def lake_address() -> str | None:
    """Where the tables lie if not under the home folder, from TRIBUTARY_LAKE: a folder of an S3-compatible store.

    Its keys, address and region are those that every client of such stores reads (AWS_ACCESS_KEY_ID,
    AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, AWS_REGION, AWS_ALLOW_HTTP).

    Raises:
        BadInput: no such address.
    """
    value = os.environ.get(LAKE_VARIABLE) or None
    if value is not None and re.fullmatch(r"s3a://[a-z0-9][a-z0-9.-]+(/[\w.-]+)+", value) is None:
        raise BadInput(
            "environment", LAKE_VARIABLE, expected="a folder of a bucket such as s3a://lake/tributary", found=value
        )
    return value


def table_address(locations: Locations, name: str) -> str:
    """A table as Spark and `deltalake` name it: its folder, or its place in the store that TRIBUTARY_LAKE names."""
    lake = lake_address()
    return str(locations.table(name)) if lake is None else f"{lake}/{name}"


def database_address() -> str | None:
    """Airflow's PostgreSQL if the stack is not to start one, from TRIBUTARY_DATABASE, with SQLAlchemy's driver named.

    Raises:
        BadInput: no address of a database in PostgreSQL; the message leaves out what was found, which may hold a
            password.
    """
    value = os.environ.get(DATABASE_VARIABLE) or None
    if value is None:
        return None
    parts = re.fullmatch(r"(postgresql|postgres|postgresql\+psycopg2)://(?P<rest>[^/\s]*/[^/?\s]+(\?\S*)?)", value)
    if parts is None:
        raise BadInput(
            "environment",
            DATABASE_VARIABLE,
            expected="an address such as postgresql://user:password@host:5432/airflow",
            found="another form (not shown, since it may hold a password)",
        )
    return f"postgresql+psycopg2://{parts['rest']}"


def store_endpoint() -> str | None:
    """Address of the S3-compatible store (AWS_ENDPOINT_URL); None is Amazon's own."""
    return os.environ.get("AWS_ENDPOINT_URL") or None


def store_region() -> str:
    """Region of the S3-compatible store (AWS_REGION)."""
    return os.environ.get("AWS_REGION") or "us-east-1"


def connect_token() -> str | None:
    """The token that a Spark Connect server asks for (TRIBUTARY_CONNECT_TOKEN); None: the server makes one for itself."""
    return os.environ.get("TRIBUTARY_CONNECT_TOKEN") or None


def spark_host() -> str:
    """The name under which other machines reach this one's Spark driver (TRIBUTARY_SPARK_HOST); only loopback by default."""
    return os.environ.get("TRIBUTARY_SPARK_HOST") or "127.0.0.1"


def spark_remote() -> str | None:
    """Address of a Spark Connect server that the environment names (SPARK_REMOTE)."""
    return os.environ.get("SPARK_REMOTE") or None


def spark_master() -> str:
    """Master URL for a session that is started here (SPARK_MASTER), `local[*]` by default."""
    return os.environ.get("SPARK_MASTER", "local[*]")


def spark_memory() -> str:
    """Heap of the driver, and so of the one-machine server (TRIBUTARY_SPARK_MEMORY, as Spark writes it, e.g. 4g)."""
    return os.environ.get("TRIBUTARY_SPARK_MEMORY") or "2g"


def executor_memory() -> str:
    """Heap of an executor on a cluster (TRIBUTARY_EXECUTOR_MEMORY); without a cluster the driver's is all there is."""
    return os.environ.get("TRIBUTARY_EXECUTOR_MEMORY") or "1g"


def folder_python(folder: str) -> str | None:
    """The interpreter that runs a folder's commands, from TRIBUTARY_PYTHON_<FOLDER>; None means the one that runs now."""
    return os.environ.get(f"TRIBUTARY_PYTHON_{folder.upper()}") or None


def native_mode() -> Literal["trial", "native", "torch"]:
    """Which code trains on a CPU (TRIBUTARY_NATIVE): `trial`, the faster of native code and torch; `1`, native code; `0`, torch.

    Raises:
        BadInput: another value.
    """
    modes: dict[str, Literal["trial", "native", "torch"]] = {"trial": "trial", "1": "native", "0": "torch"}
    value = os.environ.get("TRIBUTARY_NATIVE") or "trial"
    if value not in modes:
        raise BadInput("environment", "TRIBUTARY_NATIVE", expected=f"one of {', '.join(modes)}", found=value)
    return modes[value]


def native_flags() -> tuple[str, ...]:
    """Flags of the compiler of native code that come after ours (TRIBUTARY_NATIVE_FLAGS, e.g. `-mno-avx512f`)."""
    return tuple(shlex.split(os.environ.get("TRIBUTARY_NATIVE_FLAGS") or ""))


@dataclass(frozen=True, kw_only=True)
class LaunchedProcess:
    """One of the processes that `torchrun` started.

    Attributes:
        rank, count: the number of this process among all, from 0, and how many processes there are.
        local_rank, local_count: the number of this process among those of its machine, and how many those are.
    """

    rank: int
    count: int
    local_rank: int
    local_count: int


def launched_process() -> LaunchedProcess | None:
    """This process as `torchrun` numbered it (RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE); None if it was started otherwise."""
    names = {"rank": "RANK", "count": "WORLD_SIZE", "local_rank": "LOCAL_RANK", "local_count": "LOCAL_WORLD_SIZE"}
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    return LaunchedProcess(**{name: int(os.environ[variable]) for name, variable in names.items()})
