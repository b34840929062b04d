"""Execute chapters several at a time, and cache what they print under all that it depends on.

myst-nb's cache knows the text of the cells. A chapter's numbers also depend on the companion
package and on the versions the lock pins, so the cache gets one folder per state of those: a change
in `companion/` re-executes every chapter. Because the path is a setting of the environment, Sphinx
reads every page again when it changes.

myst-nb also executes one page after the other. So the cache is filled before the first is read, and
a chapter that fails ends the build. jupyter-cache's parallel executor does not serve: it does not
say at which cell a kernel died, and after Ctrl-C it waits for ever.
"""

import asyncio
import hashlib
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn, JupyterCacheAbstract
from myst_nb.core.read import is_myst_markdown_notebook, myst_nb_reader_plugin
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError
from nbformat import NotebookNode
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment
from sphinx.errors import ExtensionError
from sphinx.util import logging

ROOT = Path(__file__).parents[1]
logger = logging.getLogger(__name__)


class ChapterError(Exception):
    """Where a chapter failed, and why, in one line."""


class Chapter:
    """A page with cells, and the kernel that executes them."""

    def __init__(self, path: Path, notebook: NotebookNode, timeout: int) -> None:
        self.path = path
        self.cell = 0
        self.stopped = False
        # Times would be part of what the cache knows a notebook by.
        self.client = NotebookClient(
            notebook, timeout=timeout, record_timing=False, on_cell_start=self._start_cell
        )

    def _start_cell(self, cell_index: int, **_: Any) -> None:
        self.cell = cell_index
        if self.stopped:
            raise RuntimeError("stopped")

    def execute(self) -> CacheBundleIn:
        """Execute all cells. Not in the main thread, where nbclient would intercept Ctrl-C.

        Raises
        ------
        ChapterError
            A cell failed or took too long, or the kernel died.
        """
        logger.info("executing %s", self.path)
        start = time.monotonic()
        try:
            notebook = self.client.execute(cwd=str(self.path.parent))
        except (CellExecutionError, CellTimeoutError, RuntimeError) as error:
            raise ChapterError(self._failure(error)) from error
        data = {"execution_seconds": time.monotonic() - start}
        return CacheBundleIn(notebook, str(self.path), data=data)

    def _failure(self, error: Exception) -> str:
        [what, *_] = str(error).splitlines()
        if isinstance(error, CellExecutionError):
            [what, *_] = f"{error.ename}: {error.evalue}".splitlines()
        notebook = self.client.nb
        line = notebook.metadata["source_map"][self.cell]
        [first, *_] = notebook.cells[self.cell].source.strip().splitlines()
        return f"{self.path}:{line}: in the cell `{first}`: {what}"

    def stop(self) -> None:
        """End `execute`, by killing the kernel if one is there."""
        self.stopped = True
        if self.client.km and self.client.km.provisioner:
            asyncio.run(self.client.km.provisioner.kill())


def source_digest() -> str:
    """Digest of the package's source, of the recorded results, and of the lock."""
    digest = hashlib.sha256()
    kinds = [".py", ".js", ".css"]
    sources = sorted(path for path in (ROOT / "companion").rglob("*.*") if path.suffix in kinds)
    results = sorted((ROOT / "book" / "results").glob("*.json"))
    for path in [*sources, *results, ROOT / "requirements.lock"]:
        digest.update(path.relative_to(ROOT).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def choose_cache(_app: Sphinx, config: Config) -> None:
    """The same for all that is built of the book, wherever it is written."""
    caches = ROOT / "_build" / ".execution_cache"
    current = caches / source_digest()
    for stale in set(caches.glob("*")) - {current}:
        shutil.rmtree(stale)
    config.nb_execution_cache_path = str(current)


def is_cached(cache: JupyterCacheAbstract, notebook: NotebookNode) -> bool:
    try:
        record = cache.match_cache_notebook(notebook)
    except KeyError:
        return False
    try:
        cache.get_cache_bundle(record.pk)
    except (KeyError, ValueError):  # a build that was cut off left half of it, or nothing
        shutil.rmtree(Path(cache.path, "executed", record.hashkey), ignore_errors=True)
        return False
    return True


def fill_cache(app: Sphinx, env: BuildEnvironment, docnames: list[str]) -> None:
    cache = get_cache(app.config.nb_execution_cache_path)
    if not cache.get_version():  # what is written last when one is made
        cache.clear_cache()
    paths = [Path(env.doc2path(name)) for name in docnames]
    # The longest first, so that none of them is alone at the end.
    paths.sort(key=lambda path: path.stat().st_size, reverse=True)
    chapters = []
    for path in paths:
        if is_myst_markdown_notebook(path.read_text("utf-8")):
            notebook = myst_nb_reader_plugin(str(path))
            if not is_cached(cache, notebook):
                chapters.append(Chapter(path, notebook, app.config.nb_execution_timeout))

    failures = []
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        for execution in as_completed([pool.submit(chapter.execute) for chapter in chapters]):
            try:
                executed = execution.result()
            except ChapterError as error:
                logger.error("%s", error.__cause__)
                failures.append(str(error))
            else:
                cache.cache_notebook_bundle(executed, check_validity=False, overwrite=True)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for chapter in chapters:
            chapter.stop()
    if failures:
        raise ExtensionError("\n".join(failures))


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", choose_cache)
    app.connect("env-before-read-docs", fill_cache)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
