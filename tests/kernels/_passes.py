"""The two functions of a kernel module as the four passes that they run."""

from typing import NamedTuple

import torch

from companion.kernels.interface import Kernels


class Passes(NamedTuple):
    """Passes of some kernels; mean and variance go in and out apart."""

    kernels: Kernels

    def batch_forward(self, x, weight, bias, residual, running, eps, relu):
        y, statistics = self.kernels.normalize(x, weight, bias, residual, None, running, eps, relu)
        return y, *statistics

    def fixed_forward(self, x, mean, var, weight, bias, residual, eps, relu):
        y, statistics = self.kernels.normalize(
            x, weight, bias, residual, (mean, var), None, eps, relu
        )
        assert statistics.dtype is torch.float64
        assert torch.equal(statistics, torch.stack((mean, var)).double())
        return y

    def batch_backward(self, *arguments):
        return self._backward(*arguments, True)

    def fixed_backward(self, *arguments):
        return self._backward(*arguments, False)

    def _backward(self, grad_y, x, y, mean, var, weight, bias, *options):
        """The gradients; those of a weight and a bias also where there are none."""
        given = (grad_y, x, y, torch.stack((mean, var)))
        gradients = self.kernels.differentiate(*given, weight, bias, *options)
        for gradient, parameter in ((gradients.weight, weight), (gradients.bias, bias)):
            assert (gradient is None) == (parameter is None)
            assert gradient is None or gradient.dtype is parameter.dtype
        if weight is None or bias is None:
            ones = torch.ones_like(mean) if weight is None else weight
            zeros = torch.zeros_like(mean) if bias is None else bias
            same = self.kernels.differentiate(*given, ones, zeros, *options)
            torch.testing.assert_close(same.x, gradients.x, rtol=0, atol=0, equal_nan=True)
            gradients = same._replace(x=gradients.x)
        return gradients
