"""Kernels: the arithmetic of batch normalization, one file per way of computing it.

``eager`` is pure PyTorch, runs on any device and in any floating-point type, and can itself be
differentiated; the others are held against it, and it is held against ``companion.reference``.
"""
