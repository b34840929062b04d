"""What several test files share: devices, the built site, and what is measured of coverage."""

import os
import shutil
import signal
from pathlib import Path

import pytest
import torch

TESTS = Path(__file__).parent
SITE = TESTS.parent / "_build" / "html"

# They test the book, its tools and the tests, as those marked `browser` do: coverage, which is that
# of the package, would find nothing and slow them down.
NOT_OF_THE_PACKAGE = {"site", "tools", "test_markers.py", "notebooks"}

# Milliseconds that a page is waited for; only what has failed takes as long, on a busy machine too.
PATIENCE = 60_000


# In the background of a shell Ctrl-C is ignored, and so it would be in what tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # Before pytest takes out what is not asked for.
def pytest_collection_modifyitems(items):
    for item in items:
        for slow in item.iter_markers("slow"):
            if slow.args or set(slow.kwargs) != {"reason"} or not slow.kwargs["reason"].strip():
                raise pytest.UsageError(f'{item.nodeid}: write @pytest.mark.slow(reason="...")')
        place = item.path.relative_to(TESTS.parent).parts[1]
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
    from playwright.sync_api import expect, sync_playwright

    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    if executable is None:
        message = "no Chromium on this machine (Debian: apt-get install chromium)"
        if os.environ.get("REQUIRE_BROWSER"):
            pytest.fail(message)
        pytest.skip(message)
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=arguments)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser):
    """Open an address in a page of its own; by the end, nothing may have gone wrong there.

    The page has its `requests`, and its `faults`: errors in scripts and on the console, files that
    are missing, requests to another site.
    """
    pages = []

    def visit(url="about:blank", *, width=1280, theme="light", wait_until="load", **options):
        context = browser.new_context(
            viewport={"width": width, "height": 844}, color_scheme=theme, **options
        )
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.requests, page.faults = [], []
        pages.append(page)
        own = ("data:", "file:" if url.startswith("file:") else "/".join(url.split("/")[:3]))

        def note(request):
            page.requests.append(request)
            if not request.url.startswith(own):
                page.faults.append(f"not from the site: {request.url}")

        def note_failure(request):
            # What a page that is left gives up is no fault of its.
            if request.failure != "net::ERR_ABORTED":
                page.faults.append(f"{request.failure}: {request.url}")

        def note_message(message):
            if message.type == "error":
                page.faults.append(message.text)

        page.on("pageerror", lambda error: page.faults.append(str(error)))
        page.on("console", note_message)
        page.on("request", note)
        page.on("requestfailed", note_failure)
        page.goto(url, wait_until=wait_until)
        return page

    yield visit
    faults = [fault for page in pages for fault in page.faults]
    for page in pages:
        page.context.close()
    assert not faults, "\n".join(faults)
