"""Reading npz files of people: no pickle, and one sentence for whatever is wrong with them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from entropilot.errors import UserError


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
    except (OSError, EOFError, ValueError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} holds no {what}: it is no npz file, or a torn one.") from error
    missing = [name for name in names if name not in found]
    if missing:
        raise UserError(f"{path} holds no {what}: {missing[0]} is missing.")
    return found
