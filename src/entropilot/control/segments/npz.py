"""Read and write npz files without pickle; whatever is wrong with one is said in one sentence."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Literal

import numpy as np

from entropilot.errors import UserError

Kind = Literal["float32", "float64", "int64", "bool", "text"]


def read_npz(path: str | Path, what: str, names: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """Return all arrays of an npz file.

    Args:
        what: for the sentence, such as `segments`.
        names: arrays that have to be there.

    Raises:
        UserError: it can't be read, is no npz file, or lacks one of `names`.
    """
    try:
        # Opened here: numpy leaves the file open where the archive is torn.
        with Path(path).open("rb") as handle, np.load(handle, allow_pickle=False) as file:
            found = dict(file)
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise UserError(f"{path} can't be read ({error.strerror}); give a file with {what}.") from error
    except (
        OSError,
        EOFError,
        ValueError,  # among others: arrays of Python objects
        TypeError,
        AttributeError,
        RuntimeError,
        MemoryError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise UserError(
            f"{path} holds no {what}: it is no npz file, a torn one, or one of Python objects; write it again."
        ) from error
    missing = [name for name in names if name not in found]
    if missing:
        raise UserError(f"{path} holds no {what}: {missing[0]} is missing.")
    return found


def as_kind(value: np.ndarray, name: str, kind: Kind, dimensions: int | None = None) -> np.ndarray:
    """Return an array of the kind that the code works with: numbers of any width are converted, nothing else is.

    Args:
        name: for the sentence, with the file where there is one.
        dimensions: how many it has to have; None takes any.

    Raises:
        UserError: text, objects or complex numbers instead of numbers, fractions or NaN instead of whole numbers.
    """
    array = np.asarray(value)
    if dimensions is not None and array.ndim != dimensions:
        raise UserError(f"{name} has {array.ndim} dimensions where {dimensions} are needed; write it again.")
    if kind == "text":
        if array.dtype.kind != "U" and array.size:
            raise UserError(f"{name} is of type {array.dtype} where text is needed; write it again as text.")
        return array.astype(str)
    if array.dtype.kind not in "buif":
        raise UserError(
            f"{name} is of type {array.dtype} where numbers are needed; write it again as numbers."
        )
    if kind in ("float32", "float64"):
        with np.errstate(over="ignore"):  # too large becomes infinite, which is refused with the row
            return array.astype(kind, copy=False)
    with np.errstate(invalid="ignore"):
        whole = array.astype(kind, copy=False)
    if (whole != array).any():
        what = "whole numbers" if kind == "int64" else "true or false"
        raise UserError(
            f"{name} holds {array[whole != array].flat[0]} where {what} are needed; write it again."
        )
    return whole
