"""MNIST, Fashion-MNIST and CIFAR-10 as tensors."""

from __future__ import annotations

import io
import tarfile

import numpy as np
import torch
from torch import Tensor

from .remote import RemoteFile, read
from .split import Split

_IDX_UINT8 = 8
_CIFAR_IMAGE = 3 * 32 * 32
_CIFAR_PARTS = tuple(f"data_batch_{number}.bin" for number in range(1, 6))


def _idx_files(
    name: str, mirrors: tuple[str, ...], checksums: dict[str, str], of_content: bool
) -> tuple[RemoteFile, ...]:
    """The four files of a set in MNIST's format."""
    return tuple(
        RemoteFile(
            path=f"{name}/{file}.gz",
            mirrors=tuple(f"{mirror}/{file}.gz" for mirror in mirrors),
            checksum=checksum,
            of_content=of_content,
        )
        for file, checksum in checksums.items()
    )


MNIST = _idx_files(
    "mnist",
    (
        "https://ossci-datasets.s3.amazonaws.com/mnist",
        "https://storage.googleapis.com/cvdf-datasets/mnist",
    ),
    {
        "train-images-idx3-ubyte": "sha256:"
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "sha256:"
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "sha256:"
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "sha256:"
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
    of_content=True,
)
# Only the packed files' checksums are published.
FASHION_MNIST = _idx_files(
    "fashion-mnist",
    (
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
    ),
    {
        "train-images-idx3-ubyte": "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte": "md5:25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte": "md5:bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte": "md5:bb300cfdad3c16e7a12a480ee83cd310",
    },
    of_content=False,
)
# The binary form: reading it executes no pickle.
CIFAR10 = RemoteFile(
    path="cifar10/cifar-10-binary.tar.gz",
    mirrors=(
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        "https://cave.cs.toronto.edu/kriz/cifar-10-binary.tar.gz",
    ),
    checksum="md5:c32a1d4ab5d03f1284b67883e8d87530",
    of_content=False,
)


def mnist(
    dtype: torch.dtype = torch.float32, *, download: bool = True, progress: bool = True
) -> Split:
    """The 28×28 handwritten digits, 60,000 to train with and 10,000 to test, pixels from 0 to 1.

    Parameters
    ----------
    dtype
        of the images, ``(m, 1, 28, 28)``
    download
        whether the files, 11 MB, may be fetched if they are not in :func:`folder`
    progress
        whether to draw a progress bar on stderr while they are

    Raises
    ------
    DownloadError
        a file is neither there nor to be had; the message says where to put it
    ModuleNotFoundError
        pooch, which downloads, is missing

    References
    ----------
    LeCun, Bottou, Bengio & Haffner (1998), "Gradient-based learning applied to document
    recognition".

    Examples
    --------
    >>> from companion import data
    >>> try:
    ...     shape = tuple(mnist(download=False).x_train.shape)
    ... except data.DownloadError:  # with downloads, it would be fetched now
    ...     shape = (60000, 1, 28, 28)
    >>> shape
    (60000, 1, 28, 28)
    """
    return _idx_split(MNIST, dtype, download, progress)


def fashion_mnist(
    dtype: torch.dtype = torch.float32, *, download: bool = True, progress: bool = True
) -> Split:
    """28×28 pictures of clothes in ten classes, in sizes and format as :func:`mnist`; 31 MB.

    Parameters
    ----------
    dtype
        of the images, ``(m, 1, 28, 28)``
    download
        whether the files, 31 MB, may be fetched if they are not in :func:`folder`
    progress
        whether to draw a progress bar on stderr while they are

    References
    ----------
    Xiao, Rasul & Vollgraf (2017), arXiv:1708.07747.

    Examples
    --------
    >>> from companion import data
    >>> try:
    ...     shape = tuple(fashion_mnist(download=False).x_train.shape)
    ... except data.DownloadError:  # with downloads, it would be fetched now
    ...     shape = (60000, 1, 28, 28)
    >>> shape
    (60000, 1, 28, 28)
    """
    return _idx_split(FASHION_MNIST, dtype, download, progress)


def cifar10(
    dtype: torch.dtype = torch.float32, *, download: bool = True, progress: bool = True
) -> Split:
    """32×32 colour pictures in ten classes, 50,000 to train with and 10,000 to test; 170 MB.

    Errors as :func:`mnist`.

    Parameters
    ----------
    dtype
        of the images, ``(m, 3, 32, 32)``
    download
        whether the file, 170 MB, may be fetched if it is not in :func:`folder`
    progress
        whether to draw a progress bar on stderr while it is

    References
    ----------
    Krizhevsky (2009), "Learning multiple layers of features from tiny images".

    Examples
    --------
    >>> from companion import data
    >>> try:
    ...     shape = tuple(cifar10(download=False).x_train.shape)
    ... except data.DownloadError:  # with downloads, it would be fetched now
    ...     shape = (50000, 3, 32, 32)
    >>> shape
    (50000, 3, 32, 32)
    """
    content = read(CIFAR10, download=download, progress=progress)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        members = {name.rpartition("/")[2]: name for name in archive.getnames()}

        def part(name: str) -> bytes:
            member = archive.extractfile(members[name])
            assert member is not None  # the checksum was right
            return member.read()

        train = cifar_records(b"".join(part(name) for name in _CIFAR_PARTS), dtype)
        test = cifar_records(part("test_batch.bin"), dtype)
    return Split(*train, *test)


def cifar_records(content: bytes, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Images and classes from records of a class and 3·32·32 bytes, as CIFAR-10's files have."""
    records = np.frombuffer(content, np.uint8).reshape(-1, 1 + _CIFAR_IMAGE)
    pixels = records[:, 1:].reshape(-1, 3, 32, 32)
    return _pixels(pixels, dtype), torch.from_numpy(records[:, 0].astype(np.int64))


def idx(content: bytes) -> np.ndarray:
    """The array in a file of MNIST's format: two zeros, type, rank, big-endian sizes, values.

    Raises
    ------
    ValueError
        the bytes are no such file of unsigned bytes
    """
    rank = content[3] if len(content) > 3 else 0
    start = 4 + 4 * rank
    if content[:3] != bytes((0, 0, _IDX_UINT8)) or len(content) < start:
        raise ValueError(f"content: expected an IDX file of bytes, got {content[:4]!r}")
    shape = np.frombuffer(content[4:start], ">u4")
    return np.frombuffer(content[start:], np.uint8).reshape(shape)


def _idx_split(
    files: tuple[RemoteFile, ...], dtype: torch.dtype, download: bool, progress: bool
) -> Split:
    x_train, y_train, x_test, y_test = (
        idx(read(file, download=download, progress=progress)) for file in files
    )
    return Split(
        _pixels(x_train[:, None], dtype),
        torch.from_numpy(y_train.astype(np.int64)),
        _pixels(x_test[:, None], dtype),
        torch.from_numpy(y_test.astype(np.int64)),
    )


def _pixels(values: np.ndarray, dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(values.copy()).to(dtype) / 255.0
