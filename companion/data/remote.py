"""Files fetched on request into one folder, and read from there only if their content is right.

A file counts as there only when it is whole and verified: until then it is ``NAME.part``, where the
next attempt goes on. The folder is the one that the environment variable ``COMPANION_DATA`` names,
or else the user's cache folder for this package. A file put there by hand is as good as a download.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

FOLDER_VARIABLE = "COMPANION_DATA"
TIMEOUT = 30.0  # seconds without a byte from a server
_GZIP_MAGIC = b"\x1f\x8b"


class DownloadError(RuntimeError):
    """A file is neither there nor to be had; the message says where to put it by hand.

    Examples
    --------
    >>> issubclass(DownloadError, RuntimeError)
    True
    """


@dataclass(frozen=True)
class RemoteFile:
    """A file of a data set, its addresses, and what it must contain."""

    path: str
    """Under the folder of all data."""
    mirrors: tuple[str, ...]
    """Addresses, tried in this order."""
    checksum: str
    """"ALGORITHM:HEXADECIMAL", as hashlib names algorithms."""
    of_content: bool
    """Whether the checksum is of the content that gzip packed, not of the packed file: two mirrors
    may have packed the same content differently."""


class _Failure(Exception):
    """Why one attempt failed, in words for a user."""


def folder() -> Path:
    """The folder that holds fetched data: ``COMPANION_DATA``, or the user's cache.

    Raises
    ------
    ModuleNotFoundError
        pooch, which knows the user's cache folder, is missing

    Examples
    --------
    >>> os.environ["COMPANION_DATA"] = "/data"
    >>> folder().as_posix()
    '/data'
    >>> del os.environ["COMPANION_DATA"]
    """
    chosen = os.environ.get(FOLDER_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    return Path(_pooch().os_cache("batchnorm-companion"))


def read(file: RemoteFile, *, download: bool = True, progress: bool = True) -> bytes:
    """The verified content of `file`, unpacked; fetches it if it is not there.

    Parameters
    ----------
    file
        which one
    download
        whether it may be fetched
    progress
        whether to draw a progress bar on stderr while it is

    Raises
    ------
    DownloadError
        the file is not there and could not be fetched, or what is there is not the file
    ModuleNotFoundError
        pooch, which downloads, is missing
    OSError
        the folder cannot be read or written
    """
    path = folder() / file.path
    if not path.exists():
        if not download:
            raise DownloadError(f"{path}: is not there, and downloads were not asked for")
        fetch(file, path, progress=progress)
    try:
        return _verified(file, path)
    except _Failure as failure:
        raise DownloadError(f"{path}: {failure}; delete it, and it is fetched again") from None


def fetch(file: RemoteFile, path: Path, *, progress: bool = True) -> None:
    """Download `file` from the first mirror that has it; `path` appears whole and verified.

    Raises
    ------
    DownloadError
        no mirror served; the message names each with its reason
    ModuleNotFoundError
        pooch is missing
    OSError
        the folder cannot be written
    """
    _pooch()
    from filelock import FileLock

    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    failures = []
    # Two programs that want the same file do not write into one another's.
    with FileLock(path.with_name(path.name + ".lock")):
        for url in file.mirrors:
            if path.exists():
                return
            try:
                _attempt(file, url, part, progress)
            except _Failure as failure:
                failures.append(f"  {url}: {failure}")
            else:
                os.replace(part, path)
                return
    reasons = "\n".join(failures)
    raise DownloadError(
        f"{path.name} could not be downloaded:\n{reasons}\n"
        f"Put the file by hand at {path}, or name a folder that holds {file.path} "
        f"in the environment variable {FOLDER_VARIABLE}."
    )


def _attempt(file: RemoteFile, url: str, part: Path, progress: bool) -> None:
    """Bring `part` to the whole file: from where it ends, and if that is wrong, from its start."""
    if part.exists():
        try:
            _transfer(url, part, progress)
            _verified(file, part)
        except _WrongContent:
            # The rest was of another file, or the server sends no rests.
            part.unlink()
        else:
            return
    _transfer(url, part, progress)
    try:
        _verified(file, part)
    except _WrongContent:
        part.unlink()
        raise


class _WrongContent(_Failure):
    """What came is not the file."""


def _transfer(url: str, part: Path, progress: bool) -> None:
    """Append to `part` what it lacks."""
    from requests import exceptions
    from urllib3.exceptions import ReadTimeoutError

    start = part.stat().st_size if part.exists() else 0
    options = {"headers": {"Range": f"bytes={start}-"}} if start else {}
    fetch_to = _pooch().HTTPDownloader(progressbar=progress, timeout=TIMEOUT, **options)
    try:
        with part.open("ab") as output:
            fetch_to(url, output, None)
    except exceptions.HTTPError as error:
        status = None if error.response is None else error.response.status_code
        if start and status == 416:  # nothing is left to send: it is whole, or another file
            return
        raise _Failure(f"the server answered with status {status}") from None
    except (exceptions.ChunkedEncodingError, exceptions.ContentDecodingError):
        raise _Failure(f"the connection broke off after {part.stat().st_size} bytes") from None
    except exceptions.RequestException as error:
        # While a body is read, a time-out comes as a broken connection that holds one.
        stalled = any(isinstance(cause, ReadTimeoutError) for cause in error.args)
        if stalled or isinstance(error, exceptions.Timeout):
            raise _Failure(f"no byte came for {TIMEOUT:g} s") from None
        if isinstance(error, exceptions.ConnectionError):
            raise _Failure("no connection") from None
        raise _Failure(str(error)) from None
    finally:
        if part.exists() and part.stat().st_size == 0:
            part.unlink()


def _verified(file: RemoteFile, path: Path) -> bytes:
    """The content of `path`, unpacked, if its checksum is right."""
    packed = path.read_bytes() if path.exists() else b""
    try:
        # Some servers unpack on the way.
        content = gzip.decompress(packed) if packed.startswith(_GZIP_MAGIC) else packed
    except (EOFError, OSError, zlib.error):
        raise _WrongContent("what came is not a whole gzip file") from None
    algorithm, _, expected = file.checksum.partition(":")
    checksum = hashlib.new(algorithm, content if file.of_content else packed).hexdigest()
    if checksum != expected:
        raise _WrongContent(
            f"its content is wrong: the {algorithm} checksum is {checksum}, expected {expected}"
        )
    return content


def _pooch() -> ModuleType:
    """pooch, imported only when something is fetched."""
    try:
        import pooch
        import tqdm  # noqa: F401  # which pooch draws its progress bar with
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error.name}, which fetches data sets, is missing: "
            "pip install 'batchnorm-companion[data]'",
            name=error.name,
        ) from None
    return pooch
