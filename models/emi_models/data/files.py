"""Files that are there whole or not at all, and files of which only the beginning is read."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emi_models.data.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["first_rows", "replacing"]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside `path` to write to: it takes that name when the block ends well, else it is removed.

    Folders on the way are made. Two processes may replace the same file at once: one of the two stays.

    Raises:
        DataError: the folder cannot be written to, or is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        os.close(descriptor)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}; name another folder") from error
    part = Path(name)
    try:
        yield part
        part.chmod(0o644)
        part.replace(path)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}; make room for it") from error
    finally:
        with suppress(OSError):
            part.unlink()  # nothing is left to remove when all went well


def first_rows(file: Any, name: str, rows: int) -> NDArray[np.float32]:
    """The first rows of a tensor in a safetensors file opened for numpy; the others are not read.

    `file` is what `safetensors.safe_open` gives, which has no type of its own to name.
    """
    if file.get_slice(name).get_shape()[0] <= rows:
        whole: NDArray[np.float32] = file.get_tensor(name)
        return whole
    some: NDArray[np.float32] = file.get_slice(name)[: max(rows, 1)]  # it cannot slice to nothing
    return some[:rows]
