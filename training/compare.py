"""Compares the scores of ad models over days: with transfer, without, and the true probabilities where a simulator knows them.

Each day was scored by the models of the day before, on the same rows. The paired difference of GAUC is taken over all
scored days together; its interval comes from a bootstrap over users (`training.intervals`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from contracts.commands import table_text
from contracts.features import LOGS
from contracts.locations import Locations
from contracts.settings import Deployment
from contracts.steps import VALIDATED_TABLES
from contracts.tables import owner_key
from contracts.transfer import NO_TRANSFER
from lake.metrics import auc, figure_text, gauc, grouped_auc, has_both_labels, num_not_finite
from lake.reader import LakeReader
from training.intervals import Estimate, ratios

TRUTH = "truth"


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The same ad impressions, scored by each variant.

    Attributes:
        days: N, datetime64[D].
        event_ids: N.
        user_ids: N.
        clicks: N, 0 or 1.
        scores: by variant, N each; `truth` is the simulator's probability.
    """

    days: NDArray[np.datetime64]
    event_ids: NDArray[np.int64]
    user_ids: NDArray[np.int64]
    clicks: NDArray[np.int64]
    scores: dict[str, NDArray[np.float64]]

    def on(self, day: date) -> Scored:
        """The rows of one day."""
        return self.select(self.days == np.datetime64(day))

    def select(self, mask: NDArray[np.bool_]) -> Scored:
        """The rows of a mask."""
        return Scored(
            days=self.days[mask],
            event_ids=self.event_ids[mask],
            user_ids=self.user_ids[mask],
            clicks=self.clicks[mask],
            scores={name: scores[mask] for name, scores in self.scores.items()},
        )

    def auc(self, name: str) -> float | None:
        """AUC of a variant over all rows; None where it scored nothing or a label is absent; NaN where a score is not finite."""
        return auc(self.scores[name], self.clicks) if name in self.scores else None

    @property
    def num_judged(self) -> int:
        """The number of users with both labels, over whom a GAUC is taken."""
        return int(has_both_labels(self.clicks, self.user_ids).sum())

    def gauc(self, name: str) -> float | None:
        """Impression-weighted GAUC of a variant; None where it scored nothing, NaN where a score is not finite."""
        return gauc(self.scores[name], self.clicks, self.user_ids) if name in self.scores and len(self.clicks) else None

    @property
    def not_numbers(self) -> dict[str, str]:
        """For each variant that has scores which are NaN or infinite, a sentence with their number."""
        return {
            name: f"{bad} of {len(scores)} scores of {name} are not numbers: its figures on these rows are NaN"
            for name, scores in self.scores.items()
            if (bad := num_not_finite(scores))
        }


@dataclass(frozen=True, kw_only=True)
class Difference(Estimate):
    """GAUC of a variant minus GAUC without transfer, with its 95 % interval over users."""

    variant: str

    def __str__(self) -> str:
        if np.isnan(self.value):
            return f"{self.variant} - {NO_TRANSFER}: {self.verdict}, since scores are not"
        interval = "" if self.low is None else f", 95 % interval {self.low:+.4f} .. {self.high:+.4f}"
        return f"{self.variant} - {NO_TRANSFER}: {self.value:+.4f} GAUC{interval}: {self.verdict}"


def read_scored(locations: Locations, reader: LakeReader, deployment: Deployment, days: Sequence[date]) -> Scored:
    """Reads the predictions of the active releases of these days; only rows that every variant scored are kept."""
    parts, active = [], reader.active_releases("actr")
    for variant in deployment.variants:
        releases = [active[variant, day]["release_id"] for day in days if (variant, day) in active]
        rows = reader.read(
            "predictions",
            columns=["ds", "event_id", "user_id", "click", "score"],
            where={"ds": list(days), "release_id": releases},
        )
        parts.append(rows.rename_columns(["ds", "event_id", "user_id", "click", variant]))
    joined = parts[0]
    for rows in parts[1:]:
        joined = joined.join(
            rows.select(["ds", "event_id", rows.column_names[-1]]), ["ds", "event_id"], join_type="inner"
        )
    return joined_scores(locations, joined, deployment.variants, days)


def joined_scores(locations: Locations, rows: pa.Table, variants: Sequence[str], days: Sequence[date]) -> Scored:
    """Sorts rows of these days and joins the true probabilities where a simulator knows them.

    Args:
        locations: the deployment's folders.
        rows: ds, event_id, user_id, click, and a column of scores for each variant.
        variants: the variants, by the names of their columns.
        days: the days of the rows.
    """
    joined = _with_truth(locations, rows, days) if len(rows) else rows
    joined = joined.sort_by([("ds", "ascending"), ("event_id", "ascending")])
    names = [name for name in (*variants, TRUTH) if name in joined.column_names]
    return Scored(
        days=joined["ds"].to_numpy().astype("datetime64[D]"),
        event_ids=joined["event_id"].to_numpy(),
        user_ids=joined["user_id"].to_numpy(),
        clicks=joined["click"].to_numpy().astype(np.int64),
        scores={name: joined[name].to_numpy() for name in names},
    )


def difference(scored: Scored, variant: str) -> Difference | None:
    """Returns the paired difference in GAUC between a variant and no transfer, over all rows; None where no user has both labels.

    Each draw of the bootstrap takes users with replacement, and judges both variants on the same users. The difference
    is NaN where a score of either variant is not finite.
    """
    ours, counts = grouped_auc(scored.scores[variant], scored.clicks, scored.user_ids)
    base, _ = grouped_auc(scored.scores[NO_TRANSFER], scored.clicks, scored.user_ids)
    known = has_both_labels(scored.clicks, scored.user_ids)
    if not known.any():
        return None
    weight = counts[known].astype(np.float64)
    estimate = ratios({variant: (ours - base)[known] * weight}, weight)[variant]
    return Difference(variant=variant, value=estimate.value, low=estimate.low, high=estimate.high)


def report(locations: Locations, deployment: Deployment, days: Sequence[date]) -> str:
    """Returns the text of a comparison: a table with a row for each day, and the paired difference over all of them together."""
    reader = LakeReader(locations)
    scored = read_scored(locations, reader, deployment, days)
    names = [*reversed(deployment.variants), *([TRUTH] if TRUTH in scored.scores else [])]
    rows = [_day_row(reader, deployment, scored, names, day) for day in days]
    lines = [
        table_text(
            ("day", "rows in", "quarantined", "quality", *(f"GAUC {name}" for name in names), "release", "fallback"),
            rows,
        )
    ]
    lines += ["", *scored.not_numbers.values()] if scored.not_numbers else []
    lines.append(
        f"\nall scored days together, {len(scored.clicks)} rows, {scored.num_judged} users with both labels: "
        + ", ".join(
            f"{name} GAUC {figure_text(scored.gauc(name))} AUC {figure_text(scored.auc(name))}" for name in names
        )
    )
    for variant in deployment.variants:
        if variant != NO_TRANSFER and NO_TRANSFER in deployment.variants and len(scored.clicks):
            lines.append(str(difference(scored, variant) or f"{variant}: no user with both labels"))
    return "\n".join(lines)


def _day_row(
    reader: LakeReader, deployment: Deployment, scored: Scored, names: Sequence[str], day: date
) -> tuple[object, ...]:
    counts = [
        reader.builds(f"{log}_log", [owner_key(ds=day)]).get(owner_key(ds=day), {"counts": {}})["counts"]
        for log in LOGS
    ]
    releases = {variant: reader.active("actr", variant, day) for variant in deployment.variants}
    release = releases[deployment.variants[-1]]
    fallbacks = [variant for variant, one in releases.items() if one is not None and one["carries"]]
    return (
        day,
        sum(c.get("read", 0) for c in counts),
        sum(c.get("quarantined", 0) for c in counts),
        quality_of(reader, day),
        *(figure_text(scored.on(day).gauc(name)) for name in names),
        release["release_id"] if release else "-",
        ", ".join(fallbacks) or "-",
    )


def quality_of(reader: LakeReader, day: date) -> str:
    """Returns the worst verdict on the day's tables: `fail`, `warn`, `pass`, or `not judged`."""
    judged = {"table_name": list(VALIDATED_TABLES), "ds": day}
    rows = reader.read("quality_results", columns=["severity", "success"], where=judged).to_pylist()
    broken = {row["severity"] for row in rows if not row["success"]}
    return "fail" if "fail" in broken else "warn" if "warn" in broken else "pass" if rows else "not judged"


def _with_truth(locations: Locations, rows: pa.Table, days: Sequence[date]) -> pa.Table:
    """Joins the simulator's probabilities, where there are any."""
    files = [path for day in days if (path := locations.truth / f"{day}.parquet").is_file()]
    if not files:
        return rows
    truth = pa.concat_tables(
        [pq.read_table(path, columns=["event_id", "probability"], filters=[("log", "==", "ad")]) for path in files]
    )
    return rows.join(truth.rename_columns(["event_id", TRUTH]), "event_id", join_type="inner")
