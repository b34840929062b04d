"""Every bug of the page `bug-gallery` is caught, by the properties that its entry names."""

import re
from functools import cache
from typing import NamedTuple

import jupytext
import pytest

from companion.testing import OPERATIONS, examine
from companion.testing.operation import NAMES
from tools.plain_markdown import BOOK

CALL = re.compile(r'^catch\("([\w-]+)", (\w+)\)$', re.M)
REPORT = re.compile(r"https://github\.com/[\w.-]+/[\w.-]+/(?:issues|pull)/\d+")


class Entry(NamedTuple):
    """A bug as the page has it."""

    heading: str
    source: str
    operation: str
    bug: str
    text: str

    @property
    def laws(self):
        """What it says that catches it."""
        (line,) = re.findall(r"^Caught by (.+)\.$", self.text, re.M)
        return re.findall(r"`(\w+)`", line)


@cache
def page():
    """What the entries share, and the entries."""
    shared, entries, heading = "", [], ""
    cells = jupytext.read(BOOK / "bug-gallery.md").cells
    for cell, after in zip(cells, [*cells[1:], None], strict=True):
        if cell.cell_type == "markdown":
            heading = [heading, *re.findall(r"^### (.+)$", cell.source, re.M)][-1]
        elif "bug" in cell.metadata.get("tags", []):
            ((operation, bug),) = CALL.findall(cell.source)
            source = CALL.sub("", cell.source)
            entries.append(Entry(heading, source, operation, bug, after.source))
        elif not entries:
            shared += cell.source + "\n"
    return shared, entries


@cache
def namespace():
    """The bugs by their names."""
    shared, entries = page()
    values = {"__name__": "gallery"}
    exec(shared, values)
    for entry in entries:
        exec(entry.source, values)
    return values


own = cache(examine)


def complaint(entry, verdict):
    """How a verdict is not what the entry says, or nothing."""
    seen = {each.name for each in verdict.broken}
    if seen != {*entry.laws}:
        return f"caught by {sorted(seen)}, and not by {sorted(entry.laws)}"
    return None


BUGS = [pytest.param(entry, id=entry.bug) for entry in page()[1]]


def test_there_are_at_least_twenty_bugs_with_names_of_their_own():
    _, entries = page()
    assert len(entries) == len({entry.bug for entry in entries}) >= 20
    assert len({entry.heading for entry in entries}) == len(entries)


@pytest.mark.parametrize("entry", BUGS)
def test_it_is_caught_by_what_the_entry_says(entry):
    assert entry.laws
    assert complaint(entry, examine(entry.operation, namespace()[entry.bug])) is None


@pytest.mark.parametrize("entry", BUGS)
def test_what_is_right_is_not_caught_in_its_place(entry):
    assert complaint(entry, own(entry.operation))


@pytest.mark.parametrize("entry", BUGS)
def test_it_is_short_and_has_a_report(entry):
    lines = [line for line in entry.source.strip().splitlines() if line.strip()]
    assert len(lines) <= 16
    links = re.findall(r"\]\((http[^)]+)\)", entry.text.split("\n#")[0])
    reports = [link for link in links if REPORT.fullmatch(link)]
    assert reports
    assert reports == links
    words = re.sub(r"\[[^]]*\]\([^)]*\)", "", entry.text.split("\n#")[0]).split()
    assert len(words) <= 90


def test_each_property_catches_a_bug_but_two_that_hold_of_any_linear_map():
    caught = {(entry.operation, law) for entry in page()[1] for law in entry.laws}
    asked = {
        (name, NAMES[law.says])
        for name, operation in OPERATIONS.items()
        for law in operation.properties
    }
    linear = {"LINEAR_IN_GRAD_Y", "LINEAR_IN_GAMMA"}
    assert asked - caught == {("second-derivatives", law) for law in linear}
