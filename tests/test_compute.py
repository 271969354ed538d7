"""bfloat16 and torch.compile, which are for GPUs, shown on a CPU with the native code turned off. Nothing here needs a GPU."""

from datetime import date

import pytest
import torch
from lake_fixture import World, make_lake, publish_staged

from contracts.errors import BadInput
from training import native
from training.cli import main
from training.engine.checkpoint import read_weights
from training.engine.loop import Compute
from training.recipes import quick
from training.tasks.cpm import run_cpm
from training.tasks.session import Session
from training.tasks.tpm import run_tpm

MONTHS, WEEK = (date(2026, 1, 1), date(2026, 1, 4)), date(2026, 1, 7)


def _trained(home, compute):
    make_lake(home, World())

    def session():  # each reads the releases once
        return Session.open(home, quick(), torch.device("cpu"), compute=compute)

    for month in MONTHS:
        run_tpm(session(), month)
        publish_staged(home, "tpm", month)
    (run,) = run_cpm(session(), WEEK)
    return run.release.metrics["train_loss"], read_weights(run.folder / "model.safetensors")


def test_bf16_gives_nearly_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(native, "library", lambda name: None)
    loss, weights = _trained(tmp_path / "float32", Compute())
    other_loss, other_weights = _trained(tmp_path / "bf16", Compute(bf16=True))
    assert other_loss == pytest.approx(loss, rel=0.02)
    assert any(not torch.equal(weights[name], other_weights[name]) for name in weights), (
        "it was computed in another way"
    )
    assert {name: value.dtype for name, value in weights.items()} == {
        name: value.dtype for name, value in other_weights.items()
    }


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"
)  # the compiler does
def test_what_is_compiled_gives_nearly_the_same(tmp_path, monkeypatch):
    """Traced and cut into graphs as on a GPU; the graphs are then run as they are, since making code of them takes minutes here."""
    monkeypatch.setattr(native, "library", lambda name: None)
    loss, _ = _trained(tmp_path / "as-written", Compute())
    graphs = []

    def keep(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compiled = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module, **options: compiled(module, backend=keep, **options))
    other_loss, _ = _trained(tmp_path / "compiled", Compute(compiled=True))
    assert graphs and other_loss == pytest.approx(loss, rel=1e-3)


@pytest.mark.parametrize("option", ["--bf16", "--compile"])
def test_they_are_refused_on_a_cpu(tmp_path, option):
    make_lake(tmp_path, World(num_days=3))
    with pytest.raises(BadInput, match=rf"{option}: device: expected cuda, found cpu"):
        main(["tpm", "--period", "2026-01-01", "--home", str(tmp_path), "--device", "cpu", option])
