"""Pickles of strings, lists and byte arrays, read without running anything that they name.

Python 2 wrote the original CIFAR files with `pickle`. What such a file may name is replaced by the
stand-ins below, which hold values and do nothing; whatever else it names is refused.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cifake.errors import InputError, refuse


class ByteArray:
    """In the place of `numpy.ndarray`: the array's state, checked when it is asked for."""

    def __init__(self) -> None:
        self._state: tuple[Any, ...] = ()

    def __setstate__(self, state: Any) -> None:
        self._state = state if isinstance(state, tuple) else ()

    def value(self) -> npt.NDArray[np.uint8]:
        """The array.

        Raises:
            ValueError: not of type uint8, or of a size unlike its shape.
            TypeError: its content is no bytes, or its shape none.
        """
        if len(self._state) != 5:
            raise ValueError("an array without a state")
        _, shape, kind, fortran, content = self._state
        if not isinstance(kind, _Kind) or kind.code not in {"u1", "|u1"}:
            code = kind.code if isinstance(kind, _Kind) else None
            raise ValueError(f"an array of type {code!r}; must be uint8")
        return np.frombuffer(content, np.uint8).reshape(shape, order="F" if fortran else "C")


class _Kind:
    """In the place of `numpy.dtype`."""

    def __init__(self, code: Any, *flags: Any) -> None:
        del flags
        self.code = code.decode("latin1") if isinstance(code, bytes) else code

    def __setstate__(self, state: Any) -> None:
        """Byte order and alignment say nothing of single bytes."""


def _reconstruct(kind: Any, shape: Any, code: Any) -> ByteArray:
    del shape, code
    if kind is not ByteArray:
        raise ValueError("an array of another class than numpy.ndarray")
    return ByteArray()


def _latin1(text: str, encoding: str) -> bytes:
    """In the place of `_codecs.encode`, by which Python 3 writes bytes for Python 2."""
    if encoding != "latin1":
        raise ValueError(f"bytes in the encoding {encoding!r}; must be latin1")
    return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): ByteArray,
    ("numpy", "dtype"): _Kind,
    ("_codecs", "encode"): _latin1,
}


# The one written in Python: the other makes room for whatever memo index a file names.
class _Unpickler(pickle._Unpickler):  # noqa: SLF001
    def __init__(self, content: bytes, where: Path, file: str) -> None:
        super().__init__(io.BytesIO(content), encoding="bytes")
        self._where = where
        self._file = file

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in of a global."""
        if (module, name) not in _ALLOWED:
            problem = f"names {module}.{name}, which no image file needs; nothing of it was run"
            refuse(self._where, problem, field=self._file)
        return _ALLOWED[module, name]


def load(content: bytes, where: Path, file: str) -> Any:
    """The value in a pickle; byte strings stay bytes, arrays are `ByteArray`.

    Args:
        content: the file.
        where: the folder or archive that holds it, for messages.
        file: its name there.

    Raises:
        InputError: a damaged pickle, or one that names anything but arrays of bytes.
    """
    try:
        return _Unpickler(content, where, file).load()
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 - a damaged pickle raises whatever it leads to
        refuse(where, f"damaged pickle ({type(error).__name__}); fetch it again", field=file)
