"""Cells that run in the page: `make live` as a reader starts it, with a real kernel, and elsewhere.

One server and one page of it for all that a reader does there: an exercise fails and is solved, a
figure is drawn anew, a cell is changed, one raises.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from _checks import NUMBERS, ONLY_COLOURS, turn, violations
from playwright.sync_api import expect

from tools.downloads import LIVE

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("live")]

ROOT = Path(__file__).parents[2]
CHAPTER = "mini-batch-algorithm"
ANSWER = """\
def bn_forward(x, gamma, beta, eps):
    axes, shape = (0, *range(2, x.ndim)), (1, -1, *(1,) * (x.ndim - 2))
    centred = x - x.mean(axis=axes, keepdims=True)
    deviation = np.sqrt((centred**2).mean(axis=axes, keepdims=True) + eps)
    return gamma.reshape(shape) * centred / deviation + beta.reshape(shape)"""
# What a page asks for once a cell is to run.
LATER = re.compile(r"/cells\.|/thebe/|/api/")
BINDER = "https://binder.example"


@pytest.fixture(scope="module")
def live(site, tmp_path_factory):
    """`make live` without a browser of its own: its address, with the token."""
    if not (site / LIVE).is_dir():
        message = "the book was built without thebe, for which see tools/thebe.py"
        if os.environ.get("REQUIRE_BROWSER"):
            pytest.fail(message)
        pytest.skip(message)
    errors = tmp_path_factory.mktemp("live") / "errors"
    progress = errors.with_name("progress.json")
    with open(errors, "w") as file:
        server = subprocess.Popen(
            [sys.executable, "-m", "tools.live", "--no-browser"],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "COMPANION_PROGRESS": str(progress)},
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
        )
        address = re.search(r"http://\S+", server.stdout.readline())[0]
        yield address
        server.send_signal(signal.SIGINT)
        rest, _ = server.communicate(timeout=30)
    assert server.returncode == 0
    assert "Traceback" not in rest + errors.read_text()


def refused(url):
    try:
        with urlopen(url) as answer:
            return "login" in answer.url
    except HTTPError as error:
        return error.code == 403


def test_only_this_machine_is_answered_and_only_with_the_token(live):
    page, token = live.split("?")
    origin = re.match(r"http://[^/]*/", page)[0]
    assert origin.startswith("http://127.0.0.1:")
    for path in ("book/intro.html", "book/_static/pages.css", "api/kernels", "api/contents"):
        assert refused(origin + path), path
        assert path.startswith("book") or not refused(f"{origin}{path}?{token}"), path
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", int(origin.rstrip("/").rpartition(":")[2])))


def ran(page, cell, how):
    """Have a cell run and wait for the end; what the page says then, and what the cell shows."""
    said = page.locator(".run-bar output")
    said.evaluate_all("each => each.forEach((output) => { output.value = ''; })")
    how()
    expect(said).to_have_text(re.compile(r"^(Done|A cell|No kernel)"))
    expect(page.locator(".run-bar progress")).to_be_hidden()
    return said.inner_text(), cell.locator(".run-output").inner_text()


def retype(page, cell, code):
    cell.locator(".CodeMirror").click()
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.insert_text(code)


def test_a_reader_runs_cells(live, visit, tmp_path):
    page = visit(live, wait_until="commit")  # only the first address has the token
    page.goto(re.sub(r"intro.*", f"{CHAPTER}.html", live), wait_until="networkidle")
    early = [each.url for each in page.requests if LATER.search(each.url)]
    assert not early, "before any click"

    # An exercise: what it needs runs before it, and no more.
    stub, check = page.locator(".cell.tag_exercise").all()[:2]
    said, shown = ran(page, check, check.locator("button.run").click)
    assert said == "Done: 3 cells."
    assert "not right yet" in shown
    retype(page, stub, ANSWER)
    expect(stub.locator(".run-note")).to_have_text("edited since it ran")
    said, shown = ran(page, check, check.locator("button.run").click)
    assert said == "Done: 2 cells."
    assert "✓ bn-forward: right" in shown

    # A figure comes where it was, with its description; by keyboard, and Tab is no trap.
    drawing = page.locator(".cell:has(#fig-batch-columns)")
    described = drawing.locator("img").get_attribute("alt")
    drawing.locator("textarea").focus()
    page.keyboard.press("Tab")
    expect(drawing.locator("button.run")).to_be_focused()
    ran(page, drawing, lambda: page.keyboard.press("Enter"))
    drawn = drawing.locator("img:visible")
    expect(drawn).to_have_attribute("alt", described)
    assert drawn.evaluate("image => image.closest('figure').querySelector('figcaption') !== null")
    assert drawn.evaluate("image => image.naturalWidth") > 300

    # Checks are among the cells.
    columns, checks = drawing.locator("xpath=following::div[contains(@class, 'cell ')]").all()[:2]
    checks.locator("summary").click()
    said, shown = ran(page, checks, checks.locator("button.run").click)
    assert said == "Done: 2 cells."
    assert "✓ column-means ≈" in shown

    # What a cell shows follows its code, interactive figures included.
    retype(page, columns, "print(normalized.shape)")
    said, shown = ran(page, columns, lambda: page.keyboard.press("Shift+Enter"))
    assert (said, shown.strip()) == ("Done.", "torch.Size([12, 6])")
    retype(page, columns, "explore.batch()")
    ran(page, columns, lambda: page.keyboard.press("Shift+Enter"))
    assert not lifeless_here(columns, page)

    # A cell that raises ends the run, and says why.
    retype(page, columns, "print('so far')\ncolumns = normalized[1 / 0]")
    said, _ = ran(page, checks, checks.locator("button.run").click)
    assert said == "A cell was stopped by ZeroDivisionError."
    expect(columns.locator(".run-note")).to_have_text("✗ ZeroDivisionError")
    shown = columns.locator(".run-output").inner_text()
    assert shown.startswith("so far")
    assert "division by zero" in shown
    faults = looks(page)
    turn(page, 390, "dark")
    faults += looks(page, **ONLY_COLOURS)
    assert not faults, "\n".join(faults)

    # What is asked for meanwhile waits.
    go = tmp_path / "go"
    waiting = f"while not Path({str(go)!r}).exists(): time.sleep(0.01)"
    retype(page, columns, f"import time\nfrom pathlib import Path\nprint('begun')\n{waiting}")
    page.keyboard.press("Shift+Enter")
    expect(columns.locator(".run-output")).to_contain_text("begun")
    check.locator("button.run").click()
    expect(check.locator(".run-note")).to_have_text("waits…")
    go.touch()
    expect(columns.locator(".run-note")).to_have_text("✓ ran")
    expect(check.locator(".run-note")).to_have_text("✓ ran")

    # What takes too long is stopped, and what waits for it.
    retype(page, columns, "import time\nprint('begun')\ntime.sleep(600)")
    page.keyboard.press("Shift+Enter")
    expect(columns.locator(".run-output")).to_contain_text("begun")
    stub.locator("button.run").click()
    expect(stub.locator(".run-note")).to_have_text("waits…")
    said, _ = ran(page, columns, page.get_by_role("button", name="Stop").click)
    assert said == "A cell was stopped by KeyboardInterrupt."
    expect(stub.locator(".run-note")).to_have_text("✓ ran")  # as before


def lifeless_here(cell, page):
    """Whether the interactive figure that a cell shows does not follow its first control."""
    frame = cell.locator(".bn-explore .frame")
    frame.wait_for()
    before = frame.evaluate(NUMBERS)
    frame.locator("input[type=range]").first.focus()
    page.keyboard.press("ArrowLeft")
    return frame.evaluate(NUMBERS) == before


def looks(page, **rules):
    """What is wrong with how the cells that ran look."""
    width, actual = page.evaluate("[innerWidth, document.documentElement.scrollWidth]")
    sideways = [f"goes sideways: {actual} pixels of {width}"] if actual > width else []
    return sideways + violations(
        page, "#one-feature-many-examples, .run-bar", preload=False, **rules
    )


@pytest.mark.parametrize("where", ["served", "on disk"])
def test_without_a_kernel_there_is_no_run(site, address, visit, where):
    start = address if where == "served" else site.as_uri()
    page = visit(f"{start}/{CHAPTER}.html", wait_until="networkidle")
    expect(page.locator("nav.run-page")).to_be_visible()
    assert page.locator("button.run").count() == 0
    assert not [each.url for each in page.requests if LATER.search(each.url)]


def test_a_published_book_asks_its_binder(address, browser):
    options = {"binderUrl": BINDER, "repoProvider": "github", "repo": "owner/name", "ref": "main"}
    page = browser.new_page()
    asked = []

    def page_with_binder(route):
        attributes = f" data-live data-binder='{json.dumps(options)}'"
        body = route.fetch().text().replace(" data-live", attributes, 1)
        route.fulfill(body=body, content_type="text/html")

    def binder(route):
        asked.append(route.request.url)
        message = {"phase": "failed", "message": "no room"}
        route.fulfill(
            body=f"data: {json.dumps(message)}\n\n",
            content_type="text/event-stream",
            headers={"Access-Control-Allow-Origin": "*"},
        )

    page.route(f"**/{CHAPTER}.html", page_with_binder)
    page.route(f"{BINDER}/**", binder)
    page.goto(f"{address}/{CHAPTER}.html", wait_until="networkidle")
    assert not asked
    page.get_by_role("button", name="Run all cells").click()
    expect(page.locator(".run-bar output")).to_have_text("No kernel: no room")
    assert asked == [f"{BINDER}/build/gh/owner/name/main"]
    page.close()
