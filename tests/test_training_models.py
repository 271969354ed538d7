"""Modules against plain references: jagged attention, aggregator, merged table, transfer, optimiser, batch-norm."""

import numpy as np
import pytest
import torch
from torch import nn

from training.data.batches import Batch, Encoding
from training.data.mapping import FieldMapping, IdMapping
from training.data.vectors import EntityIndex, EntityVectors, Snapshots
from training.engine.optimizer import Adam
from training.models.ctr import CtrModel, batch_norm_names, load_transferred, load_weights
from training.modules.attention import TargetAttention
from training.modules.embedding import IdEmbeddings
from training.modules.interaction import Cross
from training.modules.transfer import AggregatedSnapshots, Aggregator, MergedTable, TransferSource
from training.recipes import Body

DIMS = {"user": 3, "item": 3}


def _padded_din(attention, query, keys, lengths):
    """DIN as its paper writes it: one padded row per sample, [q, k, q - k, q * k] built, weights masked."""
    width = query.shape[1]
    padded = torch.zeros(len(query), max(lengths), width)
    for b, part in enumerate(keys.split(lengths)):
        padded[b, :lengths[b]] = part
    q = query[:, None, :].expand_as(padded)
    difference = torch.linspace(-1, 1, attention.key.weight.numel()).view_as(attention.key.weight)  # any Wd: the split absorbs it
    split = [attention.query.weight - difference, attention.key.weight + difference, difference, attention.product.weight]
    weight = torch.cat(split, dim=1)
    hidden = torch.relu(torch.cat([q, padded, q - padded, q * padded], dim=2) @ weight.T + attention.query.bias)
    mask = torch.arange(max(lengths))[None, :] < torch.tensor(lengths)[:, None]
    return (attention.score(hidden) * mask[:, :, None] * padded).sum(dim=1)


def test_jagged_attention_equals_padded():
    torch.manual_seed(0)
    lengths = [3, 0, 5, 1]
    attention = TargetAttention(4, 6)
    query, keys = torch.randn(4, 4, requires_grad=True), torch.randn(9, 4, requires_grad=True)
    offsets = torch.tensor([0, *np.cumsum(lengths).tolist()])
    row = torch.repeat_interleave(torch.arange(4), torch.tensor(lengths))
    jagged, padded = attention(query, keys, row, offsets), _padded_din(attention, query, keys, lengths)
    assert torch.allclose(jagged, padded, atol=1e-6)
    assert (jagged[1] == 0).all()
    upstream, gradients = torch.randn_like(jagged), []
    for result in (jagged, padded):
        for tensor in (query, keys, *attention.parameters()):
            tensor.grad = None
        result.backward(upstream)
        gradients.append([tensor.grad for tensor in (query, keys, *attention.parameters())])
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_aggregator_equals_attention_over_the_present_months_alone():
    torch.manual_seed(0)
    aggregator, vectors = Aggregator(5), torch.randn(4, 3, 5)
    present = torch.tensor([[True, True, True], [True, False, True], [False, True, False], [False, False, False]])
    result = aggregator(vectors, present)
    for row in range(3):
        months = vectors[row][present[row]]
        weights = torch.softmax(aggregator.query(months) @ aggregator.key(months).T / 5**0.5, dim=1)
        assert torch.allclose(result[row], (weights @ aggregator.value(months)).mean(dim=0), atol=1e-6)
    assert (result[3] == 0).all()


def _snapshots(seed):
    rng = np.random.default_rng(seed)
    months = []
    for _ in range(4):
        ids = np.sort(rng.choice(40, 20, replace=False))
        months.append(EntityVectors(ids=ids, vectors=rng.normal(size=(20, 3)).astype(np.float32)))
    return Snapshots.stack(months, 3)


def _batch(count, user_at, item_at, day):
    nothing = torch.zeros(count, dtype=torch.int64)
    return Batch(rows_BF=nothing[:, None], dense_BS=torch.zeros(count, 0), long=None, short=None, user_at_B=torch.from_numpy(user_at),
                 item_at_B=torch.from_numpy(item_at), day_B=nothing + day, label_B=torch.zeros(count))


@pytest.mark.parametrize("day", [0, 1])
def test_merged_table_equals_attention_on_the_fly(day):
    """I8, for ids of all months, some, and none; on the second day a month is absent."""
    torch.manual_seed(0)
    months_of_day = [(3, 2, 1), (1, 0, -1)]
    source = AggregatedSnapshots({"user": _snapshots(1), "item": _snapshots(2)}, months_of_day, DIMS)
    merged = MergedTable(source.merge(months_of_day[day]))
    users, items = np.arange(45), np.arange(45)[::-1].copy()

    def look_up(transfer):
        return transfer(_batch(45, transfer.index["user"].positions(users), transfer.index["item"].positions(items), day))

    with torch.no_grad():
        assert torch.equal(look_up(merged)[:, -2:], look_up(source)[:, -2:])
        assert torch.allclose(look_up(merged), look_up(source), atol=1e-6)
    assert 0 < look_up(merged)[:, -2].sum() < 45, "some users are missing and some are not"


def test_snapshots_get_no_gradient_and_the_merged_table_is_no_weight():
    source = AggregatedSnapshots({"user": _snapshots(1), "item": _snapshots(2)}, [(0, 1, 2)], DIMS)
    assert {name.split(".")[0] for name, _ in source.named_parameters()} == {"aggregators"}
    assert {name.split(".")[0] for name in source.state_dict()} == {"aggregators"}
    assert list(MergedTable(source.merge((0, 1, 2))).state_dict()) == []


def _model(rows, seed, transfer=None):
    torch.manual_seed(seed)
    names = ("user_id", "item_id", "category_id", "campaign_id")
    body = Body(hidden=(8, 4), attention_hidden=4)
    return CtrModel(body, IdEmbeddings(dict(zip(names, rows, strict=True)), dict.fromkeys(names, 4), seed=seed), 2,
                    transfer or TransferSource(DIMS))


def test_transfer_loads_everything_but_batch_norm_and_ad_only_tables():
    """I9: every other tensor equals its source; batch-norm is a fresh one's, whatever the source holds."""
    source = _model((6, 5, 4, 1), seed=1, transfer=AggregatedSnapshots({"user": _snapshots(1), "item": _snapshots(2)}, [(0, 1, 2)], DIMS))
    with torch.no_grad():
        for tensor in source.state_dict().values():
            tensor.add_(3)
    target, untouched = _model((9, 5, 4, 7), seed=2), _model((9, 5, 4, 7), seed=2)
    weights = source.state_dict()
    load_transferred(target, weights, fresh_tables=frozenset({"campaign_id"}))
    norms = batch_norm_names(target)
    assert len(norms) == 2 * 5
    for name, tensor in target.state_dict().items():
        if name in norms:
            fresh = 1 if name.endswith(("weight", "running_var")) else 0
            assert (tensor == fresh).all(), name
        elif name == "embeddings.tables.campaign_id.weight":
            assert torch.equal(tensor, untouched.state_dict()[name])
        elif name == "embeddings.tables.user_id.weight":
            assert torch.equal(tensor[:6], weights[name]) and torch.equal(tensor[6:], untouched.state_dict()[name][6:])
        else:
            assert torch.equal(tensor, weights[name]), name


def test_weights_of_another_body_are_refused():
    with pytest.raises(ValueError, match="weights differ"):
        load_weights(_model((6, 5, 4, 2), seed=1), nn.Linear(2, 2).state_dict())


def test_unknown_row_is_zero_and_stays_so():
    table = IdEmbeddings({"user_id": 4}, {"user_id": 3}, seed=1)
    table(torch.tensor([[0], [2]])).sum().backward()
    weight = table.table("user_id").weight
    assert (weight[0] == 0).all() and (weight.grad[0] == 0).all() and (weight.grad[2] == 1).all()


def test_cross_equals_its_formula():
    torch.manual_seed(0)
    cross, x = Cross(4, 2), torch.randn(3, 4)
    one = x * cross.layers[0](x) + x
    assert torch.allclose(cross(x), x * cross.layers[1](one) + one)


@pytest.mark.parametrize("sparse", [False, True])
def test_adam_equals_its_formula(sparse):
    """Dense: every row in every step; sparse: a row's moments stand still in steps that do not touch it."""
    torch.manual_seed(0)
    table = nn.Embedding(6, 3, sparse=sparse)
    weight = table.weight.detach().double().numpy().copy()
    mean, square = np.zeros_like(weight), np.zeros_like(weight)
    optimizer = Adam([(list(table.parameters()), 0.1)])
    for step, rows in enumerate(([0, 1, 1], [2, 1], [5, 5, 0]), start=1):
        gradient = np.zeros_like(weight)
        np.add.at(gradient, rows, 2 * weight[rows])
        moved = np.unique(rows) if sparse else np.arange(6)
        mean[moved] = 0.9 * mean[moved] + 0.1 * gradient[moved]
        square[moved] = 0.999 * square[moved] + 0.001 * gradient[moved] ** 2
        weight[moved] -= 0.1 * (mean[moved] / (1 - 0.9**step)) / (np.sqrt(square[moved] / (1 - 0.999**step)) + 1e-8)
        optimizer.zero_grad()
        (table(torch.tensor(rows)) ** 2).sum().backward()
        optimizer.step()
    assert np.allclose(table.weight.detach().numpy(), weight, atol=1e-5)


def test_encoding_of_an_unknown_entity_is_position_zero():
    index = EntityIndex(np.array([4, 9]))
    assert index.positions(np.array([9, 1, 4, 10])).tolist() == [2, 0, 1, 0]
    assert Encoding(mapping=IdMapping({"user_id": FieldMapping(np.array([4]))}), transfer={}).rate_prior == (1.0, 10.0)
