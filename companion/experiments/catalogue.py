"""All named experiments."""

from __future__ import annotations

from . import (
    adaptation,
    batch_size,
    bn_only,
    figure_1,
    figure_1_controls,
    figure_2_controls,
    figure_2_small,
    ghost,
    gradient_explosion,
    initialization,
    learning_rate_limit,
    noisy_bn,
    rates_and_drift,
    recurrent,
    same_curve,
    smoothness,
    trainable_depth,
    weight_decay_equilibrium,
)
from .experiment import Experiment

EXPERIMENTS: dict[str, Experiment] = {
    module.EXPERIMENT.name: module.EXPERIMENT
    for module in (
        figure_1,
        figure_1_controls,
        figure_2_small,
        figure_2_controls,
        learning_rate_limit,
        initialization,
        batch_size,
        ghost,
        noisy_bn,
        rates_and_drift,
        smoothness,
        gradient_explosion,
        weight_decay_equilibrium,
        bn_only,
        adaptation,
        same_curve,
        recurrent,
        trainable_depth,
    )
}
