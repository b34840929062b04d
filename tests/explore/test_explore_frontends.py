"""The figures where notebooks are read: JupyterLab, and what VS Code and Colab do to an output.

The last two cannot be opened by a test. Both put an output into a frame of another origin, from
which nothing of the page around it can be reached, and VS Code makes the scripts of an output anew,
since a browser does not run what `innerHTML` brings. So a figure must be its HTML alone.
"""

import html
import json
import os
import re
import subprocess
import sys
import time

import nbformat
import pytest
from _page import FIGURES, Page
from test_explore_figures import MOVED, check_numbers

from companion import explore

SHOWN = ["identity", "ranks"]  # two in one page share their scripts
FOREIGN = r"\brequire(js)?\b|ipywidgets|\bIPython\b|\bJupyter\b|acquireVsCodeApi|google\.colab"
# Nothing may be fetched: only what stands in the output runs, and pictures are part of it.
ALONE = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"
# What VS Code does with an output of the kind text/html.
INSERT = """output => {
  const place = document.body.appendChild(document.createElement("div"));
  place.innerHTML = output;
  for (const script of place.querySelectorAll("script")) {
    const anew = document.createElement("script");
    for (const { name, value } of script.attributes) anew.setAttribute(name, value);
    anew.text = script.text;
    script.replaceWith(anew);
  }
}"""


class Shown(Page):
    """A figure in a page that is open already."""

    def __init__(self, page, name, root):
        self.figure, self.page, self.context = getattr(explore, name)(), page, page.context
        self.root = root.locator(f".bn-explore[data-name={name}]")
        self.root.locator(".frame").wait_for(timeout=60_000)
        self.root.scroll_into_view_if_needed()


def output(name):
    return getattr(explore, name)()._repr_mimebundle_()


@pytest.fixture
def page(browser):
    page = browser.new_page(viewport={"width": 1280, "height": 844})
    page.faults = []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    yield page
    page.close()


@pytest.mark.parametrize("name", FIGURES)
def test_an_output_asks_nothing_of_the_front_end(name):
    bundle = output(name)
    assert set(bundle) == {"text/html", "image/svg+xml", "text/plain"}, "no widget, no own type"
    scripts = bundle["text/html"].partition("<script")[2]
    assert scripts.startswith(" data-bn-script>"), "a classic script, which every front end runs"
    assert not re.findall(FOREIGN, scripts)
    json.dumps(bundle)


@pytest.mark.browser
@pytest.mark.parametrize("name", FIGURES)
def test_an_output_lives_in_a_frame_of_another_origin(page, name):
    page.on("console", lambda entry: entry.type == "error" and page.faults.append(entry.text))
    inside = f'<meta http-equiv="Content-Security-Policy" content="{ALONE}">'
    inside += f"<body>{output(name)['text/html']}"
    page.set_content(
        f'<iframe sandbox="allow-scripts" style="width: 900px; height: 800px"'
        f' srcdoc="{html.escape(inside)}"></iframe>'
    )
    frame = page.frame_locator("iframe")
    frame.locator(".frame").wait_for()
    numbers = "all => all.map(e => e.dataset.value)"
    before = frame.locator("[data-number]").evaluate_all(numbers)
    frame.locator("input >> nth=0").focus()
    page.keyboard.press("ArrowLeft")
    assert frame.locator("[data-number]").evaluate_all(numbers) != before
    assert not page.faults, page.faults


@pytest.mark.browser
def test_outputs_live_where_scripts_are_made_anew(page):
    page.set_content("<!doctype html><body></body>")
    for name in SHOWN:
        page.evaluate(INSERT, output(name)["text/html"])
    for name in SHOWN:
        page.locator(f"[data-name={name}] .frame").wait_for()
    assert page.locator(".frame").count() == len(SHOWN)
    assert not page.faults, page.faults


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab on this machine, with a notebook of two figures; its address."""
    pytest.importorskip("jupyterlab", reason="JupyterLab is not installed")
    folder = tmp_path_factory.mktemp("lab")
    cells = [
        nbformat.v4.new_code_cell(f"from companion import explore\n\nexplore.{name}()")
        for name in SHOWN
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=kernel)
    nbformat.write(notebook, folder / "figures.ipynb")
    themes = folder / "settings" / "@jupyterlab" / "apputils-extension"
    themes.mkdir(parents=True)
    (themes / "themes.jupyterlab-settings").write_text('{"adaptive-theme": true}')
    places = {
        "JUPYTER_CONFIG_DIR": folder / "config",
        "JUPYTER_DATA_DIR": folder / "data",
        "JUPYTER_RUNTIME_DIR": folder / "runtime",
        "JUPYTERLAB_SETTINGS_DIR": folder / "settings",
        "JUPYTERLAB_WORKSPACES_DIR": folder / "workspaces",
    }
    options = [f"--ServerApp.root_dir={folder}", "--IdentityProvider.token=", "--LabApp.news_url="]
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--port=0", *options],
        env={**os.environ, **{name: str(place) for name, place in places.items()}},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        described = folder / "runtime" / f"jpserver-{server.pid}.json"
        until = time.monotonic() + 60
        while not described.exists():
            assert server.poll() is None, "JupyterLab has ended"
            assert time.monotonic() < until, "JupyterLab has not started"
            time.sleep(0.2)
        time.sleep(0.5)
        yield json.loads(described.read_text(encoding="utf-8"))["url"]
    finally:
        server.terminate()
        server.wait(timeout=30)


@pytest.mark.browser
@pytest.mark.timeout(180)
def test_jupyterlab_shows_what_the_page_shows(lab, page):
    page.goto(f"{lab}lab/tree/figures.ipynb?reset")
    notebook = page.locator(".jp-Notebook")
    cells = notebook.locator(".jp-CodeCell .cm-content")
    cells.first.wait_for(timeout=60_000)
    # A cell that is run before its kernel is there is not run at all.
    page.get_by_text(re.compile(r"^Python 3 .*\| Idle$")).wait_for(timeout=60_000)
    for cell, name in enumerate(SHOWN):
        cells.nth(cell).click()
        page.keyboard.press("Shift+Enter")
        figure = Shown(page, name, notebook)
        check_numbers(figure)
        before = figure.numbers()
        figure.drag_by(MOVED[name], -25, -12)
        assert figure.numbers() != before, "not by mouse"
        check_numbers(figure)
        before = figure.numbers()
        figure.press(f"[data-handle={MOVED[name]}]", "ArrowRight", "PageUp")
        assert figure.numbers() != before, "not by keys"
        check_numbers(figure)
        focus = "e => e.shadowRoot.activeElement?.dataset.handle"
        assert figure.root.evaluate(focus) == MOVED[name], "a key left the figure"
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        for frame in notebook.locator(".frame").all():
            frame.and_(page.locator(f"[data-theme={theme}]")).wait_for()
    assert not page.faults, page.faults
