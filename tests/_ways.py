"""How people make layers and change them: each way is a function of a side, PyTorch's or ours."""

from __future__ import annotations

import copy
import io
import pickle
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict as flat
from torch.optim import swa_utils

SHAPES = {"1d": (6, 4), "1d-long": (4, 4, 3), "2d": (3, 4, 2, 3), "3d": (3, 4, 2, 1, 3)}


@dataclass
class Side:
    """A class with the arguments that it needs."""

    cls: type[nn.Module]
    arguments: tuple[Any, ...] = (4,)
    options: dict[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] = SHAPES["2d"]

    def plain(self, *arguments: Any, **named: Any) -> nn.Module:
        return self.cls(*self.arguments, *arguments, **self.options, **named)

    def make(self, *arguments: Any, **named: Any) -> nn.Module:
        return randomized(self.plain(*arguments, **named))

    def batch(self, seed: int, channels: int | None = None, **options: Any) -> Tensor:
        shape = list(self.shape)
        shape[1] = channels or shape[1]
        generator = torch.Generator().manual_seed(seed)
        return (torch.randn(shape, generator=generator) * 2 + 1).to(**options)


def randomized(layer: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for tensor in layer.state_dict().values():
        if tensor.is_floating_point() and not tensor.is_meta:
            tensor.data.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return layer


def state_of(side: Side, dtype: torch.dtype = torch.float32) -> OrderedDict[str, Tensor]:
    return side.make(dtype=dtype).state_dict()


Way = Callable[[Side], nn.Module]
WAYS: dict[str, Way] = {}
# Of these, what only a layer with running statistics can be made or changed by.
STATISTICS: dict[str, Way] = {}


def way(function: Way) -> Way:
    WAYS[function.__name__] = function
    return function


def statistics_way(function: Way) -> Way:
    STATISTICS[function.__name__] = function
    return function


def changing(name: str, change: Callable[[nn.Module], Any], ways: dict[str, Way] = WAYS) -> None:
    """A way that makes a layer and changes it in place."""

    def made_and_changed(side: Side) -> nn.Module:
        layer = side.make()
        change(layer)
        return layer

    ways[name] = made_and_changed


# --- made ---


@way
def by_default(side):
    return side.make()


@way
def with_dtype(side):
    return side.make(dtype=torch.float64)


@way
def with_device(side):
    return side.make(device="cpu", dtype=torch.float32)


@way
def without_affine(side):
    return side.cls(*side.arguments, **(side.options | {"affine": False}))


@way
def on_the_meta_device(side):
    layer = side.make(device="meta").to_empty(device="cpu")
    layer.reset_parameters()
    return layer


@way
def under_a_device_context(side):
    with torch.device("meta"):
        layer = side.plain()
    layer = layer.to_empty(device="cpu")
    layer.reset_parameters()
    return layer


@way
def by_skip_init(side):
    layer = nn.utils.skip_init(side.cls, *side.arguments, **side.options)
    layer.reset_parameters()
    return layer


@way
def under_a_default_type(side):
    torch.set_default_dtype(torch.float64)
    try:
        return side.make()
    finally:
        torch.set_default_dtype(torch.float32)


@statistics_way
def by_position(side):
    return side.make(1e-2, 0.3, True, True)


@statistics_way
def by_keyword(side):
    return side.make(eps=1e-2, momentum=0.3, affine=True, track_running_stats=True)


@statistics_way
def with_cumulative_momentum(side):
    return side.make(momentum=None)


@statistics_way
def with_integers_for_numbers(side):
    return side.make(eps=1, momentum=1)


@statistics_way
def without_statistics(side):
    return side.make(track_running_stats=False)


@statistics_way
def without_statistics_and_affine(side):
    return side.make(affine=False, track_running_stats=False)


# --- loaded ---


@way
def loaded(side):
    layer = side.plain()
    layer.load_state_dict(state_of(side))
    return layer


@way
def loaded_as_a_plain_dictionary(side):
    layer = side.plain()
    layer.load_state_dict(dict(state_of(side)))
    return layer


@way
def loaded_and_assigned(side):
    layer = side.plain()
    layer.load_state_dict(state_of(side), assign=True)
    return layer


@way
def loaded_and_assigned_on_meta(side):
    layer = side.plain(device="meta")
    layer.load_state_dict(state_of(side), assign=True)
    return layer


@way
def loaded_on_meta_without_assign(side):
    layer = side.plain(device="meta")
    layer.load_state_dict(state_of(side))
    layer.to_empty(device="cpu")
    layer.reset_parameters()
    return layer


@way
def loaded_from_double(side):
    layer = side.plain()
    layer.load_state_dict(state_of(side, torch.float64))
    return layer


@way
def loaded_from_double_and_assigned(side):
    layer = side.plain()
    layer.load_state_dict(state_of(side, torch.float64), assign=True)
    return layer


@way
def loaded_with_a_prefix(side):
    model = nn.Sequential(side.plain())
    model.load_state_dict({f"0.{key}": value for key, value in state_of(side).items()})
    return model[0]


@way
def loaded_without_a_weight(side):
    state = state_of(side)
    del state["weight"]
    layer = side.make()
    layer.load_state_dict(state)
    return layer


@way
def loaded_without_a_weight_not_strictly(side):
    state = state_of(side)
    del state["weight"]
    layer = side.plain()
    missing, unexpected = layer.load_state_dict(state, strict=False)
    assert (missing, unexpected) == (["weight"], [])
    return layer


@way
def loaded_with_more_than_it_has(side):
    layer = side.make()
    layer.load_state_dict(state_of(side) | {"other": torch.ones(4)})
    return layer


@way
def loaded_with_another_shape(side):
    layer = side.make()
    layer.load_state_dict({key: torch.ones(5) for key in state_of(side)})
    return layer


@way
def loaded_from_bytes(side):
    layer = side.plain()
    layer.load_state_dict(saved_and_loaded(state_of(side), weights_only=True))
    return layer


@statistics_way
def loaded_from_version_1(side):
    state = state_of(side)
    del state["num_batches_tracked"]
    state._metadata[""]["version"] = 1
    layer = side.make()
    layer.load_state_dict(state)
    return layer


@statistics_way
def loaded_from_version_1_without_metadata(side):
    state = {key: value for key, value in state_of(side).items() if "num" not in key}
    layer = side.make()
    layer.load_state_dict(state)
    return layer


@statistics_way
def loaded_from_version_1_on_meta(side):
    state = {key: value for key, value in state_of(side).items() if "num" not in key}
    layer = side.plain(device="meta")
    layer.load_state_dict(state, assign=True)
    return layer


@statistics_way
def loaded_from_version_1_after_training(side):
    state = {key: value for key, value in state_of(side).items() if "num" not in key}
    layer = side.make()
    layer(side.batch(3))
    layer.load_state_dict(state)
    return layer


@statistics_way
def loaded_from_version_2_without_a_count(side):
    state = state_of(side)
    del state["num_batches_tracked"]
    layer = side.make()
    layer.load_state_dict(state)
    return layer


@statistics_way
def loaded_with_statistics_into_none(side):
    layer = side.make(track_running_stats=False)
    layer.load_state_dict(state_of(side))
    return layer


@statistics_way
def loaded_with_statistics_into_none_not_strictly(side):
    layer = side.make(track_running_stats=False)
    layer.load_state_dict(state_of(side), strict=False)
    return layer


# --- copied ---


def saved_and_loaded(value, **options):
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, **options)


@way
def pickled(side):
    return pickle.loads(pickle.dumps(side.make()))


@way
def saved_whole(side):
    return saved_and_loaded(nn.Sequential(side.make()), weights_only=False)[0]


@way
def copied(side):
    return copy.copy(side.make())


@way
def deep_copied(side):
    layer = side.make()
    layer(side.batch(4)).sum().backward()
    return copy.deepcopy(layer)


@way
def replicated(side):
    layer = side.make()
    replica = layer._replicate_for_data_parallel()
    for name, parameter in layer.named_parameters():
        setattr(replica, name, parameter.clone())
    for name, buffer in layer.named_buffers():
        setattr(replica, name, buffer.clone())
    return replica


@way
def averaged(side):
    layer = side.make()
    model = swa_utils.AveragedModel(layer)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(1)
    model.update_parameters(layer)
    model.update_parameters(layer)
    return model.module


@way
def averaged_with_buffers(side):
    layer = side.make()
    average = swa_utils.get_ema_multi_avg_fn(0.9)
    model = swa_utils.AveragedModel(layer, multi_avg_fn=average, use_buffers=True)
    for seed in range(3):
        layer(side.batch(seed))
        model.update_parameters(layer)
    return model.module


@way
def with_updated_statistics(side):
    layer = side.make()
    swa_utils.update_bn([side.batch(seed) for seed in range(3)], layer)
    return layer


def without_later_options(layer):
    """As of before the options existed."""
    for name in ("skip_nonfinite", "backend"):
        vars(layer).pop(name, None)
    return layer


@way
def pickled_long_ago(side):
    return pickle.loads(pickle.dumps(without_later_options(side.make())))


@way
def loaded_by_distributed_checkpoint(side):
    source, model = nn.Sequential(side.make()), nn.Sequential(side.plain())
    flat.set_model_state_dict(model, flat.get_model_state_dict(source))
    return model[0]


@way
def initialized_by_hand(side):
    layer = side.make()

    def initialize(module):
        nn.init.constant_(module.weight, 0.5)
        nn.init.zeros_(module.bias)

    return layer.apply(initialize)


@statistics_way
def below_it_for_any_rank(side):
    class AnyRank(side.cls):
        def _check_input_dim(self, input):
            pass

    layer = randomized(AnyRank(*side.arguments, **side.options))
    layer.register_forward_pre_hook(lambda _, args: (args[0][..., None, None, None],))
    return layer


@statistics_way
def below_it_with_more(side):
    class More(side.cls):
        def forward(self, input):
            return super().forward(input * 2) + 1

    return randomized(More(*side.arguments, **side.options))


@way
def traced_once(side):
    return torch.fx.symbolic_trace(nn.Sequential(side.make()))
