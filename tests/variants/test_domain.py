"""Layers with statistics for each of several domains, alone and in whole networks."""

import contextlib
import copy
import inspect
import pickle

import pytest
import torch
from _family import SHAPES, batch, randomized
from _layer import HALVES
from torch import nn
from torch.utils.checkpoint import checkpoint

import companion
from companion import convert_domains, in_domain, keep_domain, update_precise, variants

DOMAINS = ["photo", "sketch", "painting"]
KINDS = pytest.mark.parametrize("kind", SHAPES)
OWN = pytest.mark.parametrize("own_affine", [False, True])


def layer_of(kind, **options):
    cls = getattr(variants, f"DomainBatchNorm{kind[:2]}")
    return randomized(cls(3, domains=DOMAINS, dtype=torch.float64, **options))


def plain_of(layer, name):
    return copy.deepcopy(layer.layers[name])


def network(package=nn):
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(2, 6, 3), package.BatchNorm2d(6), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(54, 4), package.BatchNorm1d(4)),
    ).double()


def images(seed, size=16):
    return batch((size, 2, 5, 5), seed=seed) * seed + seed


@KINDS
@OWN
@pytest.mark.parametrize("training", [True, False])
def test_each_domain_is_a_plain_layer(kind, own_affine, training):
    layer = layer_of(kind, own_affine=own_affine).train(training)
    plain = {name: plain_of(layer, name) for name in DOMAINS}
    for seed, name in enumerate([*DOMAINS, *reversed(DOMAINS)]):
        x = batch(SHAPES[kind], seed=seed)
        with in_domain(layer, name):
            assert torch.equal(layer(x), plain[name](x))
    assert torch.equal(layer(x), plain["photo"](x))
    for name in DOMAINS:
        for key, value in plain[name].state_dict().items():
            assert torch.equal(layer.layers[name].state_dict()[key], value)


@OWN
def test_gradients_of_shared_parameters_add_up(own_affine):
    layer = layer_of("2d", own_affine=own_affine)
    assert len(list(layer.parameters())) == (6 if own_affine else 2)
    expected = []
    for seed, name in enumerate(DOMAINS):
        plain = plain_of(layer, name)
        x = batch(SHAPES["2d"], seed=seed)
        plain(x).square().sum().backward()
        expected.append(plain.weight.grad)
        with in_domain(layer, name):
            layer(x).square().sum().backward()
    if not own_affine:
        expected = [sum(expected)]
    grads = [value.grad for name, value in layer.named_parameters() if name.endswith("weight")]
    for grad, value in zip(grads, expected, strict=True):
        assert torch.allclose(grad, value, rtol=1e-12, atol=0)


@KINDS
def test_the_constructor_is_pytorchs_with_more_named_arguments(kind):
    ours = list(inspect.signature(getattr(variants, f"DomainBatchNorm{kind[:2]}")).parameters)
    theirs = inspect.signature(getattr(nn, f"BatchNorm{kind[:2]}")).parameters.values()
    positional = [p.name for p in theirs if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert ours[: len(positional)] == positional
    options = {"eps": 0.1, "momentum": None, "bias": False, "backend": "eager"}
    layer = layer_of(kind, skip_nonfinite=True, **options)
    for plain in layer.layers.values():
        assert plain.skip_nonfinite
        assert (plain.eps, plain.momentum, plain.bias, plain.backend) == (0.1, None, None, "eager")
    assert not isinstance(layer, nn.modules.batchnorm._NormBase)


def test_contexts_may_be_nested_and_end_with_an_exception():
    model = nn.Sequential(layer_of("1d"), nn.Sequential(layer_of("1d")))
    with in_domain(model, "sketch"):
        with in_domain(model[1], "painting"):
            assert [model[0].domain, model[1][0].domain] == ["sketch", "painting"]
        assert model[1][0].domain == "sketch"
    with pytest.raises(KeyError), in_domain(model, "sketch"):
        raise KeyError
    assert [model[0].domain, model[1][0].domain] == ["photo", "photo"]


def parameters_are_shared(layer):
    first, *others = layer.layers.values()
    return all(first.weight is other.weight and first.bias is other.bias for other in others)


def assigned(layer):
    state = {key: value.clone() for key, value in layer.state_dict().items()}
    other = layer_of("2d")
    other.load_state_dict(state, assign=True)
    return other


def moved(layer):
    state = layer.state_dict()
    # On its way it becomes other parameters.
    other = copy.deepcopy(layer).to("meta").to_empty(device="cpu")
    assert parameters_are_shared(other)
    other.load_state_dict(state)
    return other


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x)), assigned, moved]
)
def test_copies_compute_the_same_and_share_what_was_shared(copied):
    layer = layer_of("2d")
    other = copied(layer)
    assert str(other) == str(layer)
    x = batch(SHAPES["2d"])
    for name in DOMAINS:
        with in_domain(layer, name), in_domain(other, name):
            assert torch.equal(other(x), layer(x))
    assert parameters_are_shared(other)
    assert other.layers["photo"].weight is not layer.layers["photo"].weight
    assert len(list(other.parameters())) == 2


def test_domains_have_names_in_the_state_dictionary():
    keys = layer_of("2d").state_dict()
    assert "layers.sketch.running_mean" in keys
    # A plain layer's begins alike in all domains.
    state = nn.BatchNorm2d(3).state_dict()
    assert len(keys) == 3 * len(state)


@pytest.mark.parametrize("dtype", HALVES)
def test_statistics_do_not_become_half_precision(dtype):
    layer = layer_of("2d").float().to(dtype)
    assert parameters_are_shared(layer)
    for plain in layer.layers.values():
        assert (plain.weight.dtype, plain.running_var.dtype) == (dtype, torch.float32)
    assert layer(batch(SHAPES["2d"], dtype)).dtype == dtype


def test_what_cannot_be_normalized_is_refused_and_changes_nothing():
    layer = layer_of("2d")
    before = copy.deepcopy(layer.state_dict())
    for refused in (torch.ones(3), torch.ones(2, 4, 5, 5), torch.ones(1, 3, 1, 1)):
        with pytest.raises((RuntimeError, ValueError), match="expected"):
            layer(refused.double())
    for name, value in before.items():
        assert torch.equal(value, layer.state_dict()[name])


@pytest.mark.parametrize("training", [True, False])
def test_one_graph_for_each_domain(training):
    torch.compiler.reset()
    layer = layer_of("2d").train(training)
    alike = copy.deepcopy(layer)
    graphs = []

    def count(graph, _):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(alike, backend=count, fullgraph=True)
    for seed, name in enumerate(["photo", "sketch", "photo", "sketch", "photo"]):
        x = batch(SHAPES["2d"], seed=seed)
        with in_domain(layer, name), in_domain(compiled, name):
            assert torch.allclose(compiled(x), layer(x), rtol=0, atol=1e-12)
    assert len(graphs) == 2
    for key, value in layer.state_dict().items():
        assert torch.allclose(value, alike.state_dict()[key], rtol=0, atol=1e-12)


@pytest.mark.parametrize("package", [nn, companion])
@OWN
def test_a_network_is_one_network_for_each_domain(package, own_affine):
    """Trained in turn, its layers hold what a network for each domain would."""
    plain = network(package)
    plain(images(3))
    model = convert_domains(copy.deepcopy(plain), DOMAINS, own_affine=own_affine)
    for name in DOMAINS:
        with in_domain(model, name):
            assert torch.equal(model.eval()(images(1)), plain.eval()(images(1)))
    apart = {name: copy.deepcopy(plain).train() for name in DOMAINS}
    model.train()
    for seed, name in enumerate([*DOMAINS, *DOMAINS], start=1):
        with in_domain(model, name):
            assert torch.equal(model(images(seed)), apart[name](images(seed)))
    for name in DOMAINS:
        kept = keep_domain(copy.deepcopy(model), name)
        assert [type(layer) for layer in kept] == [type(layer) for layer in plain]
        assert kept.state_dict().keys() == plain.state_dict().keys()
        for key, value in kept.state_dict().items():
            assert torch.equal(value, apart[name].state_dict()[key])
        assert torch.equal(kept.eval()(images(1)), apart[name].eval()(images(1)))


def test_the_first_domain_keeps_the_layer_and_shared_places_stay_shared():
    model = network(companion)
    model.append(model[5])
    layer, calls = model[5], []
    layer.register_forward_hook(lambda *_: calls.append(1))
    parameters = list(model.parameters())
    assert convert_domains(model.eval(), ["a", "b"]) is model
    assert model[5] is model[6]
    assert model[5].layers["a"] is layer
    assert all(p is q for p, q in zip(parameters, model.parameters(), strict=True))
    assert not any(module.training for module in model.modules())
    model(images(1))
    assert len(calls) == 2
    assert keep_domain(model, "a") is model
    assert model[5] is model[6] is layer


def test_a_layer_by_itself():
    layer = companion.BatchNorm2d(3)
    divided = convert_domains(layer, ["a", "b"])
    assert type(divided) is variants.DomainBatchNorm2d
    assert keep_domain(divided, "a") is layer
    assert keep_domain(divided, "b") is divided.layers["b"]


def test_adabn_measures_the_new_domain_and_leaves_the_old_one():
    model = convert_domains(network(), ["source", "target"])
    before = copy.deepcopy(model.state_dict())
    plain = network()
    update_precise(plain, [images(2), images(3)], passes=2, progress=False)
    with in_domain(model, "target"):
        update_precise(model, [images(2), images(3)], passes=2, progress=False)
    for path in ("1", "5"):
        for key, value in plain.get_submodule(path).state_dict().items():
            assert torch.equal(model.state_dict()[f"{path}.layers.target.{key}"], value)
            own = f"{path}.layers.source.{key}"
            assert torch.equal(model.state_dict()[own], before[own])


def test_procedures_on_whole_models_find_a_plain_layer_for_each_domain():
    model = convert_domains(network(), ["a", "b"])
    for seed, name in enumerate(["a", "b"], start=1):
        with in_domain(model, name):
            model(images(seed))
    expected = {}
    for name in ("a", "b"):
        with in_domain(model, name):
            expected[name] = model.eval()(images(1))
            with variants.adapted_statistics(model, images(3)):
                adapted = model(images(3))
            with companion.preserved_statistics(model.train()):
                assert torch.allclose(model(images(3)), adapted, rtol=0, atol=1e-12)
    changes = [companion.freeze, companion.convert, companion.convert_sync]
    for change in changes:
        other = change(copy.deepcopy(model)).eval()
        for name, y in expected.items():
            with in_domain(other, name):
                assert torch.allclose(other(images(1)), y, rtol=0, atol=1e-12)
    decayed, spared = companion.parameter_groups(model, 0.1)
    assert [len(decayed["params"]), len(spared["params"])] == [2, 6]


def test_a_domain_folds():
    model = convert_domains(network(), ["a", "b"])
    with in_domain(model, "b"):
        model(images(2))
    model.eval()
    with in_domain(model, "b"):
        expected = model(images(3))
    for other, domain in ((keep_domain(copy.deepcopy(model), "b"), None), (model, "b")):
        with in_domain(other, domain) if domain else contextlib.nullcontext():
            folded, report = companion.fold(other, images(3))
        assert torch.allclose(folded(images(3)), expected, rtol=0, atol=1e-12)
        assert len(report.folded) == 2


def test_what_is_recomputed_inside_of_the_context_is_of_its_domain():
    layer = layer_of("2d")
    alike = copy.deepcopy(layer)
    gradients = []
    for checkpointed, own in ((True, layer), (False, alike)):
        x = batch(SHAPES["2d"]).requires_grad_()
        with in_domain(own, "sketch"):
            y = checkpoint(own, x, use_reentrant=False) if checkpointed else own(x)
            (y * batch(SHAPES["2d"], seed=2)).sum().backward()
        gradients.append(x.grad)
    assert torch.equal(*gradients)
    for key, value in layer.state_dict().items():
        assert torch.equal(value, alike.state_dict()[key])


LAYERED = convert_domains(nn.Sequential(nn.BatchNorm1d(3)), ["a", "b"])
PARAMETRIZED = nn.utils.parametrizations.weight_norm(nn.BatchNorm1d(3))
NAMES = "domains: expected different names, without dots"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: variants.DomainBatchNorm1d(3, domains=[]), ValueError, NAMES),
        (lambda: variants.DomainBatchNorm1d(3, domains="ab"), ValueError, NAMES),
        (lambda: variants.DomainBatchNorm1d(3, domains=["a", "a"]), ValueError, NAMES),
        (lambda: variants.DomainBatchNorm1d(3, domains=["a.b"]), ValueError, NAMES),
        (lambda: variants.DomainBatchNorm1d(3, domains=["train"]), ValueError, NAMES),
        (lambda: variants.DomainBatchNorm1d(3, domains=[1]), ValueError, r"got \[1\]"),
        (lambda: convert_domains(network(), [""]), ValueError, NAMES),
        (lambda: convert_domains([], ["a"]), TypeError, "model: expected a torch.nn.Module, got l"),
        (lambda: convert_domains(nn.ReLU(), ["a"]), ValueError, "model: expected at least 1 batch"),
        (
            lambda: convert_domains(LAYERED, ["c"]),
            ValueError,
            "model: expected one without domains",
        ),
        (
            lambda: convert_domains(nn.LazyBatchNorm1d(), ["a"]),
            TypeError,
            "and without parametrizations, got LazyBatchNorm1d in 'the model'",
        ),
        (
            lambda: convert_domains(nn.Sequential(PARAMETRIZED), ["a"]),
            TypeError,
            "without parametrizations, got ParametrizedBatchNorm1d in '0'",
        ),
        (lambda: keep_domain([], "a"), TypeError, "model: expected a torch.nn.Module, got list"),
        (
            lambda: keep_domain(nn.ReLU(), "a"),
            ValueError,
            "model: expected at least 1 layer with d",
        ),
        (lambda: keep_domain(LAYERED, "c"), ValueError, r"name: expected one of \['a', 'b'\], the"),
        (lambda: in_domain(LAYERED, "c").__enter__(), ValueError, "the domains of '0', got 'c'"),
        (lambda: in_domain(nn.ReLU(), "a").__enter__(), ValueError, "model: expected at least 1"),
    ],
)
def test_errors_name_the_argument(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    "layer",
    [
        companion.SyncBatchNorm(3),
        companion.BatchNormAct1d(3),
        variants.DecorrelatedBatchNorm1d(3),
        variants.GhostBatchNorm1d(3, ghost_size=2),
    ],
)
def test_a_layer_that_would_mix_the_domains_is_refused_and_nothing_is_changed(layer):
    model = nn.Sequential(nn.BatchNorm1d(3), layer)
    name = type(layer).__name__
    with pytest.raises(TypeError, match=f"without parametrizations, got {name} in '1'"):
        convert_domains(model, ["a", "b"])
    assert type(model[0]) is nn.BatchNorm1d
    assert len(model[0].state_dict()) == 5


def test_what_has_no_statistics_of_its_batch_stays():
    frozen, instance = variants.freeze(nn.BatchNorm1d(3)), nn.InstanceNorm1d(3)
    model = convert_domains(nn.Sequential(nn.BatchNorm1d(3), frozen, instance), ["a", "b"])
    assert model[1] is frozen
    assert model[2] is instance
