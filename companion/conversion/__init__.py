"""Changes to the batch normalization of a whole model: other classes, the same numbers.

And one layer in the conventions of another framework.
"""

from companion.conversion.carried import Carried, NotCarried
from companion.conversion.conventions import (
    from_caffe,
    from_flax,
    from_keras,
    to_caffe,
    to_flax,
    to_keras,
)
from companion.conversion.domains import convert_domains, keep_domain
from companion.conversion.group import to_group_norm
from companion.conversion.parameters import parameter_groups
from companion.conversion.recognition import register_batch_norm
from companion.conversion.report import Changed, ConversionReport, Left, Unfused
from companion.conversion.swap import convert

__all__ = [
    "Carried",
    "Changed",
    "ConversionReport",
    "Left",
    "NotCarried",
    "Unfused",
    "convert",
    "convert_domains",
    "from_caffe",
    "from_flax",
    "from_keras",
    "keep_domain",
    "parameter_groups",
    "register_batch_norm",
    "to_caffe",
    "to_flax",
    "to_group_norm",
    "to_keras",
]
