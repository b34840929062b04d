"""The glossary, against the words that the pages use."""

import re
from functools import cache

import pytest
import snowballstemmer
from spellchecker import SpellChecker

from tools.contents import BOOK, parts
from tools.glossary_links import QUALIFIED, Term, Vocabulary
from tools.plain_markdown import bibliography

# Rarer than this in the English of subtitles, from which pyspellchecker has its words, is a word
# that a reader may ask for.
COMMON = 200
ENGLISH = SpellChecker().word_frequency.dictionary
STEMMER = snowballstemmer.stemmer("english")
ENTRIES = (BOOK / "glossary.md").read_text(encoding="utf-8")
TERMS = re.findall(
    r"^([^\s:`].*)$", re.search(r"^```\{glossary\}\n(.*?)^```", ENTRIES, re.M | re.S)[1], re.M
)
PAGES = ["intro", *(name for names in parts().values() for name in names)]
FENCE = re.compile(r"(?P<fence>`{3,}|:{3,})(?:\{(?P<box>[\w:-]+)\}(?P<title>.*)|\w*)")
CODE = {None, "code-cell", "eval-rst", "chapters"}
# Displayed formulas, comments, names of places, options, roles, code, and where links lead.
NO_PROSE = re.compile(
    r"\$\$.*?\$\$(?: \([\w-]+\))?|<!--.*?-->|^\([\w-]+\)=$|^:\w+:[^\n]*$|\{[\w:]+\}`[^`]*`|`[^`]*`"
    r"|\]\([^)\s]*\)",
    re.M | re.S,
)
FORMULA = re.compile(r"\$[^$]*\$")
ITALICS = re.compile(r"(?<![*\w])\*(?P<said>[^\W\d_][^*\n$.,:?!]*)\*(?![*\w])")
WORD = re.compile(r"[a-zA-ZÀ-ÿ]{2,}")


@cache
def stem(word):
    """What a word has in common with its plural, and with others of its family."""
    return STEMMER.stemWord(re.sub(r"(?<=[A-Z])s$", "", word).lower())


def everyday(word):
    """Whether English has it often enough, or what it is the plural, or the third person, of."""
    small = word.lower()
    forms = (small, small.removesuffix("s"), small.removesuffix("es"))
    return max(ENGLISH.get(form, 0) for form in forms) >= COMMON


def vocabulary(text):
    """The groups of words without an entry, each of which begins with its reason."""
    groups = [group.split("\n") for group in text.strip().split("\n\n")]
    assert all(reason.startswith("# ") for reason, *_ in groups), "a group without a reason"
    return [words for _, *words in groups]


LISTED = [
    word.lower()
    for group in vocabulary((BOOK / "_vocabulary.txt").read_text(encoding="utf-8"))
    for word in group
]


@cache
def terms():
    words = [match["word"] if (match := QUALIFIED.fullmatch(term)) else term for term in TERMS]
    return Vocabulary([Term(word, 0) for word in words]).pattern


def entry(phrase):
    """Whether a phrase, or its singular, is a term."""
    return bool(terms().fullmatch(phrase))


@cache
def explained():
    """Stems of the words of terms and of the names of authors."""
    names = [
        name
        for source in bibliography().values()
        for person in source.persons["author"]
        for name in person.last_names
    ]
    return {stem(word) for text in [*TERMS, *names] for word in WORD.findall(text)}


def prose(markdown):
    """The text, and the titles of boxes, without code and displayed formulas."""
    lines, open_fences, code = [], [], ""
    for line in re.sub(r"\A---\n.*?\n---\n", "", markdown, flags=re.S).splitlines():
        fence = FENCE.fullmatch(line.strip())
        if code:
            code = "" if line.strip() == code else code
        elif fence and open_fences and line.strip() == open_fences[-1]:
            open_fences.pop()
        elif fence and fence["box"] in CODE:
            code = fence["fence"]
        elif fence:
            open_fences.append(fence["fence"])
            lines.append("" if "solution" in (fence["box"] or "") else fence["title"])
        else:
            lines.append(line)
    return NO_PROSE.sub(" ", "\n".join(lines))


def words(markdown):
    """The words of the text, and the parts of those with hyphens."""
    return set(WORD.findall(FORMULA.sub(" ", prose(markdown))))


def stressed(markdown):
    """What stands in italics, but for sentences, and titles of what follows."""
    return {match["said"] for match in ITALICS.finditer(prose(markdown))}


def unlisted(found):
    return {each for each in found if each.lower() not in LISTED}


def unexplained(markdown):
    """Words that are not everyday English, nor part of a term, a name, or the vocabulary."""
    rare = {word for word in words(markdown) if not everyday(word)}
    return unlisted(word for word in rare if stem(word) not in explained())


def undefined(markdown):
    """Phrases in italics, as where a term is defined, that are none, nor in the vocabulary."""
    short = {said for said in stressed(markdown) if len(said.split()) <= 4}
    return unlisted(said for said in short if not entry(said))


def page(name):
    return (BOOK / f"{name}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PAGES)
def test_a_term_that_a_page_defines_has_an_entry(name):
    assert not undefined(page(name)), "in italics: book/glossary.md, or book/_vocabulary.txt"


@pytest.mark.parametrize("name", PAGES)
def test_a_word_that_is_not_everyday_english_has_an_entry(name):
    assert not unexplained(page(name)), "book/glossary.md, or book/_vocabulary.txt with a reason"


def test_the_vocabulary_has_what_needs_it_and_once():
    text = "\n".join(page(name) for name in PAGES)
    rare = {word for word in words(text) if not everyday(word) and stem(word) not in explained()}
    needed = rare | {said for said in stressed(text) if not entry(said)}
    assert sorted(set(LISTED)) == sorted(LISTED), "twice"
    assert not set(LISTED) - {each.lower() for each in needed}, "no need for it"


def test_faults_are_found():
    assert undefined("The *Fisher matrix* is *not* that *mini-batch*; *it says: no*.") == {
        "Fisher matrix"
    }
    assert unexplained("A preconditioner, `unexplained`, of the eigenvalues $foo$.") == {
        "preconditioner"
    }
    with pytest.raises(AssertionError, match="reason"):
        vocabulary("# Stress\nnot\n\nwhitening")
