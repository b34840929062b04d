"""The data of the figure `histograms`: what is watched, counted and measured."""

import numpy as np
import pytest
import torch
from torch import nn

import companion
from companion import data, explore
from companion.experiments.training import train
from companion.explore.histograms import BINS, REACH, watch


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Linear(64, 8, bias=False), companion.BatchNorm1d(8), nn.Tanh()),
        *(nn.Linear(8, 6, bias=False), companion.BatchNorm1d(6), nn.Tanh()),
        nn.Linear(6, 10),
    )


def test_looking_keeps_what_enters_each_tanh_and_changes_nothing():
    split, watched, alone = data.digits(), network(), network()
    looks = watch(watched, split, [0, 3])
    assert {step: [len(layer.T) for layer in layers] for step, layers in looks.items()} == {
        0: [8, 6],
        3: [8, 6],
    }
    torch.testing.assert_close(
        looks[0][0], network()[:2](split.x_train).detach(), rtol=0, atol=1e-6
    )
    # Three steps from the same seed leave the same weights and the same running averages.
    settings = {"steps": 3, "batch_size": 64, "learning_rate": 0.1, "seed": 3}
    train(alone, split.x_train, split.y_train, **settings)
    for name, value in alone.state_dict().items():
        assert torch.equal(value, watched.state_dict()[name]), name


def test_heights_and_spreads_are_those_of_the_values():
    generator = torch.Generator().manual_seed(0)
    layers = [torch.randn(500, 4, generator=generator), torch.full((500, 2), 0.05)]
    start = explore.histograms({0: layers}, {0: layers}, step=0).start
    network = start["networks"]["plain"]
    counts = np.histogram(layers[0].numpy(), np.linspace(-REACH, REACH, BINS + 1))[0]
    assert network["heights"][0][0] == np.rint(100 * counts / counts.max()).tolist()
    assert sorted(set(network["heights"][0][1])) == [0, 100]
    expected = layers[0].double().numpy().std(axis=0).mean()
    assert network["spreads"][0] == pytest.approx([expected, 0], abs=1e-4)


def test_networks_that_were_not_looked_at_alike_are_refused():
    layers = [torch.zeros(3, 2)]
    with pytest.raises(ValueError, match=r"batch: expected the steps .* \{0: 1\}, got \{1: 1\}"):
        explore.histograms({0: layers}, {1: layers})
    with pytest.raises(ValueError, match=r"step: expected one of \[0\], got 20"):
        explore.histograms({0: layers}, {0: layers})
