"""Scores outside of training: a day by any release, and exported folders that score requests with nothing but torch."""

import json
import subprocess
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from chain_fixture import DAYS

from contracts.errors import BadInput
from contracts.releases import PREDICTIONS_FILE, of_role
from contracts.transfer import TRANSFER_SETTINGS
from training.report.encoder import encoders_of
from training.report.forgetting import score_older_days
from training.report.gather import NO_ROWS, Gathered
from training.report.page import render
from training.serving.export import export, latencies, requests
from training.serving.score import score_day
from training.serving.scorer import BadRequest, Scorer


def _settings():
    """Every setting; those whose switches are all in settings before are slow, since an export takes seconds."""
    seen: set[tuple[str, object]] = set()
    for name, setting in TRANSFER_SETTINGS.items():
        switches = {
            ("table", setting.merged_table),
            ("adapters", setting.adapters),
            ("encoder", setting.fg_bert),
            ("texts", setting.texts),
        }
        yield pytest.param(name, marks=[pytest.mark.slow] if switches <= seen else [])
        seen |= switches


@pytest.fixture(scope="module")
def folders(chain, tmp_path_factory):
    """A setting's release of the second day, exported when it is first asked for."""
    session, _, actrs = chain
    home = tmp_path_factory.mktemp("exported")

    class Folders(dict[str, Path]):
        def __missing__(self, name):
            self[name] = export(session, actrs[DAYS[1]][name], home / name)
            return self[name]

    return Folders()


def _published(actrs, name):
    """Scores of the third day's rows, as the model of the second gave them, by event."""
    rows = pq.read_table(actrs[DAYS[2]][name].folder / PREDICTIONS_FILE)
    return dict(zip(rows["event_id"].to_pylist(), rows["score"].to_pylist(), strict=True))


@pytest.mark.parametrize("name", list(_settings()))
def test_an_exported_model_scores_as_the_daily_task_did(chain, folders, name):
    session, _, actrs = chain
    opened = Scorer(folders[name])
    scores: dict[int, float] = {}
    for events, request in requests(session.reader, DAYS[2]):
        scores |= dict(zip(events, opened.score(json.loads(json.dumps(request))), strict=True))
    published = _published(actrs, name)
    assert scores.keys() == published.keys() and len(scores) == 80
    assert np.ptp(list(scores.values())) > 1e-3, "scores differ between rows"
    assert max(abs(scores[event] - published[event]) for event in scores) < 1e-5


def test_candidates_of_a_request_do_not_see_each_other(chain, folders):
    session, _, _ = chain
    opened = Scorer(folders["tpm+cpm+srp4ctr"])
    _, request = next(requests(session.reader, DAYS[2]))
    together = opened.score(request)
    alone = [opened.score({**request, "candidates": [candidate]})[0] for candidate in request["candidates"]]
    assert len(together) > 1 and np.allclose(together, alone, atol=1e-6, rtol=0)
    assert opened.score({**request, "candidates": []}) == []


def test_a_user_without_behaviours_and_unknown_ids_get_scores(chain, folders):
    session, _, _ = chain
    _, request = next(requests(session.reader, DAYS[2]))
    for name in ("none", "tpm", "adapters", "srp4ctr"):
        opened = Scorer(folders[name])
        strange = {**request, "context": {"user_id": 10**12}, "behaviours": []}
        strange["candidates"] = [
            candidate | {"item_id": None, "campaign_id": 10**15} for candidate in request["candidates"]
        ]
        assert all(0 < score < 1 for score in opened.score(strange))


@pytest.mark.slow
def test_the_folder_needs_torch_alone(folders, tmp_path):
    """Isolated from the project and its packages: only torch and the standard library can be imported."""
    folder = folders["tpm+cpm+srp4ctr"]
    guard = (
        "import sys, runpy\n"
        "class Guard:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('numpy', 'pyarrow', 'training', 'contracts', 'lake', 'deltalake', 'pyspark'):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Guard())\n"
        f"sys.argv = ['scorer.py']\nrunpy.run_path({str(folder / 'scorer.py')!r}, run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", guard],
        input=(folder / "example.json").read_text(),
        text=True,
        capture_output=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    example = json.loads((folder / "example.json").read_text())
    assert found["scores"] == pytest.approx(Scorer(folder).score(example)) and len(found["scores"]) == len(
        example["candidates"]
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.pop("candidates"), "candidates: expected a list, found None"),
        (lambda r: r["candidates"][0].pop("campaign_id"), "campaign_id: expected a value"),
        (lambda r: r["candidates"][0].update(item_id="9"), "item_id: expected a whole number or null, found '9'"),
        (lambda r: r["candidates"][0].update(item_ad_clicks_7d_cnt=-2), "item_ad_clicks_7d_cnt: expected a count >= 0"),
        (lambda r: r.update(request_ts="2026-01-11 10:00"), "request_ts: expected a time with its offset"),
        (lambda r: r.update(request_ts="yesterday"), "request_ts: expected a time of ISO 8601, found 'yesterday'"),
        (lambda r: r["behaviours"].reverse(), "behaviours.event_ts: expected ascending times"),
        (
            lambda r: r.update(request_ts="2020-01-01T00:00:00Z"),
            "behaviours.event_ts: expected ascending times, none after request_ts",
        ),
        (lambda r: r["behaviours"][1].pop("action"), "behaviours[1].action: expected a value"),
    ],
)
def test_a_request_that_cannot_be_scored_names_its_field(chain, folders, change, message):
    session, _, _ = chain
    request = next(request for _, request in requests(session.reader, DAYS[2]) if len(request["behaviours"]) > 2)
    change(request)
    with pytest.raises(BadRequest) as error:
        Scorer(folders["srp4ctr"]).score(request)
    assert message in str(error.value)


def test_what_cannot_be_exported_says_why(chain, folders, tmp_path):
    session, cpms, actrs = chain
    with pytest.raises(BadInput, match="not there yet"):
        export(session, actrs[DAYS[1]]["none"], folders["none"])
    cpm = next(iter(next(iter(cpms.values())).values()))
    with pytest.raises(BadInput, match="expected actr, found cpm"):
        export(session, cpm, tmp_path / "new")
    assert not list(tmp_path.iterdir()), "nothing half-written is left"


def test_a_day_is_scored_by_a_release_as_by_the_daily_task(chain, capsys):
    session, _, actrs = chain
    for name in ("none", "tpm+cpm+srp4ctr"):
        run = actrs[DAYS[1]][name]
        rows = pq.read_table(score_day(session, run, DAYS[2]))
        found = dict(zip(rows["event_id"].to_pylist(), rows["score"].to_pylist(), strict=True))
        published = _published(actrs, name)
        assert found.keys() == published.keys() and max(abs(found[event] - published[event]) for event in found) < 1e-7
        assert set(rows["scored_by"].to_pylist()) == {run.release.release_id} and set(rows["ds"].to_pylist()) == {
            DAYS[2]
        }
    said = capsys.readouterr().out
    assert "auc" in said and "not of unseen rows" not in said
    score_day(session, actrs[DAYS[1]]["none"], DAYS[1])
    assert "not of unseen rows" in capsys.readouterr().out
    with pytest.raises(BadInput, match="expected actr"):
        score_day(
            session,
            session.release(next(id for id in session.reader.releases() if id.startswith("tpm"))),
            date(2026, 1, 11),
        )


def test_latency_is_told_by_the_number_of_candidates(folders):
    example = json.loads((folders["srp4ctr"] / "example.json").read_text())
    found = latencies(folders["srp4ctr"], example, counts=(1, 9), repeat=3)
    assert list(found) == [1, 9] and all(value > 0 for value in found.values())


def test_the_report_says_what_encoders_learned_and_what_they_cost(chain):
    session, _, actrs = chain
    days, variants = DAYS[1:], session.deployment.variants
    found = encoders_of(session, session.reader.active_releases("actr"), variants, days)
    assert found is not None
    bound = {
        name for day in days for run in actrs[day].values() for name in of_role(run.release.parents, "encoder").values()
    }
    releases = session.reader.releases()
    assert len(bound) == 2
    assert [week.release_id for week in found.weeks] == sorted(bound, key=lambda name: releases[name]["period"])
    assert [week.loss for week in found.weeks] == [
        dict(releases[week.release_id]["metrics"])["train_loss"] for week in found.weeks
    ]
    costs = {cost.variant: cost for cost in found.costs}
    assert set(costs) == set(TRANSFER_SETTINGS)
    assert costs["none"].flops.user == 0 < costs["srp4ctr"].flops.user
    assert costs["srp4ctr"].flops == costs["srp4ctr_frozen"].flops and costs["none"].flops == costs["tpm"].flops
    assert costs["adapters"].flops.candidate > 2 * costs["none"].flops.candidate, (
        "the source model and the adapters are run too"
    )
    assert encoders_of(session, session.reader.active_releases("actr"), ["none", "tpm"], days) is None
    gathered = Gathered(
        source="made",
        days=tuple(days),
        variants=(),
        silent=variants,
        scored=NO_ROWS,
        missing=(),
        served=(),
        slices={},
        moved=(),
        forgetting=None,
        encoders=found,
    )
    page = render(gathered)
    assert "The sequence encoder" in page and f"{costs['srp4ctr'].flops.by_sample(100):,.0f}" in page
    assert all(week.release_id in page for week in found.weeks)
    assert "The sequence encoder" not in render(replace(gathered, encoders=None))


def test_models_that_read_an_encoder_score_older_days(chain):
    session, _, _ = chain
    found = score_older_days(session, session.reader.active_releases("actr"), ("none", "tpm+cpm+srp4ctr"), [DAYS[2]])
    assert found is not None and len(found.ages) > 0
