"""What nbval leaves out of its comparison: pictures, the HTML of interactive figures, and numbers
that their own cell asserts. And what it looks at beyond it: that figures can be read."""

from pathlib import Path

import pytest
from nbval.plugin import IPyNbCell, IPyNbFile

NOT_COMPARED = ("image/svg+xml", "text/html", "application/papermill.record/text/plain")

# Its startup files run in each kernel before the first cell.
IPYTHON = Path(__file__).parents[2] / "tests" / "ipython"


def pytest_collectstart(collector):
    if isinstance(collector, IPyNbFile):
        collector.skip_compare += NOT_COMPARED


@pytest.hookimpl(tryfirst=True)  # Before pytest-xdist reads the groups.
def pytest_collection_modifyitems(items):
    """All cells of a notebook go to one process, which has its kernel."""
    for item in items:
        if isinstance(item, IPyNbCell):
            item.add_marker(pytest.mark.xdist_group(item.path.name))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    """The kernel starts with the first cell; those that other tests start have no such files."""
    with pytest.MonkeyPatch.context() as patch:
        if isinstance(item, IPyNbCell):
            patch.setenv("IPYTHONDIR", str(IPYTHON))
        return (yield)
