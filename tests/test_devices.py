"""Which GPU a training takes: locks on made-up devices, without any."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from lake.locks import Locked, is_held
from training.engine.devices import held_device

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


def never(seconds: float) -> None:
    raise AssertionError("it waited")


def test_each_training_gets_a_device_of_its_own(tmp_path: Path) -> None:
    with ExitStack() as stack:
        taken = [stack.enter_context(held_device(CUDA, tmp_path, names=["a", "b"], sleep=never)) for _ in range(2)]
        assert [device.index for device in taken] == [0, 1]
        with (
            pytest.raises(Locked, match=r"expected a free GPU within 0 s, found all 2 taken: a by .*; b by "),
            held_device(CUDA, tmp_path, names=["a", "b"], wait_seconds=0, sleep=never),
        ):
            raise AssertionError
    assert not is_held(tmp_path / "cuda" / "a.lock")


def test_it_waits_for_one_that_becomes_free(tmp_path: Path) -> None:
    with ExitStack() as first:
        first.enter_context(held_device(CUDA, tmp_path, names=["a"]))
        free: Callable[[float], None] = lambda seconds: first.close()  # noqa: E731
        with held_device(CUDA, tmp_path, names=["a"], sleep=free) as device:
            assert device == torch.device("cuda", 0)


def test_nothing_is_locked_on_a_cpu_or_under_torchrun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with held_device(CPU, tmp_path, names=["a"]) as device:
        assert device == CPU and not (tmp_path / "cuda").exists()
    for name, value in {
        "TORCHELASTIC_RUN_ID": "x",
        "RANK": "0",
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "2",
    }.items():
        monkeypatch.setenv(name, value)
    with held_device(CUDA, tmp_path, names=["a"]) as device:
        assert device == CUDA and not (tmp_path / "cuda").exists()
