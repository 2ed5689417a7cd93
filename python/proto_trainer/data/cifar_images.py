"""The images of CIFAR-10 and CIFAR-100: from the published batch files, or from Parquet files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from ..errors import ConfigError
from .decoding import decode_rgb, reason_of, report_skipped
from .inert_pickle import byte_array, read_inert
from .lists import need_files

SIDE = 32


@dataclass(frozen=True)
class CifarFiles:
    """The names that torchvision's layout has for one of the two data sets."""

    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    labels_key: str


@dataclass
class CifarPart:
    """A training or test set as read.

    Attributes
    ----------
    images : Tensor, uint8 [N, 3, 32, 32]
    columns : dict of str to ndarray, int64 [N]
        Label sets by name, ``clean_label`` among them.
    paths : list of str or None
        File and row of each image, for Parquet files.
    skipped : tuple of (str, str)
    """

    images: Tensor
    columns: dict[str, np.ndarray]
    paths: list[str] | None = None
    skipped: tuple[tuple[str, str], ...] = ()


def read_batches(folder: Path, names: tuple[str, ...], labels_key: str) -> CifarPart:
    """The images of some of the published batch files, which are pickles and are read without unpickling."""
    need_files(folder, names, what="CIFAR")
    images: list[np.ndarray] = []
    labels: list[int] = []
    for name in names:
        content = read_inert(folder / name)
        try:
            rows = byte_array(content["data"]).reshape(-1, 3, SIDE, SIDE)
            batch_labels = [int(label) for label in content[labels_key]]
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{folder / name} must hold 'data' and {labels_key!r}: {error}") from None
        if len(rows) != len(batch_labels):
            raise ConfigError(f"{folder / name}: {len(rows)} images but {len(batch_labels)} labels")
        images.append(rows)
        labels += batch_labels
    return CifarPart(torch.from_numpy(np.concatenate(images)), {"clean_label": np.array(labels, dtype=np.int64)})


def read_parquet(path: Path) -> CifarPart:
    """A file with a column ``image`` of encoded images and any number of integer columns of labels.

    The image may be the bytes of the file or, as in Hugging Face's files, a struct with a field ``bytes``.
    """
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise ConfigError(f"{path} is not a whole Parquet file: {error}") from None
    if "image" not in table.column_names:
        raise ConfigError(f"{path} must have a column image, it has {', '.join(table.column_names)}")
    image = table["image"]
    if pa.types.is_struct(image.type) and image.type.get_field_index("bytes") >= 0:
        image = pa.chunked_array([chunk.field("bytes") for chunk in image.chunks], type=image.type.field("bytes").type)
    if not (pa.types.is_binary(image.type) or pa.types.is_large_binary(image.type)):
        raise ConfigError(f"{path}: column image must hold the bytes of JPEG or PNG files, it holds {image.type}")
    columns = {
        field.name: _integers(table[field.name], f"{path}: column {field.name}")
        for field in table.schema
        if pa.types.is_integer(field.type)
    }
    return _decoded(path, [content or b"" for content in image.to_pylist()], columns)


def _integers(column: Any, where: str) -> np.ndarray:
    if column.null_count:
        raise ConfigError(f"{where} has {column.null_count} empty rows")
    return column.to_numpy().astype(np.int64)


def _decoded(path: Path, contents: list[bytes], columns: dict[str, np.ndarray]) -> CifarPart:
    """All images as one tensor, without those that cannot be decoded and their labels."""
    kept, images, skipped = [], [], []
    for row, content in enumerate(contents):
        try:
            image = decode_rgb(content)
            if image.size != (SIDE, SIDE):
                raise ValueError(f"{image.width} x {image.height} pixels, wanted {SIDE} x {SIDE}")
        except Exception as error:  # as in `decode_problem`
            skipped.append((f"{path}#{row}", reason_of(error)))
        else:
            kept.append(row)
            images.append(np.asarray(image))
    if not images:
        raise ConfigError(f"{path}: none of the {len(contents)} images can be decoded")
    report_skipped(path.name, skipped, len(contents))
    tensor = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()  # [N, 3, 32, 32]
    labels = {name: values[kept] for name, values in columns.items()}
    return CifarPart(tensor, labels, [f"{path}#{row}" for row in kept], tuple(skipped))
