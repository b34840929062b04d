"""Fused blocks: equal to what they were, whatever is done to them, and refused where in doubt."""

import copy
import io
import operator
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

import companion
from companion.conversion import fusion
from companion.conversion.fusion import fuse, unfuse


@pytest.fixture
def kernel_calls(monkeypatch):
    """Layers that ran in one pass with what follows."""
    calls, dispatch = [], fusion.dispatch

    def counted(function, arguments, backend):
        calls.append(arguments)
        return dispatch(function, arguments, backend)

    monkeypatch.setattr(fusion, "dispatch", counted)
    return calls


class Basic(nn.Module):
    """ResNet's block, as torchvision writes it."""

    def __init__(self, inputs, outputs, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1:
            conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(outputs))

    def forward(self, x):
        identity = x
        out = self.conv1(x)
        out = self.bn1(out)
        out = self.relu(out)
        out = self.conv2(out)
        out = self.bn2(out)
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        out = self.relu(out)
        return out


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = nn.Sequential(Basic(6, 6), Basic(6, 8, 2))
        self.fc = nn.Linear(8, 2)

    def forward(self, x):
        return self._forward_impl(x)

    def _forward_impl(self, x):
        x = self.conv1(x)
        x = self.bn1(x)
        x = self.relu(x)
        x = self.layer1(x)
        return self.fc(x.mean((2, 3)))


class DenseLayer(nn.Module):
    """DenseNet's, which normalizes before it convolves."""

    def __init__(self, inputs):
        super().__init__()
        self.norm1, self.relu1 = nn.BatchNorm2d(inputs), nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(inputs, 6, 1, bias=False)
        self.norm2, self.relu2 = nn.BatchNorm2d(6), nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(6, 2, 3, padding=1, bias=False)

    def bottleneck(self, inputs):
        return self.conv1(self.relu1(self.norm1(torch.cat(inputs, 1))))

    def forward(self, input):
        features = [input] if isinstance(input, torch.Tensor) else input
        return self.conv2(self.relu2(self.norm2(self.bottleneck(features))))


class DenseNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.layers = nn.ModuleList([DenseLayer(4), DenseLayer(6), DenseLayer(8)])
        self.norm, self.fc = nn.BatchNorm2d(10), nn.Linear(10, 2)

    def forward(self, x):
        features = [self.conv(x)]
        for layer in self.layers:
            features.append(layer(features))
        out = F.relu(self.norm(torch.cat(features, 1)), inplace=True)
        return self.fc(F.adaptive_avg_pool2d(out, 1).flatten(1))


class ConvNormReLU(nn.Sequential):
    def __init__(self, inputs, outputs, stride=1, groups=1):
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride, 1, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(ConvNormReLU(3, 4), ConvNormReLU(4, 4))
        self.middle = nn.Sequential(ConvNormReLU(4, 8, 2), ConvNormReLU(8, 4))
        self.up = nn.Sequential(ConvNormReLU(8, 4), nn.Conv2d(4, 1, 1))

    def forward(self, x):
        skip = self.down(x)
        wide = F.interpolate(self.middle(skip), size=skip.shape[2:])
        return self.up(torch.cat([skip, wide], 1)).mean((2, 3))


class Lists(nn.Module):
    """Layers in lists, called in a loop, as networks on graphs are written."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3), nn.Conv2d(5, 5, 3)])
        self.bns = nn.ModuleList([nn.BatchNorm2d(4), nn.BatchNorm2d(5)])
        self.act = F.relu

    def forward(self, x):
        for conv, bn in zip(self.convs, self.bns, strict=False):
            x = conv(x)
            x = bn(x)
            x = self.act(x)
        return self.convs[-1](x).mean((2, 3))


def mobile_net():
    return nn.Sequential(
        *(ConvNormReLU(3, 6, 2), ConvNormReLU(6, 6, groups=6), ConvNormReLU(6, 8, 2)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)),
    )


def vgg():
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2)),
    )


# With how many layers run in one pass with a ReLU.
NETWORKS = [(ResNet, 5), (DenseNet, 7), (UNet, 5), (Lists, 2), (mobile_net, 3), (vgg, 2)]


def pair(network, dtype=torch.float32):
    """A converted network, and one that is fused, too."""
    torch.manual_seed(0)
    plain = companion.convert(network().to(dtype))
    fused = copy.deepcopy(plain)
    return plain, fused, fuse(fused)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("network", "count"), NETWORKS)
def test_networks_learn_as_before(network, count, dtype, layout, kernel_calls):
    plain, fused, outcomes = pair(network, dtype)
    assert list(outcomes.values()).count(None) == count
    inputs = torch.randn(4, 4, 3, 12, 12, dtype=dtype)
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype is torch.float32 else {}
    optimizers = [torch.optim.SGD(model.parameters(), 0.1) for model in (plain, fused)]
    for x in inputs[:3]:
        for model, optimizer in zip((plain, fused), optimizers, strict=True):
            model.to(memory_format=layout)
            optimizer.zero_grad()
            model(x.to(memory_format=layout)).square().mean().backward()
            optimizer.step()
    assert len(kernel_calls) == 3 * count
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(fused.state_dict()[name], value, **tolerance)
    expected = plain.eval()(inputs[3])
    torch.testing.assert_close(fused.eval()(inputs[3]), expected, **tolerance)
    assert len(kernel_calls) == 4 * count
