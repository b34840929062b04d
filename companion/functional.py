"""Batch normalization as a function: check, compute, differentiate, update the running statistics.

:func:`batch_norm` has the signature of ``torch.nn.functional.batch_norm`` and some more keyword
arguments. It is an implementation of its own: the arithmetic is in ``companion.kernels``, the
derivatives are the closed forms of the chapter `backprop`. :func:`batch_norm_act` adds what often
follows, a residual and a ReLU, in the same pass over memory. :func:`sync_batch_norm` takes its
statistics over the batches of several processes.

Examples
--------
>>> import torch
>>> from companion import functional
>>> functional.batch_norm(torch.tensor([[1.0], [3.0]]), None, None, training=True, eps=1e-12)
tensor([[-1.],
        [ 1.]])
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from . import differentiation, ways
from .checks import check_arguments, check_residual
from .kernels import select
from .kernels.interface import Running
from .kernels.select import Way
from .running import move_running, recomputing, update_running
from .synchronization import channels
from .synchronization.messages import unbiased
from .synchronization.operators import sync_normalize
from .ways import Call

__all__ = ["batch_norm", "batch_norm_act", "sync_batch_norm"]


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    *,
    num_batches_tracked: Tensor | None = None,
    skip_nonfinite: bool = False,
    backend: str = "auto",
) -> Tensor:
    """Normalize each channel, as ``torch.nn.functional.batch_norm`` does, more accurately.

    y = (x - mean)/√(var + ε)·weight + bias. In training the statistics are those of the batch,
    over all axes but axis 1, with the biased variance; otherwise they are the running ones.

    Parameters
    ----------
    input
        ``(N, C, *)``, float16, bfloat16, float32 or float64
    running_mean, running_var
        ``(C,)``, updated in place in training, both or neither; needed when not training
    weight, bias
        ``(C,)``; 1 and 0 if None
    training
        whether to use, and track, the statistics of the batch
    momentum
        weight of this batch in the running statistics. None: the average of all batches since the
        count was 0, which needs `num_batches_tracked`
    eps
        added to the variance, inside the root; positive in training, not negative otherwise
    num_batches_tracked
        integer tensor of shape ``()``, incremented in training
    skip_nonfinite
        leave running statistics and count alone when any statistic of the batch is not finite
    backend
        the kernels that compute: ``"eager"``, ``"cpu"``, ``"cuda"``, ``"torch"`` (PyTorch's own),
        or ``"auto"``, the fastest that are accurate; see ``companion.kernels.select``

    Returns
    -------
    Tensor
        of the shape, type and memory format of `input`

    Raises
    ------
    ValueError
        one value per channel in training; `eps` too small; one running statistic without the other;
        a `backend` that does not exist
    RuntimeError
        a parameter or a running statistic of another shape, type or device than the input asks for;
        running statistics that require a gradient, or are missing; a `backend` that is not
        installed or does not serve the device
    NotImplementedError
        an input of integers, booleans or complex numbers
    IndexError
        an input without a channel axis, where PyTorch raises this
    TypeError
        an argument of another kind

    Notes
    -----
    Every error comes before anything is changed.

    *Types.* Parameters and running statistics have the input's type; with a half-precision input
    they may each be float32, and should be: half-precision averages stop moving.

    *NaN and infinity.* A channel that holds one gets an output of NaN, and by default, as in
    PyTorch, running statistics that stay NaN or infinite. Other channels are not affected.

    *Overflow.* A running statistic too large for its type is stored as the largest finite value,
    since an infinity would never decay.

    *Empty batches.* The result is empty, the count moves, the running statistics do not.

    *Activation checkpointing.* A forward pass that runs during a backward pass, as recomputation
    does (and as one in a gradient hook would), leaves running statistics and count alone, so that
    no batch counts twice. A compiled module inside an eager checkpoint is the exception: it counts
    twice. Compile the function that checkpoints instead; with PyTorch 2.8 that counts twice, too,
    as does PyTorch's layer there.

    *Function transforms.* Under ``torch.func`` a transformed function cannot change a tensor that
    it captured: running statistics must be among its arguments, else PyTorch's RuntimeError comes.

    *float64.* The sums are taken about one of the channel's values, or an average of a few. If that
    is an outlier, up to a factor m of float64's precision is lost; the squares of values beyond
    1e154 overflow.

    *float32.* The CPU and CUDA kernels add up some values in float32 and such sums in float64. On
    the CPU a variance is wrong by less than the rounding of a float32 number; on CUDA, where the
    sums may be about a value up to 4 standard deviations from the mean, by at most 2e-6 of it.

    References
    ----------
    Algorithms 1 and 2 of Ioffe & Szegedy (2015), arXiv:1502.03167; Eqs. (1) to (4) and (13) of the
    chapter `mini-batch-algorithm`.

    Examples
    --------
    >>> import torch
    >>> mean, var = torch.zeros(1), torch.ones(1)
    >>> batch_norm(torch.tensor([[2.0], [4.0]]), mean, var, training=True, eps=1e-12).tolist()
    [[-1.0], [1.0]]
    >>> mean, var  # moved by a tenth of the way to the batch's: 3, and 2, the unbiased variance
    (tensor([0.3000]), tensor([1.1000]))
    >>> batch_norm(torch.tensor([[0.3]]), mean, var).tolist()
    [[0.0]]
    """
    arguments = (
        *(input, running_mean, running_var, weight, bias, training, momentum, eps),
        *(num_batches_tracked, skip_nonfinite, None, False),
    )
    return dispatch(batch_norm, arguments, backend)


def batch_norm_act(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    *,
    residual: Tensor | None = None,
    relu: bool = True,
    num_batches_tracked: Tensor | None = None,
    skip_nonfinite: bool = False,
    backend: str = "auto",
) -> Tensor:
    """Normalize each channel, add `residual`, and apply a ReLU, in one pass over memory.

    y = max(0, batch_norm(input) + residual), in value and gradient what the three operations give
    one after the other. Apart they read and write three more tensors forward, and as many backward.

    Parameters
    ----------
    input, running_mean, running_var, weight, bias, training, momentum, eps, num_batches_tracked
        as in :func:`batch_norm`
    skip_nonfinite, backend
        as in :func:`batch_norm`
    residual
        shape, type and device of `input`, or None
    relu
        whether there is a ReLU

    Returns
    -------
    Tensor
        of the shape, type and memory format of `input`

    Raises
    ------
    RuntimeError
        a residual that does not match the input
    Exception
        what :func:`batch_norm` raises

    References
    ----------
    Eqs. (1) to (4) and (13) of the chapter `mini-batch-algorithm`; He et al. (2016),
    arXiv:1512.03385, for the order of the three.

    Examples
    --------
    >>> import torch
    >>> x, residual = torch.tensor([[2.0], [4.0]]), torch.tensor([[3.0], [-5.0]])
    >>> batch_norm_act(x, None, None, training=True, eps=1e-12, residual=residual).tolist()
    [[2.0], [0.0]]
    """
    arguments = (
        *(input, running_mean, running_var, weight, bias, training, momentum, eps),
        *(num_batches_tracked, skip_nonfinite, residual, relu),
    )
    return dispatch(batch_norm_act, arguments, backend)


def sync_batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    *,
    process_group: Any = None,
    num_batches_tracked: Tensor | None = None,
    skip_nonfinite: bool = False,
    backend: str = "auto",
    check: bool = True,
    layer: str | None = None,
    key: str | None = None,
) -> Tensor:
    """Normalize with the statistics of the batches of all processes of a group together.

    In training p processes compute what one process would with all their rows, in value, in the
    gradient of the input, and in the running statistics, which are the same on all ranks to the
    last bit. The ranks may hold different numbers of rows, and some of them none. Outside
    training, in a group of one, or where ``torch.distributed`` is not initialized, this is
    :func:`batch_norm`.

    Parameters
    ----------
    input
        as in :func:`batch_norm`; may hold one value per channel, or none, if others hold more
    running_mean, running_var, weight, bias, training, momentum, eps, num_batches_tracked
        as in :func:`batch_norm`, with the same values on all ranks
    skip_nonfinite
        as in :func:`batch_norm`, with the same values on all ranks
    backend
        what applies the statistics: ``"eager"``, ``"cpu"``, ``"cuda"`` or ``"auto"``
    process_group
        the processes, of any backend; None: all. Every one of them has to make every call, in the
        same order, forward and backward, also with an empty `input`
    check
        whether to compare, once, at the first call of this `key`, the channels, the type of
        `input`, eps and momentum between all ranks
    layer
        the name of the call in errors; the same on all ranks
    key
        tells layers of one name apart, for `check`; by default the name

    Returns
    -------
    Tensor
        of the shape, type and memory format of `input`

    Raises
    ------
    RuntimeError
        a message failed or the ranks are not in the same call: see Notes; a setting that `check`
        compares differs
    ValueError
        one value per channel over all ranks together (on a GPU: variance 0 instead)
    Exception
        what :func:`batch_norm` raises

    Notes
    -----
    *Messages.* Forward, each rank sends its count, mean and M₂: one ``all_gather`` of 2C + 1
    values; backward, one ``all_reduce`` of 2C. They are float64 and of fixed shape, and nothing is
    read on the host but from CPU tensors, so that a CUDA graph can hold the call.

    *Gradients.* That of `input` is the derivative of the sum of all ranks' losses. Those of
    `weight` and `bias` are sums over this rank's rows: DistributedDataParallel, which averages them
    over the ranks, expects that. To get those of one big batch, add them up over the ranks. There
    is no second derivative.

    *Failures.* If a rank dies, or makes no call within the group's timeout, the others get an error
    that names the layer, the operation and the rank. A rank that skips a call is found at the next
    forward message, from a tag in it that stands for all calls so far, if it has made another; a
    rank that skips its last one, or the only layer's, only by the timeout. A mistake in the order
    of backward messages of one length is found at the next forward pass, when the gradients have
    been used. Tags are compared on the CPU only; elsewhere the output becomes NaN. With NCCL a
    message that fails does so after the call, and PyTorch's watchdog ends the process.

    *gloo.* Messages have connections of their own, apart from those of the group, so that gradients
    that DistributedDataParallel sends meanwhile, in whatever order, do not get in between. With
    other backends pass a group made for these layers if the order can differ between ranks, as it
    can with ``find_unused_parameters``.

    References
    ----------
    Chan, Golub & LeVeque (1983) for the statistics; Eq. (9) backprop/closed-form, its sums over all
    ranks, for the gradient.

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([[2.0], [4.0]])  # without other processes
    >>> sync_batch_norm(x, None, None, training=True, eps=1e-12).tolist()
    [[-1.0], [1.0]]
    """
    tensors = (input, running_mean, running_var, weight, bias, num_batches_tracked)
    group = channels.name_of(process_group)
    options: dict[str, Any] = {
        "num_batches_tracked": num_batches_tracked,
        "skip_nonfinite": skip_nonfinite,
        "backend": backend,
    }
    arguments = (input, running_mean, running_var, weight, bias, training, momentum, eps)
    if not training or channels.ranks_in(process_group) == 1:
        return batch_norm(*arguments, **options)
    if has_torch_function(tensors):
        options |= {"process_group": process_group, "check": check, "layer": layer, "key": key}
        return handle_torch_function(sync_batch_norm, tensors, *arguments, **options)
    running = Running(running_mean, running_var, num_batches_tracked, momentum, skip_nonfinite)
    check_arguments(input, running, weight, bias, training, eps, alone=False)
    backend = select.choose(input, backend)
    if backend == "torch":
        raise ValueError("backend: expected one that takes given statistics, got 'torch'")
    name = layer or f"sync_batch_norm of {input.shape[1]} channels"
    call = (group, name, key or name, check)
    y, total, mean, var = sync_normalize(input, weight, bias, eps, momentum, backend, *call)
    if not recomputing():
        move_running(running, mean, unbiased(var, total), total > 0)
    return y


def dispatch(function: Callable[..., Tensor], arguments: tuple[Any, ...], backend: str) -> Tensor:
    """Compute what `function`, one of the two above, is called with: their one body.

    Who serves a call is decided in :mod:`.kernels.select`; how, is in :mod:`.ways`. The direct way
    comes first: it looks at the arguments itself, and declines what it does not know to be fine.

    Parameters
    ----------
    function : callable
        `batch_norm` or `batch_norm_act`.
    arguments : tuple
        The fields of :class:`.ways.Call`; to make one takes a tenth of the direct way's time.
    backend : str
        As given by the caller.
    """
    direct = select.direct(arguments[0], backend, differentiation.differentiate_again)
    if direct is not None:
        y = direct(*arguments)
        if y is not None:
            return y
    call = Call(*arguments)
    x, mean, var, weight, bias, training, momentum, eps, count, skip_nonfinite, residual, relu = (
        call
    )
    tensors = (x, mean, var, weight, bias, count, residual)
    if has_torch_function(tensors):
        # Tensor subclasses, and the stand-ins with which torch.fx traces a model.
        options: dict[str, Any] = {
            "num_batches_tracked": count,
            "skip_nonfinite": skip_nonfinite,
            "backend": backend,
        }
        if function is batch_norm_act:
            options |= {"residual": residual, "relu": relu}
        return handle_torch_function(function, tensors, *call[:8], **options)
    running = Running(mean, var, count, momentum, skip_nonfinite)
    check_arguments(x, running, weight, bias, training, eps)
    check_residual(x, residual)
    if x.ndim < 2:
        # Checked: it is empty.
        if training and not recomputing():
            update_running(running, None, None, 0)
        return x.clone()
    way, backend = select.way(x, running, backend)
    if way is Way.COMPILED:
        return ways.compiled(call, running, backend)
    if way is Way.OPERATOR:
        return ways.as_operator(call, running, backend)
    y = ways.by_torch(call) if way is Way.TORCH else ways.in_eager(call, running)
    return differentiation.act(y, residual, relu)
