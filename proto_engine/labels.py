"""Reading given labels from ``.npy``, ``.csv`` and ``.parquet`` files: class numbers, or class names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from .bank_formats import listed, map_npy
from .bank_parquet import open_parquet, refuse_repeated
from .files import plain_file

_DEFAULT_COLUMNS = ("label", "labels", "given_label")
# A blank line is a missing label: skipping it would shift all labels after it by one sample.
_PARSE = pyarrow.csv.ParseOptions(ignore_empty_lines=False, newlines_in_values=True)
# Numbers as programs write them. "01", "0x1f" and "1e3" are names: as numbers they would lose their spelling.
_NUMBER = r"^(-?(0|[1-9][0-9]*)(\.[0-9]*([eE][+-]?[0-9]+)?)?|(?i:nan))$"


def read_labels(path: str | os.PathLike[str], column: str | None = None) -> tuple[np.ndarray, list[str] | None]:
    """Read one label per sample.

    Parameters
    ----------
    path : str or os.PathLike
        ``.npy`` (integers or unicode strings), ``.csv`` (with a header line) or ``.parquet``.
    column : str, optional
        The column of a table. By default its only column, or the one called "label", "labels" or
        "given_label".

    Returns
    -------
    codes : numpy.ndarray of int64, [N]
        Integer labels as they are; names by their place among the sorted names. In a ``.csv`` file labels are numbers
        if all of them are written as numbers are: "01" is a name.
    class_names : list of str or None
        The sorted names, or None for integer labels.

    Raises
    ------
    FileNotFoundError, IsADirectoryError
        ``path`` is no file.
    ValueError
        The ending is none of the three; the file is truncated, foreign or empty; the column is missing,
        ambiguous or there twice; a value is missing, negative or a fraction; the rows of a table that the command line
        wrote are no longer all there in their order.
    TypeError
        The values are neither integers nor strings.
    """
    file = plain_file(path, "labels")
    found = _read(file, column)
    _check_order(file)
    return found


def read_label_pair(
    path: str | os.PathLike[str], first: str | None, second: Sequence[str], what: str
) -> tuple[np.ndarray, np.ndarray, list[str] | None, list[str] | None]:
    """Two columns of labels of one ``.csv`` or ``.parquet`` table: both of numbers, or both of names.

    Parameters
    ----------
    path : str or os.PathLike
    first : str or None
        As ``column`` of `read_labels`.
    second : sequence of str
        The first of these columns that the table has.
    what : str
        The table's name in an error about both columns.

    Returns
    -------
    first, second : numpy.ndarray of int64, [N]
    first_names, second_names : list of str or None
        Each column's own sorted names.

    Raises
    ------
    TypeError, ValueError
        What `read_labels` raises; a Parquet file with names in one column and numbers in the other.
    """
    codes, names = read_labels(path, first)
    file, has = Path(path), column_names(path)
    other = next((name for name in second if name in has), second[-1])
    others, other_names = _read(file, other)
    if (names is None) != (other_names is None):
        if file.suffix.lower() != ".csv":
            raise ValueError(f"{what} mixes class names and numbers")
        # Names such as "1" and "two", of which one column only has "1".
        codes, names = _read(file, first, as_names=True)
        others, other_names = _read(file, other, as_names=True)
    return codes, others, names, other_names


def column_names(path: str | os.PathLike[str]) -> list[str]:
    """The names of the columns of a ``.csv`` or ``.parquet`` file as they stand there, a repeated one repeatedly."""
    if Path(path).suffix.lower() == ".parquet":
        return list(open_parquet(path, f"{os.fspath(path)!r}").schema_arrow.names)
    with pyarrow.csv.open_csv(path, parse_options=_PARSE) as reader:
        return list(reader.schema.names)


def number_columns(path: str | os.PathLike[str], names: Sequence[str], what: str) -> dict[str, np.ndarray]:
    """Columns of numbers of a ``.csv`` or ``.parquet`` file, to the last bit; NaN where a cell is empty.

    Returns
    -------
    dict of str to numpy.ndarray of float64, [N]
    """
    if not names:
        return {}
    try:
        if Path(path).suffix.lower() == ".parquet":
            table = open_parquet(path, what).read(columns=list(names))
        else:
            convert = pyarrow.csv.ConvertOptions(
                include_columns=names,
                column_types=dict.fromkeys(names, pa.float64()),
                null_values=[*pyarrow.csv.ConvertOptions().null_values, "None", "<NA>"],
            )
            table = pyarrow.csv.read_csv(path, parse_options=_PARSE, convert_options=convert)
        return {name: table.column(name).cast(pa.float64()).to_numpy() for name in names}
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise ValueError(f"{what}: wanted numbers in columns {listed(list(names))}: {error}") from None
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{what}: columns {listed(list(names))} cannot be read: {error}") from None


def _read(file: Path, column: str | None, *, as_names: bool = False) -> tuple[np.ndarray, list[str] | None]:
    """`read_labels` of one column; ``as_names`` takes the numbers of a ``.csv`` file for names, as they stand there."""
    what = f"labels: {str(file)!r}"
    ending = file.suffix.lower()
    if ending == ".npy":
        if column is not None:
            raise ValueError(f"column: {str(file)!r} is a .npy file, which has no columns, got {column!r}")
        return _from_numpy(file, what)
    if ending not in (".csv", ".parquet"):
        raise ValueError(f"labels: wanted a .npy, .csv or .parquet file, got {str(file)!r}")
    try:
        name, values = (
            _from_csv(file, column, what, as_names) if ending == ".csv" else _from_parquet(file, column, what)
        )
    except (pa.ArrowException, UnicodeDecodeError) as error:  # CSV in another encoding than UTF-8
        raise ValueError(f"{what} is damaged or not a {ending} file: {error}") from None
    return _encode(values, f"{what}, column {name!r}")


def _check_order(file: Path) -> None:
    """A table that `correct` or `apply` wrote must have all rows in their order: somebody may have sorted it."""
    has = [] if file.suffix.lower() == ".npy" else column_names(file)
    ours = {"index", "given_label", "suggested_label"} <= set(has) or {"index", "label", "changed"} <= set(has)
    if not ours:
        return
    what = f"labels: {str(file)!r}"
    refuse_repeated("index", has, what)
    try:
        index = number_columns(file, ["index"], what)["index"]
    except ValueError:
        return  # of somebody else's
    if not np.array_equal(index, np.arange(len(index))):
        raise ValueError(f"{what}: wanted all rows of the data set in their order, its column 'index' says otherwise")


def _from_numpy(file: Path, what: str) -> tuple[np.ndarray, list[str] | None]:
    values = map_npy(file, what)
    if values.ndim != 1:
        raise ValueError(f"{what}: wanted one dimension [N], got shape {values.shape}")
    if values.dtype.kind == "U":
        letters = np.ascontiguousarray(values).view(f"{values.dtype.byteorder}u4")
        if ((letters > 0x10FFFF) | (letters >> 11 == 0xD800 >> 11)).any():
            raise ValueError(f"{what} is damaged: it has letters that no text can have")
        names, codes = np.unique(values, return_inverse=True)
        if names[0] == "":
            raise ValueError(f"{what}: row {int(np.flatnonzero(values == '')[0])} is missing")
        return codes.astype(np.int64), names.tolist()
    if values.dtype.kind not in "iuf":
        raise TypeError(f"{what}: wanted integers or unicode strings, got {values.dtype}")
    return _integers(np.asarray(values), what), None


def _from_csv(file: Path, column: str | None, what: str, as_names: bool) -> tuple[str, pa.ChunkedArray]:
    if file.stat().st_size == 0:
        raise ValueError(f"{what} is empty")
    names = column_names(file)
    if all(name.strip().lstrip("-").isdigit() for name in names):
        raise ValueError(f"{what}: wanted a header line with column names, got {listed(names)}")
    name = _choose_column(names, column, what)
    # Only an empty cell is missing; "NA", "null" and "None" are names like any other.
    convert = pyarrow.csv.ConvertOptions(
        include_columns=[name], column_types={name: pa.string()}, null_values=[""], strings_can_be_null=True
    )
    texts = pyarrow.csv.read_csv(file, parse_options=_PARSE, convert_options=convert).column(0)
    as_names = as_names or not pc.all(pc.match_substring_regex(texts, _NUMBER), min_count=0).as_py()
    for kind in () if as_names else (pa.int64(), pa.float64()):
        try:
            return name, texts.cast(kind)
        except pa.ArrowInvalid:
            continue
    return name, texts


def _from_parquet(file: Path, column: str | None, what: str) -> tuple[str, pa.ChunkedArray]:
    table = open_parquet(file, what)
    name = _choose_column(table.schema_arrow.names, column, what)
    try:
        return name, table.read(columns=[name]).column(0)
    except (pa.ArrowException, OSError) as error:  # an OSError for bytes that cannot be decompressed
        raise ValueError(f"{what}, column {name!r} is damaged: {error}") from None


def _choose_column(names: list[str], column: str | None, what: str) -> str:
    if column is not None:
        if column not in names:
            raise ValueError(f"{what} has no column {column!r}, it has {listed(names)}")
        usual = [column]
    else:
        usual = [name for name in _DEFAULT_COLUMNS if name in names] if len(names) > 1 else names
    if len(usual) != 1:
        raise ValueError(f"{what}: name the column of the labels, it has {listed(names)}")
    refuse_repeated(usual[0], names, what)
    return usual[0]


def _encode(values: pa.ChunkedArray, what: str) -> tuple[np.ndarray, list[str] | None]:
    if len(values) == 0:
        raise ValueError(f"{what} is empty: 0 rows")
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if values.null_count:
        row = int(np.flatnonzero(values.is_null().to_numpy())[0])
        raise ValueError(f"{what}: row {row} is missing ({values.null_count} missing in all)")
    kind: Any = values.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _integers(values.to_numpy(), what), None
    if pa.types.is_boolean(kind):
        values = values.cast(pa.string())
    elif not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise TypeError(f"{what}: wanted integers or strings, got {kind}")
    names = sorted(pc.unique(values).to_pylist())
    if names[0] == "":
        row = pc.index(values, "").as_py()
        raise ValueError(f"{what}: row {row} is missing")
    codes = pc.index_in(values, value_set=pa.array(names, type=values.type))
    return codes.to_numpy().astype(np.int64), names


def _integers(values: np.ndarray, what: str) -> np.ndarray:
    """Class numbers as int64: not negative, and without a fraction where they were stored as floats."""
    if values.dtype.kind == "f":
        wrong = np.flatnonzero(np.isnan(values))
        if len(wrong):
            raise ValueError(f"{what}: row {int(wrong[0])} is missing ({len(wrong)} missing in all)")
        wrong = np.flatnonzero(values != np.floor(values))
        if len(wrong):
            raise ValueError(f"{what}: wanted whole numbers, row {int(wrong[0])} is {values[wrong[0]]}")
    wrong = np.flatnonzero((values < 0) | (values >= 2**62))
    if len(wrong):
        raise ValueError(f"{what}: wanted class numbers from 0, row {int(wrong[0])} is {values[wrong[0]]}")
    return values.astype(np.int64)
