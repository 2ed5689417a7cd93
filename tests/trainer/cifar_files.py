"""Miniature CIFAR in the bytes that Python 2 wrote: the published files are its pickles of protocol 2."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np


def text(value: str) -> bytes:
    return b"U" + bytes([len(value)]) + value.encode("latin-1")


def number(value: int) -> bytes:
    return b"K" + bytes([value]) if value < 256 else b"J" + struct.pack("<i", value)


def items(values: list[bytes]) -> bytes:
    return b"](" + b"".join(values) + b"e"


def byte_rows(rows: np.ndarray) -> bytes:
    """numpy.core.multiarray._reconstruct(numpy.ndarray, (0,), 'b') with its state."""
    array = b"cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85U\x01b\x87Rq\x09(K\x01"
    dtype = b"cnumpy\ndtype\nq\x0aU\x02u1K\x00K\x01\x87Rq\x0b(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    content = b"T" + struct.pack("<i", rows.size) + rows.tobytes()
    return array + number(rows.shape[0]) + number(rows.shape[1]) + b"\x86" + dtype + b"\x89" + content + b"tb"


def pickled(**entries: bytes) -> bytes:
    return b"\x80\x02}q\x01(" + b"".join(text(name) + value for name, value in entries.items()) + b"u."


def write_batch(path: Path, images: np.ndarray, **labels: list[int]) -> None:
    """Images uint8 [n, 3, 32, 32] and labels under their names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lists = {name: items([number(label) for label in values]) for name, values in labels.items()}
    names = items([text(f"{i}.png") for i in range(len(images))])
    data = byte_rows(images.reshape(len(images), -1))
    path.write_bytes(pickled(batch_label=text("a batch"), **lists, data=data, filenames=names))


def write_cifar10(root: Path) -> tuple[np.ndarray, list[int]]:
    """Five training batches of 4 and a test batch of 3; returns the 23 images and labels."""
    images = np.random.default_rng(0).integers(0, 256, size=(23, 3, 32, 32), dtype=np.uint8)
    labels = [(3 * i) % 10 for i in range(23)]
    folder = root / "cifar-10-batches-py"
    for batch in range(5):
        rows = slice(4 * batch, 4 * batch + 4)
        write_batch(folder / f"data_batch_{batch + 1}", images[rows], labels=labels[rows])
    write_batch(folder / "test_batch", images[20:], labels=labels[20:])
    return images, labels


def write_cifar100(root: Path) -> tuple[np.ndarray, list[int]]:
    """12 training and 3 test images; returns the 15 images and fine labels."""
    images = np.random.default_rng(1).integers(0, 256, size=(15, 3, 32, 32), dtype=np.uint8)
    labels = [(17 * i) % 100 for i in range(15)]
    folder = root / "cifar-100-python"
    coarse = [label % 20 for label in labels]
    write_batch(folder / "train", images[:12], coarse_labels=coarse[:12], fine_labels=labels[:12])
    write_batch(folder / "test", images[12:], coarse_labels=coarse[12:], fine_labels=labels[12:])
    return images, labels
