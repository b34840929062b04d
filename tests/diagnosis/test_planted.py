"""Each code on models that have it planted, and none on those that are well."""

import functools
from collections import Counter

import pytest
import torch
from _patients import NETWORKS, digits, loader, made, mlp, trained
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import companion
from companion.diagnosis import diagnose
from companion.diagnosis.catalogue import KINDS
from companion.variants import GhostBatchNorm1d

pytestmark = pytest.mark.xdist_group("diagnosis")


def codes(found):
    return Counter(one.code for one in found)


def only(found, code):
    """The findings of a code, having made sure that there is no other code."""
    assert set(codes(found)) == {code}
    return list(found)


look = functools.partial(diagnose, progress=False)


@functools.cache
def healthy_state(name, seed=0):
    return trained(made(NETWORKS[name], seed), seed=seed).state_dict()


def healthy(name="mlp", seed=0):
    """A trained network, each time a new one."""
    model = made(NETWORKS[name], seed)
    model.load_state_dict(healthy_state(name, seed))
    return model.train()


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_healthy_network_has_no_finding(name, seed):
    found = look(healthy(name, seed), loader(seed=seed), loss=F.cross_entropy)
    assert list(found) == []
    assert found.layers == sum(
        isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d) for m in made(NETWORKS[name]).modules()
    )
    assert set(found.unchecked) == {"decayed-scale"}


@pytest.mark.parametrize("name", ["mlp", "resnet"])
def test_nor_has_one_of_this_packages_layers(name):
    model = companion.convert(healthy(name))
    assert list(look(model, loader(), loss=F.cross_entropy)) == []


def test_every_code_is_planted_in_some_test():
    tests = {name for name in globals() if name.startswith("test_")}
    missing = [code for code in KINDS if f"test_{code.replace('-', '_')}" not in tests]
    assert missing == []


def test_nonfinite_statistics():
    model = healthy()
    model[1].running_var[3] = torch.nan
    (one,) = only(look(model), "nonfinite-statistics")
    assert (one.layer, one.severity) == ("1", "error")
    assert one.evidence == {"channels": 1, "of": 64}
    model[1].running_var[3] = -1.0
    assert codes(look(model))["nonfinite-statistics"] == 1


def test_few_values():
    model = healthy()
    found = look(model, loader(8))
    assert {one.layer for one in found if one.code == "few-values"} == {"1", "4"}
    one = next(one for one in found if one.code == "few-values")
    assert one.evidence["values per channel"] == 8
    assert one.evidence["noise"] == pytest.approx(companion.closed_forms.batch_identity_mse(8))
    found = look(model, loader(1), loss=F.cross_entropy)
    (one,) = only(found, "few-values")
    assert (one.layer, one.severity) == ("1", "error")
    assert found.unchecked["stale-statistics"] == "of one value per channel"
    assert codes(look(model, loader(16), loss=F.cross_entropy))["few-values"] == 0


def test_few_values_of_ghost_batches():
    model = healthy()
    ghosts = GhostBatchNorm1d(64, ghost_size=4)
    ghosts.load_state_dict(model[1].state_dict())
    model[1] = ghosts
    found = [one for one in look(model, loader()) if one.code == "few-values"]
    assert [(one.layer, one.evidence["values per channel"]) for one in found] == [("1", 4)]


@pytest.mark.parametrize(("size", "severity"), [(8, "warning"), (64, "note")])
def test_batch_statistics_in_evaluation(size, severity):
    model = healthy()
    model[4] = nn.BatchNorm1d(64, track_running_stats=False)
    found = look(model, loader(size))
    (one,) = (one for one in found if one.code == "batch-statistics-in-evaluation")
    assert (one.layer, one.severity) == ("4", severity)
    noise = companion.closed_forms.batch_identity_mse(size)
    assert one.evidence == {"values per channel": size, "noise": pytest.approx(noise)}
    assert look(model).unchecked["batch-statistics-in-evaluation"] == "without data"


def test_train_eval_gap():
    # What the running statistics remember are batches of zeros alone.
    model = healthy()
    for _ in range(20):
        model(digits().x_train[digits().y_train == 0])
    found = look(model, loader(), loss=F.cross_entropy)
    assert codes(found)["train-eval-gap"] == 1
    one = next(one for one in found if one.code == "train-eval-gap")
    assert one.evidence["in evaluation mode"] > 1.1 * one.evidence["loss with batch statistics"]
    without = next(one for one in look(model, loader()) if one.code == "train-eval-gap")
    assert without.evidence["squared error"] > 0.1
    assert without.layer in ("1", "4")


def test_never_updated():
    (first, second) = only(look(made(mlp)), "never-updated")
    assert (first.layer, second.layer) == ("1", "4")


def test_stale_statistics():
    model = healthy()
    model[4].running_mean += 3 * model[4].running_var.sqrt()
    found = look(model, loader())
    stale = [one for one in found if one.code == "stale-statistics"]
    assert [(one.layer, one.severity) for one in stale] == [("4", "error")]
    assert stale[0].evidence["squared error"] == pytest.approx(9, rel=0.5)


def test_dropout_before():
    model = trained(made(functools.partial(mlp, nn.Dropout(0.5))))
    found = look(model, loader())
    one = next(one for one in found if one.code == "dropout-before" and one.layer == "2")
    # x = a·m/p: the variance in training is (σ² + μ²)/p - μ², without it σ².
    with torch.no_grad():
        x = model[0](digits().x_train)
        mean, var = x.mean(0), x.var(0)
        expected = (var / ((var + mean**2) / 0.5 - mean**2)).log().mean().exp()
    ratio = one.evidence["variance in evaluation over that in training"]
    assert ratio == pytest.approx(expected.item(), rel=0.1)
    assert codes(look(model.eval(), loader()))["dropout-before"] > 0


def test_dropout_is_measured_with_batch_statistics():
    model = nn.Sequential(mlp()[:2], nn.ReLU(), nn.Dropout(0.5), *mlp()[:2], nn.ReLU())
    first = next(one for one in look(model, loader()) if one.code == "dropout-before")
    model[0][1].running_var *= 1e4  # which training does not use
    second = next(one for one in look(model, loader()) if one.code == "dropout-before")
    assert list(first.evidence.values()) == pytest.approx(list(second.evidence.values()), rel=0.05)


def test_dropout_that_a_normalization_follows_no_more():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = mlp()

        def forward(self, x):
            return F.dropout(self.body(x), 0.5, self.training)

    model = trained(made(Net))
    assert list(look(model, loader())) == []


def test_ordered_batches():
    order = digits().y_train.argsort()
    found = look(healthy(), loader(order=order))
    one = next(one for one in found if one.code == "ordered-batches")
    assert one.layer == "1"
    assert one.evidence["variance between batches over that within"] > 10


def test_shared_layer():
    class Siamese(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = mlp()

        def forward(self, x):
            return self.body(x) - self.body(3 - x)

    found = look(trained(made(Siamese)), loader())
    assert [one.layer for one in found if one.code == "shared-layer"] == ["body.1"]
    one = next(one for one in found if one.code == "shared-layer")
    assert one.evidence["calls"] == 2
    assert one.evidence["squared error"] > 1


class Checkpointed(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.body = mlp()
        self.reentrant = reentrant

    def forward(self, x):
        x = x if not self.reentrant else x.detach().requires_grad_()
        return checkpoint(self.body, x, use_reentrant=self.reentrant)


@pytest.mark.parametrize("reentrant", [False, True])
def test_double_count(reentrant):
    model = Checkpointed(reentrant)
    model.body.load_state_dict(healthy_state("mlp"))
    found = only(look(model, loader()), "double-count")
    assert [one.layer for one in found] == ["body.1", "body.4"]
    assert found[0].evidence["and in the backward pass"] == 1
    assert list(look(companion.convert(model), loader())) == []


def test_double_count_of_two_passes_on_alike_inputs():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = mlp()

        def forward(self, x):
            return self.body(x) + self.body(x.flip(0))

    model = Twice()
    model.body.load_state_dict(healthy_state("mlp"))
    found = only(look(model, loader()), "double-count")
    assert found[0].evidence["counted in the forward pass"] == 2


def test_double_count_that_the_optimizer_shows():
    model = healthy()
    optimizer = torch.optim.Adam(model.parameters(), 1e-4)
    model(digits().x_train[:64]).sum().backward()
    start = model[1].num_batches_tracked.item()
    optimizer.step()
    model[1].num_batches_tracked.fill_(2)
    found = only(look(model, optimizer=optimizer), "double-count")
    assert start > 2
    by_layer = {one.layer: one.evidence["batches counted"] for one in found}
    assert by_layer == {"1": 2, "4": start}


def test_unsynchronized():
    # In real processes: tests/synchronization. Of one process nothing is to be said.
    assert codes(look(healthy(), loader(8)))["unsynchronized"] == 0


def test_before_output():
    model = nn.Sequential(*healthy()[:-1], nn.Linear(64, 10, bias=False), nn.BatchNorm1d(10))
    found = look(trained(model), loader())
    assert [one.layer for one in found if one.code == "before-output"] == ["7"]
    assert codes(look(nn.Sequential(*model, nn.LogSoftmax(1)), loader()))["before-output"] == 1
    assert codes(look(nn.Sequential(*model, nn.ReLU()), loader()))["before-output"] == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_state(dtype):
    model = healthy().to(dtype)
    found = only(look(model), "half-precision-state")
    assert len(found) == 2
    # The least difference by which x moves: half of the distance to its neighbour, over α.
    one = torch.tensor(1.0, dtype=dtype)
    least = found[0].evidence["differences lost below"]
    assert one + 0.1 * 0.99 * least == one
    assert one + 0.1 * 1.01 * least > one
    assert list(look(companion.convert(model.float()).to(dtype))) == []


@pytest.mark.parametrize("momentum", [0.9, 0.99])
def test_momentum_convention(momentum):
    model = healthy()
    model[4].momentum = momentum
    (one,) = only(look(model), "momentum-convention")
    assert (one.layer, one.evidence["momentum"]) == ("4", momentum)
    model[4].momentum = 0.1
    assert list(look(model)) == []


def test_eps_mismatch():
    model = healthy()
    model[4].eps = 1e-3
    (one,) = only(look(model), "eps-mismatch")
    assert (one.layer, one.evidence["eps"]) in (("4", 1e-3), ("1", 1e-5))
    assert one.evidence["largest change of a scale"] > 0
    model[1].eps = 1e-3
    assert list(look(model)) == []


def test_half_frozen():
    model = healthy()
    for parameter in model[1].parameters():
        parameter.requires_grad_(False)
    (one,) = only(look(model), "half-frozen")
    assert (one.layer, one.severity) == ("1", "warning")
    model[1].weight.requires_grad_(True)
    assert [one.layer for one in only(look(model), "half-frozen")] == ["1"]
    model = healthy()
    model[4].eval()  # its parameters train
    (one,) = only(look(model), "half-frozen")
    assert (one.layer, one.severity) == ("4", "note")
    assert list(look(companion.freeze(healthy()))) == []


def test_thawed():
    model = healthy()
    model[1].eval().requires_grad_(False)
    (one,) = only(look(model), "thawed")
    assert (one.layer, one.severity) == ("1", "note")
    model(digits().x_train[:64])
    model.train()
    (one,) = only(look(model), "thawed")
    assert (one.layer, one.severity) == ("1", "warning")
    assert one.evidence["other layers"] == one.evidence["batches counted"] + 1


def test_decayed_scale():
    model = healthy()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, weight_decay=1e-4)
    found = only(look(model, optimizer=optimizer), "decayed-scale")
    assert [(one.layer, one.evidence["decayed"]) for one in found] == [
        ("1", "γ and β"),
        ("4", "γ and β"),
    ]
    groups = companion.parameter_groups(model, weight_decay=1e-4)
    assert list(look(model, optimizer=torch.optim.SGD(groups, 0.1))) == []


def test_dead_channel():
    model = healthy()
    model[1].running_var[:2] = 1e-9
    with torch.no_grad():
        model[1].weight[5] = 0
    (one,) = only(look(model), "dead-channel")
    assert (one.layer, one.severity) == ("1", "note")
    assert one.evidence == {"variance below ε": 2, "γ next to 0": 1, "channels": 64}
    with torch.no_grad():
        model[1].weight.zero_()
    assert look(model)[0].severity == "warning"


def test_dead_bias():
    model = trained(made(functools.partial(mlp, bias=True)))
    for found in (look(model), look(model, loader())):
        biases = only(found, "dead-bias")
        assert [(one.layer, one.evidence["before"]) for one in biases] == [("0", "1"), ("3", "4")]


def test_a_bias_that_goes_elsewhere_too_is_not_dead():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.bn = nn.Linear(64, 64), nn.BatchNorm1d(64)
            self.head = nn.Linear(64, 10)

        def forward(self, x):
            y = self.linear(x)
            return self.head(torch.relu(self.bn(y)) + y)

    model = trained(made(Net))
    assert list(look(model)) == list(look(model, loader())) == []


def test_nor_is_one_whose_layer_is_returned_too():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.bn = nn.Linear(64, 64), nn.BatchNorm1d(64)

        def forward(self, x):
            y = self.linear(x)
            return y, torch.relu(self.bn(y))

    assert codes(look(made(Net)))["dead-bias"] == 0


def test_affine_twice():
    model = healthy()
    del model[2]
    found = only(look(model), "affine-twice")
    assert [(one.layer, one.evidence["followed by"]) for one in found] == [("1", "2")]
    model[1].affine, model[1].weight, model[1].bias = False, None, None
    assert list(look(model)) == []
    twice = nn.Sequential(nn.BatchNorm1d(64), *healthy()[1:])
    assert "affine-twice" in codes(look(trained(twice)))


def test_unfolded():
    model = healthy("resnet").eval()
    found = only(look(model, loader()), "unfolded")
    example = digits().x_test[:2]
    assert len(found) == len(companion.fold(model, example)[1].folded)
    assert list(look(companion.fold(model, example)[0], loader())) == []
