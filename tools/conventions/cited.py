"""What does not install, from its source or its documentation, in the form of the answers.

A question that the source does not answer is missing.
"""

from __future__ import annotations

from typing import Any

CITED: dict[str, dict[str, Any]] = {
    "Caffe": {
        "source": "https://github.com/BVLC/caffe/blob/9b891540183ddc834a02b2bd81b31afae71b2153/"
        "src/caffe/layers/batch_norm_layer.cpp",
        "names": ["mean", "variance", "factor", "Scale: γ", "Scale: β"],
        "momentum": 0.999,
        "axis": 1,
        "epsilon": {"value": 1e-5, "inside": True},
        "weight of the new batch at 0.8": 0.2,
        "variance over that of the batch": 4 / 3,
        "variance over that of the batch, images": 4 / 3,
        "normalized by": 4.0,
        "after one batch": [4.0, 12.0],
        "moves its averages": True,
        "one value": 0.0,
        "mask": None,
    },
    "tf.contrib": {
        "source": "https://www.tensorflow.org/versions/r1.15/api_docs/python/tf/contrib/layers/"
        "batch_norm",
        "names": ["beta", "moving_mean", "moving_variance"],
        "momentum": 0.999,
        "axis": 2,
        "epsilon": {"value": 1e-3, "inside": True},
        "weight of the new batch at 0.8": 0.2,
        "call": "batch",
        "moves its averages": False,
    },
}
