"""Whitening: a linear map after which every feature has variance 1 and no two are correlated.

:func:`whiten` subtracts the mean of a batch and multiplies by a matrix W with W Σ Wᵀ = I. There are
many such W. Four methods to find one are here: ZCA, PCA and Cholesky whitening, and the
Newton–Schulz iteration, which approaches ZCA by matrix products alone. Each is an autograd function
with a backward pass derived by hand; ZCA's stays finite where eigenvalues coincide.

Statistics, decompositions and products are float64 whatever the input is, on the CPU and on CUDA;
the result has the input's type.

Source: Kessy, Lewin & Strimmer (2018), "Optimal Whitening and Decorrelation"; the chapter
`whitening`.
"""

from companion.whitening.descent import gd_steps
from companion.whitening.matrix import whitening_matrix
from companion.whitening.moments import covariance
from companion.whitening.transform import whiten

__all__ = ["covariance", "gd_steps", "whiten", "whitening_matrix"]
