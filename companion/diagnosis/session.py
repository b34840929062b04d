"""Looking at a model, and running it where there are data."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from companion.statistics.feeding import progress_bar
from companion.statistics.layers import Layer

from . import looking, measured
from .catalogue import KINDS, SEVERITIES
from .finding import Diagnosis, Finding
from .flow import Flow, traced
from .observation import OneValue, Subject, first_items, untouched_model

__all__ = ["diagnose"]

_STRUCTURE = ("dead-bias", "affine-twice", "unfolded", "before-output")
_DATA = (
    "few-values",
    "batch-statistics-in-evaluation",
    "train-eval-gap",
    "stale-statistics",
    "dropout-before",
    "ordered-batches",
    "shared-layer",
    "double-count",
    "unsynchronized",
)


def diagnose(
    model: nn.Module,
    loader: Iterable[Any] | None = None,
    *,
    loss: Callable[[Any, Any], Any] | None = None,
    optimizer: Optimizer | None = None,
    batches: int = 8,
    forward: Callable[[nn.Module, Any], Any] | None = None,
    progress: bool = True,
) -> Diagnosis:
    """Find what goes wrong with batch normalization in a model.

    The layers' state and the calls between them are looked at; with a `loader` the model is run
    on some batches, as in training, with batch statistics but without dropout, and in evaluation
    mode. Nothing is changed: modes, statistics, counts, gradients and random state are as
    before at the end, also after an error. No network, no upload.

    Parameters
    ----------
    model
        any module; looked at are the batch normalizations of ``torch.nn``, of this package, and
        classes below them
    loader
        of tensors, or of tuples that begin with one, which goes to the model; of anything that
        contains a tensor if `forward` is given. As in training: shuffled, of the batch size used
    loss
        ``loss(output, target)``, with the second of what the loader yields; without it the modes
        are compared by the layers alone
    optimizer
        the one that trains the model, for what weight decay reaches and how often it stepped
    batches
        how many to take of the loader, at least 2; tests need 3
    forward
        runs the model, ``forward(model, item)``; by default ``model(tensor)``
    progress
        whether to show a bar, if tqdm is installed

    Returns
    -------
    Diagnosis
        a sequence of :class:`Finding`, which prints as a table and has ``to_json()``. What could
        not be decided, for want of data, say, is in its ``unchecked``, with the reason

    Raises
    ------
    TypeError
        `model` is not a module; items that it cannot be given, or without a target for `loss`
    ValueError
        fewer than 2 `batches`, a loader without any, a lazy layer that was never called
    Exception
        whatever `loader`, `model` and `loss` raise

    Notes
    -----
    *Thresholds.* Two statistics are compared by the squared error of the normalized output, in
    units of its variance. A finding needs 0.1 of it, and 20 times what sampling gives on average:
    by Markov's inequality chance does that for at most one layer in twenty, however its channels
    depend on one another. Composition of batches is tested at 1 in 10,000, a loss that is larger by
    a tenth in evaluation mode at 1 in 1,000; without a loss the error of a layer has to be 1, as
    large as its signal. Values are few where the noise of their statistics is more than a tenth of
    the output's variance: 2(1 - c_m) of it, at 14 values or fewer.

    *Several processes.* Each has to call this function.

    *A backward pass* is run on the first batch, to see what recomputation counts; not where
    something, such as an optimizer, is called in it. Gradients that were there are kept.

    References
    ----------
    Eq. (7) identity/batch-identity-mse; Eq. (14) mini-batch-algorithm/running-average; Eq. (1)
    failure-modes/statistics-error.

    Examples
    --------
    >>> import torch
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, momentum=0.99), nn.Linear(4, 2))
    >>> for finding in diagnose(model):
    ...     print(finding.code, finding.layer, "->", finding.remedy)
    never-updated 1 -> companion.update_precise(model, loader)
    momentum-convention 1 -> momentum = 1 - momentum
    dead-bias 0 -> create the layer with bias=False
    affine-twice 1 -> affine=False, or a nonlinearity between them
    """
    layers = _layers(model)
    if batches < 2:
        raise ValueError(f"batches: expected at least 2, got {batches}")
    found = list(looking.state(model, layers))
    unchecked: dict[str, str] = {}
    if optimizer is None:
        unchecked["decayed-scale"] = "without an optimizer"
    else:
        found += looking.decay(layers, optimizer)
    flow: Flow | None = None
    if loader is None:
        unchecked |= dict.fromkeys(_DATA, "without data")
        flow = traced(model)
    elif layers:
        with ExitStack() as stack:
            stack.enter_context(untouched_model(model))
            items = first_items(loader, batches)
            total = 3 * len(items) + 1
            advance = stack.enter_context(progress_bar(total, progress, "diagnosis", "batches"))
            subject = Subject(model, layers, items, forward, loss, advance)
            try:
                flow = _measure(subject, found, unchecked)
            except OneValue as one:
                found += measured.few_values(one.layer, 1, layers[one.layer])
                unchecked |= dict.fromkeys(_DATA[1:], "of one value per channel")
    if flow is None and layers:
        unchecked |= dict.fromkeys(_STRUCTURE, "without data, in code that torch.fx cannot trace")
    elif flow is not None:
        found += looking.connections(model, layers, flow)
    order, codes, names = list(SEVERITIES), list(KINDS), list(dict(model.named_modules()))
    found.sort(
        key=lambda one: (order.index(one.severity), codes.index(one.code), names.index(one.layer))
    )
    return Diagnosis(tuple(found), len(layers), unchecked)


def _layers(model: nn.Module) -> dict[str, Layer]:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    layers = {name: part for name, part in model.named_modules() if isinstance(part, Layer)}
    for name, part in model.named_modules():
        if any(map(is_lazy, (*part.parameters(recurse=False), *part.buffers(recurse=False)))):
            raise ValueError(
                f"model: expected layers with shapes, got a lazy one, {name!r}: call the model "
                "once before"
            )
    return layers


def _measure(subject: Subject, found: list[Finding], unchecked: dict[str, str]) -> Flow:
    """Run the model in its modes, and add what that shows."""
    model, layers = subject.model, subject.layers
    if not model.training:
        model.train()
    awake = [layer for layer in layers.values() if layer.training]
    training = subject.run()
    flow, moved = subject.step()
    found += measured.between_steps(layers, training, moved)
    for name, values in training.values.items():
        found += measured.few_values(name, values, layers[name])
        found += measured.unsynchronized(name, values, layers[name])
    found += measured.staleness(layers, training)
    found += measured.composition(training.samples)
    model.eval()
    for layer in awake:
        layer.training = True
    suspects = measured.follows_dropout(flow, model, layers)
    fixed = subject.run() if suspects else training
    found += measured.dropout(suspects, layers, training, fixed)
    model.eval()
    evaluation = subject.run()
    found += measured.batch_statistics(layers, evaluation)
    found += measured.between_modes(layers, fixed, evaluation)
    if len(subject.items) < 3:
        reason = "with fewer than 3 batches"
        unchecked |= dict.fromkeys(("dropout-before", "ordered-batches"), reason)
    return flow
