"""The sequence encoder: masks that give nothing away, attention in segments, bridges that fold."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from contracts.features import BEHAVIOUR_FIELDS, GAP_BUCKETS
from training import native
from training.data.codes import CODES, dwell_codes, gap_codes
from training.data.mapping import Coded, IdMapping, Seen
from training.data.sequences import (
    FIELDS_OF_SIDE,
    ID_FIELDS,
    SIDES,
    EncodedSequences,
    Masks,
    SequenceInput,
    sequence_batch,
)
from training.engine.checkpoint import Checkpoint
from training.engine.loop import Supervision, prepare_process, train
from training.models.fg_bert import FgBert, masks_of
from training.models.srp4ctr import Bridge
from training.modules.cross_entropy import linear_cross_entropy
from training.modules.dropout import Dropout
from training.modules.segments import Segments, attend, in_torch
from training.recipes import Admission, DecayingPhase, FgBertRecipe

SMALL = FgBertRecipe(
    length=12, width=16, heads=2, inner=32, train=DecayingPhase(epochs=2, batch_size=8, learning_rate=3e-3)
)
ROWS = {"item_id": 30, "category_id": 6}


def _columns(rng, count):
    return {
        field.name: rng.integers(1, ROWS[field.name], count)
        if field.codes is None
        else rng.integers(0, field.codes, count)
        for field in BEHAVIOUR_FIELDS
    }


def _sequences(rng, lengths, masks=None):
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    columns = _columns(rng, int(offsets[-1]))
    seen = {name: Seen.of(Coded.of(columns[name]), np.zeros(len(columns[name]), np.int64)) for name in ID_FIELDS}
    mapping, _ = IdMapping.empty(ID_FIELDS).grown(seen, ID_FIELDS, Admission(sightings=1))
    return EncodedSequences.of(columns, offsets[:-1], offsets[1:], mapping=mapping, masks=masks), mapping


def _model(mapping, recipe=SMALL, seed=1):
    torch.manual_seed(seed)
    return FgBert(recipe, mapping.row_cnts(), {name: torch.ones(rows) for name, rows in mapping.row_cnts().items()})


@pytest.mark.parametrize("causal", [False, True])
def test_attention_in_segments_is_attention_over_each_alone(causal):
    torch.manual_seed(3)
    queries = torch.tensor([0, 3, 3, 10, 12])
    keys = queries if causal else torch.tensor([0, 5, 9, 9, 40])  # one segment without queries, one without keys
    parts = [
        torch.randn(int(offsets[-1]), 2, 4, dtype=torch.float64, requires_grad=True)
        for offsets in (queries, keys, keys)
    ]
    found = attend(parts[0], parts[1], parts[2], Segments(queries, keys, causal))
    for segment in range(4):
        q, k, v = (
            part[offsets[segment] : offsets[segment + 1]]
            for part, offsets in zip(parts, (queries, keys, keys), strict=True)
        )
        if len(q) == 0:
            continue
        scores = torch.einsum("qhd,khd->hqk", q, k) / 2.0
        if causal:
            scores = scores.masked_fill(~torch.ones(len(q), len(k), dtype=torch.bool).tril(), float("-inf"))
        expected = torch.einsum("hqk,khd->qhd", scores.softmax(dim=2), v) if len(k) else torch.zeros_like(q)
        torch.testing.assert_close(found[queries[segment] : queries[segment + 1]], expected)
    assert torch.autograd.gradcheck(
        lambda q, k, v: attend(q, k, v, Segments(queries, keys, causal)), parts, fast_mode=True
    )


@pytest.mark.skipif(native.library("segment_attention") is None, reason="no C++ compiler")
@pytest.mark.parametrize("size", [1.0, 30.0])
@pytest.mark.parametrize(("causal", "heads", "width"), [(False, 1, 16), (True, 2, 16), (False, 2, 32), (True, 1, 80)])
def test_native_attention_is_torchs(causal, heads, width, size):
    """Segments without queries, without keys, of one token, and longer than what is looked at in one go; far scores do no harm."""
    torch.manual_seed(width)
    queries = torch.tensor([0, 3, 3, 10, 12, 13, 143, 150])
    keys = queries if causal else torch.tensor([0, 5, 9, 9, 40, 41, 141, 341])
    parts = [
        torch.randn(int(offsets[-1]), heads, width) * scale
        for offsets, scale in ((queries, size), (keys, 1.0), (keys, 1.0))
    ]
    upstream, results = torch.randn(heads, int(queries[-1]), width).transpose(0, 1), []  # not contiguous
    for way, dtype in ((attend, torch.float32), (in_torch, torch.float64)):
        given = [part.detach().to(dtype).requires_grad_() for part in parts]
        found = way(given[0], given[1], given[2], Segments(queries, keys, causal))
        assert ("_Native" in type(found.grad_fn).__name__) == (way is attend)
        results.append([found.detach(), *torch.autograd.grad(found, given, upstream.to(dtype))])
    for ours, expected in zip(*results, strict=True):
        assert float((ours - expected).abs().max()) < 1e-6 * size * float(expected.abs().max())  # logits are rounded


@pytest.mark.parametrize("way", [attend, in_torch])
def test_what_is_no_number_reaches_its_segment_and_no_other(way):
    parts = [torch.randn(20, 1, 16) for _ in range(3)]
    parts[1][7, 0, 3] = float("nan")
    found = way(*parts, Segments.within(torch.tensor([0, 5, 12, 20])))
    assert found[5:12].isnan().all() and found[:5].isfinite().all() and found[12:].isfinite().all()


@pytest.mark.skipif(native.library("segment_attention") is None, reason="no C++ compiler")
def test_native_attention_is_the_same_to_the_bit_for_any_number_of_threads():
    offsets, results = torch.tensor([0, 7, 7, 107, *range(108, 140)]), []
    parts = [torch.randn(139, 2, 16, requires_grad=True) for _ in range(3)]
    for threads in (1, 3):
        torch.set_num_threads(threads)
        found = attend(parts[0], parts[1], parts[2], Segments.within(offsets))
        results.append([found, *torch.autograd.grad(found.sum(), parts)])
    torch.set_num_threads(1)
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_a_hidden_side_gives_nothing_away():
    rng = np.random.default_rng(0)
    encoded, mapping = _sequences(rng, [12, 5, 9], Masks(shares={"item": 0.4, "behaviour": 0.4}, seed=1))
    model = _model(mapping).eval()
    batch, sizes = encoded.batch(torch.arange(3)), {**CODES, **mapping.row_cnts()}
    for side, names in FIELDS_OF_SIDE.items():
        hidden = batch.masks[side]
        assert 0 < int(hidden.sum()) < len(hidden)
        other = {
            name: torch.where(hidden, (values + 1) % sizes[name], values) if name in names else values
            for name, values in batch.rows.items()
        }
        output = model.encode(batch).output_PE
        torch.testing.assert_close(model.encode(replace(batch, rows=other)).output_PE, output, rtol=0, atol=0)
        for name in names:  # every field by itself gives it away, where it is not hidden
            shown = {**batch.rows, name: torch.where(hidden, batch.rows[name], (batch.rows[name] + 1) % sizes[name])}
            assert not torch.equal(model.encode(replace(batch, rows=shown)).output_PE, output), name


def test_only_hidden_positions_carry_loss():
    encoded, mapping = _sequences(
        np.random.default_rng(1), [12, 8], Masks(shares={"item": 0.3, "behaviour": 0.3}, seed=2)
    )
    model, batch = _model(mapping), encoded.batch(torch.arange(2))
    hidden = batch.masks["item"] | batch.masks["behaviour"]
    outputs = torch.randn(int(hidden.sum()), SMALL.width, requires_grad=True)
    losses = model.loss(outputs, batch)
    assert set(losses) == set(SMALL.fields)
    for side in SIDES:
        gradient = torch.autograd.grad(sum(losses[name] for name in FIELDS_OF_SIDE[side]), outputs, retain_graph=True)[
            0
        ]
        assert torch.equal(gradient.abs().sum(dim=1) > 0, batch.masks[side][hidden])


@pytest.mark.parametrize("objective", ["fg_bert", "bert4rec", "sasrec"])
def test_the_last_layer_makes_what_is_asked_for_as_if_it_made_all(objective):
    recipe = replace(SMALL, objective=objective, dropout=0.0)
    encoded, mapping = _sequences(
        np.random.default_rng(8), [12, 1, 0, 8, 3], Masks(shares={"item": 0.3, "behaviour": 0.3}, seed=3)
    )
    model, batch = _model(mapping, recipe), encoded.batch(torch.arange(5))
    hidden = torch.nonzero(batch.masks["item"] | batch.masks["behaviour"]).squeeze(1)
    assert 0 < len(hidden) < len(batch.position_P)
    wanted = torch.randn(len(hidden), SMALL.width)
    gradients = []
    for found in (model(batch), model.encode(batch).output_PE[hidden]):
        assert found.shape == wanted.shape
        gradients.append(
            [found.detach(), *torch.autograd.grad((found * wanted).sum(), list(model.layers.parameters()))]
        )
    for ours, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, expected)


def test_masks_hold_their_rates_and_are_independent_and_new_in_each_epoch():
    masks, place = Masks(shares={"item": 0.2, "behaviour": 0.3}, seed=5), torch.arange(200_000)
    first, second = masks.draw(0, place), masks.draw(1, place)
    for drawn in (first, second):
        rates = {side: float(mask.double().mean()) for side, mask in drawn.items()}
        both = float((drawn["item"] & drawn["behaviour"]).double().mean())
        assert rates == pytest.approx({"item": 0.2, "behaviour": 0.3}, abs=0.005)
        assert both == pytest.approx(0.06, abs=0.003)
    assert float((first["item"] & second["item"]).double().mean()) == pytest.approx(0.04, abs=0.003)
    assert torch.equal(masks.draw(0, place[500:900])["item"], first["item"][500:900]), "whatever batch a place comes in"


@pytest.mark.parametrize(("objective", "heads"), [("fg_bert", len(SMALL.fields)), ("bert4rec", 1), ("sasrec", 1)])
def test_each_objective_learns(objective, heads):
    prepare_process()
    rng = np.random.default_rng(2)
    recipe = replace(SMALL, objective=objective, dropout=0.0, train=replace(SMALL.train, epochs=40))
    start = rng.integers(0, 5, 40)
    items = np.repeat(start + 1, 10)  # any other behaviour of its sequence gives a hidden item away
    columns = {**_columns(rng, 400), "item_id": items, "category_id": items}
    seen = {name: Seen.of(Coded.of(columns[name]), np.zeros(400, np.int64)) for name in ID_FIELDS}
    mapping, _ = IdMapping.empty(ID_FIELDS).grown(seen, ID_FIELDS, Admission(sightings=1))
    at = np.arange(0, 400, 10)
    encoded = EncodedSequences.of(columns, at, at + 10, mapping=mapping, masks=masks_of(recipe))
    fitted = train(_model(mapping, recipe), encoded, recipe.train, seed=1, description=objective)
    assert len(fitted.losses) == heads
    assert fitted.losses["item_id"] < 0.5 * np.log(5)


def test_next_item_model_sees_no_later_behaviour():
    recipe = replace(SMALL, objective="sasrec")
    encoded, mapping = _sequences(np.random.default_rng(3), [10])
    model, batch = _model(mapping, recipe).eval(), encoded.batch(torch.arange(1))
    changed = {name: torch.cat([values[:6], values[6:].flip(0)]) for name, values in batch.rows.items()}
    torch.testing.assert_close(model(replace(batch, rows=changed))[:6], model(batch)[:6])


def test_a_training_that_is_taken_up_ends_in_the_same_weights(tmp_path):
    prepare_process()

    def run(stop_at=None, path=None):
        encoded, mapping = _sequences(np.random.default_rng(4), [9] * 32, masks_of(SMALL))
        model = _model(mapping)

        def observe(step, losses, rows):
            if step == stop_at:
                raise KeyboardInterrupt

        supervision = Supervision(checkpoint=Checkpoint(path, 0.0) if path else None, observe=observe)
        train(model, encoded, SMALL.train, seed=1, description="fg_bert", supervision=supervision)
        return model.state_dict()

    whole = run()
    with pytest.raises(KeyboardInterrupt):
        run(stop_at=6, path=tmp_path / "state")
    again = run(path=tmp_path / "state")
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_weights_begin_by_the_width_that_they_read():
    """What attention adds is of the size of what it is added to, and a behaviour's fields of the size of its position."""
    _, mapping = _sequences(np.random.default_rng(1), [5] * 6)
    model = _model(mapping, replace(SMALL, width=64, inner=256))
    layer = model.layers[0]
    assert float(layer.value.weight.detach().std()) == pytest.approx((1 / 64) ** 0.5, rel=0.1)
    assert float(layer.feed_forward.inner.weight.detach().std()) == pytest.approx((2 / 320) ** 0.5, rel=0.1)
    position = float(model.positions.weight.detach().std())
    for side, project in model.project.items():
        fields = torch.cat(
            [
                table.weight[torch.arange(5) % len(table.weight)]
                for name, table in model.embeddings.items()
                if name in FIELDS_OF_SIDE[side]
            ],
            dim=1,
        )
        assert 0.4 < float((fields @ project.weight.T).detach().std()) / position < 2.5, side


@pytest.mark.parametrize("size", [0.5, 3.0, 1e3])  # of logits that may be exponentiated as they are, and of others
@pytest.mark.parametrize("count", [1, 7, 300])
def test_cross_entropy_over_a_table_is_torchs(count, size, monkeypatch):
    monkeypatch.setattr("training.modules.cross_entropy._CACHED", 64 * 5)  # several chunks, the last one shorter
    torch.manual_seed(count)
    parts = [
        torch.randn(*shape, dtype=torch.float64) * scale
        for shape, scale in (((count, 6), 1.0), ((64, 6), size), ((64,), 1.0))
    ]
    target = torch.randint(0, 64, (count,))
    losses = {}
    for way in ("ours", "torch"):
        query, weight, bias = (part.clone().requires_grad_() for part in parts)
        loss = (
            linear_cross_entropy(query, weight, bias, target)
            if way == "ours"
            else torch.nn.functional.cross_entropy(query @ weight.T + bias, target)
        )
        (2.5 * loss).backward()
        losses[way] = [loss.detach(), query.grad, weight.grad, bias.grad]
    for ours, expected in zip(losses["ours"], losses["torch"], strict=True):
        torch.testing.assert_close(ours, expected)


def test_sampled_softmax_tends_to_the_full_one():
    encoded, mapping = _sequences(np.random.default_rng(5), [12] * 8, masks_of(SMALL))
    torch.manual_seed(0)
    batch, full = encoded.batch(torch.arange(8)), _model(mapping)
    sampled = FgBert(
        replace(SMALL, sampled_above=5, negatives=20_000),
        mapping.row_cnts(),
        {name: torch.arange(1, rows + 1) for name, rows in mapping.row_cnts().items()},
    )
    sampled.load_state_dict(full.state_dict())
    for head in (*full.heads.values(), *sampled.heads.values()):
        torch.nn.init.normal_(head.outer.weight, std=2.0, generator=torch.Generator().manual_seed(1))
    outputs = torch.randn(int((batch.masks["item"] | batch.masks["behaviour"]).sum()), SMALL.width)
    exact, drawn = full.loss(outputs, batch)["item_id"], sampled.loss(outputs, batch)["item_id"]
    assert drawn.item() == pytest.approx(exact.item(), rel=0.03)


@pytest.mark.parametrize("learned", [True, False])
def test_folded_scores_are_those_of_each_candidate_alone(learned):
    rng = np.random.default_rng(6)
    encoded, mapping = _sequences(rng, [12, 0, 7])
    torch.manual_seed(2)
    bridge = Bridge(_model(mapping), learned=learned).eval()
    of_B = torch.tensor([2, 0, 0, 1, 2, 0, 1])
    rows = {name: torch.from_numpy(rng.integers(0, mapping.row_cnts()[name], 7)) for name in FIELDS_OF_SIDE["item"]}
    folded = bridge(SequenceInput(sequences=encoded.batch(torch.arange(3)), of_B=of_B, candidate=rows))
    assert folded.shape == (7, bridge.of_candidate + bridge.of_user)
    for number in range(7):
        alone = bridge(
            SequenceInput(
                sequences=encoded.batch(of_B[number : number + 1]),
                of_B=torch.zeros(1, dtype=torch.int64),
                candidate={name: values[number : number + 1] for name, values in rows.items()},
            )
        )
        torch.testing.assert_close(folded[number : number + 1], alone, rtol=0, atol=1e-5)


def test_what_a_bridge_trains():
    encoded, mapping = _sequences(np.random.default_rng(7), [8, 6])
    rows = {name: torch.ones(2, dtype=torch.int64) for name in FIELDS_OF_SIDE["item"]}
    given = SequenceInput(sequences=encoded.batch(torch.arange(2)), of_B=torch.arange(2), candidate=rows)
    for learned in (True, False):
        encoder = _model(mapping)
        bridge = Bridge(encoder, learned=learned)
        bridge(given).square().sum().backward()
        assert (encoder.layers[0].key.weight.grad is not None) == learned
        assert any(name.startswith("encoder.") for name in bridge.state_dict()) == learned
        assert all(
            parameter.grad is not None
            for name, parameter in bridge.named_parameters()
            if not name.startswith("encoder.") and parameter.requires_grad
        )


@pytest.mark.parametrize("queries", [1, 2, 8])
def test_what_is_queried_is_as_long_for_any_number_of_queries_and_begins_with_what_the_sequence_says(queries):
    encoded, mapping = _sequences(np.random.default_rng(8), [9, 5, 7])
    torch.manual_seed(3)
    bridge = Bridge(_model(mapping), learned=True, queries=queries).eval()
    _, of_user = bridge.encode(encoded.batch(torch.arange(3)))
    width = bridge.of_user // queries
    torch.testing.assert_close(of_user.norm(dim=1), torch.full((3,), width**0.5), rtol=1e-3, atol=0)
    by_query = of_user.view(3, queries, width)
    assert (
        by_query.var(dim=0, correction=0).mean() > 10 * by_query.var(dim=1, correction=0).mean()
    )  # users differ, queries hardly yet


def test_codes_of_times():
    assert dwell_codes(np.array([0.0, 0.5, 1.0, 1e6, np.nan])).tolist() == [1, 1, 2, 9, 1]
    event_us = np.array([0, 5, 5 + 3600, 10**9, 7]) * 1_000_000
    assert gap_codes(event_us[:4], np.array([0, 4])).tolist() == [0, 2, 6, len(GAP_BUCKETS) + 1]
    assert gap_codes(np.array([5, 1, 2]) * 1_000_000, np.array([0, 1, 1, 3])).tolist() == [0, 0, 2]
    assert max(CODES.values()) > 0


def test_positions_count_from_the_newest():
    encoded, _ = _sequences(np.random.default_rng(8), [3, 2])
    batch = encoded.batch(torch.tensor([1, 0]))
    assert batch.position_P.tolist() == [1, 0, 2, 1, 0]
    assert sequence_batch(encoded.rows, torch.arange(2), torch.tensor([0, 2])).masks == {}


def test_the_rate_rises_and_falls():
    phase = DecayingPhase(learning_rate=1.0, warmup_share=0.1, power=2.0)
    rates = [phase.rate_at(step, 100) for step in range(100)]
    assert np.argmax(rates) in (9, 10)
    assert rates[55] == pytest.approx(0.25)
    assert rates[-1] < 0.001


@pytest.mark.parametrize("is_native", [True, False])
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_dropout_drops_its_share_and_keeps_the_mean(share, is_native, monkeypatch):
    if not is_native:
        monkeypatch.setattr(native, "library", lambda name: None)
    torch.manual_seed(5)
    layer, values = Dropout(share), torch.ones(401, 503, requires_grad=True)
    dropped = layer(values)
    kept = dropped != 0
    assert abs(float((~kept).float().mean()) - share) < 4 * (share * (1 - share) / values.numel()) ** 0.5
    assert torch.allclose(dropped[kept], torch.tensor(1 / (1 - share)), atol=1e-4)
    in_rows, in_columns = kept.float().mean(dim=1), kept.float().mean(dim=0)
    assert (
        in_rows.std() < 2 * (share * (1 - share) / 503) ** 0.5
        and in_columns.std() < 2 * (share * (1 - share) / 401) ** 0.5
    )
    dropped.sum().backward()
    assert values.grad is not None and torch.equal(values.grad, dropped)  # of ones: the same elements, scaled the same
    assert not torch.equal(layer(values) != 0, kept), "drawn anew each time"
    torch.set_num_threads(3)
    torch.manual_seed(5)
    again = layer(values)
    torch.set_num_threads(1)
    assert torch.equal(again, dropped), "by any number of threads"
    assert layer.eval()(values) is values
