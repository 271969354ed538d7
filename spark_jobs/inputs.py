"""Which partitions a day's features read, and whether they exist."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

from contracts.awaited import Awaited
from contracts.features import LOGS, STATISTIC_WINDOWS
from contracts.periods import ONE_DAY, days_between
from contracts.settings import Deployment
from contracts.tables import TABLES, owner_key
from lake.reader import LakeReader


def partial_owners(days: Sequence[date]) -> list[str]:
    """Owner keys of the partials of these days, both logs."""
    return [owner_key(ds=day, log=log) for day in days for log in LOGS]


def statistic_days(day: date, deployment: Deployment) -> list[date]:
    """Days whose partials the statistics of `day` read: the longest window before it, and itself for who is active."""
    return list(
        days_between(max(deployment.history_start, day - timedelta(days=max(STATISTIC_WINDOWS))), day + ONE_DAY)
    )


def require_partials(reader: LakeReader, name: str, days: Sequence[date]) -> dict[str, str]:
    """Digests of the partials of these days, by `table/owner`.

    Raises:
        ParentMissing: one was never built.
    """
    hint = f"Make it: tributary spark_jobs build_partials --from {days[0]} --to {days[-1]}" if days else ""
    return reader.require_builds(name, partial_owners(days), hint=hint)


def missing_partials(reader: LakeReader, deployment: Deployment, day: date) -> Awaited | None:
    """What the features of `day` still wait for: partials of every day since history_start, `day` included.

    A missing day is never taken for an empty one.
    """
    built = [
        {owner: build for owner, build in reader.builds(name).items() if TABLES[name].is_current(dict(build["inputs"]))}
        for name in ("behaviour_partials", "statistic_partials")
    ]
    days = [
        needed
        for needed in days_between(deployment.history_start, day + ONE_DAY)
        if any(owner not in found for found in built for owner in partial_owners([needed]))
    ]
    if not days:
        return None
    return Awaited(
        what=f"partials of {len(days)} days since history_start {deployment.history_start}, the first {days[0]}",
        dag="logs_daily",
        periods=tuple(days),
    )
