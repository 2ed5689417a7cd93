"""The plain values in a pickle file, without unpickling it.

CIFAR comes as pickle files, and unpickling runs whatever a file asks for. Here the file's opcodes are walked
through: numbers, strings, lists and dicts become values; a global name stays a name, and a call stays a record
of what should have been called with what. Nothing is imported and nothing is called.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError


@dataclass
class Call:
    """What would have been called: a name, its arguments, and the state that the result would have been given."""

    name: Any
    args: Any
    state: Any = None


_MARK = object()
_VALUES = {
    "BININT", "BININT1", "BININT2", "LONG1", "SHORT_BINSTRING", "BINSTRING", "SHORT_BINBYTES", "BINBYTES",
    "SHORT_BINUNICODE", "BINUNICODE", "GLOBAL",
}  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def read_inert(path: Path) -> Any:
    """The value in a pickle file of protocol 2 or later, with a `Call` wherever it asks for one.

    Raises
    ------
    ConfigError
        The file is damaged, or has values of other kinds.
    """
    try:
        return _walk(path.read_bytes())
    except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is not a whole file of CIFAR: {error}") from None


def _walk(raw: bytes) -> Any:
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    for opcode, arg, _ in pickletools.genops(raw):
        name = opcode.name
        if name in _VALUES:
            stack.append(arg)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[arg] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[arg])
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name in _TUPLES:
            count = _TUPLES[name]
            stack[-count:] = [tuple(stack[-count:])]
        elif name == "TUPLE":
            items = _above_mark(stack)
            stack.append(tuple(items))
        elif name in ("APPEND", "APPENDS"):
            items = [stack.pop()] if name == "APPEND" else _above_mark(stack)
            stack[-1].extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = [stack.pop(-2), stack.pop()] if name == "SETITEM" else _above_mark(stack)
            stack[-1].update(zip(items[::2], items[1::2], strict=True))
        elif name == "STACK_GLOBAL":
            stack[-2:] = [f"{stack[-2]} {stack[-1]}"]
        elif name == "REDUCE":
            stack[-2:] = [Call(stack[-2], stack[-1])]
        elif name == "BUILD":
            state = stack.pop()
            stack[-1].state = state
        elif name == "STOP":
            return stack.pop()
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(f"it has values of the kind {name}")
    raise ValueError("it has no end")


def _above_mark(stack: list[Any]) -> list[Any]:
    """Take what lies above the topmost mark, and the mark, off the stack."""
    position = len(stack) - 1
    while stack[position] is not _MARK:
        position -= 1
        if position < 0:
            raise ValueError("it takes more values than it has")
    items = stack[position + 1 :]
    del stack[position:]
    return items


def byte_array(value: Any) -> np.ndarray:
    """The array of unsigned bytes that a `Call` describes: NumPy's ``_reconstruct`` with its state.

    Raises
    ------
    ValueError
        It is something else.
    """
    called = value.name if isinstance(value, Call) else type(value).__name__
    if called not in ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct"):
        raise ValueError(f"wanted an array, got {called}")
    _, shape, dtype, column_major, content = value.state
    if not isinstance(dtype, Call) or dtype.args[0] != "u1":
        raise ValueError("wanted an array of unsigned bytes")
    if isinstance(content, Call):  # Python 3 writing for Python 2: text and the name of its encoding
        content = content.args[0]
    raw = content.encode("latin-1") if isinstance(content, str) else content
    return np.frombuffer(raw, np.uint8).reshape(shape, order="F" if column_major else "C")
