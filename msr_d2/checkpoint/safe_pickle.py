"""Read pickled arrays without giving the file a way to call anything.

A pickle is a program: whatever callable it names is called with the arguments it brings. The
reader here knows a handful of names only, and none of them is the real one: arrays, numbers and
dtypes of numpy are built by the functions of this file, which check what they get. numpy's own
``__setstate__`` never sees a byte of the file.
"""

from __future__ import annotations

import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from typing import IO

import numpy as np


class UnsafeGlobalError(ValueError):
    """A pickle names something that is neither an array nor a plain container."""

    def __init__(self, name: str):
        super().__init__(name)
        self.name = name


class PickledDtype:
    """Stands for a numpy dtype: kind and size at construction, byte order as its state."""

    def __init__(self, code: str | bytes, *_flags: bool):
        text = code.decode("latin1") if isinstance(code, bytes) else code
        # Booleans, numbers and fixed-width text. Objects ("O") and records ("V") could hold, or
        # refer to, anything.
        if not isinstance(text, str) or not re.fullmatch(r"b1?|[iufc]\d{1,2}|[SU]\d{1,9}", text):
            raise UnsafeGlobalError(f"numpy.dtype({text!r})")
        self.dtype = np.dtype(text)

    def __setstate__(self, state: tuple) -> None:
        byte_order = state[1]
        if byte_order in ("<", ">", b"<", b">"):
            text = byte_order.decode() if isinstance(byte_order, bytes) else byte_order
            self.dtype = self.dtype.newbyteorder(text)


class PickledArray:
    """Stands for a numpy array; empty at construction, filled by its state."""

    def __init__(self) -> None:
        self.array = np.zeros(0)

    def __setstate__(self, state: tuple) -> None:
        _version, shape, dtype, fortran_order, data = state
        self.array = _array(data, dtype, shape, "F" if fortran_order else "C")


def _array(data, dtype: PickledDtype, shape: tuple, order: str = "C") -> np.ndarray:
    if isinstance(data, str):  # pickled by Python 2
        data = data.encode("latin1")
    flat = np.frombuffer(data, dtype=dtype.dtype)
    # A copy in the machine's own byte order, which owns its memory and can be written.
    native = flat.astype(dtype.dtype.newbyteorder("="))
    return native.reshape(tuple(int(side) for side in shape), order=order)


def _reconstruct(_subtype, _shape, _dtype) -> PickledArray:
    return PickledArray()


def _scalar(dtype: PickledDtype, data) -> np.generic:
    return _array(data, dtype, ())[()]


def _frombuffer(data, dtype: PickledDtype, shape: tuple, order: str = "C") -> np.ndarray:
    return _array(data, dtype, shape, order)


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if encoding != "latin1":  # only this one is how pickles of Python 3 write bytes for Python 2
        raise UnsafeGlobalError(f"_codecs.encode(..., {encoding!r})")
    return text.encode("latin1")


def _empty_bytes() -> bytes:  # how protocols 0 to 2 write b"", and the only use of `bytes` there
    return b""


# numpy renamed `core` to `_core` in version 2.
NUMPY_GLOBALS: dict[str, Callable] = {
    "numpy.dtype": PickledDtype,
    "numpy.ndarray": PickledArray,
    **{
        f"numpy.{core}.{name}": function
        for core in ("core", "_core")
        for name, function in {
            "multiarray._reconstruct": _reconstruct,
            "multiarray.scalar": _scalar,
            "numeric._frombuffer": _frombuffer,
        }.items()
    },
}

ALLOWED_GLOBALS: dict[str, Callable] = {
    **NUMPY_GLOBALS,
    "_codecs.encode": _encode,
    "collections.OrderedDict": OrderedDict,
    **{
        f"{module}.{name}": function
        for module in ("builtins", "__builtin__")  # Python 3, Python 2
        for name, function in {"set": set, "frozenset": frozenset, "bytes": _empty_bytes}.items()
    },
}


class _RestrictedUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str):
        full_name = f"{module}.{name}"
        if full_name not in ALLOWED_GLOBALS:
            raise UnsafeGlobalError(full_name)
        return ALLOWED_GLOBALS[full_name]


def load_arrays(file: IO[bytes]) -> object:
    """Read a pickle of numpy arrays, numbers, text and plain containers.

    Args:
        file: open for reading bytes; pickles of Python 2 are understood too.

    Raises:
        UnsafeGlobalError: if it holds anything else; nothing has been called by then.
        Exception: of many kinds if it is not a pickle, or only a part of one.
    """
    return resolve_arrays(_RestrictedUnpickler(file, encoding="latin1").load())


def resolve_arrays(value: object) -> object:
    """Replace the stand-ins of this file by real arrays, in containers of any depth."""
    if isinstance(value, PickledArray):
        return value.array
    if isinstance(value, PickledDtype):
        return value.dtype
    if isinstance(value, dict):
        # In place: a new container would lose attributes like `_metadata` of a state dict.
        for key, item in list(value.items()):
            value[key] = resolve_arrays(item)
        return value
    if type(value) in (list, tuple):
        return type(value)(resolve_arrays(item) for item in value)
    return value
