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
import threading

import nbformat
import pytest
from _oracles import MOVED, check_numbers
from _page import FIGURES, Page, output
from playwright.sync_api import expect

SHOWN = ["identity", "ranks"]  # two in one page share their scripts
# What stands below them in the notebook.
ASKED = """from companion.questions import Choice, Questions, Right, Wrong

Questions(Choice("Which?", Wrong("This.", "So not."), Right("That.", "So it is.")))"""
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
        (self.figure, _), self.page = output(name), page
        self.root = root.locator(f".bn-explore[data-name={name}]")
        self.frame = self.root.locator(".frame")
        self.frame.wait_for()
        self.root.scroll_into_view_if_needed()


@pytest.mark.parametrize("name", FIGURES)
def test_an_output_asks_nothing_of_the_front_end(name):
    _, bundle = output(name)
    assert set(bundle) == {"text/html", "image/svg+xml", "text/plain"}, "no widget, no own type"
    scripts = bundle["text/html"].partition("<script")[2]
    assert scripts.startswith(" data-bn-script>"), "a classic script, which every front end runs"
    assert not re.findall(FOREIGN, scripts)
    json.dumps(bundle)


@pytest.mark.browser
def test_outputs_live_in_frames_of_another_origin(visit):
    page = visit()
    inside = f'<meta http-equiv="Content-Security-Policy" content="{ALONE}"><body>'
    page.set_content(
        "".join(
            f'<iframe name="{name}" sandbox="allow-scripts" style="width: 900px; height: 800px"'
            f' srcdoc="{html.escape(inside + output(name)[1]["text/html"])}"></iframe>'
            for name in FIGURES
        )
    )
    numbers = "all => all.map(e => e.dataset.value)"
    for name in FIGURES:
        frame = page.frame_locator(f"iframe[name={name}]")
        frame.locator(".frame").wait_for()
        before = frame.locator("[data-number]").evaluate_all(numbers)
        frame.locator("input[type=range], input:checked").first.focus()
        page.keyboard.press("ArrowLeft")
        assert frame.locator("[data-number]").evaluate_all(numbers) != before, name


@pytest.mark.browser
def test_outputs_live_where_scripts_are_made_anew(visit):
    page = visit()
    page.set_content("<!doctype html><body></body>")
    for name in SHOWN:
        page.evaluate(INSERT, output(name)[1]["text/html"])
    for name in SHOWN:
        page.locator(f"[data-name={name}] .frame").wait_for()
    assert page.locator(".frame").count() == len(SHOWN)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab on this machine, with a notebook of two figures and a question; its address."""
    pytest.importorskip("jupyterlab", reason="JupyterLab is not installed")
    folder = tmp_path_factory.mktemp("lab")
    cells = [
        nbformat.v4.new_code_cell(f"from companion import explore\n\nexplore.{name}()")
        for name in SHOWN
    ]
    cells.append(nbformat.v4.new_code_cell(ASKED))
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
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        log = []
        for line in server.stderr:
            log.append(line)
            if "is running at" in line:
                address = re.search(r"http://[^/]+/", next(server.stderr))[0]
                break
        else:
            pytest.fail("JupyterLab has ended:\n" + "".join(log))
        # What it writes from now on is read, or it would wait for a reader.
        threading.Thread(target=server.stderr.read, daemon=True).start()
        yield address
    finally:
        server.terminate()
        server.wait(timeout=60)


@pytest.mark.browser
@pytest.mark.slow(reason="JupyterLab and a kernel start: half a minute of processor time")
def test_jupyterlab_shows_what_the_page_shows(lab, browser):
    page = browser.new_page(viewport={"width": 1280, "height": 844})
    page.set_default_timeout(120_000)
    errors = []  # in scripts alone: JupyterLab's own console is not quiet
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{lab}lab/tree/figures.ipynb?reset")
    notebook = page.locator(".jp-Notebook")
    cells = notebook.locator(".jp-CodeCell .cm-content")
    cells.first.wait_for()
    # A cell that is run before its kernel is there is not run at all.
    page.get_by_text(re.compile(r"^Python 3 .*\| Idle$")).wait_for()
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
    cells.last.click()
    page.keyboard.press("Shift+Enter")
    notebook.get_by_text("That.", exact=True).click()
    expect(notebook.locator(".bn-questions [role=status]")).to_have_text("Right. So it is.")
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        for frame in notebook.locator(".frame").all():
            frame.and_(page.locator(f"[data-theme={theme}]")).wait_for()
    page.close()
    assert not errors, errors
