"""Changes to the batch normalization of a whole model: other classes, the same numbers."""

from companion.conversion.domains import convert_domains, keep_domain
from companion.conversion.group import to_group_norm
from companion.conversion.parameters import parameter_groups
from companion.conversion.recognition import register_batch_norm
from companion.conversion.report import Changed, ConversionReport, Left, Unfused
from companion.conversion.swap import convert

__all__ = [
    "Changed",
    "ConversionReport",
    "Left",
    "Unfused",
    "convert",
    "convert_domains",
    "keep_domain",
    "parameter_groups",
    "register_batch_norm",
    "to_group_norm",
]
