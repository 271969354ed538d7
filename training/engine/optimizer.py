"""Adam, written out: torch's own imports its compiler when it is made, which costs a short task more than its training does.

Dense gradients get Adam (arXiv 1412.6980) as it is; of a table with sparse gradients only the rows seen in the step are read
and written (lazy Adam): their moments stand still in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

_BETA_1, _BETA_2 = 0.9, 0.999
_EPSILON = 1e-8


@dataclass(frozen=True)
class _State:
    parameter: nn.Parameter
    learning_rate: float
    mean: Tensor
    square: Tensor


class Adam:
    """Adam over groups of parameters.

    Args:
        groups: parameters and their learning rate.
    """

    def __init__(self, groups: Sequence[tuple[Sequence[nn.Parameter], float]]) -> None:
        self._states = [_State(p, rate, torch.zeros_like(p), torch.zeros_like(p)) for parameters, rate in groups for p in parameters]
        self._steps = 0

    def zero_grad(self) -> None:
        for state in self._states:
            state.parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        self._steps += 1
        for state in self._states:
            gradient = state.parameter.grad
            if gradient is None:
                continue
            if gradient.is_sparse:
                self._step_rows(state, gradient.coalesce())
            else:
                self._update(state.parameter, state.mean, state.square, gradient, state.learning_rate)

    def _step_rows(self, state: _State, gradient: Tensor) -> None:
        rows = gradient.indices()[0]
        parameter, mean, square = state.parameter[rows], state.mean[rows], state.square[rows]
        self._update(parameter, mean, square, gradient.values(), state.learning_rate)
        for target, values in ((state.parameter, parameter), (state.mean, mean), (state.square, square)):
            target.index_copy_(0, rows, values)

    def _update(self, parameter: Tensor, mean: Tensor, square: Tensor, gradient: Tensor, learning_rate: float) -> None:
        mean.lerp_(gradient, 1 - _BETA_1)
        square.mul_(_BETA_2).addcmul_(gradient, gradient, value=1 - _BETA_2)
        root = (square / (1 - _BETA_2**self._steps)).sqrt_().add_(_EPSILON)
        parameter.addcdiv_(mean, root, value=-learning_rate / (1 - _BETA_1**self._steps))
