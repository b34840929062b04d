"""Changes to the batch normalization of a whole model: other classes, the same numbers."""

from companion.conversion.recognition import register_batch_norm
from companion.conversion.report import Changed, ConversionReport, Left, Unfused
from companion.conversion.swap import convert

__all__ = ["Changed", "ConversionReport", "Left", "Unfused", "convert", "register_batch_norm"]
