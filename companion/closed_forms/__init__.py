"""What theory says batch normalization does and costs, as numbers to hold a measurement against.

``m`` is the number of values behind each mean and each variance.
"""

from .batches import (
    batch_identity_mse,
    effective_batch,
    example_noise,
    inverse_std_mean,
    inverse_var_mean,
    relu_mean,
    std_shrinkage,
    x_hat_bound,
    x_hat_density,
    x_hat_moment,
    x_hat_variance,
)
from .depth import linear_gradient_growth, recurrent_factor, shortcut_gradient_growth, tanh_slope
from .descent import bias_drift, decayed_norm, equilibrium_angle, equilibrium_norm
from .traffic import collective_traffic, sync_cost

__all__ = [
    "batch_identity_mse",
    "bias_drift",
    "collective_traffic",
    "decayed_norm",
    "effective_batch",
    "equilibrium_angle",
    "equilibrium_norm",
    "example_noise",
    "inverse_std_mean",
    "inverse_var_mean",
    "linear_gradient_growth",
    "recurrent_factor",
    "relu_mean",
    "shortcut_gradient_growth",
    "std_shrinkage",
    "sync_cost",
    "tanh_slope",
    "x_hat_bound",
    "x_hat_density",
    "x_hat_moment",
    "x_hat_variance",
]
