"""What a diagnosis leaves alone, how it is read, and what it refuses."""

import json
import random
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from _patients import NETWORKS, digits, loader, made, mlp
from scipy import stats
from torch import nn
from torch.nn import functional as F

from companion.__main__ import main
from companion.diagnosis import Diagnosis, Finding, diagnose, thresholds
from companion.diagnosis.catalogue import KINDS
from companion.diagnosis.flow import recorded, traced
from companion.statistics.moments import RunningMoments

ADDRESSES = Path(__file__).parents[2] / "book" / "addresses.txt"


def test_every_chapter_has_its_address():
    known = set(ADDRESSES.read_text(encoding="utf-8").split())
    assert {kind.chapter.replace("#", ".html#", 1) for kind in KINDS.values()} <= known


def everything(model):
    """All that a diagnosis must leave alone."""
    return (
        {name: (value.data_ptr(), value.clone()) for name, value in model.state_dict().items()},
        [(p.grad, None if p.grad is None else p.grad.clone()) for p in model.parameters()],
        [
            (module.training, len(module._forward_hooks), len(module._forward_pre_hooks))
            for module in model.modules()
        ],
        (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()),  # noqa: NPY002
    )


def the_same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(the_same(one[key], other[key]) for key in one)
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(the_same, one, other))
    return one == other


def wild_loader():
    """Draws from every source of random numbers."""
    for _ in range(3):
        places = torch.randperm(len(digits().x_train))[: 40 + random.randrange(3)]
        places = places[np.random.permutation(len(places))]  # noqa: NPY002
        yield digits().x_train[places], digits().y_train[places]


def failing_loss(output, target):
    if failing_loss.left == 0:
        raise ZeroDivisionError("the user's own")
    failing_loss.left -= 1
    return F.cross_entropy(output, target)


@pytest.mark.parametrize("failing_after", [None, 1, 4, 8])
@pytest.mark.parametrize("training", [True, False])
def test_nothing_is_changed(training, failing_after):
    model = made(lambda: nn.Sequential(nn.Dropout(0.1), *mlp(nn.Dropout(0.3)), nn.Dropout(0.1)))
    model.train(training)
    model[2].eval()
    F.cross_entropy(model(digits().x_train[:60]), digits().y_train[:60]).backward()
    before = everything(model)
    if failing_after is None:
        diagnose(model, wild_loader(), loss=F.cross_entropy, progress=False)
    else:
        failing_loss.left = failing_after
        with pytest.raises(ZeroDivisionError):
            diagnose(model, wild_loader(), loss=failing_loss, progress=False)
    assert the_same(everything(model), before)


def test_an_optimizer_in_the_backward_pass_takes_no_step():
    model = made(mlp)
    steps = []
    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(steps.append)
    diagnose(model, loader(), loss=F.cross_entropy, progress=False)
    assert steps == []


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_seen_running_is_what_is_traced(name):
    model, x = made(NETWORKS[name]), digits().x_train[:8]
    with recorded(model) as finish:
        seen = finish(model(x))
    known = traced(model)

    def around(flow):
        """By layer, what it comes from and what its result alone goes to."""
        return {
            node.layer: (
                [flow.nodes[i].layer for i in node.inputs],
                getattr(flow.nodes[u], "layer", None)
                if (u := flow.only_user(index)) is not None
                else None,
            )
            for index, node in enumerate(flow.nodes)
            if node.layer
        }

    assert around(seen) == around(known)
    assert [seen.nodes[i].layer for i in seen.outputs] == [
        known.nodes[i].layer for i in known.outputs
    ]


def test_code_that_cannot_be_traced_is_named():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = mlp(bias=True)

        def forward(self, x):
            return self.body(x if x.sum() > 0 else -x)

    model = made(Branches)
    without = diagnose(model)
    assert without.unchecked["dead-bias"] == "without data, in code that torch.fx cannot trace"
    found = diagnose(model, loader(), progress=False)
    assert [one.layer for one in found if one.code == "dead-bias"] == ["body.0", "body.3"]


FREEDOMS = [(1, 7), (3, 20), (7, 24), (7, 500), (15, 1000)]


@pytest.mark.parametrize("above", [1e-3, 1e-4])
@pytest.mark.parametrize("freedom", FREEDOMS)
def test_quantiles_are_those_of_the_f_distribution(above, freedom):
    exact = stats.f.isf(above, *freedom)
    # Paulson's approximation errs on the careful side.
    assert exact <= thresholds.f_quantile(above, *freedom) < 1.25 * exact


def test_the_gap_is_the_squared_error_of_evaluation():
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.gamma(2.0, size=(1000, 3)))
    fixed, eps = torch.tensor([[1.0, 2.0, 3.0], [1.0, 4.0, 0.5]]).double(), 0.1
    mean, var = x.mean(0), x.var(0, correction=0)
    direct = ((x - mean) / (var + eps).sqrt() - (x - fixed[0]) / (fixed[1] + eps).sqrt()).square()
    found = thresholds.evaluation_gap(mean, var, fixed, eps)
    torch.testing.assert_close(found, direct.mean(0), rtol=1e-12, atol=0)


def test_chance_exceeds_the_threshold_as_rarely_as_is_said():
    # Few values, so that the least gap does not decide; channels that are copies of one another.
    generator = torch.Generator().manual_seed(0)
    alpha, m, batches, channels = 0.1, 4, 8, 3
    false = 0
    for _ in range(400):
        x = torch.randn(60, m, 1, generator=generator, dtype=torch.float64).expand(-1, -1, channels)
        running = [torch.zeros(channels).double(), torch.ones(channels).double()]
        for batch in x:
            for part, value in zip(running, (batch.mean(0), batch.var(0)), strict=True):
                part += alpha * (value - part)
        fresh = torch.randn(batches, m, 1, generator=generator).double().expand(-1, -1, channels)
        means, variances = fresh.mean(1), fresh.var(1, correction=0)
        whole = RunningMoments.of(fresh.flatten(0, 1))
        gap = thresholds.evaluation_gap(whole.mean, whole.var, tuple(running), 1e-5).mean()
        false += gap > thresholds.gap_threshold(means, variances, alpha / (2 - alpha), 1e-5)
    assert false <= 400 / 20


def test_the_threshold_is_twenty_times_what_is_to_be_expected():
    # Of m Gaussian values: Var[mean] = σ²/m, and Var[standard deviation] about σ²/(2m).
    x = torch.randn(2000, 20, 50, generator=torch.Generator().manual_seed(0)).double()
    found = thresholds.gap_threshold(x.mean(1), x.var(1, correction=0), 0.5, 0.0)
    # Both are in units of the mean biased variance, (1 - 1/m)σ².
    one_batch = (1 / 20 + 1 / 40) / (1 - 1 / 20)
    assert found == pytest.approx(20 * one_batch * (1 / 2000 + 0.5), rel=0.01)


def test_a_table_and_json():
    found = Diagnosis(
        (
            Finding("few-values", "bn", "error", {"values per channel": 1}),
            Finding("dead-bias", "conv", "note", {"before": "bn", "largest": 0.123456}),
            Finding("dead-bias", "long.name", "note", {"before": "bn2"}),
        ),
        layers=2,
        unchecked={"decayed-scale": "without an optimizer"},
    )
    text = str(found)
    assert text.startswith("2 batch normalization layers: 1 error, 0 warnings, 2 notes\n")
    assert "note     dead-bias  conv       before bn, largest 0.123\n" in text
    assert text.count(KINDS["dead-bias"].remedy) == 1
    assert text.endswith("not checked, without an optimizer: decayed-scale")
    document = json.loads(found.to_json())
    assert document["layers"] == 2
    assert document["findings"][1]["evidence"] == {"before": "bn", "largest": 0.123456}
    assert document["findings"][0]["chapter"] == KINDS["few-values"].chapter
    assert [one.layer for one in found[1:]] == ["conv", "long.name"]


def test_the_severest_comes_first():
    model = made(lambda: mlp(bias=True))
    model[1].running_var[0] = torch.inf
    assert [one.severity for one in diagnose(model)] == ["error", "warning", "note", "note"]
    # Whatever the order of the codes is.
    model = made(mlp)
    for layer in (model[1], model[4]):
        layer.running_mean += 1
    model[1].running_var *= 1e-9
    model[4].eval()
    assert [one.code for one in diagnose(model)] == ["dead-channel", "half-frozen"]


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"model": 3}, TypeError, "model: expected a torch.nn.Module, got int"),
        ({"batches": 1}, ValueError, "batches: expected at least 2, got 1"),
        ({"loader": []}, ValueError, "loader: expected at least one batch, got none"),
        ({"loader": [3]}, TypeError, "loader: expected tensors, or tuples that begin with one"),
        (
            {"loader": [torch.ones(4, 64)] * 2, "loss": F.mse_loss},
            TypeError,
            "loader: expected pairs of inputs and targets with a loss, got Tensor",
        ),
        ({"model": nn.LazyBatchNorm1d()}, ValueError, "model: expected layers with shapes"),
    ],
)
def test_mistakes_are_named(change, error, text):
    arguments = {"model": mlp(), "loader": loader(), "progress": False} | change
    with pytest.raises(error, match=re.escape(text)):
        diagnose(arguments.pop("model"), arguments.pop("loader"), **arguments)


def test_a_model_without_the_layer():
    found = diagnose(nn.Linear(3, 3), [torch.ones(2, 3)], progress=False)
    assert (len(found), found.layers) == (0, 0)


FACTORIES = """
from torch import nn
import torch

def make():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))

def healthy():
    model = make()
    model[1].momentum = None
    batches = [torch.randn(64, 3) for _ in range(8)]
    for batch in batches:
        model(batch)
    return {"model": model, "loader": batches}

def broken():
    raise RuntimeError("no such file")

def number():
    return 3

def more():
    return {"model": make(), "loder": []}
"""


@pytest.fixture
def factories(tmp_path, monkeypatch):
    (tmp_path / "factories_of_models.py").write_text(FACTORIES, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    yield "factories_of_models"
    sys.modules.pop("factories_of_models", None)
    if "" in sys.path:
        sys.path.remove("")


def test_the_command(capsys, factories):
    assert main(["diagnose", f"{factories}:make"]) == 1
    assert "warning  never-updated  1  batches counted 0" in capsys.readouterr().out
    assert main(["diagnose", f"{factories}:healthy", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [one["code"] for one in document["findings"]] == ["dead-bias"]


@pytest.mark.parametrize(
    ("factory", "text"),
    [
        ("{}", "expected MODULE:FACTORY"),
        ("{}:none", "expected a function 'none'"),
        ("not_there:f", "ModuleNotFoundError"),
        ("{}:broken", "RuntimeError: no such file"),
        ("{}:number", "expected a torch.nn.Module, or a dictionary with one as 'model', got int"),
        ("{}:more", "expected the keys model, loader, loss, optimizer, forward, got loder"),
    ],
)
def test_mistakes_of_the_command(capsys, factories, factory, text):
    assert main(["diagnose", factory.format(factories)]) == 2
    printed = capsys.readouterr()
    assert text in printed.err
    assert (printed.out, printed.err.count("\n")) == ("", 1)
