"""The twins in book/notebooks against the text they come from."""

import re

import nbformat
import pytest

from tools.notebooks import TWINS, chapters, execute, from_text, readable, strip
from tools.plain_markdown import BOOK, Page, plain, recorded

KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


@pytest.mark.parametrize("name", chapters())
def test_the_twin_is_what_the_text_says(name):
    path = TWINS / f"{name}.ipynb"
    assert path.exists(), f"{path.name} is missing: run `make notebooks`"
    twin = nbformat.read(path, as_version=4)
    text = readable(from_text(name), Page(name, recorded(twin.cells)))
    stale = f"book/notebooks/{name}.ipynb is stale against book/{name}.md: run `make notebooks`"
    assert [cell.id for cell in twin.cells] == [cell.id for cell in text.cells], stale
    for in_twin, in_text in zip(twin.cells, text.cells, strict=True):
        assert in_twin.cell_type == in_text.cell_type, stale
        assert in_twin.source == in_text.source, stale
        assert in_twin.metadata == in_text.metadata, stale


def test_every_twin_has_a_text():
    assert sorted(path.stem for path in TWINS.glob("*.ipynb")) == chapters()


@pytest.mark.parametrize("name", chapters())
def test_the_twin_holds_results_and_nothing_volatile(name):
    twin = nbformat.read(TWINS / f"{name}.ipynb", as_version=4)
    assert list(twin.metadata) == ["kernelspec"]
    outputs = [output for cell in twin.cells for output in cell.get("outputs", [])]
    assert outputs
    for output in outputs:
        assert output.output_type != "error"
        assert not [mime for mime in output.get("data", {}) if mime.startswith("image/")]
    cells = [cell for cell in twin.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [cell.id for cell in cells if "execution" in cell.metadata]


def test_pages_without_code_have_no_twin():
    assert "bibliography" not in chapters()
    assert (BOOK / "bibliography.md").exists()


def test_execution_keeps_text_and_drops_images():
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": KERNEL})
    source = (
        "from IPython.display import display\n"
        "print('kept')\n"
        "display({'image/png': 'AA==', 'text/plain': 'alt'}, raw=True)\n"
        "1 + 1"
    )
    notebook.cells = [nbformat.v4.new_code_cell(source)]
    [cell] = execute(notebook).cells
    stream, image, result = cell.outputs
    assert stream.text == "kept\n"
    assert image.data == {"text/plain": "alt"}
    assert result.data == {"text/plain": "2"}
    assert cell.execution_count == 1
    assert "execution" not in cell.metadata


def test_strip_drops_the_metadata_of_images():
    output = nbformat.v4.new_output(
        "display_data",
        data={"image/png": "AA==", "text/plain": "alt"},
        metadata={"image/png": {"width": 1}, "scrapbook": {"name": "kept"}},
    )
    stripped = strip(output)
    assert stripped.data == {"text/plain": "alt"}
    assert stripped.metadata == {"scrapbook": {"name": "kept"}}


def test_strip_leaves_streams_alone():
    stream = nbformat.v4.new_output("stream", text="kept")
    assert strip(stream).text == "kept"


@pytest.mark.parametrize(
    ("myst", "expected"),
    [
        ("By {eq}`std-shrinkage` it is small.", "By (6) it is small."),
        ("$$\nc_m\n$$ (std-shrinkage)", "$$\nc_m\n\\tag{6}$$"),
        ("It is {glue:text}`share:.1f`.", "It is 0.2."),
        ("{math}`x^2`", "$x^2$"),
        (
            "By {eq}`closed-form` of\n{doc}`backprop`.",
            "By (9) of [The backward pass, three ways](backprop.ipynb).",
        ),
        ("% a comment\nText", "Text"),
        ("(a-target)=\n## Heading", "## Heading"),
        (
            ":::{admonition} Title\n:class: tip\n\nBody {math}`x`.\n:::",
            "> **Title**\n>\n> Body $x$.",
        ),
        (
            "See {cite:t}`ioffe2015batch`.",
            "See [Ioffe and Szegedy (2015)](https://arxiv.org/abs/1502.03167).",
        ),
        (
            "Luo {cite:p}`luo2019towards`",
            "Luo [[Luo et al., 2019](https://arxiv.org/abs/1809.00846)]",
        ),
        ("```{solution-start} ex-best-gamma\n```", None),
    ],
)
def test_myst_becomes_plain_markdown(myst, expected):
    converted = plain(Page("identity", {"share": 0.16}), myst)
    assert "{" not in re.sub(r"\\tag\{\d+\}", "", converted)
    if expected is not None:
        assert converted == expected


def test_a_reference_to_another_page_names_it():
    converted = plain(Page("backprop"), "{prf:ref}`thm-identity`")
    assert converted.startswith("Theorem ")
    assert converted.endswith(" in *Restoring the identity: γ and β*")


def test_what_has_no_plain_form_is_refused():
    with pytest.raises(ValueError, match="no plain form for the role"):
        plain(Page("identity"), "{unknown}`x`")
    with pytest.raises(ValueError, match="no plain form for the directive unknown"):
        plain(Page("identity"), ":::{unknown}\n:::")
