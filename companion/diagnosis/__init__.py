"""What is wrong with batch normalization in a model: found by looking at it and by running it."""

from .finding import Diagnosis, Finding
from .session import diagnose

__all__ = ["Diagnosis", "Finding", "diagnose"]
