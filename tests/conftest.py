"""What several test files share: devices, the built site, and what is measured of coverage."""

import os
import shutil
from pathlib import Path

import pytest
import torch

TESTS = Path(__file__).parent
SITE = TESTS.parent / "_build" / "html"

# They test the book, its tools and the tests, as those marked `browser` do: coverage, which is that
# of the package, would find nothing and slow them down.
NOT_OF_THE_PACKAGE = {"site", "tools", "test_markers.py"}

LAID_OUT = """() => [...document.querySelectorAll("article > section > section")]
  .every((part) => getComputedStyle(part).contentVisibility === "visible")"""


@pytest.hookimpl(tryfirst=True)  # Before pytest takes out what is not asked for.
def pytest_collection_modifyitems(items):
    for item in items:
        for slow in item.iter_markers("slow"):
            if slow.args or set(slow.kwargs) != {"reason"} or not slow.kwargs["reason"].strip():
                raise pytest.UsageError(f'{item.nodeid}: write @pytest.mark.slow(reason="...")')
        place = item.path.relative_to(TESTS).parts[0]
        if place in NOT_OF_THE_PACKAGE or item.get_closest_marker("browser"):
            item.add_marker("no_cover")
    if torch.cuda.is_available():
        return
    no_gpu = pytest.mark.skip(reason="this machine has no CUDA device")
    for item in items:
        if item.get_closest_marker("cuda"):
            item.add_marker(no_gpu)


@pytest.fixture(autouse=True)
def _no_cover_for_children_either(request, monkeypatch):
    """Processes that a test without coverage starts are not measured."""
    if request.node.get_closest_marker("no_cover"):
        monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)


@pytest.fixture(scope="session")
def site():
    """The folder of the built pages."""
    if not (SITE / "intro.html").exists():
        pytest.fail("the book is not built: run `make book`")
    return SITE


@pytest.fixture(scope="session")
def browser():
    """A real Chromium; without one a test is skipped, or fails if REQUIRE_BROWSER is set."""
    from playwright.sync_api import sync_playwright

    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    if executable is None:
        message = "no Chromium on this machine (Debian: apt-get install chromium)"
        if os.environ.get("REQUIRE_BROWSER"):
            pytest.fail(message)
        pytest.skip(message)
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=arguments)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def read_on():
    """What a reader's first move does to a page: the parts that waited for it are laid out."""

    def move(page):
        page.keyboard.press("Shift")
        page.wait_for_function(LAID_OUT)
        page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")

    return move
