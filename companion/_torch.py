"""What this package uses of PyTorch that PyTorch calls private: each once, under a name of ours.

The leading underscore means that a release may change it without notice. So nothing else in the
package touches such a name; ``tests/test_torch.py`` has a test for each of these, which
says what would go wrong. Written for PyTorch 2.8 to 2.15. What ``calls.cpp`` includes of PyTorch's
private headers stays there: a change of theirs fails when it is compiled, and Python's way remains.

Not here, since a subclass has no other way: the methods ``_apply`` and ``_check_input_dim`` of
PyTorch's layers, which ours override.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.distributed import distributed_c10d
from torch.utils import _pytree

BatchNormBase = nn.modules.batchnorm._BatchNorm
"""What PyTorch's batch normalization layers, its synchronized one included, are subclasses of."""

NormBase = nn.modules.batchnorm._NormBase
"""Their state alone: what the base has in common with that of PyTorch's instance normalization."""

StandIn: type[Any] = torch.fx.Proxy
"""What torch.fx calls a model with. Public; here without its type, which is no tensor's."""

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def transforms_are_active() -> bool:
    """Whether a transform of ``torch.func``, such as ``vmap`` or ``grad``, is at work."""
    return torch._C._are_functorch_transforms_active()


def is_plain(x: Tensor) -> bool:
    """Whether compiled kernels may read a tensor's memory: no transform or tracer is at work."""
    return not (
        torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._get_tracing_state() is not None
        or x.is_neg()
        or type(x) not in (Tensor, nn.Parameter)
        or not torch._C._has_storage(x)
    )


def is_exporting() -> bool:
    """Whether ``torch.export`` is at work.

    To the compilers of PyTorch up to 2.11 its own function answers that it is, whenever they
    compile.
    """
    return torch.compiler._is_exporting_flag


def forward_modes() -> int:
    """How many levels of ``torch.func``'s forward mode are inside one another."""
    levels = torch._C._functorch.get_interpreter_stack() or ()
    forward_mode = torch._C._functorch.TransformType.Jvp
    return sum(level.key() == forward_mode for level in levels)


def in_transform() -> bool:
    """Whether a transform of ``torch.func`` is at work; a compiler asks while it traces."""
    return bool(torch._C._functorch.get_interpreter_stack())


# As torch.compiler.assume_constant_result does, without loading the compiler.
vars(in_transform)["_dynamo_marked_constant"] = True


_LOSES_GRADIENTS = torch.__version__.startswith("2.11.")


def apart(*outputs: Tensor) -> tuple[Tensor, ...]:
    """Outputs of an autograd.Function, each another tensor than all that its operations return.

    The compiler of PyTorch 2.11 makes what an operation returns an output, too. One that is the
    same tensor as ours, as of a conversion to the type it has, takes its gradient, without a word:
    https://github.com/pytorch/pytorch/issues/180642.
    """
    if _LOSES_GRADIENTS and torch.compiler.is_compiling():
        return tuple(output.clone() for output in outputs)
    return outputs


def in_backward_pass() -> bool:
    """Whether autograd is working on a backward pass in this thread."""
    return torch._C._current_graph_task_id() != -1


def apply_without_transforms(function: type[torch.autograd.Function]) -> Any:
    """``function.apply``, without its questions about transforms, which take microseconds.

    For where :func:`is_plain` has answered them, and for functions in the older style, whose
    forward pass takes the context.
    """
    return super(torch.autograd.Function, function).apply  # type: ignore[misc]


def has_hooks(module: nn.Module) -> bool:
    """Whether something is called before or after the module, forward or backward."""
    return any(getattr(module, hooks) for hooks in _HOOKS)


def has_global_hooks() -> bool:
    """Whether something is called before or after every module."""
    return bool(nn.modules.module._has_any_global_hook())


def steps_in_backward(parameter: Tensor) -> bool:
    """Whether something is called in the backward pass with the finished gradient."""
    return bool(getattr(parameter, "_post_accumulate_grad_hooks", None))


def called_by_tracer(layer: nn.Module, *arguments: Any) -> Any:
    """What a layer returns for one of ``torch.fx``'s stand-ins: one call of it in the graph.

    As for PyTorch's own layers, which torch.fx knows by the name of their package: it does not look
    inside, so that modes, options and statistics are those of the layer when the graph is run.
    """
    tracer = arguments[0].tracer
    if getattr(tracer, "root", layer) is layer:
        raise TypeError(
            f"input: expected a tensor, got {type(arguments[0]).__name__}: torch.fx traces a model "
            "that calls the layer, not the layer alone"
        )
    name = tracer.path_of_module(layer)
    if not has_hooks(layer):
        return tracer.create_proxy("call_module", name, arguments, {})
    # The hooks are in the graph already, or will be.
    itself = tracer.create_proxy("get_attr", name, (), {})
    return tracer.create_proxy("call_method", "forward", (itself, *arguments), {})


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors in a tensor, or in tuples, lists and dictionaries of them, inside one another."""
    return [leaf for leaf in _pytree.tree_leaves(value) if isinstance(leaf, Tensor)]


def group_by_name(name: str) -> Any:
    """The process group of that name; PyTorch's own compiled collectives find theirs so too."""
    find: Any = vars(distributed_c10d)["_resolve_process_group"]
    return find(name)


def gloo_store(group: Any, device: torch.device) -> tuple[Any, timedelta] | None:
    """Where the ranks of a gloo group find each other, and the group's timeout; None of another."""
    gloo: Any = getattr(distributed_c10d, "ProcessGroupGloo", None)
    backend = group._get_backend(device)
    if gloo is None or not isinstance(backend, gloo):
        return None
    return distributed_c10d._get_process_group_store(group), backend.options._timeout


def gloo_group(store: Any, prefix: str, rank: int, size: int, timeout: timedelta) -> Any:
    """Connections between the ranks that meet in that store under that prefix."""
    prefixed = distributed_c10d.PrefixStore(prefix, store)
    return distributed_c10d.ProcessGroupGloo(prefixed, rank, size, timeout)


def compile_for_timing() -> None:
    """Set PyTorch's compiler such that what it compiles may be called, and timed, over and over."""
    import torch._functorch.config
    import torch._inductor.config

    # The backward pass is called again and again with the same graph.
    torch._functorch.config.donated_buffer = False
    # A pool of compiling processes would be busy while others are timed.
    torch._inductor.config.compile_threads = 1
