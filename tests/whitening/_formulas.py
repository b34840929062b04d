"""Whitening matrices and their derivatives in NumPy and float64, written to be read.

A derivative is given forwards, as the change dW of the matrix along a change dΣ, and turned into a
gradient entry by entry: nothing is shared with the backward passes under test.
"""

import numpy as np


def eigen(sigma):
    values, vectors = np.linalg.eigh(sigma)
    return values, vectors


def scalar_iterates(shares, steps):
    """p_T(a) with p_0 = 1, p_{k+1} = (3p_k - p_k³ a)/2, and its derivative."""
    p, dp = np.ones_like(shares), np.zeros_like(shares)
    for _ in range(steps):
        p, dp = (3 * p - p**3 * shares) / 2, (3 * dp - 3 * p**2 * dp * shares - p**3) / 2
    return p, dp


def matrix(sigma, method, steps):
    values, vectors = eigen(sigma)
    if method == "zca":
        return vectors / np.sqrt(values) @ vectors.T
    if method == "cholesky":
        return np.linalg.inv(np.linalg.cholesky(sigma))
    if method == "newton-schulz":
        trace = np.trace(sigma)
        p, _ = scalar_iterates(values / trace, steps)
        return vectors * p @ vectors.T / np.sqrt(trace)
    values, vectors = values[::-1], vectors[:, ::-1]
    sign = np.sign([column[np.abs(column).argmax()] for column in vectors.T])
    return (vectors * sign / np.sqrt(values)).T


def tangent(sigma, change, method, steps):
    """dW along the symmetric matrix `change`."""
    values, vectors = eigen(sigma)
    turned = vectors.T @ change @ vectors
    root = np.sqrt(values)
    w = matrix(sigma, method, steps)
    if method == "zca":
        f = -1 / (np.outer(root, root) * (root[:, None] + root))
        return vectors @ (f * turned) @ vectors.T
    if method == "cholesky":
        lower = np.tril(w @ change @ w.T)
        np.fill_diagonal(lower, lower.diagonal() / 2)
        return -lower @ w
    if method == "pca":
        gap = values[None, :] - values[:, None] + np.eye(len(values))
        turn = turned / gap * (1 - np.eye(len(values)))
        moved = vectors @ turn / root - vectors * np.diag(turned) / (2 * values * root)
        moved, before = moved[:, ::-1], (vectors / root)[:, ::-1]
        sign = np.sign((w.T * before).sum(axis=0))
        return (moved * sign).T
    trace = np.trace(sigma)
    p, dp = scalar_iterates(values / trace, steps)
    apart = values[:, None] - values[None, :]
    close = np.abs(apart) < 1e-6 * trace
    rise = p[:, None] - p[None, :]
    divided = np.where(close, (dp[:, None] + dp) / 2, trace * rise / np.where(close, 1, apart))
    relative = change / trace - sigma * np.trace(change) / trace**2
    shape = vectors @ (divided * (vectors.T @ relative @ vectors)) @ vectors.T
    return shape / np.sqrt(trace) - w * np.trace(change) / (2 * trace)


def gradient(sigma, upstream, method, steps):
    """∂⟨upstream, W⟩/∂Σ, symmetric."""
    d = len(sigma)
    gradients = np.empty((d, d))
    for i in range(d):
        for j in range(d):
            change = np.zeros((d, d))
            change[i, j] += 0.5
            change[j, i] += 0.5
            gradients[i, j] = (upstream * tangent(sigma, change, method, steps)).sum()
    return gradients


def whiten(x, method, eps, steps):
    centred = x - x.mean(axis=0)
    sigma = centred.T @ centred / len(x) + eps * np.eye(x.shape[1])
    return centred @ matrix(sigma, method, steps).T


def whiten_backward(x, grad_y, method, eps, steps):
    """Eq. (20) of the chapter `whitening`, for any of the matrices."""
    m, centred = len(x), x - x.mean(axis=0)
    sigma = centred.T @ centred / m + eps * np.eye(x.shape[1])
    grad_sigma = gradient(sigma, grad_y.T @ centred, method, steps)
    grad = grad_y @ matrix(sigma, method, steps) + 2 / m * centred @ grad_sigma
    return grad - grad.mean(axis=0)
