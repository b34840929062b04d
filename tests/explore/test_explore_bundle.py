"""The scripts of the interactive figures: complete, small, classic, and without addresses."""

import gzip
import html
import json
import re
from importlib.resources import files

import pytest
from _page import FIGURES, addresses, output

from companion import explore
from companion.explore import bundle

BUDGET = 150 * 1024  # bytes of compressed script for all figures together


def test_all_scripts_together_are_small():
    texts = [bundle.core(), *(bundle.figure(output(name)[0].name) for name in FIGURES)]
    assert sum(len(gzip.compress(text.encode())) for text in texts) < BUDGET / 2


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_is_fetched_and_nothing_ends_the_script(name):
    script = bundle.core() + bundle.figure(output(name)[0].name)
    assert addresses(script) == []
    assert "</script" not in script
    assert "<!--" not in script
    assert not re.search(r"^\s*(import|export)\b", script, re.MULTILINE)


def test_every_module_is_part_of_a_script():
    scripts = bundle.core() + "".join(bundle.figure(output(name)[0].name) for name in FIGURES)
    folder = files("companion.explore") / "js"
    present = {path.name for path in (folder / "figures").iterdir()}
    assert present == {f"{output(name)[0].name}.js" for name in FIGURES}
    for path in folder.iterdir():
        if path.is_file() and path.name != "loader.js":  # which loads them
            assert f'define("{path.name}"' in scripts, path.name


def test_a_shared_module_is_defined_once():
    for name in FIGURES:
        script = bundle.core() + bundle.figure(output(name)[0].name)
        defined = re.findall(r'^define\("([^"]+)"', script, re.MULTILINE)
        assert len(defined) == len(set(defined))
        assert defined.index("vendor/d3.js") < defined.index("plot.js") < defined.index("stage.js")


@pytest.mark.parametrize(
    "line",
    [
        'import * as d3 from "./d3.js";',
        "export default 3;",
        "export { a };",
        'import "./other.js";',
        "export async function f() {}",
    ],
)
def test_an_unknown_form_of_import_or_export_is_an_error(monkeypatch, line):
    monkeypatch.setattr(bundle, "_read", lambda _: f"const a = 1;\n{line}\n")
    with pytest.raises(ValueError, match="this form of import or export is not known"):
        bundle._defined("some.js")


def test_imports_and_exports_are_rewritten(monkeypatch):
    text = 'import { a, b } from "../b.js";\nimport css from "./c.css";\nexport const d = a;\n'
    monkeypatch.setattr(bundle, "_read", lambda name: text if name == "f/x.js" else "p { }")
    script = bundle._defined("f/x.js")
    assert 'const { a, b } = modules["b.js"];' in script
    assert 'const {css: css} = modules["f/c.css"];' in script
    assert "return { d };" in script
    assert bundle._defined("f/c.css") == 'define("f/c.css", () => ({ css: "p { }" }));\n'


@pytest.mark.parametrize("name", FIGURES)
def test_what_a_notebook_gets(name):
    figure, shown = output(name)
    assert shown == getattr(explore, name)()._repr_mimebundle_(), "the same at every call"
    assert shown["image/svg+xml"].lstrip().startswith("<?xml")
    assert shown["text/plain"] == repr(figure)
    assert max(map(len, shown["text/plain"].splitlines())) <= 84
    assert " ".join(shown["text/plain"].split()).endswith(figure.description)
    assert len(figure.description) > 100
    data = html.unescape(re.search(r'data-bn-figure="([^"]*)"', shown["text/html"])[1])
    assert json.loads(data)["start"] == json.loads(json.dumps(figure.start))
    assert addresses(shown["text/html"]) == []
