"""What a layer is in another framework's conventions, and what all conventions have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np

__all__ = ["Carried", "NotCarried"]

Array = np.ndarray[Any, Any]

TORCH = ("weight", "bias", "running_mean", "running_var")
COUNT = "num_batches_tracked"
_HALF = ("float16", "bfloat16")

_SILENT = ("affine", "bias", "track_running_stats", "num_features", "device", "dtype")


@dataclass(frozen=True)
class NotCarried:
    """What the other framework does not have, or does otherwise; evaluation does not change by it.

    Parameters
    ----------
    what
        an array, a setting or a behaviour
    reason
        what becomes of it

    Examples
    --------
    >>> print(NotCarried("mask", "torch's layer takes none"))
    mask: torch's layer takes none
    """

    what: str
    reason: str

    def __str__(self) -> str:
        return f"{self.what}: {self.reason}"


@dataclass(frozen=True)
class Carried:
    """A layer in another framework's conventions; as text, what could not be carried over.

    Parameters
    ----------
    arrays
        under the names and in the order of the framework, each of shape ``(C,)``; to torch a whole
        state dictionary, to Caffe also ``factor``, of shape ``(1,)``
    settings
        arguments of the framework's layer
    lost
        what could not be carried over, and what becomes of it

    Examples
    --------
    >>> from torch import nn
    >>> from companion.conversion import to_keras
    >>> print(to_keras(nn.BatchNorm1d(3).state_dict()))
    axis: the channels are in axis -1 in Keras, in axis 1 in torch
    running variance: torch averages m/(m − 1) times the variances of batches, Keras them
    """

    arrays: dict[str, Array]
    settings: dict[str, Any]
    lost: tuple[NotCarried, ...]

    def __str__(self) -> str:
        return "\n".join(map(str, self.lost)) or "everything was carried over"


def named(
    arrays: Mapping[str, Any], names: Sequence[str], others: Sequence[str] = ()
) -> dict[str, Array]:
    """The arrays called `names`, γ, β, mean and variance, checked; in float32 if in half.

    Parameters
    ----------
    arrays
        of a path the last part counts, without what TensorFlow puts behind a colon
    names
        the first two may be missing
    others
        may be there

    Raises
    ------
    TypeError, ValueError
        as :func:`companion.conversion.from_keras`
    """
    given = {
        name.rsplit("/", 1)[-1].split(":")[0]: np.asarray(array) for name, array in arrays.items()
    }
    if len(given) < len(arrays):
        raise ValueError(f"arrays: expected those of one layer, got {shapes(arrays)}")
    missing = [name for name in names[2:] if name not in given]
    unknown = [name for name in given if name not in (*names, *others)]
    if missing or unknown:
        raise ValueError(f"arrays: expected {', '.join(names)}, got {shapes(given)}")
    channels = given[names[2]].shape
    kept = {}
    for name in names:
        if name not in given:
            continue
        array = given[name]
        if array.ndim != 1 or array.shape != channels:
            raise ValueError(
                f"arrays: expected one axis, and one length, got {name!r} in {shapes(given)}"
            )
        # The half precision of JAX is no floating-point type to NumPy.
        half = array.dtype.name in _HALF
        if array.dtype.kind != "f" and not half:
            kind = array.dtype.name
            raise TypeError(f"arrays: expected floating-point numbers, got {name!r} of {kind}")
        kept[name] = array.astype(np.float32) if half else array
    return kept


def halves(arrays: Mapping[str, Any]) -> list[NotCarried]:
    """The half-precision types among the arrays, which :func:`named` makes float32."""
    kinds = {np.asarray(array).dtype.name for array in arrays.values()}
    reason = "the arrays are float32 now, with the same values"
    return [NotCarried(kind, reason) for kind in sorted(kinds & set(_HALF))]


def shapes(arrays: Mapping[str, Any]) -> str:
    """The arrays, for a message."""
    found = (f"{name} {tuple(np.shape(array))}" for name, array in arrays.items())
    return ", ".join(found) or "none"


def renamed(
    arrays: Mapping[str, Array], names: Sequence[str], to: Sequence[str]
) -> dict[str, Array]:
    """The same arrays under other names."""
    return {new: arrays[old] for old, new in zip(names, to, strict=True) if old in arrays}


def check_flags(arrays: Mapping[str, Array], flags: Mapping[str, Any]) -> None:
    """Compare what the settings say of γ and β with the arrays that are there.

    Raises
    ------
    ValueError
        they contradict each other
    """
    for name, flag in flags.items():
        if flag is not None and bool(flag) != (name in arrays):
            expected = f"{name!r}" if flag else f"no {name!r}"
            raise ValueError(
                f"arrays: expected {expected}, as the settings say, got {shapes(arrays)}"
            )


def number(name: str, value: Any, at_most: float | None = None) -> float:
    """A number from 0 on.

    Raises
    ------
    TypeError, ValueError
        it is none
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}: expected a number, got {value!r}")
    if not 0 <= float(value) <= (float("inf") if at_most is None else at_most):
        range_ = "from 0 on" if at_most is None else f"from 0 to {at_most:g}"
        raise ValueError(f"{name}: expected a number {range_}, got {value!r}")
    return float(value)


def complement(momentum: Any) -> float:
    """1 - momentum as it is written, in decimals: 0.99 becomes 0.01, and 0.01 becomes 0.99.

    Raises
    ------
    TypeError, ValueError
        it is no number from 0 to 1
    """
    return float(1 - Decimal(repr(number("momentum", momentum, at_most=1))))


def notes(
    settings: Mapping[str, Any], known: Mapping[str, tuple[Any, str]], silent: Sequence[str]
) -> list[NotCarried]:
    """What the settings ask for that torch's layer does not do."""
    lost = []
    for name, value in settings.items():
        if name in known:
            neutral, reason = known[name]
            # In a configuration, None leaves a default.
            if value is not None and value != neutral:
                lost.append(NotCarried(f"{name}={value}", reason))
        elif name not in silent:
            lost.append(NotCarried(f"{name}={value}", "not known here"))
    return lost


def to_torch(
    arrays: dict[str, Array],
    names: Sequence[str],
    eps: Any,
    rate: float | None,
    lost: Sequence[NotCarried],
) -> Carried:
    """A state dictionary of torch and the arguments of its layer."""
    mean = arrays[names[2]]
    affine = names[0] in arrays or names[1] in arrays
    missing = []
    filled = dict(arrays)
    for name, value in zip(names[:2], (1, 0), strict=True):
        if affine and name not in arrays:
            filled[name] = np.full_like(mean, value)
            reason = f"torch's layer is made with both or none: it is {value} now, and is trained"
            missing.append(NotCarried(f"no {name}", reason))
    state = renamed(filled, names, TORCH)
    state[COUNT] = np.array(0)
    settings = {
        "num_features": len(mean),
        "eps": number("epsilon", eps),
        "momentum": rate,
        "affine": affine,
    }
    return Carried(state, settings, (*missing, *lost))


def from_torch(
    arrays: Mapping[str, Any], settings: Mapping[str, Any] | None
) -> tuple[dict[str, Array], dict[str, Any], list[NotCarried]]:
    """The arrays of torch's layer, its settings with ``eps`` and ``momentum``, and what is lost.

    Raises
    ------
    TypeError, ValueError
        as :func:`companion.conversion.from_keras`
    """
    kept = named(arrays, TORCH, (COUNT,))
    given = {"eps": 1e-5, "momentum": 0.1, **(settings or {})}
    given["eps"] = number("eps", given["eps"])
    check_flags(kept, {"weight": given.get("affine")})
    return kept, given, halves(arrays) + notes(given, {}, ("eps", "momentum", *_SILENT))
