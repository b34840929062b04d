"""Small networks of well-known shapes, trained a little on digits."""

import functools

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from companion import data
from companion.bench import networks
from companion.experiments import train


class Images(nn.Module):
    """Shows a network the digits as images of three channels, some times as large."""

    def __init__(self, body, times=4):
        super().__init__()
        self.body, self.times = body, times

    def forward(self, x):
        x = x.view(-1, 1, 8, 8).expand(-1, 3, 8, 8)
        return self.body(x.repeat_interleave(self.times, 2).repeat_interleave(self.times, 3))


class UNet(nn.Module):
    """One step down and up again, beside a shortcut."""

    def __init__(self, width=8):
        super().__init__()
        self.first = self.block(3, width)
        self.low = self.block(width, 2 * width)
        self.last = self.block(3 * width, width)
        self.head = nn.Linear(width, 10)

    @staticmethod
    def block(channels, width):
        return nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )

    def forward(self, x):
        first = self.first(x)
        low = F.interpolate(self.low(F.max_pool2d(first, 2)), scale_factor=2)
        return self.head(self.last(torch.cat([first, low], 1)).mean((2, 3)))


def mlp(*between, bias=False):
    layers = []
    for _ in range(2):
        layers += [nn.Linear(64, 64, bias=bias), *between, nn.BatchNorm1d(64), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(64, 10))


NETWORKS = {
    "mlp": mlp,
    "resnet": lambda: Images(networks.resnet((1, 1), 8)),
    "mobilenet": lambda: Images(networks.mobilenet((16, 32, 32))),
    "densenet": lambda: Images(networks.densenet((2, 2), 8)),
    "unet": lambda: Images(UNet(), 1),
}


@functools.cache
def digits():
    return data.digits()


def loader(size=64, *, seed=0, x=None, order=None):
    """Batches of digits in a random order, or in the one given."""
    x = digits().x_train if x is None else x
    y = digits().y_train
    if order is not None:
        x, y = x[order], y[order]
    generator = torch.Generator().manual_seed(seed)
    return DataLoader(
        TensorDataset(x, y), size, shuffle=order is None, drop_last=True, generator=generator
    )


def trained(model, seed=0):
    """Trained for some seconds, at last with a small learning rate, as one does."""
    for steps, rate in ((100, 0.1), (40, 0.01)):
        settings = {"steps": steps, "batch_size": 64, "learning_rate": rate, "seed": seed}
        train(model, digits().x_train, digits().y_train, **settings)
    return model.train()


def made(make, seed=0):
    torch.manual_seed(seed)
    return make()
