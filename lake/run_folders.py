"""Run folders hold what the training of one release leaves, complete or not at all; they are opened, checked, made and staged here.

A folder is written under a temporary name and then renamed; at the end the period's `staged.json` names the folders of
its task. A killed run leaves a temporary folder, which the next one removes. Only the standard library is needed here.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any, ClassVar, Protocol

from contracts.errors import BadInput
from contracts.locations import Locations
from contracts.releases import DEFAULT_VARIANT, GATE, MANIFEST, Release, Served, training_command


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run: its manifest and its folder."""

    release: Release
    folder: Path


class Judged(Protocol):
    """The result of one check of the gate or the audit, a dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def passed(self) -> bool:
        """Whether the run passed the check."""

    @property
    def severity(self) -> str:
        """`fail` if a failure refuses the run, `warn` if it is only reported."""


def sha256_of(path: Path) -> str:
    """The digest of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_release(folder: Path) -> Release:
    """Reads a run folder's manifest.

    Raises:
        BadInput: there is no manifest, or its id is not the one that its content gives.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise BadInput(path, "manifest", expected="a finished run", found="no such file")
    return Release.from_json(path.read_text(), where=path)


def changed_files(folder: Path, release: Release) -> dict[str, str]:
    """Files of a release that differ from its manifest, each with the digest that it has instead, or `no such file`."""
    digests = {name: _digest(folder / name) for name in release.files}
    return {name: digest for name, digest in digests.items() if digest != release.files[name]}


def require_unchanged(
    folder: Path, release: Release, *, hint: str = "The run folder was damaged: train this release again."
) -> None:
    """Raises BadInput, which ends with `hint`, if a file of the manifest is missing or was changed."""
    for name, found in changed_files(folder, release).items():
        raise BadInput(folder / name, "sha256", expected=release.files[name], found=found, hint=hint)


def open_run(folder: Path) -> Run:
    """Opens a run folder, after checking its files against its manifest.

    Raises:
        BadInput: there is no manifest, or a file is missing or was changed.
    """
    release = read_release(folder)
    require_unchanged(folder, release)
    return Run(release=release, folder=folder)


def finished(locations: Locations, release: Release) -> Run | None:
    """The run of exactly this release, if its folder exists and is complete; otherwise None."""
    try:
        return open_run(folder_of(locations, release))
    except (BadInput, KeyError, TypeError, ValueError):  # a manifest that was cut off counts as none
        return None


def folder_of(locations: Locations, release: Release) -> Path:
    """Where the files of a release lie."""
    return locations.run_of(release.kind, release.period, release.variant, release.release_id)


def released_folder(locations: Locations, row: Mapping[str, Any], *, hint: str = "") -> Path:
    """The run folder of a row of `releases`, after checking that its manifest is the one that was released.

    Raises:
        BadInput: the folder has another manifest, or none; the message ends with `hint`, or names the release.
    """
    folder: Path = locations.home / row["artifact"]
    digest = _digest(folder / MANIFEST)
    if digest != row["sha256"]:
        raise BadInput(
            folder / MANIFEST,
            "sha256",
            expected=row["sha256"],
            found=digest,
            hint=hint or f"The folder is not what {row['release_id']} released.",
        )
    return folder


def open_released(locations: Locations, row: Mapping[str, Any]) -> Run:
    """Opens the run folder of a row of `releases`, after checking that all of it is as it was released.

    Raises:
        BadInput: its manifest is another one, or a file is missing or was changed.
    """
    return open_run(released_folder(locations, row))


def make_run(locations: Locations, draft: Release, fill: Callable[[Path], Release]) -> Run:
    """Makes the run folder of a release, complete or not at all, and replaces a damaged one.

    Args:
        locations: the deployment's paths.
        draft: the release, whose id is known before its files are.
        fill: called with an empty folder; it writes the files and returns the release with its metrics and vector
            widths.
    """
    folder = folder_of(locations, draft)
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left_behind in folder.parent.glob(f".{draft.release_id}.*"):
        shutil.rmtree(left_behind)
    temporary = folder.with_name(f".{draft.release_id}.{os.getpid()}")
    temporary.mkdir()
    filled = fill(temporary)
    release = replace(filled, files={path.name: sha256_of(path) for path in sorted(temporary.iterdir())})
    (temporary / MANIFEST).write_text(release.to_json())
    damaged = folder.with_name(f".{draft.release_id}.damaged")
    if folder.exists():  # the caller asked `finished`, which judged it to be incomplete
        folder.rename(damaged)
    temporary.rename(folder)
    shutil.rmtree(damaged, ignore_errors=True)
    return Run(release=release, folder=folder)


def link(source: Path, target: Path) -> None:
    """Gives a file a second name, since files in run folders never change; a copy where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def replace_text(path: Path, text: str) -> None:
    """Replaces a file by a new one, without changing the old one, to which other folders may have a link."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)


def write_verdict(path: Path, release: Release, checks: Sequence[Judged], **others: object) -> None:
    """Writes the verdict of the gate or the audit on a run next to its manifest, whose digest it records.

    Args:
        path: the file to write, in the run folder.
        release: the release of the run.
        checks: results of the checks; a failed one of severity `fail` refuses the run.
        others: further fields of the verdict.
    """
    verdict = {
        "release_id": release.release_id,
        "passed": not any(map(refuses, checks)),
        "manifest_sha256": sha256_of(path.parent / MANIFEST),
        **others,
        "checks": [asdict(check) for check in checks],
    }
    replace_text(path, json.dumps(verdict, indent=2) + "\n")


def refuses(check: Judged) -> bool:
    """Whether a check refuses its run."""
    return not check.passed and check.severity == "fail"


def failed_names(verdict: Mapping[str, Any]) -> str:
    """Names of the checks that refused a run, from its verdict on disk."""
    return ", ".join(
        check["name"] for check in verdict["checks"] if not check["passed"] and check["severity"] == "fail"
    )


def stage_runs(locations: Locations, kind: str, period: date, runs: Sequence[Run]) -> Path:
    """Writes the file that names the runs ready to be judged and published, and returns its path."""
    path = locations.staged(kind, period)
    replace_text(
        path, json.dumps({"runs": [str(run.folder.relative_to(locations.home)) for run in runs]}, indent=2) + "\n"
    )
    return path


def staged_runs(locations: Locations, kind: str, period: date) -> list[Path]:
    """Run folders that the last training of a kind and period has staged, one for each variant.

    Raises:
        BadInput: nothing was staged, or a staged folder is missing, not finished, or of another period.
    """
    path = locations.staged(kind, period)
    again = f"Run: {training_command(Served(kind=kind, variant=DEFAULT_VARIANT, period=period))}"
    if not path.is_file():
        raise BadInput(
            path, "staged runs", expected=f"a finished training of {kind} {period}", found="none", hint=again
        )
    try:
        folders = [locations.home / folder for folder in json.loads(path.read_text())["runs"]]
    except (ValueError, KeyError, TypeError):
        raise BadInput(path, "staged runs", expected='{"runs": [...]}', found="something else", hint=again) from None
    releases = [read_release(folder) for folder in folders]
    for folder, release in zip(folders, releases, strict=True):
        place = locations.run_of(kind, period, release.variant, release.release_id)
        if folder != place:  # a temporary folder, or a run of another kind or period
            raise BadInput(
                path,
                "staged runs",
                expected=f"finished runs of {kind} {period}, such as {place.relative_to(locations.home)}",
                found=folder.relative_to(locations.home),
                hint=again,
            )
    variants = [release.variant for release in releases]
    if not variants or len(set(variants)) < len(variants):
        raise BadInput(path, "staged runs", expected="one run a variant", found=variants or "none", hint=again)
    return folders


def gated_runs(locations: Locations, kind: str, period: date) -> list[Path]:
    """Run folders that the gate lets through, one for each variant: the staged run, or the fallback in its place.

    Raises:
        BadInput: nothing was staged, the gate has not judged a run in its present state, or it refused one without a
            fallback.
    """
    return [_let_through(locations, folder) for folder in staged_runs(locations, kind, period)]


def _let_through(locations: Locations, folder: Path) -> Path:
    release, path = read_release(folder), folder / GATE
    again = f"Run: tributary validation gate --kind {release.kind} --period {release.period}"
    if not path.is_file():
        raise BadInput(path, "gate", expected="a verdict of the gate", found="none", hint=again)
    verdict: dict[str, Any] = json.loads(path.read_text())
    require_same_manifest(path, verdict, hint=again)
    if verdict["passed"]:
        return folder
    if verdict["fallback"] is None:
        raise BadInput(path, "gate", expected="a passed gate, or a fallback", found=f"failed: {failed_names(verdict)}")
    fallback: Path = locations.home / verdict["fallback"]
    return fallback


def require_same_manifest(path: Path, verdict: Mapping[str, Any], *, hint: str) -> None:
    """Raises BadInput if a verdict at `path` is on another manifest than the one next to it."""
    if verdict["manifest_sha256"] != sha256_of(path.parent / MANIFEST):
        raise BadInput(
            path, "manifest_sha256", expected=verdict["manifest_sha256"], found="another manifest", hint=hint
        )


def _digest(path: Path) -> str:
    return sha256_of(path) if path.is_file() else "no such file"
