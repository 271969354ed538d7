"""FLOPs by request, from the modules: equal to what torch counts while it runs them."""

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.folding import make_model, make_request
from training import native
from training.flops import flops_of, flops_of_bridge, flops_of_full_attention
from training.recipes import Body, FgBertRecipe


@pytest.fixture(autouse=True)
def in_torch(monkeypatch):
    """Native code is not seen by torch's counter; its twins are."""
    monkeypatch.setattr(native, "library", lambda name: None)


def _counted(model, request):
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(request)
    return counter.get_total_flops()


@pytest.mark.parametrize("encoder", [None, FgBertRecipe(), replace(FgBertRecipe(), width=32, inner=64, layers=3)])
@pytest.mark.parametrize(("long", "short"), [(7, 3), (50, 20)])
@pytest.mark.parametrize("body", [Body(), Body(attention_hidden=(16, 8), cross_layers=2, hidden=(64, 32))])
def test_they_are_what_torch_counts(encoder, long, short, body):
    model = make_model(body, encoder).eval()
    found = flops_of(model, long=long, short=short)
    for candidates in (1, 5):
        request = make_request(candidates, long, short)
        assert _counted(model, request) == found.user + candidates * found.candidate
    assert (found.user > 0) == (encoder is not None)
    assert found.by_sample(100) == found.user / 100 + found.candidate


def test_full_attention_counts_the_candidate_as_one_more_behaviour():
    model = make_model(Body(), FgBertRecipe()).eval()
    sequences = make_request(1, 21, 3).sequence.sequences
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.bridge.network.encode(sequences)
    assert counter.get_total_flops() == flops_of_full_attention(model.bridge, 20)
    assert flops_of_full_attention(model.bridge, 50) > 10 * flops_of_bridge(model.bridge, 50).by_sample(100)
