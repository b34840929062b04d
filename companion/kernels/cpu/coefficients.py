"""What a channel's values are combined with, in the type of computation.

The forward pass writes (x - centre)·slope + constant, the backward pass
((g - g_mean) + (x - centre)·x_slope + x_constant)·g_slope. Statistics are float64; centre and
g_mean are what the type of computation holds of them, and the constants carry the rest.
"""

from __future__ import annotations

import numpy as np

from .formats import read, write
from .runtime import array_at, njit

CENTRE, SLOPE, CONSTANT, FLOOR, G_MEAN, G_SLOPE, X_SLOPE, X_CONSTANT = range(8)
COUNT = 8


@njit
def set_shift(job, channel, shift):
    """Keep what a channel's sums are taken about where its mean will be."""
    array_at(job.statistics, job.channels, 0.0)[channel] = shift


@njit
def set_centre(job, block, of):
    for c in range(block.channels):
        of[CENTRE, c] = read(job.mean, job.mean_kind, block.channel + c, 0.0)


@njit
def write_statistics(job, block, sums):
    """Mean and biased variance, from Σ(x - shift) and Σ(x - shift)²."""
    mean = array_at(job.statistics, job.channels, 0.0)
    var = array_at(job.statistics + 8 * job.channels, job.channels, 0.0)
    for c in range(block.channels):
        k = block.channel + c
        offset = sums[0, c] / job.m
        mean[k] += offset
        var[k] = sums[1, c] / job.m - offset * offset
        if var[k] < 0.0:
            var[k] = 0.0


@njit
def keep_statistics(job, block):
    """Copy given statistics, which may have changed by the time of the backward pass."""
    mean = array_at(job.statistics, job.channels, 0.0)
    var = array_at(job.statistics + 8 * job.channels, job.channels, 0.0)
    for k in range(block.channel, block.channel + block.channels):
        mean[k] = read(job.mean, job.mean_kind, k, 0.0)
        var[k] = read(job.var, job.var_kind, k, 0.0)


@njit
def write_gradients(job, block, sums, of):
    """Gradients of weight and bias, from Σg and Σg·(x - centre)."""
    grad_bias = array_at(job.sums, job.channels, 0.0)
    grad_weight = array_at(job.sums + 8 * job.channels, job.channels, 0.0)
    for c in range(block.channels):
        k = block.channel + c
        mean = read(job.mean, job.mean_kind, k, 0.0)
        var = read(job.var, job.var_kind, k, 0.0)
        product = sums[1, c] - (mean - np.float64(of[CENTRE, c])) * sums[0, c]
        grad_weight[k] = product / np.sqrt(var + job.eps)
        grad_bias[k] = sums[0, c]
        write(job.grad_weight, job.grad_weight_kind, k, grad_weight[k])
        write(job.grad_bias, job.grad_bias_kind, k, grad_bias[k])


@njit
def set_forward(job, block, of):
    """Eq. (3) mini-batch-algorithm/normalize and Eq. (4) mini-batch-algorithm/scale-shift."""
    for c in range(block.channels):
        k = block.channel + c
        mean = read(job.mean, job.mean_kind, k, 0.0)
        var = read(job.var, job.var_kind, k, 0.0)
        slope = read(job.weight, job.weight_kind, k, 1.0) / np.sqrt(var + job.eps)
        bias = read(job.bias, job.bias_kind, k, 0.0)
        of[CENTRE, c] = mean
        of[SLOPE, c] = slope
        of[CONSTANT, c] = bias - (mean - np.float64(of[CENTRE, c])) * slope
        of[FLOOR, c] = 0.0 if job.relu else -np.inf


@njit
def set_backward(job, block, of):
    """Eq. (9) backprop/closed-form, from the gradients of weight and bias."""
    grad_bias = array_at(job.sums, job.channels, 0.0)
    grad_weight = array_at(job.sums + 8 * job.channels, job.channels, 0.0)
    for c in range(block.channels):
        k = block.channel + c
        mean = read(job.mean, job.mean_kind, k, 0.0)
        inverse = 1.0 / np.sqrt(read(job.var, job.var_kind, k, 0.0) + job.eps)
        g_mean, x_slope = grad_bias[k] / job.m, -inverse * grad_weight[k] / job.m
        of[CENTRE, c] = mean
        of[G_MEAN, c] = g_mean
        of[G_SLOPE, c] = read(job.weight, job.weight_kind, k, 1.0) * inverse
        of[X_SLOPE, c] = x_slope
        g_rest = g_mean - np.float64(of[G_MEAN, c])
        x_rest = mean - np.float64(of[CENTRE, c])
        of[X_CONSTANT, c] = -g_rest - x_rest * x_slope
