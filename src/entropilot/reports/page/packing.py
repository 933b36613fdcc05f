"""Pack columns of numbers and a JSON document into one compressed text for a page.

Layout before compression: the length of the JSON document as four little-endian bytes, the document in UTF-8, zeros up
to a multiple of 8, then the columns one after the other, each starting at a multiple of 8. The document names a column
by `{"at": byte, "n": length, "type": "f4" | "u4" | "u2" | "u1"}`; a column of levels has `"max"` and `"signed"` besides.
`assets/data.js` reads the same layout.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

FINE, COARSE = 65_535, 1_023  # levels of a quantised column: 16 bits, or 10 where a column is long
LONG = 200_000  # numbers from which a column is kept coarsely, so that a page of many samples stays small


class Packer:
    """Collect columns; `text` compresses them with a document that refers to them."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def column(self, values: ArrayLike, kind: str) -> dict[str, Any]:
        """Add a column and return the reference to it.

        Args:
            values: one dimension of numbers.
            kind: f4, u4, u2 or u1, little-endian.
        """
        data = np.ascontiguousarray(values, dtype=np.dtype(kind).newbyteorder("<"))
        raw = data.tobytes()
        reference = {"at": self._size, "n": int(data.size), "type": kind}
        padding = -len(raw) % 8
        self._parts.append(raw + bytes(padding))
        self._size += len(raw) + padding
        return reference

    def indices(self, values: NDArray[Any]) -> dict[str, Any]:
        """Add a column of whole numbers from 0 on, in the smallest type that holds them."""
        largest = int(values.max()) if values.size else 0
        return self.column(values, "u1" if largest < 1 << 8 else "u2" if largest < 1 << 16 else "u4")

    def levels(self, values: NDArray[np.float64]) -> dict[str, Any]:
        """Add a column of numbers in levels, fine near 0: level = sqrt(|x| / max), the sign apart.

        A missing number (NaN) becomes level 0 of a column that has `"gaps": true`; then levels begin at 1.
        """
        known = np.isfinite(values)
        largest = float(np.abs(values[known]).max()) if known.any() else 0.0
        signed = bool((values[known] < 0).any())
        gaps = not bool(known.all())
        count = FINE if values.size <= LONG else COARSE
        share = np.sqrt(np.abs(np.where(known, values, 0.0)) / largest) if largest else np.zeros(values.shape)
        if signed:
            share = (1 + np.sign(np.where(known, values, 0.0)) * share) / 2
        level = np.rint(share * (count - gaps)).astype(np.uint16) + gaps
        level[~known] = 0
        return self.column(level, "u2") | {
            "max": largest,
            "signed": signed,
            "gaps": gaps,
            "levels": count,
        }

    def packed(self, document: Mapping[str, Any]) -> bytes:
        """Return document and columns, compressed (zlib)."""
        text = json.dumps(document, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        head = text.encode("utf-8", "replace")
        start = len(head).to_bytes(4, "little") + head
        return zlib.compress(b"".join([start, bytes(-len(start) % 8), *self._parts]), 4)

    def text(self, document: Mapping[str, Any]) -> str:
        """Return `packed` as base64, for a <script> element that is not run."""
        return base64.b64encode(self.packed(document)).decode("ascii")
