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
        "api#contexts",
    ),
    "few-values": Kind(
        "One value has no variance, and few give noisy statistics: of the output's variance the "
        "share `noise` is drawn anew with each batch.",
        "larger batches, companion.convert_sync over devices, or companion.to_group_norm(model)",
        "twenty-minutes#the-batch-is-too-small",
    ),
    "train-eval-gap": Kind(
        "In evaluation mode the layer does not give what its successors were trained on.",
        "companion.update_precise(model, loader), and look at the findings of its inputs",
        "mini-batch-algorithm#from-batches-to-the-population",
    ),
    "never-updated": Kind(
        "The running statistics are the initial 0 and 1: evaluation mode does not normalize.",
        "companion.update_precise(model, loader)",
        "mini-batch-algorithm#running-averages",
    ),
    "stale-statistics": Kind(
        "The running statistics are not those of the data that the layer gets in training.",
        "companion.update_precise(model, loader)",
        "twenty-minutes#validation-comes-before-the-averages-are-ready",
    ),
    "dropout-before": Kind(
        "Without dropout the layer's input has another variance than its running statistics say.",
        "dropout after the last normalization, or none",
        "twenty-minutes#where-it-stands",
    ),
    "ordered-batches": Kind(
        "The batches differ in composition: each is normalized by the statistics of a part of the "
        "data, and evaluation uses those of all.",
        "DataLoader(..., shuffle=True)",
        "twenty-minutes#evaluation-mode-was-forgotten",
    ),
    "shared-layer": Kind(
        "One layer is called on inputs of different statistics: its running ones mix them.",
        "a layer of its own for each call, or companion.convert_domains",
        "api#several-domains",
    ),
    "double-count": Kind(
        "One step moves the running statistics several times: they forget faster.",
        "companion.convert(model), whose layers know recomputation; "
        "companion.preserved_statistics(model) around further forward passes",
        "api#contexts",
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
        "companion.convert(model), whose layers keep their statistics in float32",
        "api#layers",
    ),
    "momentum-convention": Kind(
        "PyTorch's momentum weights the new batch, Keras' the old average: the running variance of "
        "such a layer is little more than that of the last batch.",
        "momentum = 1 - momentum",
        "mini-batch-algorithm#running-averages",
    ),
    "eps-mismatch": Kind(
        "The layers of one model have different ε, as after a conversion from another library.",
        "one eps for all: the one that the weights were trained with",
        "mini-batch-algorithm#the-only-range-there-is",
    ),
    "half-frozen": Kind(
        "Of parameters and statistics one part is frozen, and the other moves under it.",
        "companion.freeze(model), or let both train",
        "api#other-statistics-at-inference",
    ),
    "thawed": Kind(
        "A layer that was frozen by eval() wakes with the next model.train().",
        "companion.freeze(model), which train() does not undo",
        "api#other-statistics-at-inference",
    ),
    "decayed-scale": Kind(
        "Weight decay pulls γ and β to 0, and the network's functions with them.",
        "torch.optim.…(companion.parameter_groups(model, weight_decay), …)",
        "api#whole-models",
    ),
    "dead-channel": Kind(
        "These channels are constant, or next to it: what follows them cannot use them.",
        "prune them; or look at what dies before them",
        "api#layers",
    ),
    "dead-bias": Kind(
        "The normalization subtracts the bias of the layer before it again: its gradient is 0.",
        "create the layer with bias=False",
        "backprop#a-bias-below-the-layer-is-dead",
    ),
    "affine-twice": Kind(
        "A linear layer or normalization follows at once and can do what γ does.",
        "affine=False, or a nonlinearity between them",
        "api#layers",
    ),
    "unfolded": Kind(
        "At inference the layer could be part of the linear or convolution layer before it.",
        "folded, report = companion.fold(model, example)",
        "api#inference",
    ),
}
