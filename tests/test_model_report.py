"""The report of ad models: every figure against one taken here by hand, and a page that is harmless and names what is missing."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date, timedelta
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from lake_fixture import World, make_lake, publish_staged, train_quick, write_table

from contracts.errors import run_command
from contracts.locations import Locations
from contracts.releases import PREDICTIONS_FILE, VECTORS_FILE, Release
from contracts.tables import TABLES
from lake.reader import LakeReader
from lake.run_folders import read_release
from pages import charts, markup
from pages.charts import Series
from training import intervals
from training.cli import main
from training.compare import Scored, difference
from training.engine.loop import score
from training.intervals import ratios
from training.recipes import recipe
from training.report.drift import Moved, drift_of
from training.report.figures import by_day, calibration_of, gauc_of, logloss_of, slice_masks
from training.report.forgetting import Forgetting, Remembered
from training.report.gather import NO_ROWS, Gathered, Served, gather
from training.report.page import render, verdicts
from training.tasks.actr import Days
from training.tasks.actr_open import open_released
from training.tasks.session import Session

D0 = date(2026, 1, 1)
HOSTILE = "</td><script>alert(1)</script><img src=x onerror=alert(2)>\u202e\"'&"
DAYS = [date(2026, 1, day) for day in (9, 10, 11)]


def made_scores(
    *, days: int = 3, users: int = 60, rows: int = 900, names: tuple[str, ...] = ("none", "tpm+cpm"), seed: int = 1
) -> Scored:
    rng = np.random.default_rng(seed)
    logit = rng.normal(-1, 1.5, rows)
    scores = {
        name: 1 / (1 + np.exp(-(logit + rng.normal(0, 2.0 / (1 + place), rows)))) for place, name in enumerate(names)
    }
    return Scored(
        days=np.sort(rng.integers(0, days, rows)).astype("timedelta64[D]") + np.datetime64(D0),
        event_ids=np.arange(rows) * 3,
        user_ids=rng.integers(0, users, rows),
        clicks=(rng.random(rows) < 1 / (1 + np.exp(-logit))).astype(np.int64),
        scores=scores,
    )


def gathered(scored: Scored, **changes: Any) -> Gathered:
    days = tuple(D0 + timedelta(days=number) for number in range(3))
    variants = tuple(name for name in scored.scores if name != "truth")
    there = {day for day in scored.days.astype(object)}
    return replace(
        Gathered(
            source="made",
            days=days,
            variants=variants,
            silent=(),
            scored=scored,
            missing=tuple((day, "a reason") for day in days if day not in there),
            served=(),
            slices={},
            moved=(),
            forgetting=None,
        ),
        **changes,
    )


def gauc_by_hand(scored: Scored, name: str) -> tuple[float, float]:
    """Weighted and plain, by counting pairs."""
    aucs, weights = [], []
    for user in np.unique(scored.user_ids):
        own = scored.user_ids == user
        scores, clicks = scored.scores[name][own], scored.clicks[own]
        pairs = [
            1.0 if up > down else 0.5 if up == down else 0.0
            for up in scores[clicks == 1]
            for down in scores[clicks == 0]
        ]
        if pairs:
            aucs.append(np.mean(pairs))
            weights.append(own.sum())
    return float(np.average(aucs, weights=weights)), float(np.mean(aucs))


def test_figures_are_those_of_a_plain_computation() -> None:
    scored = made_scores()
    weighted, plain, losses = gauc_of(scored), gauc_of(scored, weighted=False), logloss_of(scored)
    gains, loss_gains = gauc_of(scored, minus="none"), logloss_of(scored, minus="none")
    by_hand = {name: gauc_by_hand(scored, name) for name in scored.scores}
    for name, scores in scored.scores.items():
        assert (weighted[name].value, plain[name].value) == pytest.approx(by_hand[name])
        assert losses[name].value == pytest.approx(-np.mean(np.log(np.where(scored.clicks == 1, scores, 1 - scores))))
    assert set(gains) == set(loss_gains) == {"tpm+cpm"}
    assert gains["tpm+cpm"].value == pytest.approx(by_hand["tpm+cpm"][0] - by_hand["none"][0])
    assert loss_gains["tpm+cpm"].value == pytest.approx(losses["tpm+cpm"].value - losses["none"].value)
    compared = difference(scored, "tpm+cpm")
    assert compared is not None
    assert gains["tpm+cpm"].low == pytest.approx(compared.low)  # the line that `compare` prints
    figures = by_day(scored, [D0, D0 + timedelta(days=1), D0 + timedelta(days=9)])
    assert list(figures) == [D0, D0 + timedelta(days=1)]
    part = scored.on(D0)
    assert figures[D0][0]["none"].value == pytest.approx(gauc_by_hand(part, "none")[0])


def test_an_interval_is_that_of_users_drawn_one_by_one() -> None:
    """Against a loop that concatenates the rows of drawn users, and draws on its own."""
    scored = made_scores(users=40, rows=400)
    rng, rows_of = np.random.default_rng(5), [np.flatnonzero(scored.user_ids == user) for user in range(40)]
    losses = -np.log(np.where(scored.clicks == 1, scored.scores["none"], 1 - scored.scores["none"]))
    drawn = [losses[np.concatenate([rows_of[user] for user in rng.integers(0, 40, 40)])].mean() for _ in range(4000)]
    found, width = logloss_of(scored)["none"], np.ptp(np.quantile(drawn, [0.025, 0.975]))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.08 * width)


def test_users_without_a_share_do_not_widen_an_interval_and_few_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    value, weight = rng.normal(size=50), rng.integers(1, 9, 50).astype(float)
    padded = ratios({"x": np.append(value, np.zeros(30))}, np.append(weight, np.zeros(30)))
    assert padded == ratios({"x": value}, weight)
    assert padded["x"].value == pytest.approx(value.sum() / weight.sum())
    few = ratios({"x": value[:9]}, weight[:9])["x"]
    assert (few.low, few.high, few.verdict) == (None, None, "too few users to say")
    assert ratios({"x": np.zeros(3)}, np.zeros(3)) == {}
    monkeypatch.setattr(intervals, "_DRAWN_AT_ONCE", 120)  # drawn in pieces: still all draws
    assert intervals.bootstrap_sums(weight[:, None]).shape == (intervals.DRAWS, 1)


def test_bins_hold_equal_counts_in_order_of_score() -> None:
    scored = made_scores(rows=905)
    bins = calibration_of(scored)["none"]
    order = np.argsort(scored.scores["none"], kind="stable")
    assert sum(one.row_cnt for one in bins) == 905 and {one.row_cnt for one in bins} == {90, 91}
    first, last = order[:91], order[-90:]
    assert bins[0].mean_score == pytest.approx(scored.scores["none"][first].mean())
    assert bins[0].click_rate.value == pytest.approx(scored.clicks[first].mean())
    assert bins[-1].click_rate.value == pytest.approx(scored.clicks[last].mean())
    rate = bins[-1].click_rate
    assert rate.low is not None and rate.high is not None and rate.low < rate.value < rate.high


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny deployment with three days of ad models, the last two scored, and its published tables."""
    home = tmp_path_factory.mktemp("home")
    make_lake(home, World())
    for kind, periods in (("tpm", (1, 4, 7)), ("cpm", (7, 9)), ("actr", (9, 10, 11))):
        for day in (date(2026, 1, number) for number in periods):
            train_quick(home, kind, day)
            for folder in publish_staged(home, kind, day):
                if kind == "actr":
                    put_release(home, read_release(folder), folder)
    return home


def put_release(home: Path, release: Release, folder: Path) -> None:
    """Commits a run's scores and vectors, as publishing does."""
    for name, file in (("predictions", PREDICTIONS_FILE), ("actr_embeddings", VECTORS_FILE)):
        rows = pq.read_table(folder / file)
        if len(rows):
            for column, value in (("release_id", release.release_id), ("variant", release.variant)):
                if column in TABLES[name].column_names:
                    rows = rows.append_column(column, pa.array([value] * len(rows), pa.string()))
            write_table(Locations(home), name, rows)


def session_of(home: Path) -> Session:
    return Session.open(home, recipe("default"), torch.device("cpu"))


@pytest.fixture(scope="module")
def found(home: Path) -> Gathered:
    return gather(session_of(home), DAYS, forgetting_days=14)


def test_scored_rows_are_those_of_the_lake(home: Path, found: Gathered) -> None:
    rows = LakeReader(Locations(home)).read("predictions").to_pandas()
    assert found.variants == ("none", "tpm+cpm") and found.silent == ()
    for name in found.variants:
        own = rows[rows["variant"] == name].sort_values(["ds", "event_id"])
        assert found.scored.event_ids.tolist() == own["event_id"].tolist()
        assert found.scored.scores[name].tolist() == own["score"].tolist()
    assert found.missing == ((DAYS[0], "the first day of the ad models: there is no model of 2026-01-08 to score it"),)
    assert [(one.day, one.variant, one.row_cnt) for one in found.served] == [
        (day, name, 0 if day == DAYS[0] else 80) for day in DAYS for name in found.variants
    ]
    scored_by = {(one.day, one.variant): one.scored_by for one in found.served}
    release = {(one.day, one.variant): one.release_id for one in found.served}
    assert all(scored_by[DAYS[i], name] == release[DAYS[i - 1], name] for i in (1, 2) for name in found.variants)
    again = {(one.day.day, one.variant) for one in found.served if one.restarted}
    assert again == {(9, "none"), (9, "tpm+cpm"), (11, "tpm+cpm")}  # the week of the 9th closed before the 11th
    assert {one.cpm is None for one in found.served if one.variant == "none"} == {True}
    assert len({one.cpm for one in found.served if one.variant == "tpm+cpm"}) == 2


def test_a_slice_is_what_the_samples_said_before_the_day(home: Path, found: Gathered) -> None:
    samples = LakeReader(Locations(home)).read("ad_samples", where={"ds": DAYS[1:]}).to_pandas()
    longest = samples[
        [name for name in samples if name.startswith("item_") and name.endswith("impressions_180d_cnt")]
    ].sum(axis=1)
    assert longest.max() > 0
    expected = []
    for _, part in samples.assign(seen=longest).groupby("ds"):
        of_items = part.groupby("item_id")["seen"].max().sort_values()
        limit = of_items.iloc[int(np.floor(0.2 * (len(of_items) - 1)))]
        expected += part.loc[part["item_id"].isin(of_items.index[of_items <= limit]), "event_id"].tolist()
    mask = found.slices["long_tail_items"]
    assert sorted(found.scored.event_ids[mask].tolist()) == sorted(expected)
    assert 0 < mask.sum() < len(mask)


def test_a_scored_row_whose_sample_is_gone_is_in_no_slice(home: Path, found: Gathered) -> None:
    strangers = replace(found.scored, event_ids=found.scored.event_ids + 10**12)
    assert not any(mask.any() for mask in slice_masks(LakeReader(Locations(home)), strangers, DAYS).values())


def test_older_days_are_scored_by_the_released_model(home: Path, found: Gathered) -> None:
    session = session_of(home)
    assert found.forgetting is not None and found.forgetting.left_out == ()
    assert [(one.age, one.models) for one in found.forgetting.ages] == [
        (0, 3),
        (7, 3),
    ]  # 14 days before is before the logs
    older = found.forgetting.ages[1]
    samples = (
        LakeReader(Locations(home))
        .read("ad_samples", where={"ds": [day - timedelta(days=7) for day in DAYS]})
        .to_pandas()
    )
    assert sorted(older.scored.event_ids.tolist()) == sorted(samples["event_id"].tolist())
    held_out = samples.set_index("event_id")["held_out"]
    assert older.held_out.tolist() == held_out[older.scored.event_ids].tolist() and 0 < older.held_out.sum() < 30
    for name in found.variants:  # the model of the 11th on the 4th
        row = session.reader.active("actr", name, DAYS[2])
        assert row is not None
        run = session.open_release(row)
        rows = Days(replace(session, recipe=recipe("quick")))([date(2026, 1, 4)])
        scorer = open_released(session, run)
        expected = dict(
            zip(rows.event_id.tolist(), score(scorer.model, scorer.encode(session, rows)).tolist(), strict=True)
        )
        part = older.scored.on(date(2026, 1, 4))
        assert part.scores[name].tolist() == pytest.approx([expected[event] for event in part.event_ids.tolist()])


def test_a_model_that_cannot_be_opened_is_named(home: Path, tmp_path: Path) -> None:
    session = session_of(home)
    row = session.reader.active("actr", "none", DAYS[1])
    assert row is not None
    folder = home / row["artifact"]
    folder.rename(tmp_path / "away")
    try:
        lost = gather(session_of(home), DAYS, forgetting_days=2).forgetting
    finally:
        (tmp_path / "away").rename(folder)
    assert lost is not None and len(lost.left_out) == 1 and lost.left_out[0].startswith("2026-01-10: ")
    assert {one.models for one in lost.ages} == {1}


def test_drift_is_the_cosine_of_what_both_days_have(tmp_path: Path) -> None:
    vectors = {
        "a": {1: [1.0, 0.0], 2: [0.0, 2.0], 3: [0.0, 0.0]},
        "b": {2: [3.0, 3.0], 1: [2.0, 0.0], 3: [1.0, 1.0], 4: [1.0, 0.0]},
    }
    rows = [
        {"entity": entity, "id": number, "vector": vector, "dim": 2, "release_id": release}
        for release, of_ids in vectors.items()
        for entity in ("user", "item")
        for number, vector in of_ids.items()
    ]
    schema = pa.schema(
        [
            ("entity", pa.string()),
            ("id", pa.int64()),
            ("vector", pa.list_(pa.float32())),
            ("dim", pa.int32()),
            ("release_id", pa.string()),
        ]
    )
    write_table(Locations(tmp_path), "actr_embeddings", pa.Table.from_pylist(rows, schema))
    replay = {"ad_samples/ds=1": "", "ad_samples/ds=2": "", "user_histories/ds=2": ""}
    active = {
        ("none", D0): {"release_id": "a", "inputs": {}, "parents": {}},
        ("none", D0 + timedelta(days=1)): {"release_id": "b", "inputs": replay, "parents": {"predecessor/actr/x": "a"}},
    }
    moved = drift_of(LakeReader(Locations(tmp_path)), active, ["none", "absent"], [D0, D0 + timedelta(days=1)])
    assert [one.entity for one in moved] == ["user", "item"]
    assert moved[0].cosine == pytest.approx((1 + np.sqrt(0.5)) / 2)  # the row of zeros has no direction
    assert (moved[0].shared, moved[0].new, moved[0].lost, moved[0].restarted) == (3, 0.25, 0.0, True)


def cells(text: str, section: str) -> pd.DataFrame:
    """The first table of a section, by its column titles."""
    body = text.split(f"<h2>{section}</h2>")[1].split("</table>")[0]
    rows = [
        re.findall(r'data-label="([^"]+)"><span>(.*?)</span></td>', row)
        for row in body.split("</tr>")[1:]
        if "data-label" in row
    ]
    plain = [
        {
            unescape(name): unescape(re.sub(r"<svg.*?</svg>|<small>.*?</small>|<[^>]+>", "", cell)).strip()
            for name, cell in row
        }
        for row in rows
    ]
    return pd.DataFrame(plain)


def test_the_page_shows_the_figures(found: Gathered) -> None:
    text = render(found)
    table = cells(text, "All scored days together").set_index("Setting")
    for name in found.variants:
        weighted, plain = gauc_by_hand(found.scored, name)
        scores, clicks = found.scored.scores[name], found.scored.clicks
        assert table.loc[name, "GAUC"] == f"{weighted:.4f}" and table.loc[name, "GAUC, plain mean"] == f"{plain:.4f}"
        assert table.loc[name, "LogLoss"] == f"{-np.mean(np.log(np.where(clicks == 1, scores, 1 - scores))):.4f}"
        assert table.loc[name, "Predicted / observed"] == f"{scores.sum() / clicks.sum():.3f}"
    gain = gauc_by_hand(found.scored, "tpm+cpm")[0] - gauc_by_hand(found.scored, "none")[0]
    assert (
        str(table.loc["tpm+cpm", "GAUC - none"]).startswith(f"{gain:+.4f}") and table.loc["none", "GAUC - none"] == ""
    )
    days = cells(text, "Day by day").set_index("Day")
    assert list(days.index) == ["2026-01-11", "2026-01-10"]
    for day in DAYS[1:]:
        assert days.loc[str(day), "GAUC none"] == f"{gauc_by_hand(found.scored.on(day), 'none')[0]:.4f}"
    slices = cells(text, "Slices").set_index("Setting")
    part = found.scored.select(found.slices["long_tail_items"])
    assert slices.loc["tpm+cpm", "GAUC"] == f"{gauc_by_hand(part, 'tpm+cpm')[0]:.4f}"
    ages = cells(text, "Forgetting: models on older days")
    own = ages[
        (ages["Days before"] == "7") & (ages["Which"] == "all, most trained on") & (ages["Setting"] == "none")
    ].iloc[0]
    assert found.forgetting is not None
    assert own["GAUC"] == f"{gauc_by_hand(found.forgetting.ages[1].scored, 'none')[0]:.4f}" and own["Rows"] == "240"
    drift = cells(text, "Drift of the embeddings")
    assert len(drift) == 8 and set(drift[drift["Day"] == "2026-01-10"]["Setting"]) == {"none", "tpm+cpm"}
    assert "Triangles: days on which a setting started again" in text and "1 scored days" not in text


def test_the_verdict_comes_first_and_says_its_doubt() -> None:
    better = made_scores(rows=3000)
    assert [line.split(":")[0] for line in verdicts(gathered(better))] == ["tpm+cpm beats none"]
    worse = replace(better, scores={"none": better.scores["tpm+cpm"], "tpm+cpm": better.scores["none"]})
    assert verdicts(gathered(worse))[0].startswith("tpm+cpm is worse than none: GAUC -")
    same = replace(better, scores={"none": better.scores["none"], "tpm+cpm": better.scores["none"]})
    assert "does not differ measurably" in verdicts(gathered(same))[0]
    few = better.select(better.user_ids < 5)
    assert (
        verdicts(gathered(few))[0].endswith("of fewer than 10 users.")
        and "does not differ measurably" in verdicts(gathered(few))[0]
    )
    alone = replace(better, scores={"tpm+cpm": better.scores["tpm+cpm"]})
    assert "nothing to compare" in verdicts(gathered(alone))[0]
    unclicked = replace(better, clicks=np.zeros_like(better.clicks))
    assert "no GAUC" in verdicts(gathered(unclicked))[0] and render(gathered(unclicked))
    text = render(gathered(better))
    assert text.index("tpm+cpm beats none") < text.index("<table")


@pytest.mark.parametrize("bad", ["tpm+cpm", "none"])
def test_scores_that_are_not_numbers_are_shown_as_such(bad: str) -> None:
    scored = made_scores(rows=3000)
    on_the_last_day = np.flatnonzero(scored.days == scored.days[-1])
    scored.scores[bad][on_the_last_day[:2]] = np.nan
    found = gathered(scored, slices={"new_items": scored.user_ids < 20, "long_tail_items": scored.user_ids > 57})
    assert verdicts(found) == ["tpm+cpm and none cannot be compared: scores are not numbers."]
    text = render(found)
    assert text.index(f"2 of 3000 scores of {bad} are not numbers") < text.index("<table")
    table = cells(text, "All scored days together").set_index("Setting")
    other = {"tpm+cpm": "none", "none": "tpm+cpm"}[bad]
    names = ["GAUC", "GAUC, plain mean", "AUC", "LogLoss", "ECE", "Predicted / observed"]
    assert (table[names].loc[bad] == "NaN").all() and not table[names].loc[other].str.contains("NaN").any()
    assert table.loc["tpm+cpm", "GAUC - none"] == "NaN not a number" and table.loc["tpm+cpm", "LogLoss - none"] == "NaN"
    days = cells(text, "Day by day").set_index("Day")
    assert (days[f"GAUC {bad}"] == "NaN").tolist() == [True, False, False], "the newest day is the first"
    assert "nan" not in "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL)).lower()
    assert set(calibration_of(scored)[bad]) == set() and len(calibration_of(scored)[other]) == 10


@pytest.mark.parametrize("settings", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("days", [1, 3])
def test_a_page_is_harmless_and_self_contained(settings: int, days: int) -> None:
    names = ("none", *(f"{HOSTILE}{number}" for number in range(settings - 1)))
    scored = made_scores(days=days, names=(*names, "truth"))
    served = tuple(
        Served(day=D0, variant=name, release_id=HOSTILE, cpm=HOSTILE, restarted=True, scored_by=HOSTILE, row_cnt=1)
        for name in names
    )
    moved = tuple(
        Moved(day=D0, variant=name, entity=entity, cosine=0.5, shared=1, new=0.0, lost=0.0, restarted=True)
        for name in names
        for entity in ("user", "item")
    )
    older = Forgetting(
        ages=(Remembered(age=7, scored=scored, held_out=scored.user_ids < 30, models=2),), left_out=(HOSTILE,)
    )
    text = render(
        gathered(
            scored,
            source=HOSTILE,
            silent=(HOSTILE,),
            missing=((D0, HOSTILE),),
            served=served,
            moved=moved,
            forgetting=older,
            slices={HOSTILE: scored.user_ids < 20, "new_items": scored.user_ids < 0},
        )
    )
    assert "alert(1)" in text and '<meta http-equiv="Content-Security-Policy" content="' + markup.POLICY + '">' in text
    for harmful in (
        "<script",
        "<img",
        "\u202e",
        "http:",
        "https:",
        "<link",
        "@import",
        "url(",
        "src=",
        "<iframe",
        "<form",
    ):
        assert harmful not in text.replace(markup.text(HOSTILE), "")
    for drawing in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        tags = set(re.findall(r"<(\w+)", drawing))
        assert tags <= {"svg", "g", "line", "rect", "circle", "polyline", "polygon", "path", "text", "title", "desc"}
        assert "style" not in drawing and "#" not in unescape(drawing)
        assert 'aria-hidden="true"' in drawing or {"title", "desc"} <= tags
        assert "nan" not in drawing.lower() and "inf" not in drawing.lower()


def test_no_scored_day_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = render(gathered(NO_ROWS))
    assert "No day of these has scored rows yet" in text and "2026-01-01 .. 2026-01-03 (3 days): a reason" in text
    make_lake(tmp_path, World(num_days=2, actr_start=D0))
    assert run_command(main, ["report", "--ds", "2026-01-02", "--home", str(tmp_path), "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    path = Locations(tmp_path).model_report(D0 + timedelta(days=1), D0 + timedelta(days=1))
    assert path.as_uri() in said and "validation index" in said
    assert "no active release of none, tpm+cpm" in path.read_text()


def test_the_command_writes_where_it_is_told(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "sub" / "own.html"
    span = ("--from", str(DAYS[0]), "--to", str(DAYS[2]))
    assert main(["report", *span, "--home", str(home), "--out", str(out), "--forgetting-days", "0"]) == 0
    text, said = out.read_text(), capsys.readouterr().out
    assert "Forgetting" not in text and "GAUC by day" in text and out.as_uri() in said and "next:" not in said
    assert not Locations(home).model_reports.exists()
    (first,) = [line for line in said.splitlines() if "GAUC" in line]
    assert markup.text(first) in text


def test_lines_break_at_gaps_and_labels_keep_apart() -> None:
    series = [
        Series(
            name=f"s{place}",
            place=place,
            values=[0.5, 0.5, None, 0.5 + place / 1000, 0.5],
            low=[0.4] * 5,
            high=[0.6] * 5,
        )
        for place in range(9)
    ]
    drawn = charts.lines(series, list("abcde"), caption="c")
    assert drawn.count("<polyline") == 18 and drawn.count('class="band"') == 18
    heights = [float(height) for height in re.findall(r'class="label" x="[\d.]+" y="([\d.]+)"', drawn)]
    assert len(heights) == 9 and min(np.diff(heights)) >= charts.LABEL_STEP - 0.11 and max(heights) < charts.HEIGHT
    assert {name for name in re.findall(r'<g class="(\w+)"', drawn)} == {f"s{place}" for place in range(9)}


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.0), (-0.03, 0.21), (0.9991, 0.9998), (0, 1), (-1e-9, 0)])
def test_a_scale_covers_its_values(low: float, high: float) -> None:
    ticks = charts.scale(low, high)
    assert ticks[0] <= low + 1e-9 and ticks[-1] >= high - 1e-9 and 2 <= len(ticks) <= 7
    assert np.allclose(np.diff(ticks), ticks[1] - ticks[0], rtol=1e-6)
