"""The book on paper: what is put on its pages, and what Chromium makes of them."""

import pytest
from pypdf import PdfReader

from tools import build_pdf
from tools.build_pdf import KEY, SOURCES, documents, printed
from tools.contents import chapters
from tools.plain_markdown import titles

pytestmark = [pytest.mark.usefixtures("site"), pytest.mark.xdist_group("pdf")]

CHAPTER = "identity"
# What the book numbers it.
NUMBER = 3


def run(monkeypatch, folder, *arguments):
    monkeypatch.setattr(build_pdf, "PDF", folder)
    monkeypatch.setattr("sys.argv", ["build_pdf", *arguments])
    return build_pdf.main()


def flat(outline):
    for entry in outline:
        yield from flat(entry) if isinstance(entry, list) else [entry.title]


def said(element):
    """The words for what a PDF only draws: pictures and formulas."""
    if isinstance(element, list):
        return [words for child in element for words in said(child.get_object())]
    if not isinstance(element, dict):
        return []
    inner = said(element["/K"]) if "/K" in element else []
    return [element["/Alt"], *inner] if "/Alt" in element else inner


def text(reader):
    return " ".join(" ".join(page.extract_text() for page in reader.pages).split())


@pytest.fixture(scope="module")
def pages(site):
    """What is printed of one chapter, and of the book."""
    del site
    return {name: printed(documents()[name], solutions=True) for name in (CHAPTER, KEY)}


def test_without_chromium_the_message_says_what_to_install(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(build_pdf, "BROWSERS", ("no-such-browser",))
    assert run(monkeypatch, tmp_path) == 2
    assert capsys.readouterr().err == "A PDF needs Chromium. On Debian: apt-get install chromium\n"


def test_an_unknown_chapter_is_refused(monkeypatch, capsys, tmp_path):
    with pytest.raises(SystemExit) as refused:
        run(monkeypatch, tmp_path, "nowhere")
    assert refused.value.code == 2
    assert "got ['nowhere']" in capsys.readouterr().err


def test_a_browser_that_prints_nothing_leaves_the_pdf_there_was(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(build_pdf, "BROWSERS", ("ls",))  # it does not know these options
    pdf = tmp_path / f"{CHAPTER}.pdf"
    pdf.write_bytes(b"before")
    assert run(monkeypatch, tmp_path, CHAPTER) == 1
    assert f"{CHAPTER}.pdf was not printed: " in capsys.readouterr().err
    assert pdf.read_bytes() == b"before"


@pytest.mark.parametrize("name", [CHAPTER, KEY])
def test_every_link_in_print_leads_somewhere(pages, name):
    page = pages[name]
    ids = [tag["id"] for tag in page.select("[id]")]
    links = {link["href"] for link in page.select("a")}
    within = {link[1:] for link in links if link[0] == "#"}
    assert len(within) > 10
    assert [anchor for anchor in within if ids.count(anchor) != 1] == []
    assert all("://" in link for link in links if link[0] != "#")


def test_paper_shows_what_is_not_folded_away(pages):
    page = pages[CHAPTER]
    assert page.html["data-theme"] == "light"
    assert not page.select("script, nav, details, .headerlink, [loading]")
    assert page.select_one(".bn-explore img")["alt"]
    asked = page.select(f"#{CHAPTER}-questions ol > li")
    assert len(asked) == 3
    assert "The feature itself: a factor of 1" in asked[0].text
    assert "They leave x̂ as it is" not in page.text, "an answer"
    assert "linear_fraction" in page.text
    assert "import numpy" not in page.text, "a cell that the site folds away"


def test_solutions_stand_at_the_end_or_nowhere(pages):
    page = pages[CHAPTER]
    headings = [heading.text for heading in page.select("h1, h2")]
    assert headings[-3:] == ["Going further", "Solutions", titles()[SOURCES]]
    solutions = page.select(".solution")
    assert len(solutions) == len(page.select(".exercise"))
    last_exercise = page.select(".exercise")[-1]
    assert all(box in list(last_exercise.next_elements) for box in solutions)
    without = printed(documents()[CHAPTER], solutions=False)
    assert "Solution" not in without.text
    assert len(without.select(".exercise")) == len(page.select(".exercise"))


def test_a_chapter_lists_what_it_cites_and_how_it_is_cited(pages):
    page, everything = pages[CHAPTER], pages[KEY]
    assert "Ioffe" in page.select_one(".citation-list").text
    assert 0 < len(page.select(".citation")) < len(everything.select(".citation")) / 2
    assert f"@incollection{{{KEY}-{CHAPTER}," in page.text
    assert "cff-version" not in page.text, "a file, of no use on paper"
    assert everything.text.count("@book{") == 1
    assert "@incollection" not in everything.text, "a chapter's citation inside the book"


@pytest.mark.browser
@pytest.mark.usefixtures("browser")
def test_a_chapter_is_printed_tagged_with_outline_and_page_numbers(monkeypatch, tmp_path):
    assert run(monkeypatch, tmp_path, CHAPTER) == 0
    reader = PdfReader(tmp_path / f"{CHAPTER}.pdf")
    root = reader.trailer["/Root"]
    assert root["/MarkInfo"]["/Marked"]
    assert root["/Lang"] == "en"
    titles_in_outline = list(flat(reader.outline))
    assert titles_in_outline[0] == f"{NUMBER}. {titles()[CHAPTER]}"
    assert {"What to remember", "Exercises", "Solutions"} <= set(titles_in_outline)
    for number, page in enumerate(reader.pages, start=1):
        assert str(number) in page.extract_text().split("\n")[:3]
    assert f"Fig. {NUMBER}.1 The density of the input" in text(reader)
    words = said(root["/StructTreeRoot"])
    assert any("sigmoid with its best straight line" in picture for picture in words)
    assert any("σ" in formula or "sigma" in formula for formula in words)


@pytest.mark.slow(reason="prints the whole book, twice")
@pytest.mark.timeout(1800)
@pytest.mark.browser
@pytest.mark.usefixtures("browser")
def test_the_book_is_one_file_whose_contents_name_its_pages(monkeypatch, tmp_path):
    assert run(monkeypatch, tmp_path, KEY) == 0
    reader = PdfReader(tmp_path / f"{KEY}.pdf")
    assert reader.trailer["/Root"]["/MarkInfo"]["/Marked"]
    assert reader.metadata.title == titles()["intro"]
    outline = list(flat(reader.outline))
    assert len(outline) > 100
    assert not [title for title in outline if title[: len(title) // 2] * 2 == title]
    outline = " ".join(outline)
    front = [page.extract_text() for page in reader.pages[:20]]
    start = next(i for i, words in enumerate(front) if "Part I ·" in words)
    lines = "\n".join(front[start : start + 2]).split("\n")  # they take two pages
    for name in documents()[KEY][1:]:
        assert titles()[name] in outline
        [line] = [line for line in lines if line.startswith(titles()[name])]
        first = reader.pages[int(line.split()[-1]) - 1].extract_text()
        assert titles()[name] in " ".join(first.split())
        place = reader.named_destinations[f"/{name}"]
        assert reader.get_destination_page_number(place) + 1 == int(line.split()[-1])
    whole = text(reader)
    assert "Theorem 3.1 (Identity with" in whole  # a ligature follows
    assert "Solution to Exercise 2.1" in whole


@pytest.mark.slow(reason="prints every chapter")
@pytest.mark.timeout(1800)
@pytest.mark.browser
@pytest.mark.usefixtures("browser")
def test_each_chapter_is_a_file_of_its_own_without_its_solutions(monkeypatch, tmp_path):
    names = [name for name in documents() if name != KEY]
    assert run(monkeypatch, tmp_path, "--without-solutions", *names) == 0
    printed_files = {path.stem for path in (tmp_path / "without-solutions").glob("*.pdf")}
    assert printed_files == set(names)
    for name in names:
        reader = PdfReader(tmp_path / "without-solutions" / f"{name}.pdf")
        assert titles()[name] in next(flat(reader.outline))
        words = text(reader)
        assert "Exercise" in words or name not in chapters()
        assert "Solution to" not in words
