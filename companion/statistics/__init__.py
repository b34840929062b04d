"""Statistics of data that come in parts: exact moments, running averages, recalibration."""

from companion.statistics.averages import RunningAverage, debias, ema_lag, ema_variance
from companion.statistics.merging import merge_statistics
from companion.statistics.moments import RunningMoments, merge
from companion.statistics.population import population_moments
from companion.statistics.precise import update_precise

__all__ = [
    "RunningAverage",
    "RunningMoments",
    "debias",
    "ema_lag",
    "ema_variance",
    "merge",
    "merge_statistics",
    "population_moments",
    "update_precise",
]
