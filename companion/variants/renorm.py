"""Batch renormalization: training that sees the activations inference will see.

Batch normalization is corrected by a scale r and a shift d per channel, which turn the statistics
of the batch into the running ones. Both are constants to the gradient, and limited, so that at
first they do nothing and are let loose as the running statistics become good.

Source: Ioffe (2017), arXiv:1702.03275, Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from companion._torch import StandIn, called_by_tracer
from companion.checks import check_arguments
from companion.functional import batch_norm
from companion.kernels import eager
from companion.kernels.interface import Running
from companion.modules import BatchNorm1d, BatchNorm2d, BatchNorm3d, _CompanionBatchNorm
from companion.running import moved_average, recomputing

__all__ = ["BatchRenorm1d", "BatchRenorm2d", "BatchRenorm3d", "LinearSchedule"]

Schedule = Callable[[Tensor], Tensor | float]


@dataclass(frozen=True)
class LinearSchedule:
    """A number that is `start` until a step, `stop` from another on, and linear in between.

    Parameters
    ----------
    start, stop
        the numbers
    first_step, last_step
        the steps, the first one below the last one

    Raises
    ------
    ValueError
        `last_step` is not above `first_step`

    References
    ----------
    Ioffe (2017), arXiv:1702.03275, which relaxes r_max and d_max so.

    Examples
    --------
    >>> r_max = LinearSchedule(1.0, 3.0, first_step=5_000, last_step=40_000)
    >>> [r_max(torch.tensor(step)).item() for step in (0, 5_000, 22_500, 90_000)]
    [1.0, 1.0, 2.0, 3.0]
    """

    start: float
    stop: float
    first_step: int
    last_step: int

    def __post_init__(self) -> None:
        if not self.first_step < self.last_step:
            raise ValueError(
                f"last_step: expected a step above first_step, {self.first_step}, "
                f"got {self.last_step}"
            )

    def __call__(self, step: Tensor) -> Tensor:
        """Return the number at `step`, a tensor ``()``, as a float64 tensor ``()``."""
        share = (step.to(torch.float64) - self.first_step) / (self.last_step - self.first_step)
        return self.start + (self.stop - self.start) * share.clamp(0.0, 1.0)


class _BatchRenorm(_CompanionBatchNorm):
    """What the three layers add to batch normalization: the correction by r and d."""

    r_max: float | Schedule
    d_max: float | Schedule

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        *,
        r_max: float | Schedule = LinearSchedule(1.0, 3.0, 5_000, 40_000),
        d_max: float | Schedule = LinearSchedule(0.0, 5.0, 5_000, 25_000),
        bias: bool = True,
        skip_nonfinite: bool = False,
        backend: str = "auto",
    ) -> None:
        if not track_running_stats:
            raise ValueError("track_running_stats: expected True, which r and d need, got False")
        _check_limit("r_max", r_max, 1.0)
        _check_limit("d_max", d_max, 0.0)
        super().__init__(
            *(num_features, eps, momentum, affine, track_running_stats, device, dtype),
            bias=bias,
            skip_nonfinite=skip_nonfinite,
            backend=backend,
        )
        self.r_max, self.d_max = r_max, d_max

    def extra_repr(self) -> str:
        """The text of the layer without correction, `r_max` and `d_max`."""
        return f"{super().extra_repr()}, r_max={self.r_max}, d_max={self.d_max}"

    def forward(self, input: Tensor) -> Tensor:
        """Normalize `input`; in training correct by r and d, and track the statistics.

        Parameters
        ----------
        input
            floating-point tensor with `num_features` channels in axis 1

        Returns
        -------
        Tensor
            of the shape, type and memory format of `input`

        Raises
        ------
        ValueError, RuntimeError, NotImplementedError, TypeError
            as batch normalization; nothing is changed then

        References
        ----------
        Ioffe (2017), arXiv:1702.03275, Algorithm 1.
        """
        if isinstance(input, StandIn):
            return called_by_tracer(self, input)
        if not self.training or not isinstance(input, Tensor) or self.running_mean is None:
            return super().forward(input)
        self._check_input(input)
        check_arguments(input, self._running(), self.weight, self.bias, True, self.eps)
        if eager.values_per_channel(input) == 0:
            return super().forward(input)
        mean, var = eager.batch_stats(input.detach())
        std = (var + self.eps).sqrt()
        r, d = self._correction(mean, std)
        # γ(x̂·r + d) + β is batch normalization with other parameters, and so is its gradient.
        weight = torch.ones_like(r) if self.weight is None else self.weight.to(torch.float64)
        shift = weight * d if self.bias is None else weight * d + self.bias.to(torch.float64)
        dtype = eager.compute_dtype(input.dtype) if self.weight is None else self.weight.dtype
        y = batch_norm(
            *(input, None, None, (weight * r).to(dtype), shift.to(dtype), True, 0.0, self.eps),
            backend=self.backend,
        )
        if self.track_running_stats and not recomputing():
            self._track(mean, std)
        return y

    def _running(self) -> Running:
        count, momentum = self.num_batches_tracked, self.momentum
        if momentum is None and count is None:
            # Nothing to average over: as in PyTorch, statistics that are there do not move.
            momentum = 0.0
        statistics = (self.running_mean, self.running_var, count)
        return Running(*statistics, momentum, self.skip_nonfinite)

    def _tracked(self) -> tuple[Tensor, Tensor]:
        """μ and σ = √(running_var + ε), float64; the paper averages this one."""
        mean, var = self.running_mean, self.running_var
        # The forward pass saw to it; these tell the type checker.
        assert mean is not None
        assert var is not None
        wide_mean, wide_var = mean.to(torch.float64), var.to(torch.float64)
        return wide_mean, (wide_var + self.eps).sqrt()

    def _step(self, like: Tensor) -> Tensor:
        """What the limits are functions of: the count, as a float64 tensor."""
        if self.num_batches_tracked is not None:
            return self.num_batches_tracked.to(torch.float64)
        if callable(self.r_max) or callable(self.d_max):
            raise TypeError(
                "num_batches_tracked: expected a tensor where r_max or d_max is a function of the "
                "step, got None"
            )
        return like.new_zeros(())

    def _correction(self, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        """r = σ_B/σ and d = (μ_B - μ)/σ, each within its limits; float64, ``(C,)``."""
        running_mean, running_std = self._tracked()
        step = self._step(mean)
        r_max, d_max = _at(self.r_max, step), _at(self.d_max, step)
        r = (std / running_std).clamp(1.0 / r_max, r_max)
        d = ((mean - running_mean) / running_std).clamp(-d_max, d_max)
        return r, d

    @torch.no_grad()
    def _track(self, mean: Tensor, std: Tensor) -> None:
        """Move running mean, standard deviation and count by one batch."""
        running_mean, running_std = self._tracked()
        count, momentum = self.num_batches_tracked, self.momentum
        factor: float | Tensor = 0.0 if momentum is None else momentum
        if momentum is None and count is not None:
            factor = (count.to(torch.float64) + 1.0).reciprocal()
        moved_mean = moved_average(running_mean, mean, factor)
        moved_var = moved_average(running_std, std, factor).square() - self.eps
        finite = torch.isfinite(mean).all() & torch.isfinite(std).all()
        counts = finite if self.skip_nonfinite else torch.ones_like(finite)
        for former, moved in (
            (self.running_mean, moved_mean),
            (self.running_var, moved_var.clamp(min=0.0)),
        ):
            assert former is not None
            # With a factor of 1, only to be kept within the range of its type.
            former.copy_(torch.where(counts, moved_average(former, moved, 1.0), former))
        if count is not None:
            count.add_(counts)


def _at(limit: float | Schedule, step: Tensor) -> Tensor:
    """The limit at a step, a float64 tensor ``()`` on the device of the step."""
    value = limit(step) if callable(limit) else limit
    return value.to(step) if isinstance(value, Tensor) else step.new_full((), value)


def _check_limit(name: str, limit: float | Schedule, least: float) -> None:
    ends = (limit.start, limit.stop) if isinstance(limit, LinearSchedule) else (limit,)
    for end in ends:
        if callable(end):
            continue
        if not isinstance(end, (int, float)) or isinstance(end, bool):
            raise TypeError(
                f"{name}: expected a number or a function of the step, got {type(end).__name__}"
            )
        if not end >= least:
            raise ValueError(f"{name}: expected numbers not below {least}, got {end}")


class BatchRenorm1d(_BatchRenorm):
    """Batch renormalization of ``(N, C)`` or ``(N, C, L)``.

    In training

        y = γ·((x - μ_B)/σ_B·r + d) + β,
        r = σ_B/σ within [1/r_max, r_max],  d = (μ_B - μ)/σ within [-d_max, d_max],

    where μ_B and σ_B = √(σ²_B + ε) are the batch's, μ and σ = √(running_var + ε) the running
    ones as they were before this batch. No gradient passes through r and d.

    Parameters
    ----------
    num_features
        C, the number of channels
    eps
        added to the variance, inside the root
    momentum
        weight of a batch in the running statistics; None averages all batches alike
    affine, bias
        whether there is a weight per channel, and a bias next to it
    track_running_stats
        True; r and d need the running statistics
    device, dtype
        of parameters and statistics; the latter are float32 for half precision
    r_max
        limit of r, at least 1; a number, or a function of the step
    d_max
        limit of d, at least 0; a number, or a function of the step. The defaults of both are the
        paper's schedules. The step is the number of batches tracked before this one, as a tensor
        ``()``, so that nothing waits for the device
    skip_nonfinite
        leave running statistics and count alone when a batch has statistics that are not finite
    backend
        the kernels that compute, see :func:`companion.functional.batch_norm`

    Raises
    ------
    TypeError, ValueError
        a limit of another kind or too low; `track_running_stats` is False

    Notes
    -----
    *Limits.* With r_max = 1 and d_max = 0 output and gradient are batch normalization's. Without
    limits (infinity) the output is that of inference with the running statistics.

    *Running statistics.* The running mean and the running *standard deviation*, biased and with ε,
    move by `momentum` towards the batch's, as in the paper. The state is `running_var` = σ² - ε, so
    that state dictionaries and inference are those of batch normalization. Batch normalization
    averages unbiased variances instead.

    *Inference* is batch normalization's, and so is everything else.

    References
    ----------
    Ioffe (2017), arXiv:1702.03275.

    Examples
    --------
    >>> x = torch.randn(8, 3)
    >>> unlimited = BatchRenorm1d(3, r_max=float("inf"), d_max=float("inf"))
    >>> before = unlimited.eval()(x)
    >>> torch.allclose(unlimited.train()(x), before, atol=1e-5)
    True
    """

    _layouts: ClassVar[dict[int, str]] = BatchNorm1d._layouts


class BatchRenorm2d(_BatchRenorm):
    """Batch renormalization of ``(N, C, H, W)``.

    In training

        y = γ·((x - μ_B)/σ_B·r + d) + β,
        r = σ_B/σ within [1/r_max, r_max],  d = (μ_B - μ)/σ within [-d_max, d_max],

    where μ_B and σ_B = √(σ²_B + ε) are the batch's, μ and σ = √(running_var + ε) the running
    ones as they were before this batch. No gradient passes through r and d.

    Parameters
    ----------
    num_features
        C, the number of channels
    eps
        added to the variance, inside the root
    momentum
        weight of a batch in the running statistics; None averages all batches alike
    affine, bias
        whether there is a weight per channel, and a bias next to it
    track_running_stats
        True; r and d need the running statistics
    device, dtype
        of parameters and statistics; the latter are float32 for half precision
    r_max
        limit of r, at least 1; a number, or a function of the step
    d_max
        limit of d, at least 0; a number, or a function of the step. The defaults of both are the
        paper's schedules. The step is the number of batches tracked before this one, as a tensor
        ``()``, so that nothing waits for the device
    skip_nonfinite
        leave running statistics and count alone when a batch has statistics that are not finite
    backend
        the kernels that compute, see :func:`companion.functional.batch_norm`

    Raises
    ------
    TypeError, ValueError
        a limit of another kind or too low; `track_running_stats` is False

    Notes
    -----
    See :class:`BatchRenorm1d`.

    References
    ----------
    Ioffe (2017), arXiv:1702.03275.

    Examples
    --------
    >>> layer = BatchRenorm2d(3, r_max=LinearSchedule(1.0, 3.0, 100, 800), d_max=0.5)
    >>> layer(torch.randn(2, 3, 4, 4)).shape
    torch.Size([2, 3, 4, 4])
    """

    _layouts: ClassVar[dict[int, str]] = BatchNorm2d._layouts


class BatchRenorm3d(_BatchRenorm):
    """Batch renormalization of ``(N, C, D, H, W)``.

    In training

        y = γ·((x - μ_B)/σ_B·r + d) + β,
        r = σ_B/σ within [1/r_max, r_max],  d = (μ_B - μ)/σ within [-d_max, d_max],

    where μ_B and σ_B = √(σ²_B + ε) are the batch's, μ and σ = √(running_var + ε) the running
    ones as they were before this batch. No gradient passes through r and d.

    Parameters
    ----------
    num_features
        C, the number of channels
    eps
        added to the variance, inside the root
    momentum
        weight of a batch in the running statistics; None averages all batches alike
    affine, bias
        whether there is a weight per channel, and a bias next to it
    track_running_stats
        True; r and d need the running statistics
    device, dtype
        of parameters and statistics; the latter are float32 for half precision
    r_max
        limit of r, at least 1; a number, or a function of the step
    d_max
        limit of d, at least 0; a number, or a function of the step. The defaults of both are the
        paper's schedules. The step is the number of batches tracked before this one, as a tensor
        ``()``, so that nothing waits for the device
    skip_nonfinite
        leave running statistics and count alone when a batch has statistics that are not finite
    backend
        the kernels that compute, see :func:`companion.functional.batch_norm`

    Raises
    ------
    TypeError, ValueError
        a limit of another kind or too low; `track_running_stats` is False

    Notes
    -----
    See :class:`BatchRenorm1d`.

    References
    ----------
    Ioffe (2017), arXiv:1702.03275.

    Examples
    --------
    >>> BatchRenorm3d(3)(torch.randn(2, 3, 2, 4, 4)).shape
    torch.Size([2, 3, 2, 4, 4])
    """

    _layouts: ClassVar[dict[int, str]] = BatchNorm3d._layouts
