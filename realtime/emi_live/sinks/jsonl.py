"""Estimates as JSON, one compact object a line."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import select
import stat
import sys
from typing import TYPE_CHECKING, Final

from emi_live.errors import ConfigurationError, LiveError
from emi_live.messages import Estimate

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["JsonLinesSink", "to_line"]

STANDARD_OUTPUT: Final = "-"
ROOM_MS: Final = 100  # how long a pipe that its owner made non-blocking is polled for room at a time


def to_line(estimate: Estimate) -> bytes:
    """The estimate as one line of UTF-8 JSON, without the line's end; every number is finite or null."""
    text = json.dumps(estimate.to_json(), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")


class JsonLinesSink:
    """Writes one JSON object per estimate to a file, or to standard output for `-`, each line at once.

    `write` waits for the slow reader of a pipe. When the reader of a pipe ends, as `head` does, the sink is
    `finished`, without an error. Nothing is buffered in the process: a write that waits in one thread cannot
    block a thread that flushes standard output.
    """

    name = "json"

    def __init__(
        self, path: str | os.PathLike[str], tell: Callable[[str], None] | None = None, *, append: bool = False
    ) -> None:
        """Open the file, emptied first unless lines are appended; wait for the reader of a named pipe.

        Args:
            path: where to write; `-` is standard output.
            tell: called with one line if a named pipe has no reader yet.
            append: keep what is in the file.

        Raises:
            ConfigurationError: it cannot be written.
        """
        self._path = os.fspath(path)
        self._stream: io.FileIO | None
        try:
            if self._path == STANDARD_OUTPUT:
                self._stream = io.FileIO(os.dup(_standard_output()), "w")
            else:
                self._stream = _open(self._path, tell, append=append)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise ConfigurationError(
                f"--json {self._path} cannot be written: {reason}; name a file in a folder that exists, or -"
            ) from error

    @property
    def finished(self) -> bool:
        """Whether the reader of the pipe has ended or the sink is closed."""
        return self._stream is None

    def open(self) -> None:
        """Do nothing: the constructor has opened the file."""

    def write(self, estimate: Estimate) -> None:
        """Write one line; returns when the system has all of it.

        Raises:
            LiveError: the disk is full or has failed.
        """
        if self._stream is None:
            return
        line = to_line(estimate) + b"\n"
        try:
            _write_all(self._stream, line)
        except BrokenPipeError:
            self._abandon()
        except OSError as error:
            self._abandon()
            raise self._failed(error) from error

    def idle(self) -> None:
        """Do nothing: every line is written at once."""

    def close(self) -> None:
        """Close the file; standard output stays open for the rest of the program.

        Raises:
            LiveError: not all that was written reached the disk.
        """
        stream, self._stream = self._stream, None
        if stream is not None:
            try:
                stream.close()
            except OSError as error:
                raise self._failed(error) from error

    def _failed(self, error: OSError) -> LiveError:
        remedy = "free some space" if error.errno == errno.ENOSPC else "choose another file"
        return LiveError(f"--json {self._path}: {error.strerror}; {remedy}")

    def _abandon(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()


def _standard_output() -> int:
    if sys.stdout is None:  # closed by the caller: `>&-`
        raise ValueError("standard output is closed")
    return sys.stdout.fileno()


def _open(path: str, tell: Callable[[str], None] | None, *, append: bool) -> io.FileIO:
    """The file, emptied unless lines are appended.

    This waits for the reader of a named pipe; signals end the wait.
    """
    try:
        is_pipe = stat.S_ISFIFO(os.stat(path).st_mode)
    except FileNotFoundError:
        is_pipe = False
    if is_pipe and tell is not None:
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            tell(f"waiting for a reader of {path} …")
    return io.FileIO(path, "a" if append else "w")


def _write_all(stream: io.FileIO, line: bytes) -> None:
    left = memoryview(line)
    while left:
        written = stream.write(left)
        if written is None:  # another program made the pipe non-blocking, and it is full
            poll = select.poll()
            poll.register(stream, select.POLLOUT)
            poll.poll(ROOM_MS)
        else:
            left = left[written:]
