"""An ad model as a program of one request: the scores of training's form, folded, and made of torch's operations."""

import re
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.folding import make_model, make_request
from training import native
from training.data.histories import HISTORY_FEATURES
from training.data.sequences import FIELDS_OF_SIDE
from training.flops import flops_of
from training.models.srp4ctr import Bridge
from training.recipes import Body, FgBertRecipe
from training.serving.program import RequestModel, exported
from training.serving.scorer import program_of

SIZES = [
    (3, 7, 2),
    (1, 1, 1),
    (5, 1, 0),
    (4, 0, 0),
    (30, 50, 20),
]  # candidates, behaviours of the long and the short history


def _model(encoder):
    """As of a trained release: nothing is zero any more that begins at zero."""
    model = make_model(Body(), encoder).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
        for layer in model.bridge_in or ():
            layer.get_parameter("weight").normal_()
    return model


def _inputs(batch, count):
    """A batch of `make_request`, all of whose candidates have the same behaviours, as one request."""
    once = {
        which: torch.stack([history.rows[name][: len(history.rows[name]) // count] for name in HISTORY_FEATURES])
        for which, history in (("long", batch.long), ("short", batch.short))
    }
    nothing = torch.zeros(2, count, dtype=torch.int64)
    sequence = batch.sequence
    return {
        "rows": batch.rows_BF,
        "dense": batch.dense_BS,
        **once,
        "transferred": nothing,
        "sequence": torch.stack(list(sequence.sequences.rows.values())),
        "sequence_candidates": torch.stack([sequence.candidate[name] for name in FIELDS_OF_SIDE["item"]]),
    }


@pytest.mark.parametrize("is_native", [True, False])
@pytest.mark.parametrize("encoder", [None, FgBertRecipe(), replace(FgBertRecipe(), objective="sasrec")])
def test_a_request_is_scored_as_in_training(encoder, is_native, monkeypatch):
    if not is_native:
        monkeypatch.setattr(native, "library", lambda name: None)
    model = _model(encoder)
    with torch.no_grad():
        expected = [torch.sigmoid(model(make_request(*size))) for size in SIZES]
    request_model = RequestModel(model)
    for size, scores in zip(SIZES, expected, strict=True):
        with torch.no_grad():
            torch.testing.assert_close(request_model(_inputs(make_request(*size), size[0])), scores, rtol=0, atol=1e-5)


def test_the_mean_of_a_sequence_takes_the_place_of_queries():
    torch.manual_seed(4)
    encoded = make_model(Body(), FgBertRecipe()).bridge
    assert encoded is not None
    bridge = Bridge(encoded.network, learned=True, queries=0).eval()
    for length in (0, 1, 9):
        given = make_request(3, length, 0).sequence
        assert given is not None
        whole = replace(given, of_B=None, sequences=replace(given.sequences, offsets=None))
        torch.testing.assert_close(bridge(whole), bridge(given), rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def made():
    """FLOPs of a model in training's form, the model as one of requests, and its program."""
    model = _model(FgBertRecipe())
    whole, request_model = flops_of(model, long=50, short=20), RequestModel(model)
    return whole, request_model, exported(request_model)


def test_the_program_is_the_module_for_any_request_and_computes_what_the_user_has_once(made, tmp_path):
    whole, request_model, program = made
    (tmp_path / "program.py").write_text(program.source)
    run = partial(program_of(tmp_path / "program.py"), *program.weights.values())
    for size in SIZES:
        inputs = _inputs(make_request(*size), size[0])
        assert list(inputs) == list(request_model.inputs(*size)), "in the order that the scorer gets"
        with torch.no_grad():
            torch.testing.assert_close(run(*inputs.values())[0], request_model(inputs), rtol=0, atol=1e-6)
    called = {name for name in re.findall(r"[\w.]+(?=\()", program.source.partition("return")[0]) if "." in name}
    assert len(called) > 20 and all(name.startswith("torch.ops.aten.") for name in called), called
    inputs = _inputs(make_request(30, 50, 20), 30)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run(*inputs.values())
    assert 30 * flops_of(make_model(Body(), None).eval(), long=50, short=20).candidate / 2 < counter.get_total_flops()
    assert counter.get_total_flops() < whole.user + 30 * whole.candidate, "the body's keys are shared too"


def test_a_program_keeps_what_it_reads_only(made):
    _, request_model, program = made
    assert torch.equal(
        program.weights["p_encoder_embeddings_item_id_weight"], request_model.encoder.embeddings["item_id"].weight
    )
    others = ("encoder_heads", "encoder_biases", "encoder_masked", "querying_project", "num_batches_tracked")
    assert not [name for name in program.weights if any(other in name for other in others)]
    found = re.search(r"def forward\(([^)]*)\)", program.source)
    assert found is not None
    arguments = found[1].split(", ")
    assert arguments == [*program.weights, *(f"inputs_{name}" for name in request_model.inputs(1, 1, 1))]
