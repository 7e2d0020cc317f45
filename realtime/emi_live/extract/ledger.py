"""Which clips are done, from which file and with which settings: what lets a run go on where it stopped."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Final

from emi_live.errors import ConfigurationError
from emi_live.extract.listing import Video

__all__ = ["LEDGER", "Entry", "Ledger", "claimed"]

LEDGER: Final = "extracted.jsonl"
LOCK: Final = ".extract.lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One clip that was written: what made it, and what is in it."""

    id: str
    source: str
    size: int
    mtime_ns: int
    settings: str  # a fingerprint
    duration_s: float
    pictures: int
    faces: int  # frames with a face
    sounds: int  # frames of sound
    words: int

    def of(self, video: Video, settings: str) -> bool:
        """Whether this is what the file would give again."""
        return (self.source, self.size, self.mtime_ns, self.settings) == (
            video.name,
            video.size,
            video.mtime_ns,
            settings,
        )


class Ledger:
    """The entries of one folder, one JSON object a line; the last one of a clip counts.

    A line is added once the clip's features are in place; one that was cut off by a crash is no entry.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LEDGER
        self.entries: dict[str, Entry] = {}
        for line in self._lines():
            with suppress(ValueError, TypeError):
                entry = Entry(**json.loads(line))
                self.entries[entry.id] = entry

    def add(self, entry: Entry) -> None:
        """Record a clip that has been written, for good.

        Raises:
            ConfigurationError: the disk is full, or the file may not be written.
        """
        self.entries[entry.id] = entry
        try:
            with self._path.open("a+b") as file:
                if file.tell() and not _ends_a_line(file):
                    file.write(b"\n")
                file.write(json.dumps(asdict(entry)).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ConfigurationError(
                f"{self._path} cannot be written: {error.strerror}; make room"
            ) from error

    def _lines(self) -> list[str]:
        try:
            return self._path.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return []


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """A span in which no other run writes to the folder, which is made if need be.

    Raises:
        ConfigurationError: another run does, or the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK).open("wb")
    except OSError as error:
        raise ConfigurationError(f"--out {folder} cannot be written to: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigurationError(
                f"another `emi extract` is writing to {folder}; wait for it, or name another folder"
            ) from error
        yield


def _ends_a_line(file: IO[bytes]) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"
