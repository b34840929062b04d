"""What nbval leaves out of its comparison: pictures, the HTML of interactive figures, and numbers
that their own cell asserts."""

from nbval.plugin import IPyNbFile

NOT_COMPARED = ("image/svg+xml", "text/html", "application/papermill.record/text/plain")


def pytest_collectstart(collector):
    if isinstance(collector, IPyNbFile):
        collector.skip_compare += NOT_COMPARED
