"""No address that the book has published may die."""

import re
from functools import cache

import pytest

from tools.addresses import listed, published
from tools.plain_markdown import targets, titles

REDIRECTING = (
    '<html><head><script>var target = "{}";if (window.location.hash) '
    "{{window.location.replace(target + window.location.hash);}}</script></head></html>"
)
ANCHOR = re.compile(r"""<[a-z][^>]*\bid=(["'])(?P<anchor>.+?)\1""")
REDIRECT = re.compile(r'var target = "(?P<target>[^"]+)";if \(window\.location\.hash\)')


@cache
def anchors_or_target(path):
    """The anchors of a page, and where it redirects to. A page has many addresses: read it once."""
    text = path.read_text(encoding="utf-8")
    redirect = REDIRECT.search(text)
    if redirect:
        return set(), redirect["target"]
    return {match["anchor"] for match in ANCHOR.finditer(text)}, None


def fault(address, site):
    """Why `address` leads nowhere in the site; None where it leads to something."""
    name, _, anchor = address.partition("#")
    seen = {name}
    while True:
        if not (site / name).exists():
            return f"{address}: there is no page {name}"
        anchors, target = anchors_or_target(site / name)
        if target is None:
            break
        name, _, own_anchor = target.partition("#")
        anchor = anchor or own_anchor
        if name in seen:
            return f"{address}: the redirects lead back to {name}"
        seen.add(name)
    if anchor and anchor not in anchors:
        return f"{address}: {name} has no anchor {anchor}"
    return None


def test_every_address_ever_published_resolves(site):
    faults = [reason for address in listed() if (reason := fault(address, site))]
    advice = "redirect the page in _config.yml, or keep the anchor: see CONTRIBUTING.md\n"
    assert not faults, advice + "\n".join(faults)


def test_every_page_and_label_is_listed(site):
    known = set(listed())
    anchors = {target.address for target in targets().values()}
    missing = ({f"{name}.html" for name in titles()} | anchors) - known
    assert not missing, f"run `make addresses`; not in book/addresses.txt: {sorted(missing)}"
    assert anchors <= set(published(site)), "a label without a link to itself"
    assert len(known) == len(listed()), "an address is listed twice"


@pytest.fixture
def moved(tmp_path):
    """A site with a page that was renamed twice, and one whose redirects go round."""
    (tmp_path / "new.html").write_text("<article><h2 id='kept'>Heading</h2></article>")
    for name, target in {
        "old": "newer.html",
        "newer": "new.html",
        "part": "new.html#kept",
        "a": "b.html",
        "b": "a.html",
        "lost": "gone.html",
    }.items():
        (tmp_path / f"{name}.html").write_text(REDIRECTING.format(target))
    return tmp_path


@pytest.mark.parametrize(
    "address",
    ["new.html", "new.html#kept", "old.html", "old.html#kept", "part.html", "part.html#kept"],
)
def test_a_redirect_is_followed(moved, address):
    assert fault(address, moved) is None


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("gone.html", "there is no page gone.html"),
        ("lost.html", "there is no page gone.html"),
        ("new.html#gone", "new.html has no anchor gone"),
        ("old.html#gone", "new.html has no anchor gone"),
        ("a.html", "the redirects lead back to a.html"),
    ],
)
def test_what_leads_nowhere_is_named(moved, address, reason):
    assert fault(address, moved) == f"{address}: {reason}"
