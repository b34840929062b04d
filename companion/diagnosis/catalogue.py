"""Every code of a diagnosis: what it means, what to do, and where the book explains it."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["KINDS", "SEVERITIES"]

SEVERITIES = ("error", "warning", "note")


class Kind(NamedTuple):
    """What all findings of one code have in common."""

    consequence: str
    remedy: str
    chapter: str


KINDS: dict[str, Kind] = {
    "nonfinite-statistics": Kind(
        "In evaluation mode every output of these channels is NaN or a constant.",
        "companion.update_precise(model, loader); train inside companion.finite_statistics(model)",
        "symptoms#nan-or-inf-in-the-running-statistics",
    ),
    "few-values": Kind(
        "One value has no variance, and few give noisy statistics: of the output's variance the "
        "share `noise` is drawn anew with each batch.",
        "larger batches, companion.convert_sync over devices, or companion.to_group_norm(model)",
        "failure-modes#two-values",
    ),
    "batch-statistics-in-evaluation": Kind(
        "The layer keeps no running statistics: in evaluation mode, too, the output of an example "
        "depends on its batch.",
        "create the layer with track_running_stats=True; then companion.update_precise(model, "
        "loader)",
        "failure-modes#examples-that-see-each-other",
    ),
    "train-eval-gap": Kind(
        "In evaluation mode the layer does not give what its successors were trained on.",
        "companion.update_precise(model, loader), and look at the findings of its inputs",
        "inference#when-evaluation-is-much-worse-than-training",
    ),
    "never-updated": Kind(
        "The running statistics are the initial 0 and 1: evaluation mode does not normalize.",
        "companion.update_precise(model, loader)",
        "inference#computing-the-statistics-anew",
    ),
    "stale-statistics": Kind(
        "The running statistics are not those of the data that the layer gets in training.",
        "companion.update_precise(model, loader)",
        "inference#a-running-average-errs-in-three-ways",
    ),
    "dropout-before": Kind(
        "Without dropout the layer's input has another variance than its running statistics say.",
        "dropout after the last normalization, or none",
        "failure-modes#dropout-in-front",
    ),
    "ordered-batches": Kind(
        "The batches differ in composition: each is normalized by the statistics of a part of the "
        "data, and evaluation uses those of all.",
        "DataLoader(..., shuffle=True)",
        "failure-modes#batches-that-are-not-alike",
    ),
    "shared-layer": Kind(
        "One layer is called on inputs of different statistics: its running ones mix them.",
        "a layer of its own for each call, or companion.convert_domains",
        "symptoms#two-forward-passes-in-a-step",
    ),
    "double-count": Kind(
        "One step moves the running statistics several times: they forget faster.",
        "companion.convert(model), whose layers know recomputation; "
        "companion.preserved_statistics(model) around further forward passes",
        "failure-modes#batches-that-count-twice",
    ),
    "unsynchronized": Kind(
        "Each process normalizes by the statistics of its own small batch.",
        "companion.convert_sync(model)",
        "many-devices#when-to-synchronize",
    ),
    "before-output": Kind(
        "The outputs of an example depend on its batch, and every batch is given the same mean.",
        "let the network end in a linear layer, with a bias",
        "backprop#what-the-last-normalization-does",
    ),
    "half-precision-state": Kind(
        "A running average in half precision stops moving: its steps are rounded away.",
        "companion.convert(model.float()), whose layers then keep their statistics in float32 in a "
        "model of half precision, too",
        "failure-modes#numbers-of-sixteen-bits",
    ),
    "momentum-convention": Kind(
        "PyTorch's momentum weights the new batch, Keras' the old average: the running variance of "
        "such a layer is little more than that of the last batch.",
        "momentum = 1 - momentum",
        "inference#two-meanings-of-momentum",
    ),
    "eps-mismatch": Kind(
        "The layers of one model have different ε, as after a conversion from another library.",
        "one eps for all: the one that the weights were trained with",
        "symptoms#weights-from-keras-tensorflow-or-caffe",
    ),
    "half-frozen": Kind(
        "Of parameters and statistics one part is frozen, and the other moves under it.",
        "companion.freeze(model), or let both train",
        "failure-modes#few-images-many-steps",
    ),
    "thawed": Kind(
        "A layer that was frozen by eval() wakes with the next model.train().",
        "companion.freeze(model), which train() does not undo",
        "failure-modes#few-images-many-steps",
    ),
    "decayed-scale": Kind(
        "Decay makes γ and β shorter: before another normalization they only turn faster, "
        "elsewhere it limits the function.",
        "torch.optim.…(companion.parameter_groups(model, weight_decay), …)",
        "weight-decay#which-parameters-to-decay",
    ),
    "dead-channel": Kind(
        "These channels are constant, or next to it: what follows them cannot use them.",
        "prune them; or look at what dies before them",
        "mini-batch-algorithm#two-moments-are-certain",
    ),
    "dead-bias": Kind(
        "The normalization subtracts the bias of the layer before it again: its gradient is 0.",
        "create the layer with bias=False",
        "backprop#a-bias-below-the-layer-is-dead",
    ),
    "affine-twice": Kind(
        "A linear layer or normalization follows at once and can do what γ does.",
        "affine=False, or a nonlinearity between them",
        "backprop#scaling-the-weights",
    ),
    "unfolded": Kind(
        "At inference the layer could be part of the linear or convolution layer before it.",
        "folded, report = companion.fold(model, example)",
        "inference#folding",
    ),
}
