"""What a trained model needs for inference: batch normalization folded away, and ONNX files."""

from companion.inference.export import torch_operators
from companion.inference.frozen import FoldingError
from companion.inference.layers import fold_into_next, fold_into_previous
from companion.inference.model import fold
from companion.inference.report import Folded, FoldReport, Kept

__all__ = [
    "FoldReport",
    "Folded",
    "FoldingError",
    "Kept",
    "fold",
    "fold_into_next",
    "fold_into_previous",
    "torch_operators",
]
