"""Which layers of a model keep running statistics, and the moments of what goes into them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, distributed, nn

from companion._state import BatchNormState
from companion._torch import BatchNormBase, is_plain
from companion.kernels import eager, select
from companion.kernels.interface import Halves
from companion.statistics.moments import RunningMoments, merge

# What keeps running statistics: PyTorch's layers, and this package's, plain ones or not.
Layer: TypeAlias = BatchNormBase | BatchNormState


def tracking_layers(model: nn.Module) -> dict[str, Layer]:
    """Batch normalization layers with running statistics: PyTorch's, synchronized ones, ours.

    Raises
    ------
    TypeError
        `model` is not a module
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, Layer)
        and module.running_mean is not None
        and module.running_var is not None
    }


def input_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """What a layer was called with as its input."""
    return args[0] if args else kwargs["input"]


def input_moments(
    layer: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> RunningMoments:
    """Moments of the values that a call of `layer` normalizes.

    All of its input's, unless the layer has a method `input_moments` of its own, to be called
    with the arguments of its forward pass.
    """
    own = getattr(layer, "input_moments", None)
    return activation_moments(input_of(args, kwargs)) if own is None else own(*args, **kwargs)


def activation_moments(x: Tensor) -> RunningMoments:
    """As :meth:`RunningMoments.of`, in one pass that makes no float64 copy of the whole input."""
    count, x = eager.values_per_channel(x), x.detach()
    if count == 0:
        return RunningMoments.empty(x.shape[1], x.device)
    if not torch.compiler.is_compiling() and is_plain(x) and select.choose(x, "auto") == "cpu":
        mean, var = cast(Halves, select.load("cpu")).moments(x)
    else:
        mean, var = eager.batch_stats(x)
    return RunningMoments(count, mean, var * count)


def several_processes() -> bool:
    """Whether this process is one of several that ``torch.distributed`` connects."""
    connected = distributed.is_available() and distributed.is_initialized()
    return connected and distributed.get_world_size() > 1


def across_processes(
    layer: nn.Module, moments: RunningMoments, process_group: Any = None
) -> RunningMoments:
    """Merge the moments of the processes between which `layer` is synchronized, if it is.

    The moments of a local layer are merged in `process_group`, if there is one.
    """
    group: Any = getattr(layer, "process_group", process_group)
    if not several_processes() or not (hasattr(layer, "process_group") or group):
        return moments
    # One message: the count, exact in float64 up to 2⁵³, then the means, then M₂.
    message = torch.cat([moments.mean.new_tensor([moments.count]), moments.mean, moments.m2])
    received = [torch.empty_like(message) for _ in range(distributed.get_world_size(group))]
    distributed.all_gather(received, message, group=group)
    channels = moments.mean.numel()
    return merge(
        *(
            RunningMoments(int(part[0]), part[1 : 1 + channels], part[1 + channels :])
            for part in received
        )
    )


@contextmanager
def hooks_are_called() -> Iterator[None]:
    """Let ``torch.compile``'s models run as they were written, for a while.

    What was compiled may take no notice of hooks that came later, and what is compiled with them
    would be compiled again when they go, or when what they count has changed.
    """
    with torch.compiler.set_stance("force_eager"):
        yield


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put `model` in evaluation mode; afterwards every module is in the mode it had."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def restored_statistics(layers: Iterable[Layer]) -> Iterator[None]:
    """Give each layer, at the end, the tensors back that hold its running statistics."""
    own = [(layer, layer.running_mean, layer.running_var) for layer in layers]
    try:
        yield
    finally:
        for layer, mean, var in own:
            layer.running_mean, layer.running_var = mean, var
