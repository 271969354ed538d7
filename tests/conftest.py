"""One Spark session for the whole run; real data from the folder that TRIBUTARY_DATA names."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from contracts.locations import Locations
from contracts.settings import DATA_VARIABLE

os.environ.setdefault("TRIBUTARY_NATIVE", "1")  # no test depends on which way was faster when it was tried


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that two processes end together: the live stack, then Spark; within a file nothing changes."""

    def place(item: pytest.Item) -> int:
        return 0 if item.get_closest_marker("live") else 1 if item.get_closest_marker("spark") else 2

    first_of_file: dict[Path, int] = {}
    for item in items:
        first_of_file[item.path] = min(place(item), first_of_file.get(item.path, 2))
    items.sort(key=lambda item: first_of_file[item.path])


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The session that every Spark test shares; each test writes to a lake of its own."""
    from stack_fixture import JVM_OPTIONS

    from lake.session import spark_session

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(*JVM_OPTIONS)
        with spark_session(Locations(tmp_path_factory.mktemp("spark-home")), app="tests") as session:
            yield session


@pytest.fixture(scope="session")
def connect(spark: Any) -> Iterator[str]:
    """The address at which other processes reach the JVM of that session."""
    from connect_fixture import serving_connect

    with serving_connect(spark) as address:
        yield address


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The deployment of `chain_fixture`; tests leave it as it is."""
    from chain_fixture import make_chain

    return make_chain(tmp_path_factory.mktemp("chain"))


@pytest.fixture(scope="session")
def live() -> Iterator[Any]:
    """The deployments of `live_fixture`, the stack of one of them up."""
    from live_fixture import live_deployments

    with live_deployments() as deployments:
        yield deployments


@pytest.fixture(scope="session")
def failed_day(live: Any) -> Any:
    """A day that failed in the stack of those deployments."""
    from live_fixture import fail_a_day

    return fail_a_day(live)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A deployment's folder with an empty stack."""
    from stack_fixture import make_home

    return make_home(tmp_path)


@pytest.fixture
def fake() -> Iterator[Any]:
    """A stand-in for Airflow's API, and its address."""
    from stack_fixture import serving

    with serving() as served:
        yield served


@pytest.fixture
def checkpoints_every(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets the days between checkpoints, so that a few days have some."""

    def set_days(days: int) -> None:
        jobs = ("build_checkpoints", "build_statistics", "build_user_histories")
        for module in ("contracts.periods", *(f"spark_jobs.{job}" for job in jobs)):
            monkeypatch.setattr(f"{module}.CHECKPOINT_DAYS", days)

    return set_days


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of the original files of MovieLens-1M and KuaiRand."""
    folder = os.environ.get(DATA_VARIABLE)
    if not folder:
        pytest.skip(f"{DATA_VARIABLE} names no folder: tests on real logs did not run")
    return Path(folder)
