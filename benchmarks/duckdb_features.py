"""The same day of features by DuckDB, in one process on the same files: landing files in, Parquet tables out.

It checks the same legal values, drops the same duplicates, and is handed the day partials of the days before, as our
jobs are.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pa_parquet

from benchmarks.recording import peak_memory_gib
from contracts.features import ENTITIES, HELD_OUT_ONE_IN, HISTORY_LENGTH, LOGS, STATISTIC_WINDOWS, WHOLE_LOG
from contracts.locations import Locations
from contracts.settings import Deployment
from lake.reader import LakeReader

THREADS = len(os.sched_getaffinity(0))
PARTIALS = ("behaviour_partials", "statistic_partials")


def export_partials(locations: Locations, folder: Path) -> None:
    """The day partials that our jobs read, as plain Parquet."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in PARTIALS:
        pa_parquet.write_table(LakeReader(locations).read(name), folder / f"{name}.parquet")


def run_in_a_process(
    locations: Locations, partials: Path, out: Path, day: date, deployment: Deployment
) -> dict[str, float]:
    """Seconds and peak memory of one run, import and start of the process left out as they are for us."""
    arguments = [str(locations.landing), str(partials), str(out), str(day), str(deployment.feedback_delay_seconds)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.duckdb_features", *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def require_equal(ours: Locations, theirs: Path, day: date) -> None:
    """Raises AssertionError unless samples and statistics have the same rows, as far as sums over all columns show."""
    reader = LakeReader(ours)
    for log in LOGS:
        mine = reader.read(f"{log}_samples", where={"ds": day}).to_pandas()
        other = pa_parquet.read_table(theirs / f"{log}_samples.parquet").to_pandas()
        assert len(mine) == len(other), (log, len(mine), len(other))
        numbers = [
            name for name in other.columns if name.endswith("_cnt") or name in ("history_end", "event_id", "click")
        ]
        for name in numbers:
            assert int(mine[name].sum()) == int(other[name].sum()), (log, name, mine[name].sum(), other[name].sum())


def run(landing: Path, partials: Path, out: Path, day: date, delay_seconds: int) -> float:
    """Runs the day; seconds."""
    import duckdb

    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    db = duckdb.connect(config={"threads": THREADS})
    db.execute("SET TimeZone = 'UTC'")
    began = time.perf_counter()
    for log in LOGS:
        _ingest(db, landing, log, day)
    _partials(db)
    _histories(db, partials, day)
    _statistics(db, partials, day)
    _samples(db, day, delay_seconds)
    for name in (
        "natural_log",
        "ad_log",
        "behaviours_today",
        "statistics_today",
        "texts",
        "user_histories",
        "entity_statistics",
        "natural_samples",
        "ad_samples",
    ):
        db.execute(f"COPY {name} TO '{out}/{name}.parquet' (FORMAT parquet, COMPRESSION snappy)")
    return time.perf_counter() - began


def _ingest(db: Any, landing: Path, log: str, day: date) -> None:
    ad = ("campaign_id", "advertiser_id") if log == "ad" else ()
    ids = ("event_id", "request_id", "user_id", "item_id", "category_id", "user_segment_id", *ad)
    legal = " AND ".join(f"coalesce({name} >= 0, false)" for name in ids)
    legal += (
        " AND coalesce(position BETWEEN 0 AND 10000, false) AND coalesce(click IN (0, 1), false)"
        " AND coalesce(action BETWEEN 0 AND 6, false) AND (action >= 1) = (click = 1)"
        " AND coalesce(dwell_seconds BETWEEN 0 AND 86400, false)"
        " AND coalesce(length(item_text) <= 20000, true) AND event_ts::DATE BETWEEN landed - 1 AND landed"
    )
    files = [f"{landing}/{log}/{landed}/*.parquet" for landed in (day - timedelta(days=1), day)]
    db.execute(f"""
        CREATE TABLE {log}_rows AS
        SELECT *, {legal} AS good, row_number() OVER (PARTITION BY event_id, {legal} ORDER BY landed, payload) AS turn
        FROM (SELECT *, filename.regexp_extract('/([0-9-]{{10}})/', 1)::DATE AS landed,
                     hash({", ".join(ids)}, position, click, action, dwell_seconds, item_text) AS payload
              FROM read_parquet({files}, filename=true))""")
    db.execute(f"CREATE TABLE {log}_quarantine AS SELECT * FROM {log}_rows WHERE landed = DATE '{day}' AND NOT good")
    db.execute(
        f"CREATE TABLE {log}_log AS SELECT * EXCLUDE (filename, payload, good, turn), event_ts::DATE < landed AS late "
        f"FROM {log}_rows WHERE landed = DATE '{day}' AND good AND turn = 1"
    )


def _partials(db: Any) -> None:
    struct = (
        "{'event_ts': event_ts, 'log': log, 'event_id': event_id, 'item_id': item_id, 'category_id': category_id, 'action': action, "
        "'dwell_seconds': dwell_seconds, 'text_hash': hash(text)}"
    )
    both = " UNION ALL ".join(
        f"SELECT '{log}' AS log, event_ts, event_id, user_id, item_id, category_id, action, click, dwell_seconds, "
        f"'Clicked ' || item_text AS text FROM {log}_log"
        for log in LOGS
    )
    db.execute(f"CREATE VIEW both_logs AS {both}")
    db.execute(
        f"CREATE TABLE behaviours_today AS SELECT log, user_id, list({struct} ORDER BY event_ts, log, event_id) AS behaviours "
        "FROM both_logs WHERE action >= 1 GROUP BY ALL"
    )
    ids = {entity: f"{entity}_id" for entity in ENTITIES} | {WHOLE_LOG: "0"}
    counts = " UNION ALL ".join(
        f"SELECT log, '{entity}' AS entity, {value} AS entity_id, count(*) AS impressions, "
        "sum(click)::BIGINT AS clicks FROM both_logs GROUP BY ALL"
        for entity, value in ids.items()
    )
    db.execute(f"CREATE TABLE statistics_today AS {counts}")
    db.execute("CREATE TABLE texts AS SELECT DISTINCT hash(text) AS text_hash, text FROM both_logs")


def _histories(db: Any, partials: Path, day: date) -> None:
    db.execute(f"""
        CREATE TABLE user_histories AS
        WITH active AS (SELECT DISTINCT entity_id AS user_id FROM statistics_today WHERE entity = 'user'),
        past AS (SELECT user_id, list_sort(flatten(list(behaviours)))[-{HISTORY_LENGTH}:] AS behaviours
                 FROM read_parquet('{partials}/behaviour_partials.parquet') SEMI JOIN active USING (user_id)
                 WHERE ds < DATE '{day}' GROUP BY user_id),
        today AS (SELECT user_id, list_sort(flatten(list(behaviours))) AS behaviours FROM behaviours_today GROUP BY user_id)
        SELECT user_id, coalesce(past.behaviours, []) || coalesce(today.behaviours, []) AS behaviours, DATE '{day}' AS ds
        FROM past FULL JOIN today USING (user_id)""")


def _statistics(db: Any, partials: Path, day: date) -> None:
    figures = ("impressions", "clicks")
    sums = ", ".join(
        f"coalesce(sum({figure}) FILTER (log = '{log}' AND ds >= DATE '{day - timedelta(days=window)}'), 0)::BIGINT "
        f"AS {log}_{figure}_{window}d_cnt"
        for log in LOGS
        for window in STATISTIC_WINDOWS
        for figure in figures
    )
    rates = ", ".join(
        f"({log}_clicks_{w}d_cnt + 20 * whole.{log}_{w}) / ({log}_impressions_{w}d_cnt + 20) AS {log}_smoothed_ctr_{w}d"
        for log in LOGS
        for w in STATISTIC_WINDOWS
    )
    whole = ", ".join(
        f"{log}_clicks_{w}d_cnt / nullif({log}_impressions_{w}d_cnt, 0) AS {log}_{w}"
        for log in LOGS
        for w in STATISTIC_WINDOWS
    )
    db.execute(f"""
        CREATE TABLE entity_statistics AS
        WITH active AS (SELECT DISTINCT entity, entity_id FROM statistics_today),
        past AS (SELECT * FROM read_parquet('{partials}/statistic_partials.parquet') WHERE ds < DATE '{day}'),
        summed AS (SELECT active.entity, active.entity_id, {sums} FROM active LEFT JOIN past USING (entity, entity_id) GROUP BY ALL),
        whole AS (SELECT {whole} FROM summed WHERE entity = 'all')
        SELECT summed.*, {rates} FROM summed, whole""")


def _samples(db: Any, day: date, delay_seconds: int) -> None:
    delay = f"INTERVAL {delay_seconds} SECOND"
    for log in LOGS:
        joins = " ".join(
            f"LEFT JOIN entity_statistics s_{e} ON s_{e}.entity = '{e}' AND s_{e}.entity_id = l.{e}_id"
            for e in ENTITIES
        )
        counts = ", ".join(
            f"s_{e}.{of}_{figure}_{w}d_cnt AS {e}_{of}_{figure}_{w}d_cnt"
            for e in ENTITIES
            for of in LOGS
            for w in STATISTIC_WINDOWS
            for figure in ("impressions", "clicks")
        )
        db.execute(f"""
            CREATE TABLE {log}_samples AS
            WITH requests AS (SELECT request_id, user_id, min(event_ts) AS sample_ts FROM {log}_log WHERE NOT late GROUP BY ALL),
            behaved AS (SELECT user_id, unnest([b.event_ts FOR b IN behaviours]) AS t FROM user_histories),
            known AS (SELECT user_id, t + {delay} AS t, 0 AS request FROM behaved
                      UNION ALL SELECT user_id, sample_ts, 1 FROM requests),
            counted AS (SELECT user_id, t AS sample_ts, request,
                               sum(1 - request) OVER (PARTITION BY user_id ORDER BY t, 1 - request ROWS UNBOUNDED PRECEDING) AS history_end
                        FROM known),
            ends AS (SELECT user_id, sample_ts, any_value(history_end)::INT AS history_end FROM counted WHERE request = 1 GROUP BY ALL)
            SELECT l.* EXCLUDE (late, landed, action, dwell_seconds, item_text), r.sample_ts, e.history_end, {counts},
                   hash('Clicked ' || l.item_text) AS item_text_hash,
                   hour(l.event_ts) AS hour, hash(l.request_id) % {HELD_OUT_ONE_IN} = 0 AS held_out, DATE '{day}' AS ds
            FROM {log}_log l JOIN requests r USING (request_id, user_id)
            JOIN ends e ON e.user_id = l.user_id AND e.sample_ts = r.sample_ts {joins}
            WHERE NOT l.late""")


if __name__ == "__main__":
    landing, partials, out, day, delay = sys.argv[1:]
    seconds = run(Path(landing), Path(partials), Path(out), date.fromisoformat(day), int(delay))
    print(json.dumps({"seconds": seconds, "memory_gib": peak_memory_gib([os.getpid()])}))
