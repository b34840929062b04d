"""Changes to the batch normalization of a whole model: other classes, the same numbers."""

from companion.conversion.swap import convert

__all__ = ["convert"]
