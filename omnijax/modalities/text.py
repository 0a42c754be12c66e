"""Text as UTF-8 bytes: no files, no training, every string."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Int64

from omnijax import errors


@dataclasses.dataclass(frozen=True)
class Text:
    """A string as its UTF-8 bytes, one fragment a byte."""

    name: str = "text"
    size: int = 256

    def fragments(self, signal: str) -> Int64[np.ndarray, " bytes"]:
        """Returns the bytes of a string as ids 0 to 255."""
        return np.frombuffer(signal.encode(), np.uint8).astype(np.int64)

    def signal(self, ids: Int64[np.ndarray, " bytes"]) -> str:
        """Returns the string of some bytes; bytes that aren't UTF-8 become U+FFFD, since a model may sample any.

        Raises:
            DataError: an id is not a byte.
        """
        ids = check_ids(self.name, self.size, ids)
        return ids.astype(np.uint8).tobytes().decode(errors="replace")


def check_ids(name: str, size: int, ids: Int64[np.ndarray, "..."]) -> Int64[np.ndarray, "..."]:
    """Returns `ids` as int64.

    Raises:
        DataError: an id is negative, or `size` or more.
    """
    ids = np.asarray(ids, np.int64)
    if ids.size and (ids.min() < 0 or ids.max() >= size):
        wrong = ids[(ids < 0) | (ids >= size)][0]
        fix = "decode with the configuration that the ids were made with"
        raise errors.DataError(f"{name} fragment", int(wrong), f"ids must be between 0 and {size - 1}", fix)
    return ids
