"""Every transfer setting through the tasks on a tiny lake: what it starts from, what stays frozen, what it reads."""

import json
from dataclasses import replace
from datetime import date

import numpy as np
import pyarrow.parquet as pq
import torch
from chain_fixture import DAYS, WEEKS
from lake_fixture import World
from safetensors.torch import load_file

from contracts.locations import Locations
from contracts.releases import MAPPING_FILE, MODEL_FILE, PREDICTIONS_FILE, VECTORS_FILE
from contracts.transfer import TRANSFER_SETTINGS, cpm_variants
from lake.run_folders import read_release
from publishing.audit import audit
from publishing.parents import missing_inputs
from training.data.mapping import IdMapping
from training.data.vectors import read_vectors
from training.engine.loop import train
from training.models.adapted import AdaptedCtrModel
from training.models.ctr import batch_norm_names
from training.recipes import quick
from training.tasks.actr import Days
from training.tasks.actr_build import source_of, start_model
from training.tasks.actr_open import open_released
from training.tasks.actr_plan import AD_ONLY, plan_variant
from training.tasks.cpm import run_cpm

BOUND = [name for name, setting in TRANSFER_SETTINGS.items() if setting.cpm]
ENCODED = [name for name, setting in TRANSFER_SETTINGS.items() if setting.fg_bert]


def _start(session, day, name):
    """A setting's model before its first step, and after which plan."""
    plan = plan_variant(session, day, name)
    return plan, start_model(session, plan, Days(session)(plan.days, plan.natural_days).trainable()).model


def _trained(run):
    return load_file(run.folder / MODEL_FILE)


def _ids(run, field="item_id"):
    return pq.read_table(run.folder / MAPPING_FILE, filters=[("field", "==", field), ("row", ">", 0)])["id"].to_pylist()


def test_each_setting_is_bound_to_the_cpm_that_it_names(chain):
    _, cpms, actrs = chain
    assert cpm_variants(["none", "tpm+cpm"]) == ("default",)
    for day, week in zip(DAYS, (WEEKS[0], WEEKS[0], WEEKS[1]), strict=True):
        assert list(actrs[day]) == list(TRANSFER_SETTINGS)
        for name, run in actrs[day].items():
            bound = run.release.parents.get(f"pretrained/cpm/{week}")
            variant = TRANSFER_SETTINGS[name].cpm
            assert bound == (cpms[week][variant].release.release_id if variant else None)


def test_a_cpm_without_snapshots_reads_none_and_publishes_no_merged_table(chain):
    session, cpms, _ = chain
    for runs in cpms.values():
        run = runs["without_snapshots"]
        assert all(check.passed for check in audit(session.locations, session.deployment, run.folder))
        assert run.release.parents == {} and run.release.absent_parents == ()
        assert not [name for name in _trained(run) if name.startswith("transfer.")]
        assert all(
            len(vectors.ids) == 0 for vectors in read_vectors(run.folder / VECTORS_FILE, run.release.dims).values()
        )
        assert len(read_vectors(runs["default"].folder / VECTORS_FILE, runs["default"].release.dims)["item"].ids) > 0


def test_all_settings_score_the_same_rows_and_differ(chain):
    _, _, actrs = chain
    tables = {name: pq.read_table(run.folder / PREDICTIONS_FILE) for name, run in actrs[DAYS[2]].items()}
    rows = {tuple(table["event_id"].to_pylist()) for table in tables.values()}
    assert len(rows) == 1 and len(rows.pop()) == 80
    assert len({tuple(table["score"].to_pylist()) for table in tables.values()}) == len(TRANSFER_SETTINGS)


def test_settings_bound_to_a_weekly_model_start_again_with_a_new_one_and_the_others_go_on(chain):
    session, _, _ = chain
    for name in TRANSFER_SETTINGS:
        plans = [plan_variant(session, day, name) for day in DAYS]
        assert [plan.restart for plan in plans] == [True, False, name in [*BOUND, *ENCODED]]
        assert [len(plan.days) for plan in plans] == [3, 1, 3 if name in [*BOUND, *ENCODED] else 1]


def test_what_each_setting_takes_from_its_cpm(chain):
    """Weights taken over, for every setting: tensors of the source, fresh ones, and batch norm."""
    session, _, _ = chain
    for name in BOUND:
        setting = TRANSFER_SETTINGS[name]
        plan, model = _start(session, DAYS[2], name)
        source = _trained(plan.cpm)
        norms = batch_norm_names(model)
        taken = {
            key
            for key, tensor in model.state_dict().items()
            if key in source
            and torch.equal(tensor[: len(source[key])] if key.startswith("embeddings.") else tensor, source[key])
        }
        tables = {f"embeddings.{feature}.weight" for feature in model.embeddings.names if feature not in AD_ONLY}
        dense = {key for key in source if not key.startswith(("embeddings.", "transfer.")) and key not in norms}
        squares = {f"embeddings.{feature}.square" for feature in model.embeddings.names}
        assert not taken & squares, "Adagrad's sums start fresh"
        expected = {"fresh": set(), "embeddings": tables, "all": tables | dense}[setting.initial]
        assert taken - norms == expected, name
        changed = {
            key for key in norms if key in source and not torch.equal(source[key], _initial_norm(key, source[key]))
        }
        assert changed, "the source's batch norm has moved, or this would show nothing"
        assert (changed <= taken) == setting.keeps_batch_norm, name
        assert setting.merged_table == hasattr(model.transfer, "_index"), name


def _initial_norm(key, tensor):
    return torch.ones_like(tensor) if key.endswith(("weight", "running_var")) else torch.zeros_like(tensor)


def test_srp4ctr_is_bound_to_the_encoder_of_the_week_before_and_begins_with_its_weights(chain):
    session, _, actrs = chain
    for day, week in zip(DAYS, (WEEKS[0], WEEKS[0], WEEKS[1]), strict=True):
        for name, run in actrs[day].items():
            encoder = session.reader.active("fg_bert", "default", week)
            assert run.release.parents.get(f"encoder/fg_bert/{week}") == (
                encoder["release_id"] if name in ENCODED else None
            )
    for name in ENCODED:
        plan, model = _start(session, DAYS[2], name)
        source, state = _trained(plan.encoder), model.state_dict()
        held = {key.removeprefix("bridge.encoder.") for key in state if key.startswith("bridge.encoder.")}
        learned = TRANSFER_SETTINGS[name].fg_bert == "learned"
        assert held == (set(source) if learned else set()), "a frozen encoder's weights stay in its own release"
        assert not any(layer.weight.any() for layer in model.bridge_in), "it begins as a model without the bridge"
        begun = dict(model.bridge.network.state_dict())
        assert all(torch.equal(begun[key], source[key]) for key in source)
        before, after = source, _trained(actrs[DAYS[2]][name])
        if learned:
            assert not torch.equal(after["bridge.encoder.layers.0.key.weight"], before["layers.0.key.weight"]), (
                "it goes on learning"
            )
        assert not torch.equal(after["bridge.cross.layers.0.query.weight"], state["bridge.cross.layers.0.query.weight"])


def test_a_request_is_encoded_once_and_scored_as_each_row_alone(chain):
    """Folding in the ad model: equal behaviours are one sequence, and a score does not depend on what else is in the batch."""
    session, _, actrs = chain
    run = actrs[DAYS[1]]["tpm+cpm+srp4ctr"]
    scorer, rows = open_released(session, run), Days(session)([DAYS[1]])
    encoded = scorer.encode(session, rows)
    model = scorer.model.eval()
    together = encoded.batch(torch.arange(len(rows)))
    sequence = together.sequence
    assert sequence is not None and sequence.of_B is not None and sequence.sequences.offsets is not None
    assert len(sequence.sequences.offsets) - 1 < len(rows), "requests have several rows"
    with torch.no_grad():
        scores = model(together)
        alone = torch.cat([model(encoded.batch(torch.tensor([row]))) for row in range(len(rows))])
    torch.testing.assert_close(scores, alone, rtol=0, atol=1e-5)
    histories = rows.histories
    assert histories is not None
    lengths = np.minimum(histories.end - histories.long_start, 50)
    assert torch.equal(sequence.sequences.offsets.diff()[sequence.of_B], torch.from_numpy(lengths))
    own = IdMapping.load(
        session.release(run.release.parents["encoder/fg_bert/2026-01-07"]).folder / MAPPING_FILE, ("item_id",)
    )
    for row in np.flatnonzero(lengths > 0)[:20]:
        at = sequence.sequences.offsets[sequence.of_B[row]]
        seen = histories.item_ids[histories.end[row] - lengths[row] : histories.end[row]]
        assert (
            sequence.sequences.rows["item_id"][at : at + int(lengths[row])].tolist()
            == own.fields["item_id"].rows(seen).tolist()
        )


def test_frozen_tables_stay_those_of_the_cpm_and_get_no_new_rows(chain):
    _, cpms, actrs = chain
    for day, week in zip(DAYS, (WEEKS[0], WEEKS[0], WEEKS[1]), strict=True):
        cpm, run = cpms[week]["without_snapshots"], actrs[day]["frozen_embeddings"]
        source, trained = _trained(cpm), _trained(run)
        for feature in ("user_id", "item_id", "category_id"):
            assert torch.equal(source[f"embeddings.{feature}.weight"], trained[f"embeddings.{feature}.weight"])
            assert _ids(run, feature) == _ids(cpm, feature)
        for feature in AD_ONLY:
            assert trained[f"embeddings.{feature}.square"][1:].min() > 0, "ad-only tables learn"
        moved = _trained(actrs[day]["cpm"])
        assert not torch.equal(
            moved["embeddings.item_id.weight"][: len(source["embeddings.item_id.weight"])],
            source["embeddings.item_id.weight"],
        ), "without freezing the same tables move"


def test_adapters_read_the_frozen_cpm_by_ids_and_not_by_rows(chain):
    session, cpms, actrs = chain
    run, cpm = actrs[DAYS[1]]["adapters"], cpms[WEEKS[0]]["without_snapshots"]
    assert not [key for key in _trained(run) if "source" in key], "the source is the CPM's, and stays there"
    scorer, rows = open_released(session, run), Days(session)([DAYS[1]])
    every = torch.arange(len(rows))
    assert isinstance(scorer.model, AdaptedCtrModel)
    assert len(scorer.model._source[0].hidden(scorer.encode(session, rows).batch(every))) == len(
        quick().actr.body.hidden
    )

    own = IdMapping.load(cpm.folder / MAPPING_FILE, scorer.model._source[0].model.embeddings.names)
    turned = IdMapping(
        {name: replace(field, ids=field.ids[::-1], last_day=field.last_day[::-1]) for name, field in own.fields.items()}
    )
    source = source_of(session, cpm, turned)

    def batch(mapping):
        encoding = replace(scorer.encoding, mapping=mapping)
        return encoding.encode(rows).batch(every)

    by_own_rows = source.model.mlp[:3](source.model.interactions(batch(own)))
    assert torch.allclose(source.hidden(batch(turned))[0], by_own_rows, atol=1e-6)
    assert not torch.allclose(source.model.mlp[:3](source.model.interactions(batch(turned))), by_own_rows, atol=1e-3), (
        "rows differ"
    )


def test_the_source_of_adapters_does_not_learn(chain):
    session, _, _ = chain
    plan, model = _start(session, DAYS[2], "adapters")
    before = {key: tensor.clone() for key, tensor in model._source[0].model.state_dict().items()}
    rows = Days(session)(plan.days).trainable()
    scorer = start_model(session, plan, rows)
    train(scorer.model, scorer.encode(session, rows), quick().actr.restart, seed=1, description="test")
    assert isinstance(scorer.model, AdaptedCtrModel)
    after = scorer.model._source[0].model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert not torch.equal(
        model.state_dict()["adapters.0.value.weight"], scorer.model.state_dict()["adapters.0.value.weight"]
    )


def test_joint_training_reads_the_natural_log_too(chain):
    session, _, actrs = chain
    lineage = session.deployment.lineage
    natural = [
        {key.split("=")[1] for key in actrs[day]["joint"].release.inputs if key.startswith("natural_samples")}
        for day in DAYS
    ]
    assert natural[0] == {str(day) for day in lineage.natural_training_days(date(2026, 1, 10))} and len(natural[0]) == 3
    assert natural[1:] == [{str(DAYS[1])}, {str(DAYS[2])}]
    plan = plan_variant(session, DAYS[1], "joint")
    rows = Days(session)(plan.days, plan.natural_days)
    of_ads = np.asarray(rows.features["campaign_id"]) >= 0
    assert (~of_ads).sum() == World().natural_per_day and of_ads.sum() == World().ad_per_day
    figures = pq.read_table(actrs[DAYS[1]]["joint"].folder / "metrics.parquet").to_pylist()
    metrics = {(m["metric"], m["split"]): m["row_cnt"] for m in figures}
    assert metrics["train_loss", "train"] == (~rows.held_out).sum()
    judged = Days(session, held_out_only=True)(plan.judged_days)
    assert metrics["auc", "held_out"] == len(judged) > 0 and (judged.features["campaign_id"] >= 0).all(), (
        "it is judged only on ads"
    )


def test_a_day_waits_for_every_cpm_that_its_settings_are_bound_to(chain):
    session, _, _ = chain
    missing = missing_inputs(session.reader, session.deployment, "actr", date(2026, 1, 13))
    assert [
        text.split(" of ")[0] for text in map(str, missing) if "cpm" in text.split(":")[0] and "pretrained" in text
    ] == ["the pretrained cpm", "the pretrained cpm (without_snapshots)"]


def test_snapshots_of_all_rows_may_be_those_of_the_merged_table(chain):
    """The ablation of the snapshots by the row's day: another release, from only the merged table's months."""
    session, cpms, _ = chain
    recipe = replace(session.recipe, cpm=replace(session.recipe.cpm, snapshots_by_day=False))
    staged = Locations(session.locations.home).staged("cpm", WEEKS[1])
    before = staged.read_text()
    run = next(run for run in run_cpm(replace(session, recipe=recipe), WEEKS[1]) if run.release.variant == "default")
    staged.write_text(before)
    months = session.deployment.lineage.snapshots_of_day(WEEKS[1])
    assert set(run.release.parents) == {f"snapshot/tpm/{month}" for month in months if month}
    assert run.release.release_id != cpms[WEEKS[1]]["default"].release.release_id
    assert json.loads(before)["runs"], "the fixture's own stays staged"
    assert read_release(run.folder).recipe["snapshots_by_day"] is False
