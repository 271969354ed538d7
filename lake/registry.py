"""The registry of releases at one moment: which are active, which are stale, and which would replace a newer one if published."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from contracts.periods import Lineage
from contracts.releases import Release, Served
from contracts.transfer import computed_parents
from lake.reader import LakeReader


@dataclass(frozen=True, kw_only=True)
class Registry:
    """All releases, and which of them are active.

    Attributes:
        releases: rows of `releases` by release id.
        activations: rows of `activations` by kind, variant and period.
    """

    releases: Mapping[str, Mapping[str, Any]]
    activations: Mapping[Served, Mapping[str, Any]]

    @classmethod
    def read(cls, reader: LakeReader) -> Registry:
        """Reads the registry, at the versions that this reader has opened."""
        releases = reader.releases()
        rows = reader.read("activations").to_pylist()
        activations = {Served(kind=row["kind"], variant=row["variant"], period=row["period"]): row for row in rows}
        return cls(releases=releases, activations=activations)

    def serving(self, served: Served) -> str | None:
        """Id of the active release of a kind, variant and period, or None."""
        row = self.activations.get(served)
        return row["release_id"] if row else None

    def current(self, kind: str, variant: str) -> str | None:
        """Id of the active release of the newest period, even if an older period was published later."""
        periods = [served for served in self.activations if (served.kind, served.variant) == (kind, variant)]
        return self.serving(max(periods)) if periods else None

    def wrong_parents(self, lineage: Lineage, release: Release) -> list[str]:
        """What is wrong with the parents of a run, each as a sentence; [] if they are the ones its period needs and all are active.

        Of a fallback only the predecessor is that of its period: its other parents are those of the model that it
        carries.
        """
        computed = computed_parents(lineage, release.served)
        carried = {
            key for key in {*computed, *release.parents} if release.carries and not key.startswith("predecessor/")
        }
        computed = {key: served for key, served in computed.items() if key not in carried}
        wrong = [
            f"{key} is a parent of the period, and the run was made without it"
            for key in computed
            if key not in release.parents
        ]
        for key, named in release.parents.items():
            if key in carried and named in self.releases:
                continue
            if key not in computed and key not in carried:
                wrong.append(f"{key} is not a parent of the period, and the run was made from {named}")
            elif named not in self.releases:
                wrong.append(f"{key}: {named} was never released")
            elif (serves := self.serving(computed[key])) != named:
                wrong.append(f"{key}: the run was made from {named}, and {serves or 'nothing'} serves")
        return wrong

    def stale(self) -> dict[str, str]:
        """Active releases with a parent that is no longer active or is itself stale, each with the reason."""
        serving = {row["release_id"] for row in self.activations.values()}
        reasons: dict[str, str] = {}
        for served in sorted(
            self.activations, key=lambda served: served.period
        ):  # a parent's period begins before its child's
            release_id = self.activations[served]["release_id"]
            parents = sorted(self.releases[release_id]["parents"].values())
            gone, behind = (
                [parent for parent in parents if parent not in serving],
                [parent for parent in parents if parent in reasons],
            )
            if gone or behind:
                reasons[release_id] = (
                    f"made from {gone[0]}, which no longer serves" if gone else f"made from {behind[0]}, which is stale"
                )
        return reasons

    def resting_on(self, releases: Iterable[str]) -> list[Served]:
        """What these releases serve, and those made from them directly or indirectly; in the order of their periods."""
        resting, behind = [], set(releases)
        for served in sorted(self.activations, key=lambda served: served.period):
            release_id = self.activations[served]["release_id"]
            if release_id in behind or behind & set(self.releases[release_id]["parents"].values()):
                behind.add(release_id)
                resting.append(served)
        return resting

    def step_back(self, release: Release, reader: LakeReader) -> str | None:
        """Why publishing this run would replace a newer release by an older one; None if it would not.

        A release that was published before, and after which another one was activated, has been replaced: publishing it
        again does not bring it back. A run that was never published is older than the active release if one of the
        partitions that it read has been rebuilt since, and the active release read the rebuilt one.
        """
        serves = self.serving(release.served)
        if serves is None or serves == release.release_id:
            return None
        before, since = self.releases.get(release.release_id), self.activations[release.served]["activated_ts"]
        if before is not None:  # a release whose publishing was interrupted before its activation is not replaced
            return f"{serves} replaced it on {since:%Y-%m-%d %H:%M}" if before["created_ts"] < since else None
        inputs = self.releases[serves]["inputs"]
        for key in sorted(key for key, digest in release.inputs.items() if inputs.get(key, digest) != digest):
            table, _, owner = key.partition("/")
            if reader.builds(table, [owner]).get(owner, {}).get("digest") == inputs[key]:
                return f"{serves} was made from a newer build of {key}"
        return None
