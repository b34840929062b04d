"""All exercises, in the order of the book."""

from __future__ import annotations

from difflib import get_close_matches

from . import (
    alternatives,
    backprop,
    bias_drift,
    bn_only,
    convolution,
    covariate_shift_debate,
    depth,
    failure_modes,
    identity,
    inference,
    learning_rate,
    many_devices,
    memory_speed,
    mini_batch_algorithm,
    recurrent,
    regularization_noise,
    reproducing_the_paper,
    twenty_minutes,
    weight_decay,
    whitening,
)
from .exercise import Exercise

CHAPTERS = (
    twenty_minutes,
    whitening,
    bias_drift,
    identity,
    mini_batch_algorithm,
    backprop,
    inference,
    convolution,
    recurrent,
    reproducing_the_paper,
    weight_decay,
    learning_rate,
    covariate_shift_debate,
    regularization_noise,
    depth,
    failure_modes,
    alternatives,
    many_devices,
    memory_speed,
    bn_only,
)
EXERCISES: dict[str, Exercise] = {
    each.name: each for chapter in CHAPTERS for each in chapter.EXERCISES
}


def exercise(name: str) -> Exercise:
    """The exercise of this name.

    Raises
    ------
    ValueError
        there is none
    """
    if name in EXERCISES:
        return EXERCISES[name]
    near = get_close_matches(name, EXERCISES, n=1)
    meant = f"; did you mean {near[0]!r}?" if near else f": {', '.join(EXERCISES)}"
    raise ValueError(f"name: expected the name of an exercise, got {name!r}{meant}")
