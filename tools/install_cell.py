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
    kept = [f"{name}=={metadata.version(name)}" for name in present]
    source = SOURCE
    pip = [sys.executable, "-m", "pip", "install", "--quiet", *source, *kept]
    run = subprocess.run(pip, capture_output=True, text=True)
    if run.returncode != 0:
        advice = "ADVICE"
        raise ModuleNotFoundError(f"The book's package is missing. {advice}\\n{run.stderr}")"""


def install_cell(version: str, addresses: Addresses) -> str:
    """Source of the cell that installs `version` of the package.

    From the repository's tag of that version. As long as the repository has no address, from a
    wheel that lies beside the notebook and from nowhere else: an index may hold another's package
    under this name; without an index there is no library for the questions, which then are text.
    """
    if addresses.repository:
        repository = addresses.repository.rstrip("/")
        source = f'["{DISTRIBUTION}[questions] @ git+{repository}@v{version}"]'
        advice = "It needs Python 3.11, NumPy 1.26 and PyTorch 2.6, or newer ones."
    else:
        source = f'["--no-index", "--find-links=.", "{DISTRIBUTION}=={version}"]'
        advice = "`pip wheel --no-deps .` in the book's folder makes a wheel to put beside this."
    return CELL.replace("SOURCE", source).replace("ADVICE", advice)
