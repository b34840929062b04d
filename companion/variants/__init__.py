"""Relatives of batch normalization: other statistics in training, or other ones at inference.

Their parameters, buffers and state dictionaries are those of PyTorch's layers, of which they are no
subclasses, :class:`SyncBatchNorm` excepted: PyTorch's tools would take them for batch normalization
and drop what they do beyond it. This package's tools for whole models serve all of them.
"""

from companion.variants.adaptive import adapted_statistics
from companion.variants.decorrelated import DecorrelatedBatchNorm1d, DecorrelatedBatchNorm2d
from companion.variants.domain import (
    DomainBatchNorm1d,
    DomainBatchNorm2d,
    DomainBatchNorm3d,
    in_domain,
)
from companion.variants.entropy_minimization import tent
from companion.variants.example_weighting import (
    ExampleWeightedBatchNorm1d,
    ExampleWeightedBatchNorm2d,
    ExampleWeightedBatchNorm3d,
)
from companion.variants.freezing import freeze, unfreeze
from companion.variants.frozen import (
    FrozenBatchNorm,
    FrozenBatchNorm1d,
    FrozenBatchNorm2d,
    FrozenBatchNorm3d,
)
from companion.variants.ghost import GhostBatchNorm1d, GhostBatchNorm2d, GhostBatchNorm3d
from companion.variants.group import GroupNorm, group_norm
from companion.variants.instance import (
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
    instance_norm,
)
from companion.variants.iterative import IterNorm1d, IterNorm2d
from companion.variants.layer import LayerNorm, layer_norm
from companion.variants.masked import (
    MaskedBatchNorm1d,
    MaskedBatchNorm2d,
    masked_batch_norm,
)
from companion.variants.monte_carlo import monte_carlo_predict
from companion.variants.noisy import NoisyBatchNorm1d, NoisyBatchNorm2d, NoisyBatchNorm3d
from companion.variants.recurrent import BatchNormLSTM, BatchNormRNN
from companion.variants.renorm import (
    BatchRenorm1d,
    BatchRenorm2d,
    BatchRenorm3d,
    LinearSchedule,
)
from companion.variants.stepwise import RecurrentBatchNorm
from companion.variants.synchronized import SyncBatchNorm, SyncBatchNormAct
from companion.variants.synchronizing import convert_sync
from companion.variants.weight_normalization import WeightNorm, weight_norm
from companion.variants.weight_standardization import WeightStandardization, weight_standardize

__all__ = [
    "BatchNormLSTM",
    "BatchNormRNN",
    "BatchRenorm1d",
    "BatchRenorm2d",
    "BatchRenorm3d",
    "DecorrelatedBatchNorm1d",
    "DecorrelatedBatchNorm2d",
    "DomainBatchNorm1d",
    "DomainBatchNorm2d",
    "DomainBatchNorm3d",
    "ExampleWeightedBatchNorm1d",
    "ExampleWeightedBatchNorm2d",
    "ExampleWeightedBatchNorm3d",
    "FrozenBatchNorm",
    "FrozenBatchNorm1d",
    "FrozenBatchNorm2d",
    "FrozenBatchNorm3d",
    "GhostBatchNorm1d",
    "GhostBatchNorm2d",
    "GhostBatchNorm3d",
    "GroupNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "IterNorm1d",
    "IterNorm2d",
    "LayerNorm",
    "LinearSchedule",
    "MaskedBatchNorm1d",
    "MaskedBatchNorm2d",
    "NoisyBatchNorm1d",
    "NoisyBatchNorm2d",
    "NoisyBatchNorm3d",
    "RecurrentBatchNorm",
    "SyncBatchNorm",
    "SyncBatchNormAct",
    "WeightNorm",
    "WeightStandardization",
    "adapted_statistics",
    "convert_sync",
    "freeze",
    "group_norm",
    "in_domain",
    "instance_norm",
    "layer_norm",
    "masked_batch_norm",
    "monte_carlo_predict",
    "tent",
    "unfreeze",
    "weight_norm",
    "weight_standardize",
]
