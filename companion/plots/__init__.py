"""The book's figures: one style, and for each chapter the functions that draw what it shows."""

try:
    import matplotlib  # noqa: F401
except ModuleNotFoundError:
    raise ModuleNotFoundError(
        "Matplotlib, which draws the figures, is missing: pip install 'batchnorm-companion[plots]'",
        name="matplotlib",
    ) from None

from companion.plots.style import BATCH, INFERENCE, NEUTRAL, PLAIN, THEORY, figure, use_style

__all__ = ["BATCH", "INFERENCE", "NEUTRAL", "PLAIN", "THEORY", "figure", "use_style"]
