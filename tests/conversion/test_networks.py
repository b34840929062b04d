"""Whole networks of timm and torchvision, converted, folded and brought back."""

import copy
from importlib.util import find_spec

import pytest
import torch
from _architectures import libraries, network, settled, statistics
from torch import nn

import companion
from companion.inference import fold

pytestmark = [
    pytest.mark.slow(reason="builds and trains networks of libraries that only it needs"),
    pytest.mark.skipif(find_spec("timm") is None, reason="`make test-all` installs timm"),
]

# Of a family each. Some need inputs of their size.
TIMM = {
    "resnext26ts": 64,
    "regnety_002": 64,
    "mobilenetv3_small_050": 64,
    "tf_efficientnet_lite0": 64,
    "densenet121": 64,
    "dla46_c": 64,
    "ghostnet_050": 64,
    "repvgg_a0": 64,
    "mobilevit_xxs": 64,
    "ese_vovnet19b_slim_dw": 64,
    "efficientvit_b0": 64,
    "levit_128s": 224,
}
TORCHVISION = [
    "resnet18",
    "googlenet",
    "shufflenet_v2_x0_5",
    "mnasnet0_5",
    "regnet_y_400mf",
    "efficientnet_b0",
    "mobilenet_v2",
    "mobilenet_v3_small",
]
NETWORKS = TIMM | {f"torchvision:{name}": 64 for name in TORCHVISION}


def outputs(value):
    """The tensor that a network returns, or those of its auxiliary classifiers too."""
    return value if isinstance(value, torch.Tensor) else torch.cat(list(value), 1)


def step(model, x):
    """Outputs, gradients and state, by name, of a pass in training mode, with one seed."""
    torch.manual_seed(1)
    x = x.clone().requires_grad_()
    model.zero_grad()
    y = outputs(model.train()(x))
    y.square().sum().backward()
    found = {"output": y.detach(), "input": x.grad}
    found |= {name: value.grad for name, value in model.named_parameters()}
    return found | {f"{name} itself": value.clone() for name, value in model.named_buffers()}


def check_close(found, expected):
    """Equal to 1e-8 of each tensor's largest value; what is 0 in theory, to 1e-12 of all's."""
    assert found.keys() == expected.keys()
    values = {
        name: value
        for name, value in expected.items()
        if value is not None and value.is_floating_point()
    }
    largest = {name: float(value.abs().max()) for name, value in values.items()}
    for name, value in values.items():
        difference = float((found[name] - value).abs().max())
        allowed = 1e-8 * largest[name] + 1e-12 * max(largest.values())
        assert difference <= allowed, f"{name}: {difference:.2g} of {largest[name]:.2g}"


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_converted_folded_and_brought_back(name):
    model = network(name)
    twin, layers = copy.deepcopy(model), statistics(model)
    x = torch.randn(4, 3, NETWORKS[name], NETWORKS[name], dtype=torch.float64)
    model, report = companion.convert(model, report=True)
    assert report.left == ()
    assert {change.layer for change in report.changed} == layers
    check_close(step(model, x), step(twin, x))
    model.eval(), twin.eval()
    with torch.no_grad():
        expected = {"output": outputs(twin(x))}
        check_close({"output": outputs(model(x))}, expected)
        for either in (model, twin):
            folded, report = fold(either, x)
            check_close({"output": outputs(folded(x))}, expected)
            assert {entry.bn for entry in (*report.folded, *report.kept)} >= {
                name for name in layers if "aux" not in name
            }
            assert all(entry.reason for entry in report.kept)
            assert report.folded
    classes = [type(module) for module in companion.convert(model, to="torch").modules()]
    assert classes == [type(module) for module in twin.modules()]
    for change, back in ((companion.freeze, companion.unfreeze), (companion.convert_sync, None)):
        _, report = change(model, report=True)
        assert {entry.layer for entry in report.changed} == layers
        with torch.no_grad():
            check_close({"output": outputs(model(x))}, expected)
        back(model) if back else companion.convert(model, to="torch")
        assert [type(module) for module in model.modules()] == classes


def test_frozen_and_synchronized_layers():
    torchvision, timm = libraries()
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    frozen = torchvision.ops.FrozenBatchNorm2d
    networks = [
        torchvision.models.resnet18(norm_layer=frozen),
        timm.layers.freeze_batch_norm_2d(network("resnext26ts")),
        timm.layers.freeze_batch_norm_2d(network("mobilenetv3_small_050")),
    ]
    for model in networks:
        for module in model.modules():
            if hasattr(module, "running_var"):
                nn.init.uniform_(module.running_var, 0.5, 1.5)
        model.double().train()
        expected, layers = step(model, x), statistics(model)
        _, report = fold(model, x)
        assert {entry.bn for entry in report.folded} == layers
        model, report = companion.convert(model, report=True)
        assert {change.layer for change in report.changed} == layers
        check_close(step(model, x), expected)
    synchronized = timm.layers.convert_sync_batchnorm(network("resnext26ts")).eval()
    _, report = fold(synchronized, x)
    assert len(report.folded) == len(statistics(synchronized))
    _, report = companion.convert(synchronized, report=True)
    assert {left.reason for left in report.left} == {
        "synchronized over processes, which convert_sync serves"
    }


def test_float32_and_half_precision():
    model = settled(network("mobilenetv3_small_050").float().eval())
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        y = model(x)
        companion.convert(model)
        torch.testing.assert_close(model(x), y, rtol=1e-4, atol=1e-4)
        half = copy.deepcopy(model).bfloat16()
        torch.testing.assert_close(half(x.bfloat16()).float(), y, rtol=0.1, atol=0.1)
        back = companion.convert(half, to="torch")
        torch.testing.assert_close(back(x.bfloat16()).float(), y, rtol=0.1, atol=0.1)
