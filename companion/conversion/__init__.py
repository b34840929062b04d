"""Changes to the batch normalization of a whole model: other classes, the same numbers."""

from companion.conversion.parameters import parameter_groups
from companion.conversion.swap import convert

__all__ = ["convert", "parameter_groups"]
