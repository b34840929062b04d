"""Execute chapters several at a time, and cache what they print under all that it depends on.

myst-nb's cache knows the text of the cells. A chapter's numbers also depend on the companion
package and on the versions the lock pins, so the cache gets one folder per state of those: a change
in `companion/` re-executes every chapter. Because the path is a setting of the environment, Sphinx
reads every page again when it changes.

myst-nb also executes one page after the other. So the cache is filled before the first is read. A
chapter that fails is not in it then, and fails again, with myst-nb's report, when it is read.
"""

import hashlib
import shutil
from logging import INFO, Logger
from pathlib import Path

from jupyter_cache import get_cache
from jupyter_cache.executors import load_executor
from myst_nb.core.read import is_myst_markdown_notebook
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment

ROOT = Path(__file__).parents[1]


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


def choose_cache(app: Sphinx, config: Config) -> None:
    caches = Path(app.outdir).parent / ".execution_cache"
    current = caches / source_digest()
    for stale in set(caches.glob("*")) - {current}:
        shutil.rmtree(stale)
    config.nb_execution_cache_path = str(current)


def fill_cache(app: Sphinx, env: BuildEnvironment, docnames: list[str]) -> None:
    cache = get_cache(app.config.nb_execution_cache_path)
    texts = [Path(env.doc2path(name)) for name in docnames]
    # The longest first, so that none of them is alone at the end.
    texts.sort(key=lambda text: text.stat().st_size, reverse=True)
    notebooks = [str(text) for text in texts if is_myst_markdown_notebook(text.read_text("utf-8"))]
    for notebook in notebooks:
        cache.add_nb_to_project(notebook, read_data={"type": "plugin", "name": "myst_nb_md"})
    executor = load_executor("local-parallel", cache, Logger("", INFO))  # which says what it does
    executor.run_and_cache(filter_uris=notebooks, timeout=app.config.nb_execution_timeout)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", choose_cache)
    app.connect("env-before-read-docs", fill_cache)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
