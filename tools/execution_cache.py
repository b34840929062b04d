"""Key the execution cache on everything a cell's output depends on, not on the cell alone.

myst-nb's cache knows the text of the cells. A chapter's numbers also depend on the companion
package and on the versions the lock pins, so the cache gets one folder per state of those: a change
in `companion/` re-executes every chapter. Because the path is a setting of the environment, Sphinx
reads every page again when it changes.
"""

import hashlib
import shutil
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config

ROOT = Path(__file__).parents[1]


def source_digest() -> str:
    """Digest of the package's source, of the recorded results, and of the lock."""
    digest = hashlib.sha256()
    scripts = (ROOT / "companion" / "explore" / "js").rglob("*.*")
    sources = sorted([*(ROOT / "companion").rglob("*.py"), *scripts])
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


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", choose_cache)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
