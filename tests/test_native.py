"""Native operations on other processors than this one, and which of an operation and its twin in torch serves."""

import json
import logging
import threading
import time
from types import SimpleNamespace

import pytest
import torch
from foreign import TARGETS

from benchmarks.native_arm import PROBLEMS
from contracts.errors import BadInput
from training import native
from training.native import choice


@pytest.mark.slow
@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("target", TARGETS)
def test_an_operation_gives_torchs_results_on_every_processor(target, name, tmp_path, monkeypatch):
    """The vectors of the processor that it is compiled for decide on lanes, tiles, and what is left over behind them."""
    here = native.library(name)
    vectors_of = TARGETS[target].use(monkeypatch, tmp_path)
    assert vectors_of(name) in TARGETS[target].vectors
    results = PROBLEMS[name]().native()
    if name == "dropout":  # whose twin drops other elements: those of this processor
        torch.manual_seed(3)
        results = PROBLEMS[name]().native()
        monkeypatch.undo()
        if here is None:
            pytest.skip("no C++ compiler")
        torch.manual_seed(3)
        expected = PROBLEMS[name]().native()
    else:
        expected = PROBLEMS[name]().torch()
    for ours, theirs in zip(results, expected, strict=True):
        assert float((ours - theirs).detach().abs().max()) <= 1e-5 * float(theirs.detach().abs().max())


class Clock:
    """Stands for the processor's time, which only the two ways take."""

    def __init__(self):
        self.now, self.problems = 0.0, 0

    def thread_time(self):
        return self.now

    def problem(self, native_ms, torch_ms):
        def make():
            self.problems += 1

            def way(ms):
                self.now += ms / 1e3

            return choice.Ways(native=lambda: way(native_ms), torch=lambda: way(torch_ms))

        return make


@pytest.fixture
def tried(tmp_path, monkeypatch):
    """A machine on which nothing has been tried yet: a clock, and a library that is no more than its file's name."""
    clock, library = Clock(), SimpleNamespace(_name=str(tmp_path / "dropout-0123.so"), vectors=lambda: b"AVX2")
    monkeypatch.setenv("TRIBUTARY_NATIVE", "trial")
    monkeypatch.setattr(native, "library", lambda name: library)
    monkeypatch.setattr(choice, "time", clock)
    choice._followed.cache_clear()
    yield clock, library
    choice._followed.cache_clear()


@pytest.mark.parametrize(("native_ms", "torch_ms", "served"), [(3.0, 9.0, "native"), (9.0, 3.0, "torch")])
def test_the_faster_way_serves_and_is_tried_once_on_a_machine(native_ms, torch_ms, served, tried, caplog):
    clock, library = tried
    caplog.set_level(logging.INFO, "training.native.choice")
    for _ in range(2):  # the second time as another process, which has the file only
        choice._followed.cache_clear()
        result = choice.serving("dropout", clock.problem(native_ms, torch_ms))
        assert result is (library if served == "native" else None)
    assert clock.problems == 1
    said = f"dropout: native {native_ms:.2f} ms (AVX2), torch {torch_ms:.2f} ms: {served} serves"
    assert [record.message for record in caplog.records] == [said, said]


def test_a_choice_that_cannot_be_read_is_made_again(tried, tmp_path):
    clock, _ = tried
    choice.serving("dropout", clock.problem(3.0, 9.0))
    (kept,) = tmp_path.glob("*.json")
    assert json.loads(kept.read_text())["serves"] == "native"
    kept.write_text('{"native_ms": 3.')
    choice._followed.cache_clear()
    assert choice.serving("dropout", clock.problem(9.0, 3.0)) is None
    assert json.loads(kept.read_text())["serves"] == "torch"


def test_another_torch_is_tried_anew(tried, monkeypatch):
    clock, _ = tried
    choice.serving("dropout", clock.problem(3.0, 9.0))
    monkeypatch.setattr(torch, "__version__", "99.0")
    choice._followed.cache_clear()
    assert choice.serving("dropout", clock.problem(9.0, 3.0)) is None


def test_of_two_processes_one_tries_and_both_follow_it(tried):
    clock, _ = tried
    results = []

    def slow(native_ms, torch_ms):
        def make():
            time.sleep(0.3)  # the other one comes meanwhile
            return clock.problem(native_ms, torch_ms)()

        return make

    problems = [slow(3.0, 9.0), slow(9.0, 3.0)]
    threads = [
        threading.Thread(target=lambda made=made: results.append(choice.serving("dropout", made))) for made in problems
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clock.problems == 1 and results[0] is results[1]


def test_a_folder_that_cannot_be_written_to_keeps_no_choice(tried, tmp_path, caplog):
    clock, library = tried
    library._name = str(tmp_path / "missing" / "dropout-0123.so")
    assert choice.serving("dropout", clock.problem(9.0, 3.0)) is None
    assert "dropout: the choice between native code and torch cannot be kept" in caplog.text


@pytest.mark.parametrize(("value", "served"), [("1", True), ("0", False)])
def test_the_environment_forces_either_way_without_a_trial(value, served, tried, monkeypatch):
    clock, library = tried
    monkeypatch.setenv("TRIBUTARY_NATIVE", value)
    monkeypatch.setattr(native, "library", lambda name: None if value == "0" else library)
    assert (choice.serving("dropout", clock.problem(9.0, 3.0)) is library) == served
    assert clock.problems == 0


def test_another_value_in_the_environment_is_refused(monkeypatch):
    monkeypatch.setenv("TRIBUTARY_NATIVE", "yes")
    native.library.cache_clear()
    with pytest.raises(BadInput, match="environment: TRIBUTARY_NATIVE: expected one of trial, 1, 0, found yes"):
        native.library("dropout")
    native.library.cache_clear()


@pytest.mark.skipif(native.library("dropout") is None, reason="no C++ compiler")
@pytest.mark.parametrize("name", PROBLEMS)
def test_a_trial_leaves_training_as_it_was(name):
    """It may come in the middle of a step, or where no gradients are kept."""
    torch.manual_seed(7)
    before = torch.get_rng_state()
    torch.set_num_threads(2)
    with torch.inference_mode():
        result = choice.compare(PROBLEMS[name])
        assert torch.is_inference_mode_enabled()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    assert threads == 2 and torch.equal(torch.get_rng_state(), before)
    assert result.native_ms > 0 and result.torch_ms > 0
