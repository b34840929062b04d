"""The book's figures: one style, and for each chapter the functions that draw what it shows."""

from companion.plots.style import BATCH, INFERENCE, NEUTRAL, PLAIN, THEORY, figure, use_style

__all__ = ["BATCH", "INFERENCE", "NEUTRAL", "PLAIN", "THEORY", "figure", "use_style"]
