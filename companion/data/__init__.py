"""Data of the chapters and experiments: bundled sets, and image sets fetched on request."""

from companion.data.bundled import digits, photographs, table
from companion.data.images import cifar10, fashion_mnist, mnist
from companion.data.remote import DownloadError, folder
from companion.data.split import Split

__all__ = [
    "DownloadError",
    "Split",
    "cifar10",
    "digits",
    "fashion_mnist",
    "folder",
    "mnist",
    "photographs",
    "table",
]
