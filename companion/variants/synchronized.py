"""Synchronized batch normalization: statistics over the batches of several processes.

Where a model does not fit its batch on one device, each of p devices normalizes with the noise of
its own small part. Here they put their statistics together, and normalize as one device would.

Source: Zhang et al. (2018), arXiv:1803.08904, and Peng et al. (2018), arXiv:1711.07240, for the
layer; Chan, Golub & LeVeque (1983), "Algorithms for computing the sample variance", for the merge.
"""

from __future__ import annotations

import copy
import itertools
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn

from companion import differentiation
from companion._torch import BatchNormBase, StandIn, called_by_tracer
from companion.checks import check_residual
from companion.conversion.recognition import following
from companion.conversion.swap import swap_class
from companion.functional import batch_norm_act, dispatch, sync_batch_norm
from companion.modules import _CompanionBatchNorm
from companion.synchronization import channels
from companion.ways import Call

__all__ = ["SyncBatchNorm", "SyncBatchNormAct"]

_numbers = itertools.count()
M = TypeVar("M", bound=nn.Module)


def copied_in_group(layer: M, memo: dict[int, Any]) -> M:
    """A deep copy that is in the same process group, if it is in one."""
    group = vars(layer).get("process_group")
    memo[id(group)] = group
    result = type(layer).__new__(type(layer))
    memo[id(layer)] = result
    result.__setstate__(copy.deepcopy(vars(layer), memo))
    return result


class _SyncBatchNorm(_CompanionBatchNorm):
    """What the two layers share: a group, and statistics over all of its processes."""

    process_group: Any = None
    check: bool = True
    name: str = ""
    # Tells layers apart that have no name, or the same.
    number: int = -1
    # What it was before it was converted.
    local_class: type[nn.Module] | None = None
    # The submodules that it called after normalizing, if it was another library's.
    then: tuple[str, ...] = ()

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        process_group: Any = None,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        *,
        bias: bool = True,
        skip_nonfinite: bool = False,
        backend: str = "auto",
        check: bool = True,
        name: str = "",
    ) -> None:
        super().__init__(
            *(num_features, eps, momentum, affine, track_running_stats, device, dtype),
            bias=bias,
            skip_nonfinite=skip_nonfinite,
            backend=backend,
        )
        self.check, self.name = check, name
        self._join(process_group)

    def _join(self, process_group: Any) -> None:
        channels.name_of(process_group)
        self.process_group = process_group
        self.number = next(_numbers)

    def to_local(self) -> nn.Module:
        """Become the layer again that :func:`convert_sync` found; returns the same object.

        A layer that was made as a synchronized one stays it.
        """
        local = self.local_class
        if local is not None:
            # Of these, PyTorch's synchronized layer has a group.
            kept = {"process_group"} if issubclass(local, nn.SyncBatchNorm) else set()
            for name in _OWN - kept:
                self.__dict__.pop(name, None)
            swap_class(self, local)
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy in the same group: groups cannot be copied."""
        return copied_in_group(self, memo)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            shape = tuple(input.shape)
            raise ValueError(f"input: expected dimensions (N, C, ...), got {input.dim()}: {shape}")

    def extra_repr(self) -> str:
        """The layer's text, and the options that are not as by default."""
        text = super().extra_repr()
        return text if self.check else f"{text}, check=False"

    def _normalize(self, input: Tensor, residual: Tensor | None, relu: bool) -> Tensor:
        """Normalize with the statistics of all ranks, in training; add, apply a ReLU, track."""
        arguments = self._arguments(input, residual, relu)
        if not self.training or channels.ranks_in(self.process_group) == 1:
            return dispatch(batch_norm_act, arguments, self.backend)
        check_residual(input, residual)
        layer = self.name or f"SyncBatchNorm({self.num_features})"
        call = Call(*arguments)
        y = sync_batch_norm(
            *arguments[:8],
            process_group=self.process_group,
            num_batches_tracked=call.num_batches_tracked,
            skip_nonfinite=call.skip_nonfinite,
            backend=self.backend,
            check=self.check,
            layer=layer,
            key=f"{layer} {self.number}",
        )
        return differentiation.act(y, residual, relu)


class SyncBatchNorm(_SyncBatchNorm, BatchNormBase):
    """Batch normalization over all processes of a group, of ``(N, C)`` and ``(N, C, *)``.

    In training p processes compute what one process would with all their rows together, and their
    running statistics are the same to the last bit. In evaluation, in a group of one, and without
    ``torch.distributed``, it is :class:`companion.BatchNorm2d`, or whichever fits the input.

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
    process_group
        the processes; None: all. A process makes every call that the others make, in the same
        order, also where it has no rows
    device, dtype
        of parameters and statistics; the latter are float32 for half precision
    skip_nonfinite
        leave running statistics and count alone when a batch has statistics that are not finite
    backend
        see :func:`companion.functional.sync_batch_norm`
    check
        whether to compare channels, type, eps and momentum between all ranks at the first call
    name
        what errors call the layer; :func:`convert_sync` takes its name in the model

    Notes
    -----
    Messages, gradients, and what becomes of failures: :func:`companion.functional.sync_batch_norm`.
    It runs on any backend, gloo on the CPU included, and under ``torch.compile``.

    *DistributedDataParallel.* Wrap the model after :func:`convert_sync`. It averages the gradients
    of weight and bias, which are sums over a rank's own rows; with a loss that is a mean over as
    many rows on every rank, the average is what one process would have. It works with and without
    ``broadcast_buffers`` (there is nothing left to broadcast), ``no_sync``,
    ``find_unused_parameters``, and activation checkpointing, whose recomputation sends the forward
    message again, and moves the running statistics once.

    *A rank without rows* calls the layer with an empty input, and lets its loss, such as a sum of
    nothing, take part in the backward pass, since the others wait for its message there.

    *Export.* ``companion.convert(model, to="torch")`` gives the layers back that a model had before
    :func:`convert_sync`, as PyTorch's, ``to="companion"`` as this package's.

    Examples
    --------
    >>> layer = SyncBatchNorm(1, momentum=1.0)
    >>> layer(torch.tensor([[2.0], [4.0]])).shape  # no other process: BatchNorm
    torch.Size([2, 1])
    >>> layer.running_mean.item(), layer.running_var.item()
    (3.0, 2.0)
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalize `input` with the statistics of all ranks, in training; track them.

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
        RuntimeError, ValueError, NotImplementedError, TypeError
            as :func:`companion.functional.sync_batch_norm`
        """
        if isinstance(input, StandIn):
            return called_by_tracer(self, input)
        y = self._normalize(input, None, False)
        for _, part in following(self, self.then):
            y = part(y)
        return y


class SyncBatchNormAct(_SyncBatchNorm):
    """Synchronized batch normalization, residual and ReLU, of ``(N, C)`` and ``(N, C, *)``.

    y = max(0, SyncBatchNorm(input) + residual): what :func:`convert_sync` makes of
    :class:`companion.BatchNormAct2d` and its like.

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
    process_group
        the processes; None: all. A process makes every call that the others make, in the same
        order, also where it has no rows
    device, dtype
        of parameters and statistics; the latter are float32 for half precision
    relu
        whether there is a ReLU
    skip_nonfinite
        leave running statistics and count alone when a batch has statistics that are not finite
    backend
        see :func:`companion.functional.sync_batch_norm`
    check
        whether to compare channels, type, eps and momentum between all ranks at the first call
    name
        what errors call the layer; :func:`convert_sync` takes its name in the model

    Notes
    -----
    See :class:`SyncBatchNorm`. No subclass of PyTorch's layers, see
    :class:`companion.BatchNormAct2d`.

    Examples
    --------
    >>> x, residual = torch.tensor([[2.0], [4.0]]), torch.tensor([[3.0], [-5.0]])
    >>> layer = SyncBatchNormAct(1, eps=1e-12)
    >>> layer(x).tolist(), layer(x, residual).tolist()
    ([[0.0], [1.0]], [[2.0], [0.0]])
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        process_group: Any = None,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        *,
        relu: bool = True,
        bias: bool = True,
        skip_nonfinite: bool = False,
        backend: str = "auto",
        check: bool = True,
        name: str = "",
    ) -> None:
        super().__init__(
            *(num_features, eps, momentum, affine, track_running_stats, process_group),
            device,
            dtype,
            bias=bias,
            skip_nonfinite=skip_nonfinite,
            backend=backend,
            check=check,
            name=name,
        )
        self.relu = relu

    def extra_repr(self) -> str:
        """The layer's text, and `relu` where it is off."""
        text = super().extra_repr()
        return text if self.relu else f"{text}, relu=False"

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        """Normalize `input`, add `residual`, apply the ReLU; in training, track statistics.

        Parameters
        ----------
        input
            floating-point tensor with `num_features` channels in axis 1
        residual
            shape, type and device of `input`, or None

        Returns
        -------
        Tensor
            of the shape, type and memory format of `input`

        Raises
        ------
        RuntimeError, ValueError, NotImplementedError, TypeError
            as :func:`companion.functional.sync_batch_norm` and, for the residual,
            :func:`companion.functional.batch_norm_act`
        """
        if isinstance(input, StandIn):
            return called_by_tracer(self, input, residual)
        return self._normalize(input, residual, self.relu)


# What it has that other layers have not.
_OWN = {"process_group", "check", "name", "number", "local_class", "then"}
