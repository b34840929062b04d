"""Parameter groups: what weight decay reaches, and a step that shows it."""

import copy

import pytest
import torch
from torch import nn

import companion
from companion import parameter_groups, variants


class Network(nn.Module):
    """One layer of each kind that the rule tells apart."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.norms = nn.ModuleList(
            [
                *(
                    nn.BatchNorm2d(4),
                    companion.BatchNorm2d(4),
                    variants.GhostBatchNorm2d(4, ghost_size=2),
                ),
                *(companion.SyncBatchNorm(4), nn.GroupNorm(2, 4), variants.GroupNorm(2, 4)),
                *(nn.InstanceNorm2d(4, affine=True), variants.InstanceNorm2d(4, affine=True)),
                *(nn.LayerNorm((4, 5)), variants.LayerNorm((4, 5)), nn.RMSNorm((4, 5))),
                variants.DecorrelatedBatchNorm2d(4, affine=True),
            ]
        )
        self.table = nn.Embedding(7, 4)
        self.attention = nn.MultiheadAttention(4, 2, add_bias_kv=True)
        self.recurrent = nn.LSTM(4, 4)
        self.scale = nn.Parameter(torch.ones(()))
        self.head = nn.utils.parametrizations.weight_norm(nn.Linear(4, 2), dim=None)


DECAYED = [
    *("stem.weight", "table.weight", "attention.in_proj_weight", "attention.out_proj.weight"),
    *("recurrent.weight_ih_l0", "recurrent.weight_hh_l0"),
    *("head.parametrizations.weight.original0", "head.parametrizations.weight.original1"),
]


def test_matrices_are_decayed_and_nothing_else():
    model = Network()
    decayed, spared = parameter_groups(model, 0.1)
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    assert sorted(decayed["param_names"]) == sorted(DECAYED)
    named = dict(model.named_parameters())
    assert sorted([*decayed["param_names"], *spared["param_names"]]) == sorted(named)
    for group in (decayed, spared):
        assert len(group["params"]) == len(group["param_names"])
        for name, parameter in zip(group["param_names"], group["params"], strict=True):
            assert parameter is named[name]


def test_normalization_may_be_decayed_and_biases_still_are_not():
    decayed, spared = parameter_groups(Network(), 0.1, decay_normalization=True)
    norms = [name for name in decayed["param_names"] if name.startswith("norms.")]
    assert sorted(decayed["param_names"]) == sorted([*DECAYED, *norms])
    assert not [name for name in spared["param_names"] if name.startswith("norms.")]
    assert {"stem.bias", "recurrent.bias_ih_l0", "attention.bias_k"} <= {*spared["param_names"]}


@pytest.mark.parametrize("name", ["LlamaRMSNorm", "LayerNorm2d", "BatchNormAct2d", "CosineHead"])
def test_another_librarys_normalization_is_known_by_its_name(name):
    layer = type(name, (nn.Module,), {})()
    layer.gamma = nn.Parameter(torch.ones(1, 4, 1, 1))
    decayed, _ = parameter_groups(nn.Sequential(layer), 0.1)
    assert bool(decayed["params"]) == (name == "CosineHead")


def test_a_shared_parameter_is_listed_once_and_spared_if_any_name_says_so():
    model = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 5, bias=False), nn.LayerNorm((5, 3)))
    model[1].weight = model[0].weight
    decayed, spared = parameter_groups(model, 0.1)
    assert decayed["param_names"] == ["0.weight"]
    model[2].weight = model[0].weight
    decayed, spared = parameter_groups(model, 0.1)
    assert decayed["param_names"] == []
    assert spared["param_names"] == ["0.weight", "2.bias"]


def test_what_needs_no_gradient_is_left_out():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    model[0].requires_grad_(False)
    decayed, spared = parameter_groups(model, 0.1)
    assert decayed["param_names"] == []
    assert spared["param_names"] == ["1.weight", "1.bias"]
    torch.optim.SGD([decayed, spared], lr=0.1)


def test_a_parametrized_normalization_is_one():
    layer = nn.LayerNorm((2, 3))
    nn.utils.parametrize.register_parametrization(layer, "weight", nn.Identity())
    decayed, _ = parameter_groups(nn.Sequential(layer), 0.1)
    assert decayed["param_names"] == []


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.parametrize("decay_normalization", [False, True])
def test_a_step_is_the_one_by_hand(optimizer, decay_normalization):
    """Decay moves a parameter by -ηλ times itself from where it goes without decay."""
    torch.manual_seed(0)
    rate, decay = 0.1, 0.01
    model = nn.Sequential(nn.Linear(3, 4), companion.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 1))
    model = model.double()
    nn.init.constant_(model[1].bias, 0.5)
    plain = copy.deepcopy(model)
    before = copy.deepcopy(dict(model.named_parameters()))
    groups = parameter_groups(model, decay, decay_normalization=decay_normalization)
    steps = {
        optimizer(groups, lr=rate, weight_decay=1e3): model,
        optimizer(plain.parameters(), lr=rate, weight_decay=0.0): plain,
    }
    x = torch.randn(8, 3, dtype=torch.float64)
    for step, network in steps.items():
        network(x).square().mean().backward()
        step.step()
    decayed = {"0.weight", "3.weight"} | ({"1.weight", "1.bias"} if decay_normalization else set())
    undecayed = dict(plain.named_parameters())
    for name, parameter in model.named_parameters():
        expected = undecayed[name] - (rate * decay * before[name] if name in decayed else 0.0)
        assert torch.allclose(parameter, expected, rtol=0, atol=1e-15), name
    assert next(iter(steps)).param_groups[0]["param_names"][0] == "0.weight"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([nn.Linear(2, 2)], 0.1), TypeError, "model: expected a torch.nn.Module, got list"),
        ((nn.Linear(2, 2), -0.1), ValueError, "weight_decay: expected a finite number not below 0"),
        ((nn.Linear(2, 2), float("nan")), ValueError, "weight_decay: expected a finite number not"),
        ((nn.LazyLinear(2), 0.1), ValueError, "with a shape, got a lazy one, 'weight': call the m"),
    ],
)
def test_errors_name_the_argument(arguments, error, message):
    with pytest.raises(error, match=message):
        parameter_groups(*arguments)
