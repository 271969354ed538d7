"""Adam, written out: torch's own class imports the compiler when it is made, which takes longer than a short task's training.

Embedding tables have their own updates, in their backward pass (`training/modules/embedding.py`).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from training import processes

_BETA_1, _BETA_2 = 0.9, 0.999
_EPSILON = 1e-8


class Adam:
    """Adam (arXiv 1412.6980).

    Args:
        parameters: the parameters to train.
        learning_rate: alpha of the paper; it may be changed before each step.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], learning_rate: float) -> None:
        self._parameters = list(parameters)
        self.learning_rate = learning_rate
        self._means = [torch.zeros_like(p) for p in self._parameters]
        self._squares = [torch.zeros_like(p) for p in self._parameters]
        self._steps = torch.zeros((), dtype=torch.int64)

    def state(self) -> dict[str, Tensor]:
        """Returns the optimizer's tensors by name; changing them changes its state."""
        moments = {
            f"{name}.{number}": value
            for name, values in (("mean", self._means), ("square", self._squares))
            for number, value in enumerate(values)
        }
        return moments | {"steps": self._steps}

    def zero_grad(self) -> None:
        """Drops all gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Updates every parameter that has a gradient, by the mean of its gradients over the processes."""
        processes.average_gradients(self._parameters)
        self._steps += 1
        steps = int(self._steps)
        root_of_bias, rate = (1 - _BETA_2**steps) ** 0.5, self.learning_rate / (1 - _BETA_1**steps)
        for parameter, mean, square in zip(self._parameters, self._means, self._squares, strict=True):
            gradient = parameter.grad
            if gradient is None:
                continue
            mean.lerp_(gradient, 1 - _BETA_1)
            square.mul_(_BETA_2).addcmul_(gradient, gradient, value=1 - _BETA_2)
            parameter.addcdiv_(mean, square.sqrt().div_(root_of_bias).add_(_EPSILON), value=-rate)
