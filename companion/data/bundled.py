"""Data that scikit-learn brings, nothing downloaded: what the live chapters use."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import torch

from .split import Split

DIGITS_TEST_SIZE = 450  # of 1,797 images


def digits(seed: int = 0, dtype: torch.dtype = torch.float32) -> Split:
    """The 8×8 handwritten digits of scikit-learn, 64 pixels from 0 to 1, ten classes.

    Parameters
    ----------
    seed
        of the split into 1,347 training and 450 test images
    dtype
        of the inputs

    Raises
    ------
    ModuleNotFoundError
        scikit-learn is not installed

    References
    ----------
    Alpaydin & Kaynak (1998), "Optical Recognition of Handwritten Digits", UCI; as bundled with
    scikit-learn.

    Examples
    --------
    >>> split = digits()
    >>> split.x_train.shape, split.x_test.shape
    (torch.Size([1347, 64]), torch.Size([450, 64]))
    """
    bundled = _datasets().load_digits()
    order = np.random.default_rng(seed).permutation(len(bundled.target))
    x = torch.from_numpy(bundled.data[order] / 16.0).to(dtype)
    y = torch.from_numpy(bundled.target[order]).to(torch.int64)
    cut = len(order) - DIGITS_TEST_SIZE
    return Split(x[:cut], y[:cut], x[cut:], y[cut:])


def table(name: str) -> tuple[np.ndarray, list[str]]:
    """One of scikit-learn's bundled tables of measurements, in float64.

    Parameters
    ----------
    name
        "iris", "wine" or "breast_cancer"

    Returns
    -------
    tuple[np.ndarray, list[str]]
        values ``(m, features)``, and the features' names

    Raises
    ------
    ValueError
        another name
    ModuleNotFoundError
        scikit-learn is not installed

    Examples
    --------
    >>> values, names = table("iris")
    >>> values.shape, names[0]
    ((150, 4), 'sepal length (cm)')
    """
    datasets = _datasets()
    loaders = {
        "iris": datasets.load_iris,
        "wine": datasets.load_wine,
        "breast_cancer": datasets.load_breast_cancer,
    }
    if name not in loaders:
        raise ValueError(f"name: expected one of {', '.join(loaders)}, got {name!r}")
    bundled = loaders[name]()
    return bundled.data, [str(feature) for feature in bundled.feature_names]


def photographs(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """The two photographs of scikit-learn, a temple and a flower, in grey from 0 to 1.

    Parameters
    ----------
    dtype
        of the values

    Returns
    -------
    Tensor
        ``(2, 1, 427, 640)``; the mean of the three colours

    Raises
    ------
    ModuleNotFoundError
        scikit-learn or Pillow is not installed

    Examples
    --------
    >>> photographs().shape
    torch.Size([2, 1, 427, 640])
    """
    datasets = _datasets()
    images = [datasets.load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    return torch.from_numpy(np.stack(images).mean(axis=-1) / 255.0).to(dtype).unsqueeze(1)


def _datasets() -> ModuleType:
    """scikit-learn's data sets, imported only when one is asked for."""
    try:
        from sklearn import datasets
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "scikit-learn, which has these data, is missing: "
            "pip install 'batchnorm-companion[data]'",
            name="sklearn",
        ) from None
    return datasets
