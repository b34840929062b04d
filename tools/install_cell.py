"""The first cell of a twin, which installs the book's package where it is missing.

In a clone, and on Binder, the package is there and the cell does nothing. Elsewhere it installs the
version that the book was built with: from a wheel beside the notebook, or from where the book is
published, but never from an index, which may hold another's package under this name. What is there
of NumPy and PyTorch is named to pip with its exact version: pip keeps both, or says that they do
not fit. What the chapters draw with, and take data from, an index has; without one the package
comes alone, and the cell says what is missing.
"""

import json
from dataclasses import replace

from tools.publication import DEV, DISTRIBUTION, NOTEBOOKS, Addresses, Release, folder_of

CELL = """\
# Installs the book's package where it is missing, as in Colab. Elsewhere: nothing.
import subprocess
import sys
from importlib import metadata, util
from itertools import product
from pathlib import Path

if util.find_spec("companion") is None:
    wheel = "{wheel}"
    beside = [Path(folder, wheel).resolve() for folder in (".", "..")]
    sources = [path.as_uri() for path in beside if path.exists()] or {elsewhere}
    present = [name for name in ("numpy", "torch") if util.find_spec(name)]
    kept = [f"{{name}}=={{metadata.version(name)}}" for name in present]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--retries=1"]
    for source, extras in product(sources, ("{extras}", "")):
        package = f"{distribution}{{extras}} @ {{source}}"
        run = subprocess.run([*pip, package, *kept], capture_output=True, text=True)
        if run.returncode == 0:
            break
    else:
        advice = "{advice}"
        raise ModuleNotFoundError(f"The book's package is missing. {{advice}}\\n{{run.stderr}}")
    wanted = ("matplotlib", "sklearn", "numba", "jupyterquiz")
    if missing := [name for name in wanted if util.find_spec(name) is None]:
        print("Some cells need what could not be installed:", ", ".join(missing))"""

EXTRAS = "[cpu,data,plots,questions]"  # what the chapters' cells need


def install_cell(release: Release, addresses: Addresses) -> str:
    """Source of the cell that installs the package of `release`.

    Its wheel is beside the published notebooks: those of the release or, before that, of the
    edition in preparation. As long as the book is published nowhere, it is taken from the
    repository's tag of that version, or else has to be beside the notebook.
    """
    advice = "It needs Python 3.11, NumPy 1.26 and PyTorch 2.8, or newer ones."
    if addresses.site:
        editions = [replace(addresses, folder=name) for name in (folder_of(release.version), DEV)]
        wheels = [edition.file(f"{NOTEBOOKS}/{release.wheel}") for edition in editions]
        elsewhere = json.dumps(wheels)
    elif addresses.repository:
        elsewhere = f'["git+{addresses.repository.rstrip("/")}@{release.tag}"]'
    else:
        elsewhere = "[beside[0].as_uri()]"
        advice = "Its wheel is in the folder `notebooks` of the built book: put it beside this."
    return CELL.format(
        distribution=DISTRIBUTION,
        extras=EXTRAS,
        wheel=release.wheel,
        elsewhere=elsewhere,
        advice=advice,
    )
