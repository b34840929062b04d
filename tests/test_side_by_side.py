"""PyTorch's layers and ours, side by side, over how people make, change and call layers.

Each way has the same outcome: values, gradients, state and names; or both refuse, ours in a
sentence and with nothing changed. Where ours differs on purpose, that is named here, with what it
does instead.
"""

import copy
import re

import _calls  # noqa: F401
import _changes  # noqa: F401
import pytest
import torch
from _beside import difference, outcome, results
from _pairs import PAIRS
from _ways import STATISTICS, WAYS, randomized
from torch import nn

import companion
from companion import variants

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
ALL = pytest.mark.parametrize("name", PAIRS)

# Ways in which ours differs: in which layers, and the way that it is equal to.
ALIKE = {
    # Statistics do not become half precision, and a count does not become a float.
    "half_and_back": (".", "parameters_half_and_back"),
    "to_half": (".", "parameters_half"),
    "to_bfloat16": (".", "parameters_bfloat16"),
    "of_type": (".", "to_double"),
    # A batch that is computed again for its backward pass counts once.
    "checkpointed": (".", "as_a_method"),
    # Backward, PyTorch reads weights and statistics of (N, C) as if they were contiguous.
    "weight_expanded": (".*-1d$", "weight_repeated"),
    "weight_strided": (".*-1d$", "weight_contiguous"),
    "statistics_strided": (".*-1d$", "statistics_contiguous"),
    # Fused, the ReLU is no operation whose output may not change.
    "on_an_output_changed_in_place": ("Act", "on_an_output_changed"),
    # PyTorch's function finds its own layers only; update_precise finds all.
    "with_updated_statistics": ("[AGMNRW]", "by_default"),
    # One call in the graph, as of a layer of torch.nn, which the reference is not.
    "traced_once": ("[AFR]", "by_default"),
    "symbolically_traced": ("[AFR]", "as_a_method"),
    # PyTorch's function fails without a weight where there is a bias.
    "weight_taken_away": ("Group", "weight_repeated"),
}
# Where ours does more than PyTorch's, which refuses.
SERVED = {
    "parameters_half": ".",
    "parameters_bfloat16": ".",
    "weight_double": "Group|Instance|Layer",
    "stacked": "Renorm",
    "num_batches_tracked_set": "Sync",
    "averaging_without_count": "Sync",
    "tracking_on_afterwards": "Sync",
}
# Where ours refuses: in which layers, and what it says.
REFUSED = {
    "without_statistics": ("Renorm", "track_running_stats: expected True"),
    "without_statistics_and_affine": ("Renorm", "track_running_stats: expected True"),
    "loaded_with_statistics_into_none_not_strictly": ("Renorm", "expected True"),
    "statistics_given_to_a_layer_without": ("Renorm", "expected True"),
    "tracking_on_afterwards": ("Renorm", "expected True"),
    "stacked": ("Noisy", "vmap: called random operation"),
    "weight_double": ("Frozen", "running_mean: expected torch.float64"),
}
if torch.__version__ < "2.10":  # whose layers take any ε
    REFUSED["eps_0_set"] = ("[ABMNSW]|Ghost|Renorm", "eps: expected a positive number")
# No layer means anything by it.
MEANINGLESS = {"variance_negative": "Renorm", "of_lower_type_under_autocast": "Frozen"}


def named(way, name):
    entries = [table.get(way) for table in (ALIKE, SERVED, REFUSED, MEANINGLESS)]
    layers = [entry if isinstance(entry, str) else entry[0] for entry in entries if entry]
    return any(re.match(pattern, name) for pattern in layers)


def ways_of(pair):
    return WAYS | STATISTICS if pair.tracks else WAYS


@ALL
def test_every_way_to_make_change_and_call_a_layer(name):
    pair, found = PAIRS[name], {}
    for key, way in ways_of(pair).items():
        text = difference(outcome(pair.ours, way), outcome(pair.theirs, way))
        if text and not named(key, name):
            found[key] = text
    assert not found, "\n".join(f"{key}: {text}" for key, text in found.items())


@ALL
def test_what_ours_does_where_it_differs(name):
    pair = PAIRS[name]
    ways = ways_of(pair)
    for key, (layers, other) in ALIKE.items():
        if key in ways and re.match(layers, name):
            seen = [outcome(pair.ours, ways[way]) for way in (key, other)]
            for life in seen:
                life["state"] = {k.rpartition(".")[2]: v for k, v in life["state"].items()}
                values = {k: life[k] for k in ("as it is", "training again", "evaluation", "state")}
                life.clear()
                life.update(values)
            assert not difference(*seen), key
    for key, layers in SERVED.items():
        if key in ways and re.match(layers, name):
            life = outcome(pair.ours, ways[key])
            assert not any(isinstance(value, Exception) for value in life.values()), key
    for key, (layers, message) in REFUSED.items():
        if key in ways and re.match(layers, name):
            life = outcome(pair.ours, ways[key])
            error = life if isinstance(life, Exception) else life["training"]
            assert isinstance(error, Exception), key
            assert message in str(error), key


def first_value(x):
    return x[(slice(1), slice(None), *(slice(1),) * (x.ndim - 2))]


def with_one(value):
    def change(x):
        return torch.where(torch.arange(x.numel()).view(x.shape) == 3, value, x)

    return change


def of_inference(x):
    with torch.inference_mode():
        return x.detach().clone()


class Labelled(torch.Tensor):
    pass


INPUTS = {
    "plain": lambda x: x,
    "no examples": lambda x: x[:0],
    "one example": lambda x: x[:1],
    "one value": first_value,
    "no positions": lambda x: x[..., :0] if x.ndim > 2 else x[:0],
    "fewer channels": lambda x: x[:, :3],
    "more channels": lambda x: torch.cat([x, x], 1),
    "no channels": lambda x: x[:, :0],
    "nothing at all": lambda x: x[:0, :0],
    "transposed": lambda x: x.transpose(0, -1).contiguous().transpose(0, -1),
    "strided": lambda x: torch.stack([x, x], -1)[..., 0],
    "of one example": lambda x: x[:1].expand_as(x),
    "of one channel": lambda x: x[:, :1].expand_as(x),
    "of one value": lambda x: x.flatten()[0].expand_as(x),
    "negated": torch._neg_view,
    "conjugated": lambda x: torch.complex(x, x).conj().imag,
    "unbound": lambda x: torch.stack([x, x]).unbind()[1],
    "complex": lambda x: torch.complex(x, x),
    "integers": lambda x: x.long(),
    "booleans": lambda x: x > 0,
    "float32": lambda x: x.float(),
    "float16": lambda x: x.half(),
    "float8": lambda x: x.to(torch.float8_e4m3fn),
    "sparse": lambda x: x.to_sparse(),
    "quantized": lambda x: torch.quantize_per_tensor(x.detach().float(), 0.1, 0, torch.qint8),
    "meta": lambda x: x.to("meta"),
    "a scalar": lambda x: x.flatten()[0],
    "a vector": lambda x: x.flatten()[:4],
    "unbatched": lambda x: x[0],
    "an axis more": lambda x: x[..., None],
    "four axes more": lambda x: x[..., None, None, None, None],
    "with a NaN": with_one(float("nan")),
    "with an infinity": with_one(float("inf")),
    "zeros": torch.zeros_like,
    "large": lambda x: x + 1e6,
    "a subclass": lambda x: x.as_subclass(Labelled),
    "a parameter": lambda x: nn.Parameter(x.detach()),
    "of inference": of_inference,
    "a list": lambda x: x.tolist(),
}
FORMS = {
    "": {},
    " without affine": {"affine": False},
    " without statistics": {"track_running_stats": False},
    " without either": {"affine": False, "track_running_stats": False},
}
# Where ours refuses an input, in words, that PyTorch's takes: of other channels than the layer
# has; where the layer has none left to compare, PyTorch computes with what comes.
STRICTER = {
    "no channels": ".",
    "nothing at all": ".",
    "fewer channels": ".* without",
    "more channels": ".* without",
    "unbatched": ".* without",
}
# And ours takes what PyTorch's refuses.
MORE = {
    "no examples": "Instance",
    "no positions": "Group",
    "float32": "Group|Instance|Layer",
    "float16": "Group|Instance|Layer",
    "of inference": "Group|Instance|Layer",
    "one value": "Frozen",
}
# torchvision's computes with operations of PyTorch, which promote types and broadcast.
PROMOTED = {"integers", "booleans", "complex", "float32", "float16", "sparse", "a scalar"}
PROMOTED |= {"a vector", "unbatched", "an axis more", "four axes more"}


def expected_to_differ(key, name, text):
    if name.startswith("Frozen") and key in PROMOTED:
        return True
    if re.match(STRICTER.get(key, "$"), name):
        return "Refused input: expected" in text
    return bool(re.match(MORE.get(key, "$"), name))


@ALL
def test_every_input(name):
    pair, found = PAIRS[name], {}
    for form, options in FORMS.items():
        if "track_running_stats" in options and (not pair.tracks or "Renorm" in name):
            continue
        if "affine" in options and "Layer" in name:
            continue
        for key, prepare in INPUTS.items():
            for training in (True, False):
                seen = []
                for side in (pair.ours, pair.theirs):
                    named = {**side.options, **options, "dtype": torch.float64}
                    layer = randomized(side.cls(*side.arguments, **named)).train(training)
                    x = side.batch(1, dtype=torch.float64).requires_grad_()
                    seen.append(
                        {"results": results(layer, x, prepare), "state": layer.state_dict()}
                    )
                text = difference(*seen)
                if text and not expected_to_differ(key, name + form, text):
                    found[f"{key}{form}, {training=}"] = text
    assert not found, "\n".join(f"{key}: {text}" for key, text in found.items())


def test_constants_and_text():
    for pair in PAIRS.values():
        ours, theirs = pair.ours.make(), pair.theirs.make()
        assert getattr(ours, "__constants__", None) == getattr(theirs, "__constants__", None)
    plain = PAIRS["BatchNorm-2d"]
    assert repr(plain.ours.make()) == repr(plain.theirs.make())


@pytest.mark.parametrize("layer", [companion.BatchNorm2d, companion.BatchNormAct2d])
def test_traced_exported_and_compiled(layer):
    side = PAIRS["BatchNorm-2d"].ours
    model, x = nn.Sequential(randomized(layer(4))).eval(), side.batch(1)
    expected = model(x)
    torch.testing.assert_close(torch.jit.trace(model, x)(x), expected)
    torch.testing.assert_close(torch.export.export(model, (x,)).module()(x), expected)
    torch.compiler.reset()
    torch.testing.assert_close(torch.compile(model, backend="aot_eager")(x), expected)


def test_fused_by_torch():
    conv = nn.Conv2d(3, 4, 3).eval()
    bn, x = PAIRS["BatchNorm-2d"].ours.make().eval(), torch.randn(2, 3, 5, 5)
    fused = nn.utils.fusion.fuse_conv_bn_eval(conv, bn)(x)
    torch.testing.assert_close(fused, bn(conv(x)), rtol=1e-4, atol=1e-5)


TRACED = {
    "GhostBatchNorm1d": {"ghost_size": 2},
    "BatchRenorm1d": {"r_max": 1.1, "d_max": 0.1},
    "ExampleWeightedBatchNorm1d": {"alpha": 0.5},
    "MaskedBatchNorm1d": {},
    "DecorrelatedBatchNorm1d": {},
    "IterNorm1d": {},
    "SyncBatchNorm": {},
    "SyncBatchNormAct": {},
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", TRACED)
def test_a_traced_layer_does_all_that_it_does(name, training):
    """Not plain batch normalization, and in the mode in which it is run."""
    model = nn.Sequential(randomized(getattr(variants, name)(4, **TRACED[name])))
    traced, alike = torch.fx.symbolic_trace(copy.deepcopy(model).train(not training)), model
    x = torch.randn(6, 4, 3)
    assert torch.equal(traced.train(training)(x), alike.train(training)(x))
    for key, value in alike.state_dict().items():
        assert torch.equal(value, traced.state_dict()[key])


def test_hooks_are_traced_and_called_once():
    model = nn.Sequential(companion.BatchNorm1d(4))
    model[0].register_forward_hook(lambda _m, _a, y: y + 1)
    traced, x = torch.fx.symbolic_trace(copy.deepcopy(model)), torch.randn(6, 4)
    assert torch.equal(traced(x), model(x))


def test_the_layer_alone_is_not_traced():
    for module in (companion.BatchNorm1d(4), nn.BatchNorm1d(4)):
        with pytest.raises((TypeError, torch.fx.proxy.TraceError)):
            torch.fx.symbolic_trace(module)


def test_ghosts_of_a_layer_sliced_by_hand():
    layer = variants.GhostBatchNorm1d(4, ghost_size=2)
    alike, index = variants.GhostBatchNorm1d(2, ghost_size=2), torch.tensor([0, 2])
    for key in ("weight", "bias"):
        setattr(layer, key, nn.Parameter(getattr(layer, key).detach()[index]))
    for key in ("running_mean", "running_var"):
        setattr(layer, key, getattr(layer, key)[index])
    x = torch.randn(6, 2)
    assert torch.equal(layer(x), alike(x))
    assert torch.equal(layer.running_var, alike.running_var)
    companion.update_precise(layer, [x], progress=False)
    torch.testing.assert_close(layer.running_mean, x.mean(0))


def test_limits_that_are_functions_need_a_count():
    layer = variants.BatchRenorm1d(4)
    layer.num_batches_tracked = None
    with pytest.raises(TypeError, match=r"^num_batches_tracked: expected a tensor where r_max"):
        layer(torch.randn(6, 4))


EMPTY = [(0,), (0, 3), (2, 3, 0), (0, 3, 4), (2, 3, 0, 4), (0, 3, 1, 1), (2, 3, 0, 1, 2)]
EMPTY += [(0, 3, 1, 1, 1, 1), (2, 3, 1, 0, 1, 1), (2, 0), (2, 0, 4)]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", EMPTY, ids=str)
def test_empty_inputs_of_the_function(shape, training):
    channels = shape[1] if len(shape) > 1 else 0
    seen = []
    for function in (companion.functional.batch_norm, nn.functional.batch_norm):
        x = torch.ones(shape, requires_grad=True)
        mean, var = torch.zeros(channels), torch.ones(channels)
        y = function(x, mean, var, training=training)
        y.sum().backward()
        seen.append((y, x.grad, mean, var))
    torch.testing.assert_close(*seen)
