"""Networks of torchvision and timm with random weights, and statistics that are all in use."""

import importlib
import sys

import torch
from torch import nn

# torchvision's compiled operators that it cannot be imported without.
OPERATORS = ("nms", "qnms")


def libraries():
    """torchvision and timm.

    PyPI's torchvision for Linux is for CUDA. With a PyTorch without, its compiled operators, of
    which no classifier has need, are missing, and it refuses to be imported.
    """
    try:
        return importlib.import_module("torchvision"), importlib.import_module("timm")
    except RuntimeError as error:
        if "operator torchvision::nms does not exist" not in str(error):
            raise
    library = torch.library.Library("torchvision", "DEF")
    for name in OPERATORS:
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    # It unregisters its operators when it is collected.
    libraries.kept = library
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    return importlib.import_module("torchvision"), importlib.import_module("timm")


def network(name):
    """One of timm's, or of torchvision's after a colon, in float64."""
    torchvision, timm = libraries()
    torch.manual_seed(0)
    if name.startswith("torchvision:"):
        options = {"init_weights": False} if name.endswith("googlenet") else {}
        model = torchvision.models.get_model(name.partition(":")[2], num_classes=10, **options)
    else:
        model = timm.create_model(name, num_classes=10)
    return settled(model).double()


def settled(model):
    """The model, with normalizations that do something in evaluation mode."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for value, low, high in (
                (module.weight, 0.8, 1.2),
                (module.bias, -0.1, 0.1),
                (module.running_mean, -0.1, 0.1),
                (module.running_var, 0.7, 1.3),
            ):
                nn.init.uniform_(value, low, high)
    return model


def statistics(model):
    """The names of the layers that keep running statistics."""
    return {name for name, module in model.named_modules() if hasattr(module, "running_mean")}
