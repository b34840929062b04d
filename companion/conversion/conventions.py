"""One layer's arrays and settings in the conventions of Keras, Flax and Caffe, to torch's and back.

Functions of NumPy arrays: no other framework is imported. All four compute the same in evaluation
mode, ``(x - mean) / sqrt(variance + ε)·γ + β``. They differ in the names, in what ``momentum``
weighs, in what they average, and Caffe in how it keeps the average.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import log2
from typing import Any

import numpy as np

from .carried import (
    COUNT,
    TORCH,
    Carried,
    NotCarried,
    check_flags,
    complement,
    from_torch,
    halves,
    named,
    notes,
    number,
    renamed,
    shapes,
    to_torch,
)

__all__ = ["from_caffe", "from_flax", "from_keras", "to_caffe", "to_flax", "to_keras"]

Settings = Mapping[str, Any]

# γ, β, mean and variance, as of torch.
_KERAS = ("gamma", "beta", "moving_mean", "moving_variance")
_FLAX = ("scale", "bias", "mean", "var")
_CAFFE = ("scale", "bias", "mean", "variance")

_KERAS_RENORM = ("moving_stddev", "renorm_mean", "renorm_stddev")

# Settings that say something when they have another value than this, and what.
_FROZEN = "freeze the layer with companion.freeze"
_KERAS_NOTES = {
    "renorm": (False, "training goes on without r and d; see companion.variants.BatchRenorm"),
    "synchronized": (False, "see companion.convert_sync"),
    "virtual_batch_size": (None, "see companion.variants.GhostBatchNorm2d"),
    "trainable": (True, f"Keras uses the running statistics of such a layer; {_FROZEN}"),
    "dtype": ("float32", "the layer puts out this type; torch's puts out that of its input"),
    "gamma_regularizer": (None, "torch has none in the layer"),
    "beta_regularizer": (None, "torch has none in the layer"),
    "gamma_constraint": (None, "torch has none in the layer"),
    "beta_constraint": (None, "torch has none in the layer"),
}
_KERAS_SILENT = (
    *("axis", "momentum", "epsilon", "scale", "center", "name"),
    *("gamma_initializer", "beta_initializer"),
    *("moving_mean_initializer", "moving_variance_initializer"),
    *("renorm_clipping", "renorm_momentum"),
)
_FLAX_NOTES = {
    "use_running_average": (False, f"if it is always True, {_FROZEN}"),
    "use_fast_variance": (False, "torch computes variances about the mean, not E[x²] − E[x]²"),
    "dtype": (None, "the layer puts out this type; torch's puts out that of its input"),
    "axis_name": (None, "see companion.convert_sync"),
    "axis_index_groups": (None, "see the argument process_group of companion.convert_sync"),
}
_FLAX_SILENT = (
    *("axis", "momentum", "epsilon", "use_scale", "use_bias", "num_features", "name", "parent"),
    *("param_dtype", "scale_init", "bias_init", "promote_dtype"),
    *("force_float32_reductions", "rngs", "scale_metadata", "bias_metadata"),
)
_RESTING = "in Caffe the averages rest with use_global_stats, which training then normalizes by"
_CAFFE_NOTES = {
    "use_global_stats": (False, f"if it is true in training too, {_FROZEN}"),
}


def from_keras(arrays: Mapping[str, Any], settings: Settings | None = None) -> Carried:
    """Carry a ``keras.layers.BatchNormalization`` to ``torch.nn.BatchNorm1d`` and its like.

    Parameters
    ----------
    arrays
        ``gamma`` and ``beta``, unless the layer has none, ``moving_mean`` and ``moving_variance``,
        each of shape ``(C,)``: ``{weight.name: weight.numpy() for weight in layer.weights}``. Of a
        path such as ``bn/gamma:0`` the last name counts
    settings
        ``layer.get_config()``, or the part of it that is not Keras' default

    Returns
    -------
    Carried
        a state dictionary, and ``num_features``, ``eps``, ``momentum`` and ``affine``

    Raises
    ------
    TypeError
        an array has no floating-point type, or a setting is no number
    ValueError
        an array is missing, is not known, or has another shape; ``momentum`` is not between 0 and
        1; ``epsilon`` is negative; the settings say that there is an array which is not there

    Notes
    -----
    *Exact.* Arrays keep their values and ε is the same, so evaluation mode computes the same
    function: between two implementations there is rounding, about four units in the last place.
    Half-precision arrays become float32 with the same values. ``momentum`` becomes 1 − ``momentum``
    in decimal arithmetic, so that 0.99 becomes 0.01 and back.

    Keras 2 has the same conventions, except that for images its running variance is unbiased, as
    torch's is.

    Examples
    --------
    >>> ones, zeros = np.ones(3, np.float32), np.zeros(3, np.float32)
    >>> found = from_keras({"moving_mean": zeros, "moving_variance": ones}, {"momentum": 0.9})
    >>> found.settings
    {'num_features': 3, 'eps': 0.001, 'momentum': 0.1, 'affine': False}
    >>> import torch
    >>> layer = torch.nn.BatchNorm1d(**found.settings)
    >>> layer.load_state_dict({name: torch.from_numpy(a) for name, a in found.arrays.items()})
    <All keys matched successfully>
    >>> print(found)
    axis: the channels are in axis -1 in Keras, in axis 1 in torch
    running variance: Keras averages the variances of batches, torch m/(m − 1) times them
    mask: torch's layer takes none, and Keras' may be given one by the layers before it
    """
    given = {"momentum": 0.99, "epsilon": 1e-3, "axis": -1, **(settings or {})}
    kept, lost = named(arrays, _KERAS, _KERAS_RENORM), halves(arrays)
    if isinstance(policy := given.get("dtype"), Mapping):
        given["dtype"] = policy.get("config", {}).get("name")
    flags = {"gamma": given.get("scale"), "beta": given.get("center")}
    check_flags(kept, flags)
    lost += _axis(given["axis"], "Keras")
    lost.append(_bessel("Keras averages the variances of batches, torch m/(m − 1) times them"))
    lost.append(
        NotCarried(
            "mask", "torch's layer takes none, and Keras' may be given one by the layers before it"
        )
    )
    lost += notes(given, _KERAS_NOTES, _KERAS_SILENT)
    return to_torch(kept, _KERAS, given["epsilon"], complement(given["momentum"]), lost)


def to_keras(arrays: Mapping[str, Any], settings: Settings | None = None) -> Carried:
    """Carry a layer of torch to ``keras.layers.BatchNormalization``: the way back.

    Parameters
    ----------
    arrays
        ``layer.state_dict()``, of NumPy arrays or of tensors on the CPU, not of bfloat16
    settings
        ``eps`` and ``momentum``, where they are not torch's defaults

    Returns
    -------
    Carried
        arrays in the order of ``layer.set_weights``, and ``momentum``, ``epsilon``, ``scale`` and
        ``center``

    Raises
    ------
    TypeError, ValueError
        as :func:`from_keras`

    Examples
    --------
    >>> from torch import nn
    >>> layer = nn.BatchNorm1d(3)
    >>> found = to_keras(layer.state_dict(), {"eps": layer.eps, "momentum": layer.momentum})
    >>> list(found.arrays), found.settings["momentum"]
    (['gamma', 'beta', 'moving_mean', 'moving_variance'], 0.9)
    """
    kept, given, lost = from_torch(arrays, settings)
    found = {"epsilon": given["eps"], "scale": "weight" in kept, "center": "bias" in kept}
    found |= _keep_rate(given["momentum"], "Keras", lost)
    lost += _axis(-1, "Keras")
    lost.append(_bessel("torch averages m/(m − 1) times the variances of batches, Keras them"))
    return Carried(renamed(kept, TORCH, _KERAS), found, tuple(lost))


def from_flax(arrays: Mapping[str, Any], settings: Settings | None = None) -> Carried:
    """Carry a ``BatchNorm`` of Flax, of NNX or Linen, to torch.

    Parameters
    ----------
    arrays
        ``scale`` and ``bias``, unless the layer has none, ``mean`` and ``var``, each of shape
        ``(C,)``; in Linen those of the layer in ``params`` and in ``batch_stats``, together
    settings
        of the layer, where they are not Flax' defaults

    Returns
    -------
    Carried
        as :func:`from_keras`

    Raises
    ------
    TypeError, ValueError
        as :func:`from_keras`

    Examples
    --------
    >>> ones, zeros = np.ones(3, np.float32), np.zeros(3, np.float32)
    >>> found = from_flax({"scale": ones, "bias": zeros, "mean": zeros, "var": ones})
    >>> found.settings
    {'num_features': 3, 'eps': 1e-05, 'momentum': 0.01, 'affine': True}
    """
    given = {"momentum": 0.99, "epsilon": 1e-5, "axis": -1, "use_fast_variance": True}
    given |= settings or {}
    kept, lost = named(arrays, _FLAX), halves(arrays)
    check_flags(kept, {"scale": given.get("use_scale"), "bias": given.get("use_bias")})
    lost += _axis(given["axis"], "Flax")
    lost.append(_bessel("Flax averages the variances of batches, torch m/(m − 1) times them"))
    lost.append(NotCarried("mask", "torch's layer takes none, and a call of Flax' may"))
    lost += notes(given, _FLAX_NOTES, _FLAX_SILENT)
    return to_torch(kept, _FLAX, given["epsilon"], complement(given["momentum"]), lost)


def to_flax(arrays: Mapping[str, Any], settings: Settings | None = None) -> Carried:
    """Carry a layer of torch to a ``BatchNorm`` of Flax: the way back.

    Parameters
    ----------
    arrays, settings
        as of :func:`to_keras`

    Returns
    -------
    Carried
        ``scale``, ``bias``, ``mean`` and ``var``, and ``momentum``, ``epsilon``, ``use_scale`` and
        ``use_bias``

    Raises
    ------
    TypeError, ValueError
        as :func:`from_keras`

    Examples
    --------
    >>> from torch import nn
    >>> found = to_flax(nn.BatchNorm1d(3, affine=False).state_dict(), {"momentum": 0.01})
    >>> found.settings
    {'epsilon': 1e-05, 'use_scale': False, 'use_bias': False, 'momentum': 0.99}
    """
    kept, given, lost = from_torch(arrays, settings)
    found = {"epsilon": given["eps"], "use_scale": "weight" in kept, "use_bias": "bias" in kept}
    found |= _keep_rate(given["momentum"], "Flax", lost)
    lost += _axis(-1, "Flax")
    lost.append(_bessel("torch averages m/(m − 1) times the variances of batches, Flax them"))
    return Carried(renamed(kept, TORCH, _FLAX), found, tuple(lost))


def from_caffe(arrays: Mapping[str, Any], settings: Settings | None = None) -> Carried:
    """Carry Caffe's ``BatchNorm`` and the ``Scale`` behind it to one layer of torch.

    Parameters
    ----------
    arrays
        the blobs of the ``BatchNorm``: ``mean``, ``variance`` and ``factor``, by which the two are
        divided; those of the ``Scale``, if there is one: ``scale`` and, with ``bias_term``,
        ``bias``. Axes of length 1 are dropped
    settings
        ``eps``, ``moving_average_fraction`` and ``use_global_stats``, where they are not Caffe's
        defaults

    Returns
    -------
    Carried
        as :func:`from_keras`; ``momentum`` is None if the fraction is 1

    Raises
    ------
    TypeError, ValueError
        as :func:`from_keras`

    Notes
    -----
    The mean is multiplied by 1/``factor`` in its own type, as Caffe does in every call, and so is
    the variance: evaluation mode has the very numbers of Caffe. Caffe's running variance is
    unbiased, as torch's is.

    References
    ----------
    BVLC/caffe, ``src/caffe/layers/batch_norm_layer.cpp``.

    Examples
    --------
    >>> blobs = {"mean": [[500.0]], "variance": [[2000.0]], "factor": [1000.0]}
    >>> found = from_caffe({name: np.float32(blob) for name, blob in blobs.items()})
    >>> found.arrays["running_mean"], found.arrays["running_var"]
    (array([0.5], dtype=float32), array([2.], dtype=float32))
    >>> print(found)
    everything was carried over
    """
    given = {"moving_average_fraction": 0.999, "eps": 1e-5, **(settings or {})}
    flat = {name: np.atleast_1d(np.asarray(array).squeeze()) for name, array in arrays.items()}
    factor = flat.pop("factor", None)
    if factor is None or factor.shape != (1,):
        raise ValueError(f"arrays: expected 'factor', one number, got {shapes(arrays)}")
    kept, lost = named(flat, _CAFFE), halves(flat)
    total = number("factor", factor.item())
    for name in ("mean", "variance"):
        one = kept[name].dtype.type
        kept[name] = kept[name] * (1 / one(total) if total else one(0))
    fraction = number("moving_average_fraction", given["moving_average_fraction"], at_most=1)
    rate = None if fraction == 1 else complement(fraction)
    if total == 0:
        reason = "it is 0, the layer was never trained: Caffe divides by √ε, and so will torch"
        lost.append(NotCarried("factor", reason))
    if rate is not None:
        lost += _different(1 / (fraction * total + 1), rate)
    lost += notes(given, _CAFFE_NOTES, ("eps", "moving_average_fraction"))
    found = to_torch(kept, _CAFFE, given["eps"], rate, lost)
    if rate is None:
        found.arrays[COUNT] = np.array(round(total))
    return found


def to_caffe(arrays: Mapping[str, Any], settings: Settings | None = None) -> Carried:
    """Carry a layer of torch to Caffe's ``BatchNorm`` and ``Scale``: the way back.

    Parameters
    ----------
    arrays, settings
        as of :func:`to_keras`

    Returns
    -------
    Carried
        ``mean``, ``variance`` and ``factor``, the blobs of the ``BatchNorm``, then ``scale`` and
        ``bias``, if any, those of the ``Scale``; and ``eps`` and ``moving_average_fraction``

    Raises
    ------
    TypeError, ValueError
        as :func:`from_keras`

    Notes
    -----
    ``factor`` is where training brings it, 1/``momentum``, or with ``momentum=None`` the number of
    batches, rounded to a power of two: so the division is exact.

    Examples
    --------
    >>> from torch import nn
    >>> found = to_caffe(nn.BatchNorm1d(3).state_dict(), {"momentum": 0.001})
    >>> found.arrays["factor"], found.arrays["variance"]
    (array([1024.], dtype=float32), array([1024., 1024., 1024.], dtype=float32))
    """
    kept, given, lost = from_torch(arrays, settings)
    rate = given["momentum"]
    found: dict[str, Any] = {"eps": given["eps"]}
    if rate == 0:
        lost.append(NotCarried("momentum=0", _RESTING))
        found["use_global_stats"], steady = True, 1.0
    elif rate is None:
        found["moving_average_fraction"] = 1.0
        steady = float(np.asarray(arrays.get(COUNT, 1)))
    else:
        found["moving_average_fraction"], steady = complement(rate), 1 / rate
    factor = 2.0 ** round(log2(max(steady, 1.0)))
    if rate != 0:
        weight = 1 / (found["moving_average_fraction"] * factor + 1)
        lost += _different(weight, 1 / (steady + 1) if rate is None else rate)
    blobs = renamed(kept, TORCH, _CAFFE)
    one = blobs["mean"].dtype.type(factor)
    divided = {name: blobs.pop(name) * one for name in ("mean", "variance")}
    return Carried({**divided, "factor": np.array([one]), **blobs}, found, tuple(lost))


def _axis(axis: Any, framework: str) -> list[NotCarried]:
    """The channels are elsewhere, unless they are in axis 1."""
    where = f"the channels are in axis {axis} in {framework}, in axis 1 in torch"
    return [] if axis in (1, [1]) else [NotCarried("axis", where)]


def _bessel(reason: str) -> NotCarried:
    return NotCarried("running variance", reason)


def _keep_rate(rate: float | None, framework: str, lost: list[NotCarried]) -> dict[str, float]:
    """The setting ``momentum`` that weighs the average, if there is one."""
    if rate is not None:
        return {"momentum": complement(rate)}
    lost.append(NotCarried("momentum=None", f"{framework} cannot weigh all batches alike"))
    return {}


def _different(weight: float, usual: float) -> list[NotCarried]:
    """Caffe's next batch does not weigh what torch's does."""
    if abs(weight - usual) < 0.01 * usual:
        return []
    text = f"Caffe's next batch weighs {weight:.3g}, torch's {usual:.3g}"
    return [NotCarried("moving average", text)]
