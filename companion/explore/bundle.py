"""Turn the ES modules of ``js/`` into classic scripts.

A browser loads no ES module from a ``file:`` address, and a notebook's output has no address to
load one from. So each module becomes a function that returns its exports, called once, after those
it imports. The modules keep to the few forms of import and export that are read here; another form
is an error. A page that holds several figures defines what they share once.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from functools import cache
from importlib.resources import files

SOURCES = files("companion.explore") / "js"

_IMPORT = re.compile(
    r'^import (?:\{(?P<names>[^}]*)\}|(?P<default>\w+)) from "(?P<path>\.[^"]+)";$', re.MULTILINE
)
_EXPORT = re.compile(r"^export (?=(?:class|const|function) (?P<name>\w+))", re.MULTILINE)
_EXPORT_LIST = re.compile(r"export\{(?P<names>[^}]*)\};?\s*$")
_LEFT_OVER = re.compile(r"^\s*(?:import|export)\b.*$", re.MULTILINE)

_START = "start.js"
_OPENING = """\
(() => {{
const modules = ((globalThis.bnExplore ??= {{}})["{version}"] ??= {{}});
const define = (name, make) => (modules[name] ??= make());
"""
_CLOSING = "})();\n"


def _read(name: str) -> str:
    return SOURCES.joinpath(*name.split("/")).read_text(encoding="utf-8")


def _imported(name: str, path: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), path))


def _needed(name: str) -> list[str]:
    """The modules that `name` needs, itself last, each after those it imports."""
    needed: list[str] = []
    if name.endswith(".js"):
        for match in _IMPORT.finditer(_read(name)):
            needed += [
                each for each in _needed(_imported(name, match["path"])) if each not in needed
            ]
    return [*needed, name]


def _defined(name: str) -> str:
    """The script that defines one module."""
    if name.endswith(".css"):
        return f'define("{name}", () => ({{ css: {json.dumps(_read(name))} }}));\n'

    def import_of(match: re.Match[str]) -> str:
        names = match["names"] or f"css: {match['default']}"
        return f'const {{{names}}} = modules["{_imported(name, match["path"])}"];'

    body = _IMPORT.sub(import_of, _read(name))
    exported = [match["name"] for match in _EXPORT.finditer(body)]
    body = _EXPORT.sub("", body)
    if listed := _EXPORT_LIST.search(body):
        pairs = [each.split(" as ") for each in listed["names"].split(",")]
        exported += [f"{public}: {local}" for local, public in pairs]
        body = body[: listed.start()]
    if left_over := _LEFT_OVER.search(body):
        raise ValueError(f"{name}: this form of import or export is not known: {left_over[0]}")
    return f'define("{name}", () => {{\n{body}\nreturn {{ {", ".join(exported)} }};\n}});\n'


@cache
def version() -> str:
    """Digest of the modules: pages and notebooks made by another version are left alone."""
    digest = hashlib.sha256()
    folders = [SOURCES, SOURCES / "figures", SOURCES / "vendor"]
    for folder in folders:
        for source in sorted(folder.iterdir(), key=lambda each: each.name):
            if source.is_file():
                digest.update(source.read_bytes())
    return digest.hexdigest()[:12]


def _script(parts: list[str]) -> str:
    return _OPENING.format(version=version()) + "".join(parts) + _CLOSING


@cache
def core() -> str:
    """The script that all figures share: D3, batch normalization, controls and drawings."""
    return _script([_defined(name) for name in [*_needed("bn.js"), *_needed(_START)]])


@cache
def figure(name: str) -> str:
    """The script of one figure; it runs after :func:`core`, and starts the figures of that name."""
    module = f"figures/{name}.js"
    shared = {*_needed("bn.js"), *_needed(_START)}
    parts = [_defined(each) for each in _needed(module) if each not in shared]
    start = f'modules["{_START}"].start("{name}", modules["{module}"].figure);\n'
    return _script([*parts, start])


def loader() -> str:
    """The script that loads the others from the folder it lies in, when a figure comes near."""
    return _read("loader.js").replace("VERSION", version(), 1)
