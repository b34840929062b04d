"""The twins in book/notebooks against the text they come from."""

import re

import nbformat
import pytest

from tools import notebooks
from tools.contents import BOOK, ROOT
from tools.notebooks import FOLDERS, chapters, executed, from_text, strip, twin
from tools.plain_markdown import INVENTORY, Page, inventory, plain, recorded

pytestmark = pytest.mark.usefixtures("site")


@pytest.mark.parametrize(("folder", "solved"), FOLDERS.items())
@pytest.mark.parametrize("name", chapters())
def test_the_twin_is_what_the_text_says(name, folder, solved):
    path = folder / f"{name}.ipynb"
    assert path.exists(), f"{path.name} is missing: run `make notebooks`"
    written = nbformat.read(path, as_version=4)
    text = twin(from_text(name), Page(name, recorded(written.cells), solved))
    stale = f"{path.relative_to(ROOT)} is stale against book/{name}.md: run `make notebooks`"
    assert [cell.id for cell in written.cells] == [cell.id for cell in text.cells], stale
    for in_twin, in_text in zip(written.cells, text.cells, strict=True):
        assert in_twin.cell_type == in_text.cell_type, stale
        assert in_twin.source == in_text.source, stale
        assert in_twin.metadata == in_text.metadata, stale


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_twin_has_a_text(folder):
    assert sorted(path.stem for path in folder.glob("*.ipynb")) == chapters()


@pytest.mark.parametrize("name", chapters())
def test_what_is_downloaded_has_the_exercises_and_no_solution(name):
    text = (BOOK / f"{name}.md").read_text(encoding="utf-8")
    open_one, solved = (
        (folder / f"{name}.ipynb").read_text(encoding="utf-8") for folder in FOLDERS
    )
    exercises = re.findall(r":label: ex-([\w-]+)", text)
    assert len(re.findall(r"\*\*Exercise \d", open_one)) == len(exercises)
    assert solved.count("Solution to Exercise") == len(exercises)
    assert "Solution to" not in open_one
    for checked in re.findall(r"^check\(\"([\w-]+)\", (\w+)\)$", text, re.MULTILINE):
        assert checked[0] in exercises
        assert f'check(\\"{checked[0]}\\", {checked[1]})' in open_one
        assert open_one.count(f"def {checked[1]}(") == 1  # the one to fill in
        assert "check(" not in solved
        assert f"def {checked[1]}(" in solved


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("name", chapters())
def test_the_twin_holds_results_and_nothing_volatile(name, folder):
    written = nbformat.read(folder / f"{name}.ipynb", as_version=4)
    assert list(written.metadata) == ["kernelspec"]
    outputs = [output for cell in written.cells for output in cell.get("outputs", [])]
    assert outputs
    for output in outputs:
        assert output.output_type != "error"
        assert not [mime for mime in output.get("data", {}) if mime.startswith("image/")]
    cells = [cell for cell in written.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [cell.id for cell in cells if "execution" in cell.metadata]


def test_pages_without_code_have_no_twin():
    assert "bibliography" not in chapters()
    assert (BOOK / "bibliography.md").exists()


def test_a_twin_has_what_the_book_printed_without_its_images():
    built = executed("identity")
    outputs = [output for cell in built.cells for output in cell.get("outputs", [])]
    assert [output for output in outputs if "image/svg+xml" in output.get("data", {})]
    written = twin(built, Page("identity", recorded(built.cells)))
    outputs = [output for cell in written.cells for output in cell.get("outputs", [])]
    assert any("✓" in output.get("text", "") for output in outputs)
    assert not [mime for output in outputs for mime in output.get("data", {}) if "image" in mime]
    results = [
        (cell.execution_count, output.execution_count)
        for cell in written.cells
        for output in cell.get("outputs", [])
        if output.output_type == "execute_result"
    ]
    assert results
    assert all(of_cell == of_output for of_cell, of_output in results)


@pytest.mark.parametrize("solved", [False, True])
def test_the_twin_asks_its_questions_in_words_and_folds_their_answers(solved):
    built = executed("identity")
    written = twin(built, Page("identity", recorded(built.cells), solved))
    [asking] = [cell for cell in written.cells if cell.source.startswith("Questions(")]
    assert asking.metadata["jupyter"] == {"source_hidden": True}
    assert asking.metadata["cellView"] == "form"  # the same, in Colab
    [output] = asking.outputs
    assert set(output.data) == {"text/plain"}
    assert output.data["text/plain"].startswith("1. A feature has mean 5")


def test_a_chapter_that_was_not_built_is_refused(monkeypatch, capsys, tmp_path):
    changed = from_text("identity")
    changed.cells[-1] = nbformat.v4.new_code_cell("print('new')")
    monkeypatch.setattr(notebooks, "from_text", lambda _name: changed)
    monkeypatch.setattr(notebooks, "FOLDERS", {tmp_path: False})
    monkeypatch.setattr(notebooks, "chapters", lambda: ["identity"])
    monkeypatch.setattr("sys.argv", ["notebooks"])
    assert notebooks.main() == 1
    assert capsys.readouterr().err == "identity has changed since the book was built: `make book`\n"
    assert not list(tmp_path.iterdir())


def test_without_a_built_book_the_message_says_how_to_build_it(monkeypatch, tmp_path):
    monkeypatch.setattr("tools.plain_markdown.INVENTORY", tmp_path / INVENTORY.name)
    with pytest.raises(FileNotFoundError, match="run `make book`"):
        inventory.__wrapped__("label")


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
        (
            "```{dropdown} Answer\nFalse.\n```",
            "<details>\n<summary>Answer</summary>\n\nFalse.\n\n</details>",
        ),
        ("```{solution-start} ex-best-gamma\n```", None),
        ("```{chapters}\n```", None),
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
