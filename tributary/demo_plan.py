"""What `tributary demo` loads as history, trains by hand commands and leaves to Airflow, of the days that have landed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

from contracts.errors import BadInput
from contracts.features import LOGS, Log
from contracts.locations import Locations
from contracts.periods import ONE_DAY, Parent, days_between
from contracts.settings import SETTINGS_FILE, Deployment
from tributary import first_periods

MOST_BACKFILLED = 4  # days that go through Airflow: some minutes each
SHOWN_DAYS = 5  # most days that a message names


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is loaded as history, and what goes through Airflow.

    Attributes:
        history: first and last day loaded by range jobs.
        backfilled: the last days, in order.
        trained: parents whose periods end with the history, trained by hand commands, in order.
        scheduled: parents whose periods end later, trained by Airflow.
    """

    history: tuple[date, date]
    backfilled: tuple[date, ...]
    trained: tuple[Parent, ...]
    scheduled: tuple[Parent, ...]

    def lines(self) -> list[str]:
        """The plan, for people."""
        return [
            f"history:  {self.history[0]} .. {self.history[1]}, as range jobs",
            f"models:   {', '.join(f'{one.kind} {one.period}' for one in self.trained) or 'none'}, by commands",
            f"backfill: {self.backfilled[0]} .. {self.backfilled[-1]}, by Airflow",
            "",
        ]

    @property
    def encoded(self) -> bool:
        """Whether there is an FG-BERT: then the users of the last day are encoded by it."""
        return any(parent.kind == "fg_bert" for parent in (*self.trained, *self.scheduled))


def plan_of(deployment: Deployment, days: Sequence[date]) -> Plan:
    """Splits the landing days into history and the last days, and finds the models that these rest on.

    Args:
        deployment: its A-CTRs begin on `actr_start`; those before the last days are trained by hand commands.
        days: the days whose landing files are there, in order and without a gap.

    Raises:
        BadInput: too few days.
    """
    modelled = [day for day in days if day >= deployment.actr_start]  # the first has no predecessor
    if len(modelled) < 2 or modelled[0] == days[0]:
        raise BadInput(
            "tributary demo",
            "landing days",
            expected=f"days before actr_start {deployment.actr_start}, and two or more from it on",
            found=f"{len(days)}" + (f" ({days[0]} .. {days[-1]})" if days else ""),
            hint="The first of the two has the first A-CTR, which scores the second. `tributary status --periods` shows "
            f"what each model needs; actr_start is a setting in {SETTINGS_FILE}.",
        )
    backfilled = tuple(modelled[-MOST_BACKFILLED:])
    made = [Parent(role="predecessor", kind="actr", period=day) for day in modelled]
    needed = [one for one in first_periods.ancestors(deployment, made) if one not in made[-len(backfilled) :]]
    ended = [parent for parent in needed if deployment.lineage.period(parent.kind, parent.period).end <= backfilled[0]]
    later = [parent for parent in needed if parent not in ended]
    return Plan(
        history=(days[0], backfilled[0] - ONE_DAY), backfilled=backfilled, trained=tuple(ended), scheduled=tuple(later)
    )


def landing_days(locations: Locations, log: Log = "natural") -> list[date]:
    """Days with landing files of a log, in order; a name that begins with . or _ is still on its way, or was left by a killed source.

    Raises:
        BadInput: a folder is named after no day.
    """
    folder = locations.landing / log
    names = [path.name for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    days = []
    for name in names:
        if name.startswith((".", "_")):
            continue
        try:
            days.append(date.fromisoformat(name))
        except ValueError:
            raise BadInput(folder, "landing day", expected="a folder named as 2026-01-31", found=name) from None
    return sorted(days)


def whole_days(deployment: Deployment, locations: Locations, now: datetime) -> list[date]:
    """The days of the deployment that have ended and whose landing files are there, in order and without a gap.

    Of a log that lies elsewhere all days are taken to be there: ingestion refuses one that is not.

    Args:
        deployment: its days are those from `history_start` to `history_end`, or to yesterday if days keep coming.
        locations: the deployment's paths.
        now: the present.

    Raises:
        BadInput: there is none, or one is missing in between; the message names the first ones.
    """
    last = deployment.history_end or now.astimezone(deployment.timezone).date() - ONE_DAY
    ended = list(days_between(deployment.history_start, last + ONE_DAY))
    landed: dict[Log, set[date]] = {
        log: set(landing_days(locations, log) if deployment.landing.of(log).is_home else ended) for log in LOGS
    }
    days = sorted(day for day in landed["natural"] if deployment.history_start <= day <= last)
    if not days:
        raise BadInput(
            locations.landing / "natural",
            "landing days",
            expected=f"a folder for each day from history_start {deployment.history_start} on, named as 2026-01-31",
            found="none",
            hint="docs/your_own_logs.md describes what to deliver; `tributary sources check PATH` prints what is wrong with it.",
        )
    for log in LOGS:
        begins = (log == "ad" and deployment.ad_start) or deployment.history_start
        missing = [day for day in days_between(begins, days[-1] + ONE_DAY) if day not in landed[log]]
        if missing:
            shown = ", ".join(map(str, missing[:SHOWN_DAYS])) + (", ..." if len(missing) > SHOWN_DAYS else "")
            raise BadInput(
                locations.landing / log,
                "landing days",
                expected=f"a folder for each day {begins} .. {days[-1]}",
                found=f"{len(missing)} missing: {shown}",
                hint="An absent day is never taken for an empty one: deliver its files, or correct "
                f"{'ad_start' if log == 'ad' else 'history_start'} in {SETTINGS_FILE}.",
            )
    return days
