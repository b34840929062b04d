"""Sphinx's markup, mended."""

from types import SimpleNamespace

from tools.valid_markup import mend

SIGNATURE = """<dt class="sig">f(
<dl>
<dd><em class="sig-param">a</em>,</dd>
<dd><em class="sig-param">b</em>,</dd>
</dl>
)</dt>"""


def mended(body):
    context = {"body": body}
    mend(SimpleNamespace(), "api", "page.html", context, None)
    return context["body"]


def test_the_arguments_of_a_signature_are_no_list_of_definitions():
    assert (
        mended(SIGNATURE)
        == """<dt class="sig">f(
<span class="sig-arguments">
<span><em class="sig-param">a</em>,</span>
<span><em class="sig-param">b</em>,</span>
</span>
)</dt>"""
    )


def test_a_list_of_definitions_stays_one():
    body = "<dl>\n<dt>term</dt>\n<dd>definition</dd>\n</dl>"
    assert mended(body) == body


def test_a_source_is_an_item_of_the_list_of_sources():
    assert mended('<div id="id1" role="doc-biblioentry">') == '<div id="id1" role="listitem">'


def test_a_page_without_a_body_is_left_alone():
    context = {}
    mend(SimpleNamespace(), "search", "search.html", context, None)
    assert context == {}
