"""Modules against plain references: jagged attention, aggregator, merged table, transfer, optimiser, batch-norm."""

import numpy as np
import pytest
import torch
from torch import nn

from training import native
from training.data.batches import Batch, Encoding
from training.data.mapping import FieldMapping, IdMapping
from training.data.vectors import Entity, EntityIndex, EntityVectors, Snapshots
from training.engine.optimizer import Adam
from training.engine.prefetch import DEPTH, prefetched
from training.models.ctr import CtrModel, batch_norm_names, load_transferred, load_weights
from training.modules.attention import TargetAttention, _Native
from training.modules.embedding import FbgemmTable, IdEmbeddings, Table
from training.modules.field_mlp import FieldMlp
from training.modules.interaction import Cross
from training.modules.transfer import AggregatedSnapshots, Aggregator, MergedTable, TransferSource
from training.recipes import Body

DIMS: dict[Entity, int] = {"user": 3, "item": 3}


def _padded_din(attention, query, keys, lengths):
    """DIN as its paper writes it: one padded row per sample, [q, k, q - k, q * k] built, weights masked."""
    width = query.shape[1]
    padded = torch.zeros(len(query), max(lengths), width)
    for b, part in enumerate(keys.split(lengths)):
        padded[b, : lengths[b]] = part
    q = query[:, None, :].expand_as(padded)
    difference = torch.linspace(-1, 1, attention.key.weight.numel()).view_as(
        attention.key.weight
    )  # any Wd: the split absorbs it
    split = [
        attention.query.weight - difference,
        attention.key.weight + difference,
        difference,
        attention.product.weight,
    ]
    weight = torch.cat(split, dim=1)
    hidden = torch.relu(torch.cat([q, padded, q - padded, q * padded], dim=2) @ weight.T + attention.query.bias)
    for layer in attention.deeper:
        hidden = torch.relu(layer(hidden))
    mask = torch.arange(max(lengths))[None, :] < torch.tensor(lengths)[:, None]
    return (attention.score(hidden) * mask[:, :, None] * padded).sum(dim=1)


def _jagged(lengths, width, parts):
    torch.manual_seed(0)
    query = torch.randn(len(lengths), width, requires_grad=True)
    keys = [torch.randn(sum(lengths), width // parts, requires_grad=True) for _ in range(parts)]
    return query, keys, torch.tensor([0, *np.cumsum(lengths).tolist()])


@pytest.mark.parametrize(
    ("width", "hidden", "is_native"), [(4, (6,), False), (4, (6, 5, 3), False), (32, (16,), True), (48, (64, 32), True)]
)
def test_jagged_attention_equals_padded(width, hidden, is_native):
    lengths = [3, 0, 5, 1, *range(20)]
    query, keys, offsets = _jagged(lengths, width, 2)
    attention = TargetAttention(width, hidden)
    jagged, padded = attention(query, keys, offsets), _padded_din(attention, query, torch.cat(keys, dim=1), lengths)
    assert ("_Native" in type(jagged.grad_fn).__name__) == (
        is_native and native.library("target_attention") is not None
    )
    assert torch.allclose(jagged, padded, atol=1e-5)
    assert (jagged[1] == 0).all()
    upstream, gradients = (
        torch.randn(len(lengths), 3 * width)[:, width : 2 * width],
        [],
    )  # not contiguous, as that of a part of a row
    for result in (jagged, padded):
        for tensor in (query, *keys, *attention.parameters()):
            tensor.grad = None
        result.backward(upstream, retain_graph=True)
        gradients.append([tensor.grad for tensor in (query, *keys, *attention.parameters())])
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4)


def test_native_attention_is_the_same_to_the_bit_for_any_number_of_threads():
    query, keys, offsets = _jagged([7, 0, 50, 1] * 40, 32, 1)
    attention, results = TargetAttention(32, (32,)), []
    from_query = attention.query(query).detach()
    for threads in (1, 3):
        torch.set_num_threads(threads)
        for tensor in (query, *keys, *attention.parameters()):
            tensor.grad = None
        result = _Native.apply(
            offsets,
            query,
            from_query,
            attention.key.weight,
            attention.product.weight,
            None,
            None,
            attention.score.weight,
            attention.score.bias,
            *keys,
        )
        result.sum().backward()
        results.append([result, query.grad, keys[0].grad, attention.score.weight.grad, attention.key.weight.grad])
    torch.set_num_threads(1)
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_without_a_compiler_the_attention_runs_in_torch(monkeypatch):
    query, keys, offsets = _jagged([4, 2], 32, 2)
    attention = TargetAttention(32, (32,))
    expected = attention(query, keys, offsets)
    monkeypatch.setenv("TRIBUTARY_NATIVE", "0")
    native.library.cache_clear()
    result = attention(query, keys, offsets)
    native.library.cache_clear()
    assert "_Native" not in type(result.grad_fn).__name__
    assert torch.allclose(result, expected, atol=1e-5)


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
    return Batch(
        rows_BF=nothing[:, None],
        dense_BS=torch.zeros(count, 0),
        long=None,
        short=None,
        user_at_B=torch.from_numpy(user_at),
        item_at_B=torch.from_numpy(item_at),
        day_B=nothing + day,
        label_B=torch.zeros(count),
    )


@pytest.mark.parametrize("day", [0, 1])
def test_merged_table_equals_attention_on_the_fly(day):
    """For ids of all months, some, and none; on the second day a month is absent."""
    torch.manual_seed(0)
    months_of_day = [(3, 2, 1), (1, 0, -1)]
    source = AggregatedSnapshots({"user": _snapshots(1), "item": _snapshots(2)}, months_of_day, DIMS)
    merged = MergedTable(source.merge(months_of_day[day]))
    users, items = np.arange(45), np.arange(45)[::-1].copy()

    def look_up(transfer):
        return transfer(
            _batch(45, transfer.index["user"].positions(users), transfer.index["item"].positions(items), day)
        )

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
    body = Body(hidden=(8, 4), attention_hidden=(4,))
    return CtrModel(
        body,
        IdEmbeddings(dict(zip(names, rows, strict=True)), dict.fromkeys(names, 4), seed=seed),
        2,
        transfer or TransferSource(DIMS),
    )


def test_transfer_loads_everything_but_batch_norm_and_ad_only_tables():
    """Every other tensor equals its source; batch-norm is a fresh one's, whatever the source holds."""
    source = _model(
        (6, 5, 4, 1),
        seed=1,
        transfer=AggregatedSnapshots({"user": _snapshots(1), "item": _snapshots(2)}, [(0, 1, 2)], DIMS),
    )
    with torch.no_grad():
        for tensor in source.state_dict().values():
            tensor.add_(3)
    target, untouched = _model((9, 5, 4, 7), seed=2), _model((9, 5, 4, 7), seed=2)
    weights = source.state_dict()
    everything = {name: np.arange(rows) for name, rows in zip(target.embeddings.names, (6, 5, 4, 1), strict=True)}
    carried = everything | {"user_id": np.array([0, 2, 5])}  # the others have not been seen for long
    load_transferred(target, weights, fresh_tables=frozenset({"campaign_id"}), carried=carried)
    norms = batch_norm_names(target)
    assert len(norms) == 2 * 5
    for name, tensor in target.state_dict().items():
        if name in norms:
            fresh = 1 if name.endswith(("weight", "running_var")) else 0
            assert (tensor == fresh).all(), name
        elif name == "embeddings.campaign_id.weight" or name.endswith(".square"):
            assert torch.equal(tensor, untouched.state_dict()[name]), name
        elif name == "embeddings.user_id.weight":
            assert torch.equal(tensor[:3], weights[name][[0, 2, 5]]) and torch.equal(
                tensor[3:], untouched.state_dict()[name][3:]
            )
        else:
            assert torch.equal(tensor, weights[name]), name


def test_weights_of_another_body_are_refused():
    with pytest.raises(ValueError, match="weights differ"):
        load_weights(_model((6, 5, 4, 2), seed=1), nn.Linear(2, 2).state_dict())


@pytest.mark.parametrize("kernel", ["native", "fbgemm", "torch"])
def test_tables_learn_by_row_wise_adagrad_in_the_backward_pass(kernel):
    """Two features of one width and one of another, candidates and more rows, against the formula in float64."""
    rng = np.random.default_rng(1)
    dims, row_cnts = {"a": 8, "b": 4, "c": 8}, {"a": 5, "b": 6, "c": 3}
    embeddings = IdEmbeddings(row_cnts, dims, seed=3, kernel=kernel)
    for table in embeddings.tables.values():
        assert isinstance(table, Table | FbgemmTable)
        table.learning_rate = 0.1
    weights = {name: embeddings.weight(name).double().numpy().copy() for name in dims}
    squares = {name: np.zeros(row_cnts[name]) for name in dims}
    assert all((weight[0] == 0).all() and (weight[1:] != 0).all() for weight in weights.values())
    for _ in range(3):
        rows = np.stack([rng.integers(0, row_cnts[name], 7) for name in dims], axis=1)
        more = [(name, rng.integers(0, row_cnts[name], 11)) for name in ("c", "b")]
        own, found = embeddings(torch.from_numpy(rows), [(name, torch.from_numpy(values)) for name, values in more])
        gradients = {name: np.zeros_like(weight) for name, weight in weights.items()}
        loss = torch.zeros(())
        looked_up = [(name, own[:, embeddings.columns(name)], rows[:, number]) for number, name in enumerate(dims)]
        looked_up += [(name, values, at) for (name, at), values in zip(more, found, strict=True)]
        for name, values, at in looked_up:
            assert np.allclose(values.detach().numpy(), weights[name][at], atol=1e-6)
            upstream = rng.normal(size=values.shape)
            np.add.at(gradients[name], at, upstream)
            loss = loss + (values * torch.from_numpy(upstream).float()).sum()
        loss.backward()
        for name, gradient in gradients.items():
            touched = (gradient != 0).any(axis=1)
            squares[name] += (gradient**2).mean(axis=1)
            weights[name][touched] -= 0.1 * gradient[touched] / (np.sqrt(squares[name][touched]) + 1e-8)[:, None]
    for name in dims:
        assert np.allclose(embeddings.weight(name).numpy(), weights[name], atol=1e-5)
        assert np.allclose(embeddings.square(name).numpy(), squares[name], rtol=1e-4)


@pytest.mark.parametrize("kernel", ["native", "fbgemm", "torch"])
def test_tables_are_saved_by_feature_and_are_nobody_elses_parameters(kernel):
    embeddings = IdEmbeddings({"a": 3, "b": 4}, {"a": 4, "b": 4}, seed=1, kernel=kernel)
    assert list(embeddings.parameters()) == []
    assert {name: tuple(value.shape) for name, value in embeddings.state_dict().items()} == {
        "a.weight": (3, 4),
        "a.square": (3,),
        "b.weight": (4, 4),
        "b.square": (4,),
    }
    other = IdEmbeddings({"b": 4, "a": 9}, {"a": 4, "b": 4}, seed=2)
    alone = IdEmbeddings({"a": 3}, {"a": 4}, seed=1)
    assert torch.equal(alone.weight("a"), embeddings.weight("a")), "fresh rows depend only on seed and name"
    assert not torch.equal(other.weight("a")[:3], embeddings.weight("a"))


@pytest.mark.parametrize("row", [[-1, 1], [3, 1], [1, 300]])
def test_a_row_beyond_the_tables_is_refused(row):
    embeddings = IdEmbeddings({"a": 3, "b": 300}, dict.fromkeys("ab", 16), seed=1, kernel="native")
    mlp = FieldMlp(embeddings, (16,))
    with pytest.raises(IndexError, match="expected rows"):
        mlp(embeddings, torch.tensor([row, [0, 0]]))


def test_scoring_changes_no_table():
    embeddings = IdEmbeddings({"a": 3}, {"a": 4}, seed=1)
    before = embeddings.weight("a").clone()
    with torch.no_grad():
        embeddings(torch.tensor([[1], [2]]))
    assert torch.equal(embeddings.weight("a"), before)


@pytest.mark.parametrize(("row_cnts", "hidden"), [((3, 300, 7, 260), (24, 5)), ((300,), (16,)), ((4, 5), (40, 33, 20))])
def test_the_native_mlp_equals_torch(row_cnts, hidden, monkeypatch):
    """Fields of few rows, of many, and both; widths that fill no lane; scores, gradients of the layers, and tables after the step."""
    rng, results = np.random.default_rng(2), []
    names = "abcd"[: len(row_cnts)]
    rows = torch.from_numpy(np.stack([rng.integers(0, count, 131) for count in row_cnts], axis=1))
    upstream = torch.from_numpy(rng.normal(size=131)).float()
    for is_native in (True, False):
        if not is_native:
            monkeypatch.setattr("training.modules.field_mlp._library", lambda: None)
        torch.manual_seed(0)
        embeddings = IdEmbeddings(
            dict(zip(names, row_cnts, strict=True)), dict.fromkeys(names, 16), seed=3, kernel="torch"
        )
        table = embeddings.tables["16"]
        assert isinstance(table, Table)
        table.learning_rate = 0.1
        mlp = FieldMlp(embeddings, hidden)
        logits = mlp(embeddings, rows)
        assert ("_Native" in type(logits.grad_fn).__name__) == (is_native and native.library("field_mlp") is not None)
        logits.backward(upstream)
        results.append([logits, *(parameter.grad for parameter in mlp.parameters()), *embeddings.state_dict().values()])
    for ours, theirs in zip(*results, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_cross_equals_its_formula():
    torch.manual_seed(0)
    cross, x = Cross(4, 2), torch.randn(3, 4)
    one = x * cross.layers[0](x) + x
    assert torch.allclose(cross(x), x * cross.layers[1](one) + one)


def test_adam_equals_its_formula():
    torch.manual_seed(0)
    parameter = nn.Parameter(torch.randn(4, 3))
    weight = parameter.detach().double().numpy().copy()
    mean, square = np.zeros_like(weight), np.zeros_like(weight)
    optimizer = Adam([parameter], 0.1)
    for step in range(1, 5):
        gradient = 2 * weight
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        weight -= 0.1 * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
        optimizer.zero_grad()
        (parameter**2).sum().backward()
        optimizer.step()
    assert np.allclose(parameter.detach().numpy(), weight, atol=1e-5)


def test_batches_are_made_ahead_in_order_and_errors_come_at_their_place():
    made = []

    def make(key):
        made.append(key)
        if key == 3:
            raise ValueError(key)
        return key * 10

    batches = prefetched(make, range(6))
    assert [next(batches), next(batches), next(batches)] == [0, 10, 20]
    with pytest.raises(ValueError, match="3"):
        next(batches)
    assert set(made) <= set(range(3 + DEPTH + 1))


def test_encoding_of_an_unknown_entity_is_position_zero():
    index = EntityIndex(np.array([4, 9]))
    assert index.positions(np.array([9, 1, 4, 10])).tolist() == [2, 0, 1, 0]
    assert Encoding(mapping=IdMapping({"user_id": FieldMapping.empty()}), transfer={}).rate_prior == (1.0, 10.0)
