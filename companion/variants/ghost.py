"""Ghost batch normalization: statistics over parts of a batch.

Each part is called a ghost batch. The gradient averages over the whole batch, while the noise of
the statistics is that of the smaller ghost batch.

Source: Hoffer, Hubara & Soudry (2017), arXiv:1705.08741.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from companion._torch import StandIn, called_by_tracer
from companion.functional import batch_norm
from companion.kernels.eager import values_per_channel
from companion.modules import BatchNorm1d, BatchNorm2d, BatchNorm3d, _CompanionBatchNorm

__all__ = ["GhostBatchNorm1d", "GhostBatchNorm2d", "GhostBatchNorm3d"]


_STATE = ("running_mean", "running_var", "num_batches_tracked")


class _Running(NamedTuple):
    """Copies of the running statistics, ``(ghosts·C,)``, and of the count; None if not tracked."""

    mean: Tensor | None
    var: Tensor | None
    tracked: Tensor | None


class _GhostBatchNorm(_CompanionBatchNorm):
    """What the three layers add to batch normalization: ghost batches in training."""

    ghost_size: int

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
        ghost_size: int,
        bias: bool = True,
        skip_nonfinite: bool = False,
        backend: str = "auto",
    ) -> None:
        if not isinstance(ghost_size, int) or isinstance(ghost_size, bool):
            raise TypeError(f"ghost_size: expected an integer, got {type(ghost_size).__name__}")
        if ghost_size < 1:
            raise ValueError(f"ghost_size: expected at least 1 example, got {ghost_size}")
        super().__init__(
            *(num_features, eps, momentum, affine, track_running_stats, device, dtype),
            bias=bias,
            skip_nonfinite=skip_nonfinite,
            backend=backend,
        )
        self.ghost_size = ghost_size

    def extra_repr(self) -> str:
        """The text of the layer without ghosts, and `ghost_size`."""
        return f"{super().extra_repr()}, ghost_size={self.ghost_size}"

    def forward(self, input: Tensor) -> Tensor:
        """Normalize `input`; in training each ghost batch with its own statistics.

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
        ValueError
            a ghost batch would hold one value per channel
        ValueError, RuntimeError, NotImplementedError, TypeError
            as the layer without ghosts; nothing is changed then

        References
        ----------
        Eq. (11) regularization-noise/ghost-noise.
        """
        if isinstance(input, StandIn):
            return called_by_tracer(self, input)
        if not self.training or not isinstance(input, Tensor) or input.ndim < 2:
            return super().forward(input)
        if len(input) < 2 * self.ghost_size:
            return super().forward(input)
        self._check_input(input)
        if self.ghost_size == 1 and values_per_channel(input) == len(input):
            raise ValueError(
                f"ghost_size: expected more than 1 value per channel when training, got a ghost "
                f"batch of {self.ghost_size} example for an input of {tuple(input.shape)}"
            )
        return self._normalize_ghosts(input)

    def _normalize_ghosts(self, input: Tensor) -> Tensor:
        """Normalize two or more ghost batches, and move the running statistics once.

        Ghosts of one size become channels of one call, each with its own copy of the running
        statistics. A copy moves linearly with its ghost's statistics, so the average of the copies
        has moved by the average ghost.
        """
        ghosts, remainder = divmod(len(input), self.ghost_size)
        # The examples left over join the last ghost batch, which then has a size of its own.
        alike = ghosts if remainder == 0 else ghosts - 1
        parts = list(input.tensor_split([alike * self.ghost_size]))[: 1 + (alike < ghosts)]
        tracked = self.track_running_stats and self.running_mean is not None
        outputs, moved = [], []
        for part, number in zip(parts, (alike, 1), strict=False):
            state = _Running(*(_copies(getattr(self, name), number, tracked) for name in _STATE))
            y = batch_norm(
                _fold(part, number),
                state.mean,
                state.var,
                _copies(self.weight, number),
                _copies(self.bias, number),
                True,
                0.0 if self.momentum is None and state.tracked is None else self.momentum,
                self.eps,
                num_batches_tracked=state.tracked,
                skip_nonfinite=self.skip_nonfinite,
            )
            outputs.append(_unfold(y, number))
            moved.append(state)
        if tracked:
            self._adopt(moved)
        return torch.cat(outputs)

    def _adopt(self, moved: list[_Running]) -> None:
        """Set the running statistics to the average over all copies, if every part was counted."""
        before = self.num_batches_tracked
        counts = [state.tracked for state in moved if state.tracked is not None]
        after = torch.stack(counts).min(dim=0).values if counts else None
        for name, copies in (
            ("running_mean", [state.mean for state in moved]),
            ("running_var", [state.var for state in moved]),
        ):
            running = getattr(self, name)
            values = torch.cat([copy for copy in copies if copy is not None])
            average = values.to(torch.float64).view(-1, running.numel()).mean(dim=0)
            average = average.to(running.dtype)
            if before is not None and after is not None:
                # A part that was not counted: not finite and skipped, or recomputed.
                average = torch.where(after > before, average, running)
            running.copy_(average)
        if before is not None and after is not None:
            before.copy_(after)


def _copies(value: Tensor | None, number: int, wanted: bool = True) -> Tensor | None:
    """`number` copies of a tensor ``(C,)``, one after the other; one of a count ``()``."""
    if value is None or not wanted:
        return None
    return value.repeat(number) if value.ndim else value.clone()


def _fold(x: Tensor, number: int) -> Tensor:
    """Make `number` ghost batches channels: ``(number·g, C, *)`` → ``(g, number·C, *)``."""
    return x.unflatten(0, (number, -1)).transpose(0, 1).flatten(1, 2)


def _unfold(y: Tensor, number: int) -> Tensor:
    """Undo :func:`_fold`."""
    return y.unflatten(1, (number, -1)).transpose(0, 1).flatten(0, 1)


class GhostBatchNorm1d(_GhostBatchNorm):
    """Ghost batch normalization of ``(N, C)`` or ``(N, C, L)``.

    In training the batch is cut, in its order, into ghost batches of `ghost_size` examples, and
    each is normalized with its own mean and variance. Examples that are left over join the last
    ghost batch. A batch that holds fewer than two ghost batches is normalized as a whole.

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
        whether to keep running statistics; without them the statistics of the batch are used in
        evaluation too
    device, dtype
        of parameters and statistics; the latter are float32 for half precision
    ghost_size
        examples behind each mean and variance, at least 1; with one value per example (no spatial
        axes) at least 2
    skip_nonfinite
        leave running statistics and count alone when a batch has statistics that are not finite
    backend
        the kernels that compute, see :func:`companion.functional.batch_norm`

    Raises
    ------
    TypeError, ValueError
        `ghost_size` is not an integer of at least 1

    Notes
    -----
    *Running statistics* move once per batch, by the average of the ghost batches' means and of
    their unbiased variances, each ghost batch counting alike.

    *Inference* is batch normalization's, and so is everything else.

    References
    ----------
    Hoffer, Hubara & Soudry (2017), arXiv:1705.08741.

    Examples
    --------
    >>> x = torch.arange(12.0).view(12, 1)
    >>> y = GhostBatchNorm1d(1, ghost_size=4)(x)
    >>> torch.allclose(y[:4], y[8:], atol=1e-5)  # each ghost batch is centred on its own
    True
    """

    _layouts: ClassVar[dict[int, str]] = BatchNorm1d._layouts


class GhostBatchNorm2d(_GhostBatchNorm):
    """Ghost batch normalization of ``(N, C, H, W)``.

    In training the batch is cut, in its order, into ghost batches of `ghost_size` examples, and
    each is normalized with its own mean and variance. Examples that are left over join the last
    ghost batch. A batch that holds fewer than two ghost batches is normalized as a whole.

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
        whether to keep running statistics; without them the statistics of the batch are used in
        evaluation too
    device, dtype
        of parameters and statistics; the latter are float32 for half precision
    ghost_size
        examples behind each mean and variance, at least 1; with one value per example (no spatial
        axes) at least 2
    skip_nonfinite
        leave running statistics and count alone when a batch has statistics that are not finite
    backend
        the kernels that compute, see :func:`companion.functional.batch_norm`

    Raises
    ------
    TypeError, ValueError
        `ghost_size` is not an integer of at least 1

    Notes
    -----
    See :class:`GhostBatchNorm1d`.

    References
    ----------
    Hoffer, Hubara & Soudry (2017), arXiv:1705.08741.

    Examples
    --------
    >>> GhostBatchNorm2d(3, ghost_size=2)(torch.randn(5, 3, 4, 4)).shape  # ghosts of 2 and 3
    torch.Size([5, 3, 4, 4])
    """

    _layouts: ClassVar[dict[int, str]] = BatchNorm2d._layouts


class GhostBatchNorm3d(_GhostBatchNorm):
    """Ghost batch normalization of ``(N, C, D, H, W)``.

    In training the batch is cut, in its order, into ghost batches of `ghost_size` examples, and
    each is normalized with its own mean and variance. Examples that are left over join the last
    ghost batch. A batch that holds fewer than two ghost batches is normalized as a whole.

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
        whether to keep running statistics; without them the statistics of the batch are used in
        evaluation too
    device, dtype
        of parameters and statistics; the latter are float32 for half precision
    ghost_size
        examples behind each mean and variance, at least 1; with one value per example (no spatial
        axes) at least 2
    skip_nonfinite
        leave running statistics and count alone when a batch has statistics that are not finite
    backend
        the kernels that compute, see :func:`companion.functional.batch_norm`

    Raises
    ------
    TypeError, ValueError
        `ghost_size` is not an integer of at least 1

    Notes
    -----
    See :class:`GhostBatchNorm1d`.

    References
    ----------
    Hoffer, Hubara & Soudry (2017), arXiv:1705.08741.

    Examples
    --------
    >>> GhostBatchNorm3d(3, ghost_size=2)(torch.randn(4, 3, 2, 4, 4)).shape
    torch.Size([4, 3, 2, 4, 4])
    """

    _layouts: ClassVar[dict[int, str]] = BatchNorm3d._layouts
