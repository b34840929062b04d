"""The built site, served as GitHub Pages serves it: compressed, with its 404 page."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMPRESSED = {".css", ".html", ".js", ".json", ".svg", ".txt", ".md", ".ipynb"}


@cache
def compressed(path: Path, _modified: float) -> bytes:
    return gzip.compress(path.read_bytes(), compresslevel=6)


def body(path: Path) -> tuple[bytes, bool]:
    """What is sent for a file, and whether that is compressed; nothing if there is no such file."""
    if not path.is_file():
        return b"", False
    if path.suffix in COMPRESSED:
        return compressed(path, path.stat().st_mtime), True
    return path.read_bytes(), False


class PagesHandler(SimpleHTTPRequestHandler):
    """Answers GET with a compressed file of `directory`, or with its 404.html."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if path.is_dir():
            path /= "index.html"
        found = path.is_file()
        if not found:
            path = Path(self.directory) / "404.html"
        content, is_compressed = body(path)
        status = HTTPStatus.OK if found else HTTPStatus.NOT_FOUND
        self.send_response(status)
        self.send_header("Content-Type", self.guess_type(path))
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "max-age=600")
        if is_compressed:
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        self.wfile.write(content)

    def guess_type(self, path: str | Path) -> str:  # type: ignore[override]
        kind = super().guess_type(str(path))
        return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind

    def log_message(self, *_arguments: object) -> None:
        """A browser's requests are of no interest here."""


@contextmanager
def serve(site: Path) -> Iterator[str]:
    """The address of a server of this folder, as long as the block runs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(PagesHandler, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
