"""When a page last changed, as git has it."""

import os
import subprocess
from collections import defaultdict
from datetime import date
from types import SimpleNamespace

import pytest

from tools import last_changed as module
from tools.last_changed import committed, last_changed

FIRST, SECOND = date(2027, 1, 2), date(2027, 3, 4)


class Repository:
    """A repository with one book in it."""

    def __init__(self, top):
        self.top, self.book = top, top / "book"
        self.book.mkdir(parents=True)
        self.git("init", "--quiet")

    def git(self, *arguments, day=FIRST):
        command = ["git", "-c", "user.name=A", "-c", "user.email=a@b.c", *arguments]
        days = {"GIT_COMMITTER_DATE": f"{day}T12:00:00+00:00"}
        subprocess.run(command, cwd=self.top, check=True, env=os.environ | days)

    def write(self, name, text):
        (self.top / name).write_text(text, encoding="utf-8")

    def commit(self, day, **files):
        for name, text in files.items():
            self.write(f"book/{name}.md", text)
        self.git("add", ".")
        self.git("commit", "--quiet", "--message=A change", day=day)

    def dates(self, dependencies=None):
        pages = {path.stem for path in self.book.glob("*.md")}
        env = SimpleNamespace(
            srcdir=self.book,
            found_docs=pages,
            doc2path=lambda name: self.book / f"{name}.md",
            dependencies=defaultdict(set, dependencies or {}),
        )
        return last_changed(env)


@pytest.fixture
def repository(tmp_path):
    repository = Repository(tmp_path / "Bücher")
    repository.write("sources.bib", "1")
    repository.commit(FIRST, old="1", new="1", größe="1")
    return repository


def test_a_page_has_the_day_of_its_last_commit(repository):
    repository.commit(SECOND, new="2")
    assert repository.dates() == {"old": FIRST, "größe": FIRST, "new": SECOND}


def test_a_page_changes_with_what_it_is_made_from_but_not_with_another_page(repository):
    repository.write("sources.bib", "2")
    repository.commit(SECOND, new="2")
    made = {"old": {"../sources.bib"}, "größe": {"new.md", "made/of/nothing.svg"}}
    assert repository.dates(made) == {"old": SECOND, "größe": FIRST, "new": SECOND}
    repository.write("sources.bib", "3")
    assert repository.dates(made) == {"größe": FIRST, "new": SECOND}


@pytest.mark.parametrize("staged", [False, True])
def test_what_is_not_committed_has_no_day(repository, staged):
    repository.write("book/größe.md", "2")
    repository.write("book/untracked.md", "1")
    if staged:
        repository.git("add", ".")
    assert repository.dates() == {"old": FIRST, "new": FIRST}


def test_a_merge_is_a_change_where_it_settles_a_conflict(repository):
    repository.git("branch", "other")
    repository.commit(FIRST, new="2")
    repository.git("checkout", "--quiet", "other")
    repository.commit(FIRST, new="3", old="2")
    with pytest.raises(subprocess.CalledProcessError):
        repository.git("merge", "--quiet", "-")
    repository.commit(SECOND, new="4")
    assert repository.dates() == {"old": FIRST, "größe": FIRST, "new": SECOND}


def test_without_the_whole_history_nothing_has_a_day(repository, tmp_path):
    repository.commit(SECOND, new="2")
    address = repository.top.as_uri()
    repository.git("clone", "--quiet", "--depth=1", address, str(tmp_path / "clone"))
    assert committed(tmp_path / "clone" / "book") == {}


@pytest.mark.parametrize("path", ["", None])
def test_without_git_or_a_repository_nothing_has_a_day(tmp_path, monkeypatch, path):
    if path is not None:
        monkeypatch.setenv("PATH", path)
    said = []
    monkeypatch.setattr(module.LOGGER, "info", lambda text, reason: said.append(text % reason))
    assert committed(tmp_path) == {}
    [line] = said
    assert line.startswith("No page says when it last changed: ")
    assert "git" in line
    assert "\n" not in line
