"""Makes the pickles that the reader is tested with, good and malicious."""

from __future__ import annotations

import pickle  # noqa: TID251  # what users have on disk; nothing is unpickled with it
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Calls", "dumped", "write_pickle"]


def dumped(value: object, protocol: int = pickle.DEFAULT_PROTOCOL) -> bytes:
    return pickle.dumps(value, protocol)


def write_pickle(path: Path, value: object, protocol: int = pickle.DEFAULT_PROTOCOL) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(dumped(value, protocol))
    return path


class Calls:
    """Something whose pickle calls `function(*args)` when it is loaded."""

    def __init__(self, function: object, *args: object, state: object = None) -> None:
        self.reduced = (function, args) if state is None else (function, args, state)

    def __reduce__(self) -> tuple[object, ...]:
        return self.reduced
