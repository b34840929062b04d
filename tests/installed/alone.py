"""What the wheel does where NumPy and PyTorch alone are beside it; `make dist` runs this there."""

import importlib
import pkgutil
import re
import subprocess
import sys
from importlib.metadata import metadata
from importlib.util import find_spec

import numpy as np
import torch

import companion
from companion import data, functional, reference

DISTRIBUTION = metadata("batchnorm-companion")
# The modules that need more, and what; every other one is imported.
NEEDED = {
    "companion.experiments.memory_steps": "numba",
    "companion.experiments.runner": "tqdm",
    "companion.explore": "matplotlib",
    "companion.kernels.cpu": "numba",
    "companion.kernels.cuda": "triton",
    "companion.plots": "matplotlib",
}
# On Linux PyTorch may bring Triton along.
MISSING = {module for module, package in NEEDED.items() if find_spec(package) is None}


def refusal(function, *arguments, **options):
    """What an exception says."""
    try:
        function(*arguments, **options)
    except (ImportError, RuntimeError) as error:
        return str(error)
    return ""


def command(*arguments):
    """Run one of the package's commands."""
    return subprocess.run(
        [sys.executable, "-m", "companion", *arguments], capture_output=True, text=True, check=False
    )


def the_version_is_the_distributions():
    assert companion.__version__ == DISTRIBUTION["Version"]


def every_module_is_imported_unless_it_needs_more():
    refused = []
    modules = pkgutil.walk_packages(companion.__path__, "companion.", onerror=refused.append)
    refused += [module.name for module in modules if refusal(importlib.import_module, module.name)]
    assert set(refused) == MISSING, set(refused) ^ MISSING


def the_example_of_the_readme_runs():
    [example] = re.findall(r"```python\n(.*?)```", DISTRIBUTION.json["description"], re.DOTALL)
    exec(example, {})


def the_layer_agrees_with_the_oracle():
    generator = torch.Generator().manual_seed(0)
    x, grad_y = torch.randn(2, 8, 3, 5, 5, generator=generator, dtype=torch.float64)
    weight, bias = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    leaves = [tensor.requires_grad_() for tensor in (x, weight.clone(), bias.clone())]
    y = functional.batch_norm(x, None, None, *leaves[1:], training=True)
    y.backward(grad_y)
    batch = reference.forward(x.detach().numpy(), weight.numpy(), bias.numpy())
    np.testing.assert_allclose(y.detach().numpy(), batch.y, rtol=1e-12, atol=1e-12)
    exact = reference.backward(grad_y.numpy(), batch)
    for leaf, gradient in zip(leaves, exact, strict=True):
        np.testing.assert_allclose(leaf.grad.numpy(), gradient, rtol=1e-12, atol=1e-12)


def what_is_missing_is_told_in_a_line():
    x = torch.ones(4, 3)
    told = {
        "cpu": refusal(functional.batch_norm, x, None, None, training=True, backend="cpu"),
        "data": refusal(data.digits),
        "plots": refusal(importlib.import_module, "companion.explore"),
    }
    for extra, line in told.items():
        assert re.fullmatch(rf".+: pip install 'batchnorm-companion\[{extra}\]'", line), line


def commands_answer():
    assert command("--help").stdout.startswith("usage: python -m companion")
    for refused in ("compile",), ("bench",), ("run", "--list"):
        done = command(*refused)
        assert done.returncode == 2, done
        assert re.fullmatch(r".+ pip install \S+\n", done.stderr), done


for check in (
    the_version_is_the_distributions,
    every_module_is_imported_unless_it_needs_more,
    the_example_of_the_readme_runs,
    the_layer_agrees_with_the_oracle,
    what_is_missing_is_told_in_a_line,
    commands_answer,
):
    check()
    print("✓", check.__name__.replace("_", " "))
