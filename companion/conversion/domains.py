"""Plain layers that become layers with domains, and one domain's that become plain ones again."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils.parametrize import is_parametrized

from companion.variants.domain import (
    DomainBatchNorm1d,
    DomainBatchNorm2d,
    DomainBatchNorm3d,
    _DomainBatchNorm,
    checked_domains,
    layers_with,
)

from .group import independence, normalizes_batches

__all__ = ["convert_domains", "keep_domain"]

_DIVIDED: dict[type[nn.Module], type[_DomainBatchNorm]] = {
    nn.BatchNorm1d: DomainBatchNorm1d,
    nn.BatchNorm2d: DomainBatchNorm2d,
    nn.BatchNorm3d: DomainBatchNorm3d,
}


def convert_domains(
    model: nn.Module, domains: Sequence[str], *, own_affine: bool = False
) -> nn.Module:
    """Give every batch normalization layer of `model`, in place, statistics for each domain.

    A layer becomes that of the first domain inside of a :class:`DomainBatchNorm2d`, or whichever
    fits, and stays the object that it is, with its hooks. The other domains begin with copies: of
    its statistics, and with `own_affine` of its parameters.

    Parameters
    ----------
    model
        any module; may be a batch normalization layer itself
    domains
        the names of the domains
    own_affine
        whether each domain gets a weight and a bias of its own; an optimizer has to be told of them

    Returns
    -------
    nn.Module
        `model`, the same object, unless it is a layer itself: then the new one. :func:`keep_domain`
        is the way back

    Raises
    ------
    TypeError
        `model` is not a module, or a layer in it is another than PyTorch's or this package's
        ``BatchNorm1d``, ``2d``, ``3d`` and subclasses of these, or lazy, or parametrized: left out,
        it would mix the domains
    ValueError
        no layer; names as in :class:`DomainBatchNorm1d`; a model that has domains

    Notes
    -----
    After an error nothing is changed. Frozen layers stay as they are. For synchronized layers call
    :func:`companion.convert_sync` afterwards.

    *AdaBN* (arXiv:1603.04779) is this, without `own_affine`, and the statistics of the new domain
    measured: see the example.

    References
    ----------
    Chang et al. (2019), arXiv:1906.03950; Li et al. (2016), arXiv:1603.04779.

    Examples
    --------
    >>> import torch
    >>> from companion import in_domain, update_precise
    >>> model = convert_domains(nn.Sequential(nn.BatchNorm1d(1), nn.ReLU()), ["source", "target"])
    >>> with in_domain(model, "target"):
    ...     update_precise(model, [torch.tensor([[1.0], [3.0]])], progress=False)
    >>> keep_domain(model, "target")[0].running_mean
    tensor([2.])
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    checked_domains(domains)
    if any(isinstance(module, _DomainBatchNorm) for module in model.modules()):
        raise ValueError("model: expected one without domains, got one that has some")
    divided: dict[nn.Module, nn.Module] = {}
    for path, layer in model.named_modules():
        if not normalizes_batches(layer) or independence(layer) is not None:
            continue
        found = [cls for plain, cls in _DIVIDED.items() if isinstance(layer, plain)]
        if not found or is_parametrized(layer) or isinstance(layer, LazyModuleMixin):
            raise TypeError(
                "model: expected BatchNorm1d, 2d or 3d, initialized and without parametrizations, "
                f"got {type(layer).__name__} in {path or 'the model'!r}"
            )
        made = found[0].__new__(found[0])
        nn.Module.__init__(made)
        made.divide(layer, domains, own_affine)
        divided[layer] = made.train(layer.training)
    if not divided:
        raise ValueError("model: expected at least 1 batch normalization layer, got none")
    return _replaced(model, divided)


def keep_domain(model: nn.Module, name: str) -> nn.Module:
    """Make the layers of `model` that tell domains apart, in place, the plain ones of one domain.

    For deployment: what is left is a model as it was before :func:`convert_domains`, for folding,
    export, and other libraries.

    Parameters
    ----------
    model
        with at least one layer such as :class:`DomainBatchNorm2d`; may be one itself
    name
        a domain that all of these layers have

    Returns
    -------
    nn.Module
        `model`, the same object, unless it is a layer itself: then that of the domain

    Raises
    ------
    ValueError
        no such layer, or one without a domain of that name. Nothing is changed then

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(3, 4), DomainBatchNorm1d(4, domains=["photo", "sketch"]))
    >>> keep_domain(model, "sketch")[1]
    BatchNorm1d(4, eps=1e-05, momentum=0.1, affine=True, ...)
    """
    layers = layers_with(model, name)
    return _replaced(model, {layer: layer.layers[name] for layer in layers})


def _replaced(model: nn.Module, others: dict[nn.Module, nn.Module]) -> nn.Module:
    """The model with other modules at every place of those that are keys."""
    places = [
        (path, others[module])
        for path, module in model.named_modules(remove_duplicate=False)
        if module in others
    ]
    for path, module in places:
        if not path:
            return module
        model.set_submodule(path, module)
    return model
