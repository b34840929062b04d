"""All named experiments."""

from __future__ import annotations

from . import figure_1
from .experiment import Experiment

EXPERIMENTS: dict[str, Experiment] = {
    experiment.name: experiment for experiment in (figure_1.EXPERIMENT,)
}
