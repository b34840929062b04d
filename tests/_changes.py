"""What people do to a layer that is there: each a way to make and change one."""

from __future__ import annotations

import copy
import warnings

import torch
from _ways import STATISTICS, WAYS, changing, state_of, statistics_way, way
from torch import nn
from torch.nn.utils import parametrize, prune

__all__ = ["STATISTICS", "WAYS"]

# --- changed parameters ---


class Doubled(nn.Module):
    def forward(self, value):
        return value * 2


changing("pruned", lambda m: prune.l1_unstructured(m, "weight", amount=2))
changing("pruned_with_a_mask", lambda m: prune.custom_from_mask(m, "weight", torch.arange(4) % 2))
changing(
    "pruned_global",
    lambda m: prune.global_unstructured(
        [(m, "weight"), (m, "bias")], prune.L1Unstructured, amount=3
    ),
)


@way
def pruned_for_good(side):
    layer = side.make()
    prune.random_unstructured(layer, "bias", amount=0)
    prune.l1_unstructured(layer, "weight", amount=2)
    prune.remove(layer, "weight")
    return layer


changing("parametrized", lambda m: parametrize.register_parametrization(m, "weight", Doubled()))


@way
def parametrized_and_back(side):
    layer = side.make()
    parametrize.register_parametrization(layer, "weight", Doubled())
    parametrize.remove_parametrizations(layer, "weight")
    return layer


@way
def parametrized_and_deep_copied(side):
    layer = side.make()
    parametrize.register_parametrization(layer, "weight", Doubled())
    return copy.deepcopy(layer)


changing("weight_normalized", lambda m: nn.utils.parametrizations.weight_norm(m))


def former_weight_norm(layer):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        nn.utils.weight_norm(layer)


changing("weight_normalized_as_formerly", former_weight_norm)
changing("spectral_normalized", lambda m: nn.utils.parametrizations.spectral_norm(m))


def keep(layer, *, told):
    """Keep two of four channels, as pruning by hand does."""
    index = torch.tensor([0, 2])
    for name in ("weight", "bias"):
        value = getattr(layer, name)
        setattr(layer, name, nn.Parameter(value.detach()[index]))
    for name in ("running_mean", "running_var"):
        if getattr(layer, name, None) is not None:
            setattr(layer, name, getattr(layer, name)[index])
    if told:
        layer.num_features = layer.num_channels = 2


changing("sliced", lambda m: keep(m, told=True))
changing("sliced_without_telling", lambda m: keep(m, told=False))


def keep_in_place(layer):
    index = torch.tensor([0, 2])
    for tensor in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
        tensor.data = tensor.data[index]


changing("sliced_in_place_without_telling", keep_in_place, STATISTICS)
changing("told_of_other_channels_only", lambda m: setattr(m, "num_features", 7), STATISTICS)


def set_parameter(name, value):
    return lambda layer: setattr(layer, name, value)


changing("weight_taken_away", set_parameter("weight", None))
changing("bias_taken_away", set_parameter("bias", None))
changing("parameters_taken_away", lambda m: (setattr(m, "weight", None), setattr(m, "bias", None)))
changing("bias_unregistered", lambda m: m.register_parameter("bias", None))
changing("affine_off_afterwards", set_parameter("affine", False))
changing(
    "weight_a_buffer",
    lambda m: (delattr(m, "weight"), m.register_buffer("weight", torch.ones(4) * 2)),
)
changing(
    "weight_a_plain_tensor",
    lambda m: (delattr(m, "weight"), setattr(m, "weight", torch.arange(4.0))),
)
changing("weight_of_a_graph", lambda m: (delattr(m, "weight"), setattr(m, "weight", m.bias.exp())))
changing("weight_shared_with_bias", lambda m: setattr(m, "bias", m.weight))
changing(
    "weight_expanded",
    lambda m: (delattr(m, "weight"), setattr(m, "weight", torch.ones(1).expand(4))),
)
changing("weight_strided", lambda m: setattr(m, "weight", nn.Parameter(torch.arange(8.0)[::2])))
changing("weight_repeated", lambda m: (delattr(m, "weight"), setattr(m, "weight", torch.ones(4))))
changing(
    "weight_contiguous", lambda m: setattr(m, "weight", nn.Parameter(torch.arange(0.0, 8.0, 2.0)))
)
changing("weight_of_another_shape", lambda m: setattr(m, "weight", nn.Parameter(torch.ones(3))))
changing("weight_double", lambda m: setattr(m, "weight", nn.Parameter(torch.ones(4).double())))
changing("parameters_frozen", lambda m: m.requires_grad_(False))
changing("weight_frozen", lambda m: m.weight.requires_grad_(False))
changing("shared_memory", lambda m: m.share_memory())


@way
def put_from_a_vector(side):
    layer = side.make()
    vector = nn.utils.parameters_to_vector(layer.parameters())
    nn.utils.vector_to_parameters(vector * 2, layer.parameters())
    return layer


# --- changed statistics and options ---

for name, value in {
    "eps": 0.5,
    "eps_0": 0,
    "momentum": 0.7,
    "momentum_0": 0,
    "momentum_1": 1,
    "momentum_None": None,
    "momentum_above_1": 1.5,
    "track_running_stats": False,
    "running_mean": None,
    "running_var": None,
    "num_batches_tracked": None,
    "num_features": 4.0,
}.items():
    attribute = name
    for suffix in ("_0", "_1", "_None", "_above_1"):
        attribute = attribute.removesuffix(suffix)
    changing(f"{name}_set", set_parameter(attribute, value), STATISTICS)


def without_statistics_by_hand(layer):
    layer.running_mean = layer.running_var = None


def averaging_without_count(layer):
    layer.momentum = layer.num_batches_tracked = None


def statistics_given_to_a_layer_without(side):
    layer = side.make(track_running_stats=False)
    layer.running_mean, layer.running_var = torch.zeros(4), torch.ones(4)
    return layer


STATISTICS["statistics_given_to_a_layer_without"] = statistics_given_to_a_layer_without


@statistics_way
def tracking_on_afterwards(side):
    layer = side.make(track_running_stats=False)
    layer.track_running_stats = True
    return layer


@statistics_way
def momentum_none_midway(side):
    layer = side.make()
    layer(side.batch(5))
    layer.momentum = None
    return layer


changing("statistics_removed_by_hand", without_statistics_by_hand, STATISTICS)
changing("averaging_without_count", averaging_without_count, STATISTICS)
changing("statistics_reset", lambda m: m.reset_running_stats(), STATISTICS)
changing("parameters_reset", lambda m: m.reset_parameters())
changing(
    "count_an_int32",
    lambda m: setattr(m, "num_batches_tracked", m.num_batches_tracked.int()),
    STATISTICS,
)
changing(
    "count_a_float",
    lambda m: setattr(m, "num_batches_tracked", m.num_batches_tracked.float()),
    STATISTICS,
)
changing(
    "count_a_vector",
    lambda m: setattr(m, "num_batches_tracked", m.num_batches_tracked[None]),
    STATISTICS,
)
changing("count_large", lambda m: m.num_batches_tracked.fill_(2**40), STATISTICS)
changing(
    "statistics_double",
    lambda m: (
        setattr(m, "running_mean", m.running_mean.double()),
        setattr(m, "running_var", m.running_var.double()),
    ),
    STATISTICS,
)
changing(
    "statistics_strided",
    lambda m: (
        setattr(m, "running_mean", torch.zeros(8)[::2]),
        setattr(m, "running_var", torch.ones(8)[::2]),
    ),
    STATISTICS,
)
changing(
    "statistics_contiguous",
    lambda m: (
        setattr(m, "running_mean", torch.zeros(4)),
        setattr(m, "running_var", torch.ones(4)),
    ),
    STATISTICS,
)
changing(
    "statistics_of_another_shape", lambda m: setattr(m, "running_mean", torch.zeros(3)), STATISTICS
)
changing(
    "mean_a_parameter",
    lambda m: (
        delattr(m, "running_mean"),
        setattr(m, "running_mean", nn.Parameter(torch.ones(4), requires_grad=False)),
    ),
    STATISTICS,
)
changing(
    "mean_learned",
    lambda m: (delattr(m, "running_mean"), setattr(m, "running_mean", nn.Parameter(torch.ones(4)))),
    STATISTICS,
)
changing("variance_negative", lambda m: m.running_var.fill_(-1.0), STATISTICS)
changing("evaluating", lambda m: m.eval())
changing("zeroed", lambda m: m.zero_grad())

# --- converted ---


def converted(layer, *dtypes):
    """Only the parameters, as mixed precision by hand does."""
    for value in (layer.weight, layer.bias):
        for dtype in dtypes:
            value.data = value.data.to(dtype)


changing("to_double", lambda m: m.double())
changing("to_double_and_back", lambda m: m.double().float())
changing("to_a_memory_format", lambda m: m.to(memory_format=torch.channels_last))
changing("of_type", lambda m: m.type(torch.float64))
changing("half_and_back", lambda m: m.half().float())
changing("to_half", lambda m: m.half())
changing("to_bfloat16", lambda m: m.bfloat16())
changing("to_nothing", lambda m: m.to(torch.float32).cpu())


def swapping(change):
    def changed(layer):
        torch.__future__.set_swap_module_params_on_conversion(True)
        try:
            change(layer)
        finally:
            torch.__future__.set_swap_module_params_on_conversion(False)

    return changed


changing("to_double_by_swapping", swapping(lambda m: m.double()))
changing("loaded_by_swapping", swapping(lambda m: m.load_state_dict(m.state_dict())))
changing("moved_without_a_mean", lambda m: (delattr(m, "running_mean"), m.double()), STATISTICS)
changing(
    "moved_without_statistics", lambda m: (without_statistics_by_hand(m), m.double()), STATISTICS
)
changing(
    "rank_check_taken_away", lambda m: setattr(m, "_check_input_dim", lambda _: None), STATISTICS
)
changing("parameters_half_and_back", lambda m: converted(m, torch.float16, torch.float32))
changing("parameters_half", lambda m: converted(m, torch.float16))
changing("parameters_bfloat16", lambda m: converted(m, torch.bfloat16))
# --- hooks ---

changing("hooked_before", lambda m: m.register_forward_pre_hook(lambda _, a: (a[0] * 2,)))
changing(
    "hooked_before_by_name",
    lambda m: m.register_forward_pre_hook(
        lambda _, a, k: ((), {"input": a[0] * 2} | k), with_kwargs=True
    ),
)
changing("hooked_after", lambda m: m.register_forward_hook(lambda _m, _a, y: y * 2))
changing(
    "hooked_after_by_name",
    lambda m: m.register_forward_hook(lambda _m, _a, _k, y: y * 2, with_kwargs=True),
)
changing("hooked_always", lambda m: m.register_forward_hook(lambda _m, _a, y: y, always_call=True))
changing(
    "hooked_backward",
    lambda m: m.register_full_backward_hook(
        lambda _m, gi, _go: tuple(g if g is None else g * 2 for g in gi)
    ),
)
changing(
    "hooked_before_backward",
    lambda m: m.register_full_backward_pre_hook(lambda _, go: (go[0] * 3,)),
)
changing(
    "hooked_when_saved",
    lambda m: m.register_state_dict_post_hook(
        lambda _m, s, _p, _meta: s.update(extra=torch.ones(1))
    ),
)
changing("hooked_parameter", lambda m: m.weight.register_hook(lambda g: g * 5))


@way
def hooked_when_loaded(side):
    layer = side.make()
    seen = []
    layer.register_load_state_dict_pre_hook(lambda _m, s, *_: s.update(weight=s["weight"] * 2))
    layer.register_load_state_dict_post_hook(lambda _, keys: seen.append(keys))
    layer.load_state_dict(state_of(side))
    assert len(seen) == 1
    return layer
