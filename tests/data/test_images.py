"""The formats of MNIST and CIFAR-10, from files laid into the folder by hand."""

import dataclasses
import gzip
import hashlib
import io
import struct
import tarfile

import numpy as np
import pytest
import torch

from companion import data
from companion.data import images

RNG = np.random.default_rng(0)


def idx_bytes(values):
    sizes = struct.pack(f">{values.ndim}I", *values.shape)
    return bytes((0, 0, 8, values.ndim)) + sizes + values.tobytes()


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Lay packed bytes where a file belongs, and say that they are right."""
    monkeypatch.setenv("COMPANION_DATA", str(tmp_path))

    def placed(file, packed):
        path = tmp_path / file.path
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(packed)
        checksum = "sha256:" + hashlib.sha256(packed).hexdigest()
        return dataclasses.replace(file, checksum=checksum, of_content=False)

    return placed


@pytest.mark.parametrize(
    ("name", "load"), [("MNIST", data.mnist), ("FASHION_MNIST", data.fashion_mnist)]
)
def test_idx_files_become_a_split(place, monkeypatch, name, load):
    arrays = [
        RNG.integers(0, 256, (7, 28, 28), dtype=np.uint8),
        RNG.integers(0, 10, 7, dtype=np.uint8),
        RNG.integers(0, 256, (3, 28, 28), dtype=np.uint8),
        RNG.integers(0, 10, 3, dtype=np.uint8),
    ]
    files = [
        place(file, gzip.compress(idx_bytes(values)))
        for file, values in zip(getattr(images, name), arrays, strict=True)
    ]
    monkeypatch.setattr(images, name, tuple(files))
    split = load(torch.float64, download=False)
    assert split.x_train.shape == (7, 1, 28, 28)
    assert split.x_train.dtype == torch.float64
    assert np.array_equal(split.x_train[:, 0].numpy() * 255, arrays[0])
    assert np.array_equal(split.x_test[:, 0].numpy() * 255, arrays[2])
    assert split.y_train.tolist() == arrays[1].tolist()
    assert split.y_test.tolist() == arrays[3].tolist()
    assert split.y_test.dtype == torch.int64


def test_cifar_records_become_a_split(place, monkeypatch):
    pixels = RNG.integers(0, 256, (6, 3, 32, 32), dtype=np.uint8)
    classes = RNG.integers(0, 10, 6, dtype=np.uint8)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        names = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]
        for index, name in enumerate(names):
            record = bytes([classes[index]]) + pixels[index].tobytes()
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(record)
            archive.addfile(member, io.BytesIO(record))
    monkeypatch.setattr(images, "CIFAR10", place(images.CIFAR10, packed.getvalue()))
    split = data.cifar10(torch.float64, download=False)
    assert split.y_train.tolist() == classes[:5].tolist()
    assert split.y_test.tolist() == classes[5:].tolist()
    assert np.array_equal(split.x_train.numpy() * 255, pixels[:5])
    assert np.array_equal(split.x_test.numpy() * 255, pixels[5:])


def test_what_is_no_idx_file_is_refused():
    with pytest.raises(ValueError, match="content: expected an IDX file of bytes, got b'noth'"):
        images.idx(b"nothing of the kind")


def test_every_file_has_two_mirrors_and_a_checksum_of_its_algorithms_length():
    for file in (*images.MNIST, *images.FASHION_MNIST, images.CIFAR10):
        algorithm, _, digits = file.checksum.partition(":")
        assert len(digits) == 2 * hashlib.new(algorithm).digest_size
        assert len(set(file.mirrors)) == 2
