"""One Spark session for the whole run; real data where TRIBUTARY_DATA says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contracts.locations import Locations
from contracts.settings import DATA_VARIABLE


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The session that every Spark test shares; each test writes to a lake of its own."""
    from lake.session import spark_session

    with spark_session(Locations(tmp_path_factory.mktemp("spark-home")), app="tests") as session:
        yield session


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of the original files of MovieLens-1M and KuaiRand."""
    folder = os.environ.get(DATA_VARIABLE)
    if not folder:
        pytest.skip(f"{DATA_VARIABLE} names no folder: tests on real logs did not run")
    return Path(folder)
