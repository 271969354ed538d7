"""All DAGs backfilled at once through a running stack: their tables and releases equal those of the same commands by hand."""

from __future__ import annotations

import pytest
from live_fixture import ALL_DAGS, HISTORY, RECIPE, Live, features, release

from contracts.periods import ONE_DAY, days_between
from contracts.settings import HOME_VARIABLE
from contracts.steps import BOOTSTRAP, DAG_IDS, DAY_DAGS
from lake.reader import LakeReader
from spark_jobs.compare_tables import FEATURE_TABLES
from tributary import dags_command, stack

pytestmark = [pytest.mark.live, pytest.mark.long, pytest.mark.timeout(1800)]  # the first test also waits for the stack

TABLES = (*FEATURE_TABLES, "tpm_embeddings", "merged_embeddings", "actr_embeddings")
FIRST, LAST = ALL_DAGS
MIDDLE = FIRST + ONE_DAY


def test_all_dags_at_once_equal_hand_commands(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs and features are made newest first: features wait for the logs, models for both, and chained models go forwards."""
    live.deployed.run(*release("tpm", HISTORY[0]), *release("cpm", HISTORY[0]))
    live.copy()
    monkeypatch.setenv(HOME_VARIABLE, str(live.home))
    span = ("--from", str(FIRST), "--to", str(LAST))
    assert dags_command.main(["backfill", *span, "--backwards", "--max-active-runs", "2", *RECIPE]) == 0
    api = stack.api(live.home)
    run_types = {dag: [run.run_type for run in api.runs(dag)] for dag in DAG_IDS}
    assert {dag: len(run_types[dag]) for dag in DAY_DAGS} == dict.fromkeys(DAY_DAGS, 3)
    assert run_types[BOOTSTRAP] == [] and {one for types in run_types.values() for one in types} == {"backfill"}

    live.by_hand.run(
        *features(FIRST, LAST),
        *release("tpm", FIRST),
        *release("cpm", FIRST),
        *(command for number in (FIRST, MIDDLE, LAST) for command in release("actr", number)),
    )
    with_tables = (word for table in TABLES for word in ("--table", table))
    live.deployed.run(("spark_jobs", "compare_tables", "--with", str(live.by_hand.locations.home), *with_tables))
    empty = {name for name in TABLES if not LakeReader(live.deployed.locations).read(name).num_rows}
    # Checkpoints are of ten days, and there are fewer; the settings keep no strings.
    assert empty == {"behaviour_checkpoints", "statistic_checkpoints", "id_strings"}
    mine, theirs = (set(LakeReader(one.locations).releases()) for one in (live.deployed, live.by_hand))
    assert mine == theirs
    for variant in ("none", "tpm+cpm"):
        assert any(name.startswith(f"actr-{variant}-{LAST}") for name in mine), variant
    for made in days_between(FIRST, LAST + ONE_DAY):
        assert live.deployed.locations.report("natural_log", made).is_file()
