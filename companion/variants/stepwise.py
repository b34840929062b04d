"""Batch normalization for recurrent layers: running statistics for every time step.

Source: Cooijmans et al. (2017), arXiv:1603.09025.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import init

from companion.functional import batch_norm
from companion.modules import BatchNorm1d

__all__ = ["RecurrentBatchNorm"]


class RecurrentBatchNorm(nn.Module):
    """Batch normalization in a recurrence: running statistics for every step, γ and β for all.

    ``layer(x, step)`` normalizes ``(N, C)`` by the batch's statistics in training, whichever the
    step, and by running ones in evaluation. ``layer.steps`` is a list of
    :class:`companion.BatchNorm1d` without weight and bias, which this package's tools find:
    :func:`companion.statistics.update_precise` fills them, and :func:`freeze` fixes them, after
    which only `weight` and `bias` learn.

    Parameters
    ----------
    num_features
        C, the number of features
    max_length
        how many steps, from step 0 on, have running statistics of their own; later ones use and
        move the last's. 1: one set for all steps
    gamma
        what the weight γ begins with
    bias
        whether there is a bias β
    eps
        added to the variance, inside the root
    momentum
        weight of a batch in the running statistics; None averages all batches alike
    device, dtype
        of parameters and statistics; the latter are float32 for half precision

    Raises
    ------
    ValueError
        `max_length` is under 1

    Notes
    -----
    In training a batch of one row, as padding leaves it where one sequence is the longest, has no
    variance: it is normalized by the running statistics, which do not move. Those of a step that no
    larger batch has reached stay 0 and 1: :func:`companion.diagnose` names them, `never-updated`.

    References
    ----------
    Cooijmans et al. (2017), arXiv:1603.09025, section 3.

    Examples
    --------
    >>> layer = RecurrentBatchNorm(2, max_length=10, gamma=1.0)
    >>> layer(torch.tensor([[1.0, 5.0], [3.0, 5.0]]), step=0).round().tolist()
    [[-1.0, 0.0], [1.0, 0.0]]
    >>> len(layer.steps), layer.steps[0].running_mean.tolist(), layer.steps[1].running_mean.tolist()
    (10, [0.20000000298023224, 0.5], [0.0, 0.0])
    """

    def __init__(
        self,
        num_features: int,
        max_length: int,
        *,
        gamma: float = 0.1,
        bias: bool = True,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if max_length < 1:
            raise ValueError(f"max_length: expected at least 1 step, got {max_length}")
        self.gamma = gamma
        self.weight = nn.Parameter(torch.empty(num_features, device=device, dtype=dtype))
        if bias:
            self.bias = nn.Parameter(torch.empty(num_features, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.steps = nn.ModuleList(
            BatchNorm1d(num_features, eps, momentum, affine=False, device=device, dtype=dtype)
            for _ in range(max_length)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set γ to `gamma`, β to 0, and the running statistics to their initial values."""
        init.constant_(self.weight, self.gamma)
        if self.bias is not None:
            init.zeros_(self.bias)
        layer: Any
        for layer in self.steps:
            layer.reset_parameters()

    def forward(self, input: Tensor, step: int) -> Tensor:
        """Normalize ``(N, C)``, the values of a step counted from 0; errors as BatchNorm1d's."""
        layer: Any = self.steps[min(step, len(self.steps) - 1)]
        if layer.training and isinstance(layer, nn.BatchNorm1d) and len(input) == 1:
            x_hat = batch_norm(input, layer.running_mean, layer.running_var, eps=layer.eps)
        else:
            x_hat = layer(input)
        y = x_hat * self.weight
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        """Features, and how γ begins."""
        return f"{len(self.weight)}, gamma={self.gamma}"
