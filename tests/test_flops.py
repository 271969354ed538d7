"""FLOPs by request: torch's count is that of the products of matrices, one by one."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from benchmarks.folding import make_model, make_request
from training import native
from training.flops import flops_of, flops_of_bridge, flops_of_full_attention
from training.recipes import Body, FgBertRecipe

SMALL = replace(FgBertRecipe(), width=32, inner=64, layers=3)


def _of_linear_layers(model, request):
    """FLOPs of all linear layers while a request is scored, by what each of them is given."""
    total, hooks = 0, []

    def add(layer, _, output):
        nonlocal total
        total += 2 * output.numel() * layer.in_features

    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            hooks.append(layer.register_forward_hook(add))
    with torch.no_grad(), native.in_torch():
        model(request)
    for hook in hooks:
        hook.remove()
    return total


def _of_attention(recipe, candidates, length, queries=8):
    """Of the two products of each attention."""
    pairs = recipe.layers * length * length + queries * queries + queries * length + candidates * recipe.layers * length
    return 4 * pairs * recipe.width


@pytest.mark.parametrize("encoder", [None, FgBertRecipe(), SMALL])
@pytest.mark.parametrize(("long", "short"), [(7, 3), (50, 20)])
@pytest.mark.parametrize("body", [Body(), Body(attention_hidden=(16, 8), cross_layers=2, hidden=(64, 32))])
def test_they_are_the_products_of_matrices(encoder, long, short, body):
    model = make_model(body, encoder).eval()
    found = flops_of(model, long=long, short=short)
    for candidates in (1, 5):
        expected = _of_linear_layers(model, make_request(candidates, long, short))
        expected += _of_attention(encoder, candidates, long) if encoder else 0
        assert expected == found.user + candidates * found.candidate
    assert (found.user > 0) == (encoder is not None)
    assert found.by_sample(100) == found.user / 100 + found.candidate


def test_full_attention_counts_the_candidate_as_one_more_behaviour():
    model = make_model(Body(), FgBertRecipe()).eval()
    sequence = make_request(1, 21, 3).sequence
    assert model.bridge is not None and sequence is not None
    recipe, sequences = model.bridge.network.recipe, sequence.sequences
    expected = _of_linear_layers(model.bridge.network, sequences) + 4 * recipe.layers * 21 * 21 * recipe.width
    assert flops_of_full_attention(model.bridge, 20) == expected
    assert flops_of_full_attention(model.bridge, 49) > 10 * flops_of_bridge(model.bridge, 50).by_sample(100)
