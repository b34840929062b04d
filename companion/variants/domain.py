"""Batch normalization with statistics of its own in each of several domains.

Where a network learns from photographs and from sketches, or from images and from adversarial ones,
a mean over both kinds belongs to neither. Here all domains share the weights of the other layers,
and each has running statistics of its own, and where it is wanted a weight and bias of its own.

Source: Chang, You, Seo, Kwak & Han (2019), arXiv:1906.03950, for the layer; Xie, Tan, Gong, Wang,
Yuille & Le (2020), "AdvProp", arXiv:1911.09665, for adversarial examples as a domain; Li, Wang,
Shi, Liu & Hou (2016), "AdaBN", arXiv:1603.04779, for a domain that differs in statistics alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from companion.modules import BatchNorm1d, BatchNorm2d, BatchNorm3d

__all__ = ["DomainBatchNorm1d", "DomainBatchNorm2d", "DomainBatchNorm3d", "in_domain"]


class _DomainBatchNorm(nn.Module):
    """What the three layers share: a plain layer for each domain, one of which is called."""

    _layer: ClassVar[type[BatchNorm1d] | type[BatchNorm2d] | type[BatchNorm3d]]

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
        domains: Sequence[str],
        own_affine: bool = False,
        bias: bool = True,
        skip_nonfinite: bool = False,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        layer = self._layer(
            *(num_features, eps, momentum, affine, track_running_stats, device, dtype),
            bias=bias,
            skip_nonfinite=skip_nonfinite,
            backend=backend,
        )
        self.divide(layer, domains, own_affine)

    def divide(self, layer: nn.Module, domains: Sequence[str], own_affine: bool) -> None:
        """Take `layer` for the first domain, and copies of it for the others."""
        first, *others = checked_domains(domains)
        layers = {first: layer} | {name: copy.deepcopy(layer) for name in others}
        self.layers = nn.ModuleDict(layers)
        self.own_affine = own_affine
        self.domain = first
        self._share()
        # A state dictionary whose tensors are assigned brings a parameter for each domain.
        self.register_load_state_dict_post_hook(_share_again)

    def _share(self) -> None:
        """Make the parameters of the first domain's layer those of all, unless each has its own."""
        if self.own_affine:
            return
        first, *others = self.layers.values()
        for layer in others:
            for name, parameter in first.named_parameters(recurse=False):
                layer.register_parameter(name, parameter)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Move and convert; what the domains share may be a new parameter afterwards."""
        super()._apply(fn, recurse)
        self._share()
        return self

    def extra_repr(self) -> str:
        """The domain that is used now, and whether each has parameters of its own."""
        text = f"domain={self.domain!r}"
        return f"{text}, own_affine=True" if self.own_affine else text

    def forward(self, input: Tensor) -> Tensor:
        """Normalize `input`, all of it, as the layer of the present domain does.

        Parameters
        ----------
        input
            floating-point tensor with `num_features` channels in axis 1, of one domain

        Returns
        -------
        Tensor
            of the shape, type and memory format of `input`

        Raises
        ------
        ValueError, RuntimeError, NotImplementedError, TypeError
            as the plain layer; nothing is changed then
        """
        y: Tensor = self.layers[self.domain](input)
        return y


def _share_again(layer: nn.Module, _: Any) -> None:
    assert isinstance(layer, _DomainBatchNorm)
    layer._share()


def checked_domains(domains: Sequence[str]) -> list[str]:
    """The names of domains, as long as each can be that of a layer in the state dictionary."""
    names = [] if isinstance(domains, str) else list(domains)
    taken = dir(nn.ModuleDict())
    fit = [name for name in names if isinstance(name, str) and name and "." not in name]
    if not names or len(set(names)) < len(names) or len(fit) < len(names) or set(fit) & set(taken):
        raise ValueError(
            "domains: expected different names, without dots and none of an attribute of a module "
            f"such as 'train', got {domains!r}"
        )
    return names


class DomainBatchNorm1d(_DomainBatchNorm):
    """Batch normalization of ``(N, C)`` or ``(N, C, L)`` in several domains.

    y = (x - mean)/√(var + ε)·weight + bias as :class:`companion.BatchNorm1d`, with the running
    statistics of the present domain, which :func:`in_domain` chooses. A batch is of one domain.

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
    domains
        their names, the first of which is used outside of :func:`in_domain`
    own_affine
        whether each domain has a weight and a bias of its own; by default they share one
    skip_nonfinite
        leave running statistics and count alone when a batch has statistics that are not finite
    backend
        the kernels that compute, see :func:`companion.functional.batch_norm`

    Raises
    ------
    ValueError
        `domains` without a name, or with one twice, or one that cannot be a submodule's

    Notes
    -----
    *State.* ``layers`` holds a :class:`companion.BatchNorm1d` for each domain, under its name:
    in the state dictionary, ``layers.sketch.running_mean``. What holds of that layer holds here;
    tools for whole models find one plain layer for each domain, and those that look at its calls
    (:func:`companion.update_precise`, :func:`adapted_statistics`, the contexts) reach the present
    domain's. Parameters that the domains share stay shared, when they are copied, moved or loaded.

    *Compilation.* ``torch.compile`` compiles once for each domain. What is traced, exported or
    folded is of the domain that was present then.

    *Checkpointing.* What a backward pass recomputes is of the domain that is present then: call
    ``backward`` inside of the context.

    *Several processes.* :func:`companion.convert_sync` synchronizes within each domain: all
    processes then make the same calls in the same domains.

    References
    ----------
    Chang et al. (2019), arXiv:1906.03950, with `own_affine`; Xie et al. (2020), arXiv:1911.09665;
    Li et al. (2016), arXiv:1603.04779.

    Examples
    --------
    >>> layer = DomainBatchNorm1d(1, momentum=1.0, domains=["photo", "sketch"])
    >>> photos, sketches = torch.tensor([[2.0], [4.0]]), torch.tensor([[20.0], [40.0]])
    >>> _ = layer(photos)
    >>> with in_domain(layer, "sketch"):
    ...     _ = layer(sketches)
    >>> [plain.running_mean.item() for plain in layer.layers.values()]
    [3.0, 30.0]
    """

    _layer = BatchNorm1d


class DomainBatchNorm2d(_DomainBatchNorm):
    """Batch normalization of ``(N, C, H, W)`` in several domains.

    y = (x - mean)/√(var + ε)·weight + bias as :class:`companion.BatchNorm2d`, with the running
    statistics of the present domain, which :func:`in_domain` chooses. A batch is of one domain.

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
    domains
        their names, the first of which is used outside of :func:`in_domain`
    own_affine
        whether each domain has a weight and a bias of its own; by default they share one
    skip_nonfinite
        leave running statistics and count alone when a batch has statistics that are not finite
    backend
        the kernels that compute, see :func:`companion.functional.batch_norm`

    Raises
    ------
    ValueError
        `domains` without a name, or with one twice, or one that cannot be a submodule's

    Notes
    -----
    See :class:`DomainBatchNorm1d`.

    References
    ----------
    Chang et al. (2019), arXiv:1906.03950, with `own_affine`; Xie et al. (2020), arXiv:1911.09665;
    Li et al. (2016), arXiv:1603.04779.

    Examples
    --------
    >>> layer = DomainBatchNorm2d(3, domains=["clean", "adversarial"], own_affine=True)
    >>> with in_domain(layer, "adversarial"):
    ...     _ = layer(torch.randn(2, 3, 8, 8))
    >>> [plain.num_batches_tracked.item() for plain in layer.layers.values()]
    [0, 1]
    """

    _layer = BatchNorm2d


class DomainBatchNorm3d(_DomainBatchNorm):
    """Batch normalization of ``(N, C, D, H, W)`` in several domains.

    y = (x - mean)/√(var + ε)·weight + bias as :class:`companion.BatchNorm3d`, with the running
    statistics of the present domain, which :func:`in_domain` chooses. A batch is of one domain.

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
    domains
        their names, the first of which is used outside of :func:`in_domain`
    own_affine
        whether each domain has a weight and a bias of its own; by default they share one
    skip_nonfinite
        leave running statistics and count alone when a batch has statistics that are not finite
    backend
        the kernels that compute, see :func:`companion.functional.batch_norm`

    Raises
    ------
    ValueError
        `domains` without a name, or with one twice, or one that cannot be a submodule's

    Notes
    -----
    See :class:`DomainBatchNorm1d`.

    References
    ----------
    Chang et al. (2019), arXiv:1906.03950, with `own_affine`; Xie et al. (2020), arXiv:1911.09665;
    Li et al. (2016), arXiv:1603.04779.

    Examples
    --------
    >>> layer = DomainBatchNorm3d(3, domains=["scanner-a", "scanner-b"])
    >>> [name for name, _ in layer.named_parameters()]  # shared
    ['layers.scanner-a.weight', 'layers.scanner-a.bias']
    """

    _layer = BatchNorm3d


@contextmanager
def in_domain(model: nn.Module, name: str) -> Iterator[None]:
    """Let the layers of `model` that tell domains apart use those of one domain, inside.

    Parameters
    ----------
    model
        with at least one layer such as :class:`DomainBatchNorm2d`
    name
        a domain that all of these layers have

    Raises
    ------
    ValueError
        no such layer, or one without a domain of that name

    Notes
    -----
    Afterwards each layer is in the domain that it was in before, also after an exception.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(3, 4), DomainBatchNorm1d(4, domains=["photo", "sketch"]))
    >>> with in_domain(model, "sketch"):
    ...     model[1].domain
    'sketch'
    >>> model[1].domain
    'photo'
    """
    layers = layers_with(model, name)
    former = [(layer, layer.domain) for layer in layers]
    try:
        for layer in layers:
            layer.domain = name
        yield
    finally:
        for layer, own in former:
            layer.domain = own


def layers_with(model: nn.Module, name: str) -> list[_DomainBatchNorm]:
    """The model's layers with domains, all of which must have this one."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    found = {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, _DomainBatchNorm)
    }
    if not found:
        raise ValueError("model: expected at least 1 layer with domains, got none")
    for path, layer in found.items():
        if name not in layer.layers:
            raise ValueError(
                f"name: expected one of {list(layer.layers)}, the domains of "
                f"{path or 'the model'!r}, got {name!r}"
            )
    return list(found.values())
