"""Mapping, histories, encoding and batches, against plain Python."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from lake_fixture import World, make_lake

from contracts.errors import BadInput
from contracts.features import HISTORY_DAYS, SHORT_HISTORY_SECONDS, STATISTICS
from contracts.locations import Locations
from lake.reader import LakeReader
from training.data.batches import LOG_COUNT_SCALE, Encoding, shuffled
from training.data.histories import HistorySlices, PackedHistories, slice_histories
from training.data.mapping import Coded, FieldMapping, IdMapping, Seen
from training.data.samples import Columns, Samples, read_days
from training.data.vectors import Entity, EntityIndex, EntityVectors, Snapshots, read_vectors, write_vectors
from training.recipes import Admission
from training.slices import slices

NAMES = ("user_id", "item_id", "category_id", *(name for s in STATISTICS for name in s.columns))


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    home, world = tmp_path_factory.mktemp("home"), World(num_days=9)
    make_lake(home, world)
    return LakeReader(Locations(home)), world


@pytest.fixture(scope="module")
def samples(lake):
    reader, world = lake
    return Samples.concat(
        list(read_days(reader, world.days[-4:], Columns(log="ad", names=NAMES, histories=(6, 3))).values())
    )


AT_ONCE = Admission(sightings=1, forget_after_days=None)


def seen(*ids, day=10):
    return Seen.of(Coded.of(np.array(ids, np.int64)), np.full(len(ids), day))


def grown(samples, names, admission=AT_ONCE):
    return IdMapping.empty(names).grown(samples.seen(names), names, admission)[0]


def test_new_ids_come_by_count_then_id_and_old_rows_stay():
    first = FieldMapping.empty().grown(seen(5, 9, 9, 3, 5, 7, 9), AT_ONCE).mapping
    assert first.ids.tolist() == [9, 5, 3, 7]
    second = first.grown(seen(1, 2, 2, 9, 4), AT_ONCE)
    assert second.mapping.ids.tolist() == [9, 5, 3, 7, 2, 1, 4] and second.carried.tolist() == [0, 1, 2, 3, 4]
    assert second.mapping.rows(np.array([9, 4, 1000, 5])).tolist() == [1, 7, 0, 2]
    assert second.mapping.rows_of(Coded.of(np.array([9, -1, 4, 1000, 5, 9, 1, 2]))).tolist() == [1, 0, 7, 0, 2, 1, 6, 5]


def test_mapping_does_not_depend_on_the_order_of_rows():
    ids = np.random.default_rng(0).integers(0, 50, 400)
    one, other = (FieldMapping.empty().grown(seen(*values), Admission()).mapping for values in (ids, ids[::-1]))
    assert one.ids.tolist() == other.ids.tolist()


def test_an_id_gets_its_row_with_the_sighting_that_admits_it_whatever_run_that_is_in():
    rule = Admission(sightings=3)
    first = FieldMapping.empty().grown(seen(4, 4, 8, 8, 8, 6, day=1), rule).mapping
    assert first.ids.tolist() == [8]
    assert (first.waiting.ids.tolist(), first.waiting.cnt.tolist()) == ([4, 6], [2, 1])
    second = first.grown(seen(4, 6, 7, day=2), rule).mapping
    assert second.ids.tolist() == [8, 4]
    assert (second.waiting.ids.tolist(), second.waiting.cnt.tolist(), second.waiting.last_day.tolist()) == (
        [6, 7],
        [2, 1],
        [2, 2],
    )


def test_ids_not_seen_for_long_lose_their_rows_and_the_others_keep_their_vectors():
    rule = Admission(sightings=1, forget_after_days=5)
    first = FieldMapping.empty().grown(seen(3, 3, 1, 2, day=10), rule).mapping
    kept = first.grown(seen(1, 9, day=15), rule)
    assert kept.mapping.ids.tolist() == [3, 1, 2, 9] and kept.carried.tolist() == [0, 1, 2, 3]
    later = kept.mapping.grown(seen(2, day=16), rule)
    assert later.mapping.ids.tolist() == [1, 2, 9] and later.carried.tolist() == [0, 2, 3, 4]
    assert later.mapping.last_day.tolist() == [15, 16, 15]
    assert later.mapping.grown(seen(), rule).mapping.ids.tolist() == [1, 2, 9], (
        "a run without rows means nothing for time"
    )


def test_mapping_survives_its_file(tmp_path):
    names = ("user_id", "campaign_id")
    mapping, _ = IdMapping.empty(names).grown(
        {"user_id": seen(4, 4, 2**62, 2**62, 2**62, 7, day=738_000)}, names, Admission()
    )
    mapping.save(tmp_path / "mapping.parquet")
    again = IdMapping.load(tmp_path / "mapping.parquet", names)
    assert {name: again.fields[name].ids.tolist() for name in names} == {"user_id": [2**62, 4], "campaign_id": []}
    user = again.fields["user_id"]
    assert user.last_day.tolist() == [738_000] * 2
    assert [getattr(user.waiting, name).tolist() for name in ("ids", "cnt", "last_day")] == [[7], [1], [738_000]]


def test_what_a_run_has_seen_equals_plain_python():
    rng = np.random.default_rng(5)
    ids, days, weights = rng.integers(-1, 9, 60), rng.integers(1, 6, 60), rng.integers(0, 3, 60)
    found = Seen.of(Coded.of(ids), days, weights)
    expected: dict[int, tuple[int, int]] = {}
    for i, day, weight in zip(ids.tolist(), days.tolist(), weights.tolist(), strict=True):
        if i >= 0 and weight:
            cnt, last = expected.get(i, (0, 0))
            expected[i] = (cnt + weight, max(last, day))
    assert found.ids.tolist() == sorted(expected)
    assert list(zip(found.cnt.tolist(), found.last_day.tolist(), strict=True)) == [
        expected[i] for i in sorted(expected)
    ]


def test_histories_equal_plain_python():
    """Random histories longer than the windows, rows in any order: each slice is what a loop over rows finds."""
    rng = np.random.default_rng(3)
    t0 = datetime(2026, 6, 1, tzinfo=UTC)
    behaviours: dict[int, list[dict[str, Any]]] = {}
    for user in rng.choice(10**6, 12, replace=False).tolist():
        ages = np.sort(
            rng.choice(np.r_[np.arange(0, 8 * 86_400, 3600), np.arange(0, 400) * 86_400], rng.integers(0, 40))
        )[::-1]
        behaviours[user] = [
            {
                "event_ts": t0 - timedelta(seconds=int(age)),
                "log": "ad",
                "event_id": i,
                "item_id": int(rng.integers(100)),
                "category_id": i,
                "action": 1,
                "dwell_seconds": 0.0,
            }
            for i, age in enumerate(ages)
        ]
    kind = pa.list_(
        pa.struct(
            {
                "event_ts": pa.timestamp("us", "UTC"),
                "log": pa.string(),
                "event_id": pa.int64(),
                "item_id": pa.int64(),
                "category_id": pa.int64(),
                "action": pa.int32(),
                "dwell_seconds": pa.float64(),
            }
        )
    )
    rows = [
        pa.table({"user_id": [user], "behaviours": pa.array([values], kind)}) for user, values in behaviours.items()
    ]
    packed = PackedHistories.from_arrow(pa.concat_tables(rows))  # one chunk per row
    users = rng.choice([*behaviours, 10**7], 300)
    history_end = np.array([rng.integers(0, len(behaviours.get(user, [])) + 1) for user in users.tolist()])
    sample_ts = [t0 + timedelta(seconds=int(s)) for s in rng.integers(-5, 5, 300) * 3600]
    slices = slice_histories(
        packed,
        user_ids=users,
        history_end=history_end,
        long_length=10,
        short_length=4,
        sample_us=np.array([int(t.timestamp()) * 1_000_000 for t in sample_ts]),
    )
    for given in (slices, slices.compacted(), HistorySlices.concat([slices, slices]).select(np.arange(300, 600))):
        for row, user in enumerate(users.tolist()):
            visible = behaviours.get(user, [])[: history_end[row]]
            long = [b for b in visible if b["event_ts"] >= sample_ts[row] - timedelta(days=HISTORY_DAYS)][-10:]
            short = [b for b in visible if b["event_ts"] >= sample_ts[row] - timedelta(seconds=SHORT_HISTORY_SECONDS)][
                -4:
            ]
            for start, expected in ((given.long_start, long), (given.short_start, short)):
                assert given.item_ids[start[row] : given.end[row]].tolist() == [b["item_id"] for b in expected]
    assert len(slices.compacted().item_ids) < len(packed.item_ids)


def test_a_history_end_beyond_the_history_is_refused():
    packed = PackedHistories(
        user_ids=np.array([1]),
        offsets=np.array([0, 2]),
        event_us=np.array([1, 2]),
        item_ids=np.array([1, 2]),
        category_ids=np.array([1, 2]),
    )
    with pytest.raises(BadInput, match="history_end: expected at most the 2 behaviours of the user, found 3"):
        slice_histories(
            packed,
            user_ids=np.array([1]),
            history_end=np.array([3]),
            sample_us=np.array([5]),
            long_length=5,
            short_length=5,
        )


def test_rows_come_in_order_of_time_then_event(lake):
    reader, world = lake
    rows = reader.read("ad_samples", columns=["event_id", "sample_ts"], where={"ds": world.days[5]}).to_pylist()
    expected = [row["event_id"] for row in sorted(rows, key=lambda row: (row["sample_ts"], row["event_id"]))]
    day = read_days(reader, [world.days[5]], Columns(log="ad", names=NAMES))[world.days[5]]
    assert day.event_id.tolist() == expected


def test_trainable_rows_are_those_not_held_out(samples):
    assert samples.held_out.any()
    assert set(samples.trainable().event_id) == set(samples.event_id[~samples.held_out])


def test_ids_count_as_candidates_and_in_visible_histories(samples):
    found = samples.seen(("item_id",))["item_id"]
    expected: dict[int, tuple[int, int]] = {}
    h = samples.histories
    for row in range(len(samples)):
        start = min(h.long_start[row], h.short_start[row])
        for item in [samples.features["item_id"][row], *h.item_ids[start : h.end[row]]]:
            cnt, last = expected.get(int(item), (0, 0))
            expected[int(item)] = cnt + 1, max(last, int(samples.day[row]))
    assert (
        dict(zip(found.ids.tolist(), zip(found.cnt.tolist(), found.last_day.tolist(), strict=True), strict=True))
        == expected
    )


def test_a_batch_holds_what_its_samples_have(samples):
    names = ("user_id", "item_id", "category_id")
    mapping = grown(samples, names)
    index: dict[Entity, EntityIndex] = {"user": EntityIndex(np.unique(samples.user_id)[::2])}
    columns = STATISTICS[0].columns
    encoded = Encoding(mapping=mapping, statistics=columns, rate_prior=(2.0, 10.0), transfer=index).encode(samples)
    chosen = np.random.default_rng(1).permutation(len(samples))[:50]
    batch = encoded.batch(torch.from_numpy(chosen))
    h = samples.histories
    for b, row in enumerate(chosen):
        assert batch.rows_BF[b].tolist() == [
            int(mapping.fields[name].rows(samples.features[name][row : row + 1])[0]) for name in names
        ]
        seen = samples.statistics[columns[0]][row], samples.statistics[columns[1]][row]
        assert batch.dense_BS[b].tolist() == pytest.approx(
            [np.log1p(seen[0]) / LOG_COUNT_SCALE, (seen[1] + 2) / (seen[0] + 10)]
        )
        for jagged, start in ((batch.long, h.long_start), (batch.short, h.short_start)):
            assert jagged is not None and jagged.offsets is not None
            own = slice(int(jagged.offsets[b]), int(jagged.offsets[b + 1]))
            for name, ids in (("item_id", h.item_ids), ("category_id", h.category_ids)):
                assert (
                    jagged.rows[name][own].tolist() == mapping.fields[name].rows(ids[start[row] : h.end[row]]).tolist()
                )
        expected = np.flatnonzero(index["user"].ids == samples.user_id[row])
        assert batch.user_at_B[b] == (expected[0] + 1 if len(expected) else 0)
    assert batch.item_at_B.sum() == 0


def test_features_the_log_lacks_read_as_unknown(samples):
    names = ("user_id", "item_id", "category_id", "campaign_id")
    mapping, _ = IdMapping.empty(names).grown(samples.seen(names) | {"campaign_id": seen(7)}, names, AT_ONCE)
    encoded = Encoding(mapping=mapping, transfer={}).encode(samples)
    assert (encoded.rows_NF[:, 3] == 0).all() and (encoded.rows_NF[:, 0] > 0).all()


def test_time_order_shuffles_within_days_only(samples):
    mapping = IdMapping.empty(("user_id", "item_id", "category_id"))
    encoded = Encoding(mapping=mapping, transfer={}).encode(samples)
    order = torch.cat(shuffled(encoded, 7, np.random.default_rng(1), in_time_order=True))
    assert sorted(order.tolist()) == list(range(len(samples))) and order.tolist() != sorted(order.tolist())
    assert (encoded.day_N[order].diff() >= 0).all()


def test_no_batch_of_one_row(samples):
    encoded = Encoding(mapping=IdMapping.empty(("user_id", "item_id", "category_id")), transfer={}).encode(
        samples.select(np.arange(11))
    )
    assert [len(b) for b in shuffled(encoded, 5, np.random.default_rng(1), in_time_order=False)] == [5, 6]
    lone = Encoding(mapping=IdMapping.empty(("user_id", "item_id", "category_id")), transfer={}).encode(
        samples.select(np.arange(1))
    )
    assert shuffled(lone, 5, np.random.default_rng(1), in_time_order=False) == []


def test_vectors_survive_their_file(tmp_path):
    vectors: dict[Entity, EntityVectors] = {
        "user": EntityVectors(ids=np.array([2, 5]), vectors=np.array([[1, 2], [3, 4]], np.float32)),
        "item": EntityVectors(ids=np.zeros(0, np.int64), vectors=np.zeros((0, 3), np.float32)),
    }
    dims = write_vectors(tmp_path / "vectors.parquet", vectors)
    again = read_vectors(tmp_path / "vectors.parquet", dims)
    assert dims == {"user": 2, "item": 3}
    assert (
        again["user"].ids.tolist() == [2, 5]
        and again["user"].vectors.tolist() == [[1, 2], [3, 4]]
        and len(again["item"].ids) == 0
    )
    with pytest.raises(BadInput, match="expected 4 numbers for each user"):
        read_vectors(tmp_path / "vectors.parquet", {"user": 4, "item": 3})


def test_snapshots_are_stacked_on_one_index():
    months = [
        EntityVectors(ids=np.array([3, 8]), vectors=np.array([[1.0], [2.0]], np.float32)),
        EntityVectors(ids=np.array([5, 8]), vectors=np.array([[4.0], [5.0]], np.float32)),
    ]
    stack = Snapshots.stack(months, 1)
    assert stack.index.ids.tolist() == [3, 5, 8]
    assert stack.vectors[:, :, 0].tolist() == [[0, 1, 0, 2], [0, 0, 4, 5]]
    assert stack.present.tolist() == [[False, True, False, True], [False, False, True, True]]


def test_slices_are_what_their_names_say(samples):
    def every(entity, days, logs):
        return sum(samples.statistics[f"{entity}_{log}_impressions_{days}d_cnt"] for log in logs)

    found, both = slices(samples), ("natural", "ad")
    items, seen = samples.features["item_id"], every("item", 180, both)
    of_item = {int(i): int(seen[items == i].max()) for i in items}
    rare = sorted(of_item.values())[int(0.2 * (len(of_item) - 1))]
    assert found["long_tail_items"].tolist() == [of_item[int(i)] <= rare for i in items]
    assert 0.2 <= len({int(i) for i in items[found["long_tail_items"]]}) / len(of_item) < 0.6
    assert found["new_items"].tolist() == (seen == every("item", 7, both)).tolist()
    assert found["users_without_natural_history"].tolist() == (every("user", 180, ("natural",)) == 0).tolist()
    assert set(slices(replace(samples, statistics={}))) == set()
