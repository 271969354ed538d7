"""Plans the A-CTR of a day: its parents, its days, and whether it starts again.

A variant that is bound to a CPM (`contracts/transfer.py` declares which are, and what they take from it) starts again with
the last ad days whenever its predecessor is bound to another CPM than the one that the day computes. Otherwise it continues
from the predecessor, and trains only on the newest day. A variant that is bound to no CPM starts on the deployment's first
day and continues every day.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

from contracts.features import ACTR, FEATURES, STATISTIC_COLUMNS, STATISTICS, features_of
from contracts.kinds import BOUND_KINDS
from contracts.periods import ONE_DAY, Parent
from contracts.releases import Release, Served, of_role, parent_key
from contracts.transfer import TRANSFER_SETTINGS, TransferSetting, variant_of
from lake.run_folders import Run
from training.data.samples import held_out_cnt
from training.recipes import as_json
from training.tasks.session import Session

FEATURE_SET = tuple(feature.name for feature in features_of(ACTR)) + STATISTIC_COLUMNS
AD_ONLY = frozenset(feature.name for feature in FEATURES if feature.side == "ad")
JUDGED_DAYS = 90  # The most days whose held-out rows the gate judges.


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The plan of one variant of a day.

    Attributes:
        release: the draft of the manifest.
        setting: the transfer setting.
        predecessor: the A-CTR of the day before; None on the deployment's first day.
        cpm: the CPM that this release is bound to.
        encoder: the FG-BERT that this release is bound to.
        texts: the BAHE of the day before, whose vectors are read, as are those of its predecessors.
        restart: whether it starts again (from the CPM, or fresh) and replays.
        days: the days of the ad log on which it trains.
        natural_days: the days of the natural log on which it trains.
        judged_days: ad days whose held-out rows the gate judges.
    """

    release: Release
    setting: TransferSetting
    predecessor: Run | None
    cpm: Run | None
    encoder: Run | None
    texts: Run | None
    restart: bool
    days: tuple[date, ...]
    natural_days: tuple[date, ...]
    judged_days: tuple[date, ...]


def plan_variant(session: Session, day: date, variant: str, judged: tuple[date, ...] | None = None) -> Plan:
    """Resolves the parents of a variant and decides whether it starts again; `judged` are the day's `judged_days`, if known."""
    lineage, setting = session.deployment.lineage, TRANSFER_SETTINGS[variant]
    child = Served(kind=ACTR, variant=variant, period=day)
    parents = {
        parent.role: (parent, read) for parent in lineage.parents(ACTR, day) if (read := variant_of(parent, child))
    }
    sources = {role: session.parent(str(child), parent, read) for role, (parent, read) in parents.items()}
    cpm, encoder, predecessor = sources.get("pretrained"), sources.get("encoder"), sources.get("predecessor")
    restart = predecessor is None or [bound_to(predecessor, role) for role in BOUND_KINDS] != [
        source.release.release_id if source else None for source in (cpm, encoder)
    ]
    days = lineage.actr_training_days(day, replay_days=session.deployment.replay_days) if restart else [day]
    natural_days = (
        [] if not setting.natural_rows else lineage.natural_training_days(day + ONE_DAY) if restart else [day]
    )
    judged = judged if judged is not None else judged_days(session, day)
    ad_inputs = session.inputs(["ad_samples", "user_histories"], sorted({*days, *judged}))
    release = Release(
        kind=ACTR,
        variant=variant,
        period=day,
        recipe=as_json(session.recipe.actr),
        parents={_key(parents[role][0]): run.release.release_id for role, run in sources.items()},
        absent_parents=tuple(
            _key(parent)
            for parent in _bound_parents(session, day)
            if parent.role not in sources and variant_of(parent, child)
        ),
        inputs=ad_inputs | session.inputs(["natural_samples", "user_histories"], natural_days),
        feature_set=_feature_set(cpm, None if restart else predecessor),
    )
    return Plan(
        release=release,
        setting=setting,
        predecessor=predecessor,
        cpm=cpm,
        encoder=encoder,
        texts=sources.get("texts"),
        restart=restart,
        days=tuple(days),
        natural_days=tuple(natural_days),
        judged_days=judged,
    )


def judged_days(session: Session, day: date) -> tuple[date, ...]:
    """Returns the last ad days up to `day` whose held-out rows the gate judges: as few as give enough rows.

    None precedes the ads, or the days that the deployment's first A-CTR replayed: further back samples need not be
    built.
    """
    deployment = session.deployment
    first = max(
        deployment.ad_start or deployment.history_start,
        deployment.actr_start + ONE_DAY - timedelta(days=deployment.replay_days),
        deployment.history_start,
        day + ONE_DAY - timedelta(days=JUDGED_DAYS),
    )
    days, row_cnt = [day], held_out_cnt(session.reader, "ad", day)
    while row_cnt < session.judged_rows and days[0] > first:
        days.insert(0, days[0] - ONE_DAY)
        row_cnt += held_out_cnt(session.reader, "ad", days[0])
    return tuple(days)


def categorical_of(release: Release) -> tuple[str, ...]:
    """Returns the features of a CPM or A-CTR that have embedding tables."""
    return tuple(feature.name for feature in FEATURES if feature.name in release.feature_set)


def statistics_of(release: Release) -> tuple[str, ...]:
    """Returns the columns of the statistics that a CPM or A-CTR reads."""
    return tuple(
        name for statistic in STATISTICS if statistic.impressions in release.feature_set for name in statistic.columns
    )


def bound_to(run: Run, role: str) -> str | None:
    """Returns the id of the release that an A-CTR is bound to, from its own row, whatever is served now."""
    bound = list(of_role(run.release.parents, role).values())
    assert len(bound) <= 1, "one of each per A-CTR"
    return bound[0] if bound else None


def _key(parent: Parent) -> str:
    return parent_key(parent.role, parent.kind, parent.period)


def _bound_parents(session: Session, day: date) -> list[Parent]:
    """Returns what an A-CTR of a day would be bound to if there were logs before the week that closed before it."""
    week = session.deployment.periods.closed_before("week", day)
    return [Parent(role=role, kind=kind, period=week.start) for role, kind in BOUND_KINDS.items()]


def _feature_set(cpm: Run | None, continued: Run | None) -> tuple[str, ...]:
    """Returns the predecessor's features when it continues; else the CPM's with the ad-only ones, or all without a CPM."""
    if continued:
        return continued.release.feature_set
    if cpm is None:
        return FEATURE_SET
    read = set(cpm.release.feature_set) | AD_ONLY
    return tuple(name for name in FEATURE_SET if name in read)
