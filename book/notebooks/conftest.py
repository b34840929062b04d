"""What nbval leaves out of its comparison: pictures, the HTML of interactive figures, and numbers
that their own cell asserts. And what it looks at beyond it: that figures can be read."""

import os
from pathlib import Path

from nbval.plugin import IPyNbFile

NOT_COMPARED = ("image/svg+xml", "text/html", "application/papermill.record/text/plain")

# Its startup files run in each kernel before the first cell.
os.environ["IPYTHONDIR"] = str(Path(__file__).parents[2] / "tests" / "ipython")


def pytest_collectstart(collector):
    if isinstance(collector, IPyNbFile):
        collector.skip_compare += NOT_COMPARED
