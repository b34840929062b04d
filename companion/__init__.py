"""Batch normalization: the layer, its oracle, and the routines of the book's chapters.

What this package exports, and the modules below it, are imported when they are first asked for. So
:mod:`companion.reference` and :mod:`companion.closed_forms` need NumPy alone.
"""

from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from companion import functional
    from companion.contexts import accumulated_statistics, finite_statistics, preserved_statistics
    from companion.conversion import (
        convert,
        convert_domains,
        keep_domain,
        parameter_groups,
        register_batch_norm,
        to_group_norm,
    )
    from companion.diagnosis import diagnose
    from companion.fused import BatchNormAct1d, BatchNormAct2d, BatchNormAct3d
    from companion.inference import fold
    from companion.modules import BatchNorm1d, BatchNorm2d, BatchNorm3d
    from companion.statistics import merge_statistics, update_precise
    from companion.variants import (
        SyncBatchNorm,
        SyncBatchNormAct,
        convert_sync,
        freeze,
        in_domain,
        unfreeze,
    )

__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "BatchNormAct1d",
    "BatchNormAct2d",
    "BatchNormAct3d",
    "SyncBatchNorm",
    "SyncBatchNormAct",
    "accumulated_statistics",
    "convert",
    "convert_domains",
    "convert_sync",
    "diagnose",
    "finite_statistics",
    "fold",
    "freeze",
    "functional",
    "in_domain",
    "keep_domain",
    "merge_statistics",
    "parameter_groups",
    "preserved_statistics",
    "register_batch_norm",
    "to_group_norm",
    "unfreeze",
    "update_precise",
]

__version__: str
"""Of the installed distribution."""

# The modules that define these names, those first that import the least.
_HOMES = (
    "modules",
    "conversion",
    "fused",
    "contexts",
    "statistics",
    "variants",
    "inference",
    "diagnosis",
)

if not TYPE_CHECKING:
    # Type checkers would take every name for one that exists.

    def __getattr__(name):
        if name in __all__ and name != "functional":
            homes = (import_module(f"{__name__}.{home}") for home in _HOMES)
            value = next(getattr(home, name) for home in homes if name in home.__all__)
            # From now on without this function.
            globals()[name] = value
            return value
        if name == "__version__":
            return version("batchnorm-companion")
        if not name.startswith("_") and find_spec(f"{__name__}.{name}"):
            return import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
