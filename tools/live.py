"""Serve the built book with a kernel of this machine, so that its cells run in the page.

This is Jupyter's server without its interface: pages and kernels have one address, which only this
machine can reach and only with the token that it is printed with.

usage: python -m tools.live
"""

import argparse
import secrets
import signal
import sys
from pathlib import Path

from jupyter_server.base.handlers import FileFindHandler
from jupyter_server.serverapp import ServerApp
from tornado import web
from traitlets.config import Config

from tools.downloads import LIVE

ROOT = Path(__file__).parents[1]
SITE = ROOT / "_build" / "html"
FIRST = "book/intro.html"  # seen from the server
# Seconds after which a kernel ends that has nothing to do and whose page was left.
UNUSED = 300


class Page(FileFindHandler):
    """A file of the book, for whoever has the token."""

    @web.authenticated
    async def get(self, path: str, include_body: bool = True) -> None:  # type: ignore[override]
        self.set_header("Server-Timing", "kernel")  # what run.js looks for
        assert self.xsrf_token  # to read it sets a cookie, which requests to the kernel repeat
        await super().get(path, include_body)


def settings(*, browser: bool, everywhere: bool) -> Config:
    config = Config()
    config.Application.log_level = "ERROR"
    config.IdentityProvider.token = secrets.token_hex(24)
    config.KernelManager.transport_encryption = "auto"
    config.MappingKernelManager.cull_idle_timeout = UNUSED
    config.MappingKernelManager.cull_interval = UNUSED // 5
    config.ServerApp.ip = "0.0.0.0" if everywhere else "127.0.0.1"
    config.ServerApp.root_dir = str(ROOT)
    config.ServerApp.default_url = f"/{FIRST}"
    config.ServerApp.open_browser = browser
    config.ServerApp.terminals_enabled = False
    config.ServerApp.allow_root = True  # in a container
    return config


def announce(server: ServerApp) -> None:
    token = server.identity_provider.token
    print(f"The book, with a kernel: http://127.0.0.1:{server.port}/{FIRST}?token={token}")
    print("Ctrl-C ends both.", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.live",
        description="Serve the built book with a kernel of this machine, until Ctrl-C.",
    )
    parser.add_argument("--no-browser", action="store_true", help="only print the address")
    parser.add_argument(
        "--all-interfaces",
        action="store_true",
        help="answer other machines too; inside a container, whose engine decides who reaches it",
    )
    asked = parser.parse_args()
    if not (SITE / LIVE).is_dir():
        print(
            "The book is not built, or without thebe, which runs cells: "
            "python -m tools.thebe && python -m tools.build_book",
            file=sys.stderr,
        )
        return 1
    server = ServerApp(
        config=settings(browser=not asked.no_browser, everywhere=asked.all_interfaces)
    )
    server.initialize([], find_extensions=False)
    server.web_app.add_handlers(".*", [(r"/book/(.*)", Page, {"path": str(SITE)})])
    signal.signal(signal.SIGINT, lambda *_: server.stop(from_signal=True))  # without a question
    server.io_loop.add_callback(announce, server)  # once it has a port
    server.start()
    return 0


if __name__ == "__main__":
    sys.exit(main())
