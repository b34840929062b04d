"""What the chapters' training runs share."""

from companion.experiments.training import accuracy, minibatches, train

__all__ = ["accuracy", "minibatches", "train"]
