"""Small pictures for the report: decoded, turned upright, shrunk and encoded again, within a budget."""

from __future__ import annotations

import base64
import importlib.util
import io
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

MAX_SUSPECTS = 500
MAX_PROTOTYPES = 300
_SIDE = 112  # pixels
_QUALITY = 78
_MAX_BYTES = 5_900_000  # of all pictures together: below 8 MB in the page, where base64 adds a third


@dataclass
class Thumbnails:
    """Pictures by row, and how many rows had none.

    Attributes
    ----------
    data : dict of int to str
        JPEG in base64.
    missing, unreadable, over_budget : int
        Rows without an image; with one that cannot be decoded; left out to keep the page small.
    """

    data: dict[int, str] = field(default_factory=dict)
    missing: int = 0
    unreadable: int = 0
    over_budget: int = 0


def make_thumbnails(images: Sequence[Any], rows: Sequence[int]) -> Thumbnails:
    """Pictures of some rows.

    Parameters
    ----------
    images : sequence, [N]
        For each row a path, the bytes of an encoded image, or None.
    rows : sequence of int
        The rows wanted; those first in the sequence win where the budget runs out.

    Raises
    ------
    ImportError
        Pillow is not installed.
    TypeError
        An element is neither a path nor bytes nor None.
    """
    check_pillow()
    found = Thumbnails()
    encoded: dict[int, bytes] = {}
    for row in sorted(set(rows)):  # in file order: a Parquet file is read group by group
        value = images[row]
        if value is not None and not isinstance(value, (str, os.PathLike, bytes, bytearray, memoryview)):
            raise TypeError(f"images: wanted paths or bytes, row {row} is {type(value).__name__}")
        if value is None or (isinstance(value, (str, bytes)) and not value):
            found.missing += 1
            continue
        source: Any = io.BytesIO(value) if isinstance(value, (bytes, bytearray, memoryview)) else value
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a damaged EXIF block is no news here
                encoded[row] = _small(source)
        except FileNotFoundError:
            found.missing += 1
        except MemoryError:
            raise
        except Exception:  # Pillow raises OSError, SyntaxError, struct.error, TypeError, DecompressionBombError ...
            found.unreadable += 1
    room = _MAX_BYTES
    for row in dict.fromkeys(rows):
        if row not in encoded:
            continue
        room -= len(encoded[row])
        if room < 0:
            found.over_budget += 1
        else:
            found.data[row] = base64.b64encode(encoded[row]).decode("ascii")
    return found


def check_pillow() -> None:
    """Raise ImportError where there is no Pillow."""
    if importlib.util.find_spec("PIL") is None:
        raise ImportError("images: thumbnails need Pillow: pip install 'proto_engine[report]'")


def _small(source: Any) -> bytes:
    from PIL import Image, ImageOps

    with Image.open(source) as image:
        image.draft("RGB", (2 * _SIDE, 2 * _SIDE))  # JPEG can decode at a fraction of its size
        upright = ImageOps.exif_transpose(image)
        upright.thumbnail((_SIDE, _SIDE))
        if upright.mode.startswith(("I", "F")):  # 16-bit and float gray: Pillow would cut instead of scale
            values = np.asarray(upright, dtype=np.float64)
            low, high = values.min(), values.max()
            upright = Image.fromarray(((values - low) * (255 / max(high - low, 1e-9))).astype(np.uint8))
        elif upright.mode in ("LA", "PA", "RGBA") or "transparency" in upright.info:
            white = Image.new("RGBA", upright.size, "white")
            white.alpha_composite(upright.convert("RGBA"))
            upright = white
        out = io.BytesIO()
        upright.convert("L" if upright.mode in ("1", "L") else "RGB").save(out, "JPEG", quality=_QUALITY)
        return out.getvalue()
