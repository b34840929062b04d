"""The first cell of a twin, which installs the book's package where it is missing.

In a clone, and on Binder, the package is there and the cell does nothing. In Colab it installs the
version that the book was built with. What is there of NumPy and PyTorch is named to pip with its
exact version: pip keeps both, or says that they do not fit.
"""

from tools.publication import DISTRIBUTION, Addresses

CELL = """\
# Installs the book's package where it is missing, as in Colab. Elsewhere: nothing.
import subprocess
import sys
from importlib import metadata, util

if util.find_spec("companion") is None:
    present = [name for name in ("numpy", "torch") if util.find_spec(name)]
    kept = [f"{{name}}=={{metadata.version(name)}}" for name in present]
    source = {source}
    command = [sys.executable, "-m", "pip", "install", "--quiet", *source, *kept]
    pip = subprocess.run(command, capture_output=True, text=True)
    if pip.returncode != 0:
        raise ModuleNotFoundError(
            "The book's package is missing, and pip could not install it.\\n"
            "{advice}\\n"
            f"{{pip.stderr}}"
        )"""
TAG = """[
        "{distribution} @ "
        "git+{repository}@v{version}"
    ]"""
TAG_ADVICE = "It needs Python 3.11, NumPy 1.26 and PyTorch 2.6, or newer ones."
WHEEL = """["--no-index", "--find-links=.", "{distribution}=={version}"]"""
WHEEL_ADVICE = """\
`pip wheel --no-deps .` in the book's folder makes a wheel. Put it "
            "beside this notebook, and run this cell again."""


def install_cell(version: str, addresses: Addresses) -> str:
    """Source of the cell that installs `version` of the package.

    From the repository's tag of that version. As long as the repository has no address, from a
    wheel that lies beside the notebook and from nowhere else: an index may hold another's package
    under this name.
    """
    source, advice = (TAG, TAG_ADVICE) if addresses.repository else (WHEEL, WHEEL_ADVICE)
    source = source.format(
        distribution=DISTRIBUTION, repository=addresses.repository.rstrip("/"), version=version
    )
    return CELL.format(source=source, advice=advice)
