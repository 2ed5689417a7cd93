"""Images from files and bytes, and which of them cannot be decoded, found once and remembered.

A training set has as many rows in the last epoch as in the first, so a broken image has to be found before
training starts and not when it is first drawn. Reading a million images takes minutes; what was found is kept
in a small file, which holds as long as no image changes its size or its time.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms.v2.functional import pil_to_tensor
from tqdm import tqdm

import proto_engine as pe

logger = logging.getLogger(__name__)

CACHE = Path("~/.cache/proto_trainer/decodable")
REMEMBER_FROM = 2000  # images; fewer are read again in a moment, and leave nothing behind
Source = str | bytes  # the path of an image file, or its content

_RULES = b"32 bits left out"  # what counts as decodable; what was remembered under other rules is not looked at
_GREY_OF_16_BITS = ("PNG", "PPM")  # of Pillow's mode I, which holds 32
_CHUNK = 256  # images a task: a future for each of a million images would take a gigabyte
_NAMED = 5  # broken images named in the warning
_UNREAD = "cannot be read: "  # permissions, disk, network: no property of the image, and not remembered


def decode_rgb(source: Source) -> Image.Image:
    """An image in RGB, also when the file is grey or has a palette."""
    with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
        return to_rgb(image)


def to_rgb(image: Image.Image) -> Image.Image:
    """An image of Pillow's in RGB, 8 bits a channel; of 16 bits the upper 8, as Pillow reads colors of 16 bits.

    Pillow's own conversion cuts such grey values off at 255, which leaves a white image.

    Raises
    ------
    ValueError
        Grey values of 32 bits: which of them are black and white, nobody says.
    """
    mode = image.mode
    if mode.startswith("I;16") or (mode == "I" and image.format in _GREY_OF_16_BITS):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if mode in ("I", "F"):
        raise ValueError(f"wanted 8 or 16 bits a channel, got 32 (mode {mode})")
    return image.convert("RGB")


def decode_tensor(source: Source, least: int) -> Tensor:
    """An image in RGB, uint8 [3, H, W], for a use that needs `least` pixels a side.

    A JPEG image with at least twice as many is decoded at 1/2, 1/4 or 1/8 of its size, which skips most of the
    work. Its pixels are nearly, not exactly, those of a whole image made smaller. Other JPEG images go through
    torchvision's decoder, which gives the same pixels as Pillow's in less time, and the rest through Pillow.
    """
    content = source if isinstance(source, bytes) else Path(source).read_bytes()
    with Image.open(io.BytesIO(content)) as image:
        if image.format == "JPEG" and image.mode in ("RGB", "L") and min(image.size) < 2 * least:
            with contextlib.suppress(RuntimeError):  # what this decoder refuses, Pillow may still read
                return decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8), mode=ImageReadMode.RGB)
        image.draft(None, (least, least))
        return pil_to_tensor(to_rgb(image))


def decode_problem(source: Source) -> str | None:
    """Why an image cannot be decoded; None when it can.

    A JPEG file is read to its end, but at an eighth of its size, which costs a fraction of the time.
    """
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            image.draft(None, (1, 1))
            to_rgb(image)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, DecompressionBombError ...
        return f"{_UNREAD if getattr(error, 'errno', None) is not None else ''}{reason_of(error)}"
    return None


def reason_of(error: Exception) -> str:
    """An error's message in one line, or its name when it has none."""
    return " ".join(f"{error}".split()) or type(error).__name__


def decode_problems(sources: Sequence[Source], *, name: str) -> dict[int, str]:
    """The positions of the images that cannot be decoded, with the reason; every core reads.

    Parameters
    ----------
    sources : sequence of str or bytes
    name : str
        What the progress bar says, which appears when it takes more than a few seconds.
    """
    chunks = [range(start, min(start + _CHUNK, len(sources))) for start in range(0, len(sources), _CHUNK)]

    def read(chunk: range) -> list[tuple[int, str]]:
        found = ((i, decode_problem(sources[i])) for i in chunk)
        return [(i, problem) for i, problem in found if problem is not None]

    problems: dict[int, str] = {}
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(total=len(sources), desc=f"reading {name}", unit=" images", delay=3, leave=False) as bar,
    ):
        try:
            for chunk, found in zip(chunks, pool.map(read, chunks), strict=True):
                problems.update(found)
                bar.update(len(chunk))
        finally:
            pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for the other chunks
    return problems


def file_problems(paths: Sequence[str], *, name: str) -> dict[int, str]:
    """`decode_problems` of files; those of large data sets are remembered under `CACHE` until a file changes.

    A missing file counts as one that cannot be decoded, and so does one whose path is not UTF-8.
    """
    key = hashlib.sha256(_RULES)
    there: list[int] = []
    problems: dict[int, str] = {}
    for i, path in enumerate(paths):
        try:
            path.encode()
        except UnicodeEncodeError:  # corrected.parquet could not name it
            problems[i] = "its path is not UTF-8"
            key.update(os.fsencode(path) + b"\0name\0")
            continue
        try:
            status = os.stat(path)
        except OSError as error:
            problems[i] = f"{error.strerror}"
            key.update(f"{path}\0missing\0".encode())
        else:
            there.append(i)
            key.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    memory = CACHE.expanduser() / f"{key.hexdigest()}.json" if len(paths) >= REMEMBER_FROM else None
    broken = None if memory is None else _recall(memory, len(paths))
    if broken is None:
        found = decode_problems([paths[i] for i in there], name=name)
        broken = {there[i]: problem for i, problem in found.items()}
        if memory is not None and not any(problem.startswith(_UNREAD) for problem in found.values()):
            _remember(memory, broken)
    return dict(sorted({**problems, **broken}.items()))


def report_skipped(name: str, skipped: Sequence[tuple[str, str]], total: int) -> None:
    """Warn about images that were left out; the first few are named, all of them are in `LabeledImages.skipped`."""
    if not skipped:
        return
    named = "; ".join(f"{path} ({reason})" for path, reason in skipped[:_NAMED])
    more = f"; and {len(skipped) - _NAMED} more" if len(skipped) > _NAMED else ""
    logger.warning(
        "%s: %d of %d images cannot be decoded and are left out: %s%s", name, len(skipped), total, named, more
    )
    for path, reason in skipped[_NAMED:]:
        logger.debug("%s: left out: %s (%s)", name, path, reason)


def _recall(memory: Path, count: int) -> dict[int, str] | None:
    """What an earlier run has found; None when there is nothing to rely on."""
    try:
        problems = {int(i): str(problem) for i, problem in json.loads(memory.read_text()).items()}
    except (OSError, ValueError, AttributeError):
        return None
    return problems if all(0 <= i < count for i in problems) else None


def _remember(memory: Path, problems: dict[int, str]) -> None:
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        with pe.atomic_write(memory) as file:
            file.write(json.dumps(problems).encode())
    except OSError as error:  # a home folder that cannot be written costs the time again, nothing else
        logger.info("which images can be decoded could not be remembered: %s", error)
