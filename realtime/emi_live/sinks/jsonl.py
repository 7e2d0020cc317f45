"""Estimates as JSON, one compact object a line."""

from __future__ import annotations

import errno
import json
import os
import sys
from typing import BinaryIO, Final

from emi_live.errors import ConfigurationError, LiveError
from emi_live.messages import Estimate

__all__ = ["JsonLinesSink", "to_line"]

STANDARD_OUTPUT: Final = "-"


def to_line(estimate: Estimate) -> bytes:
    """The estimate as one line of UTF-8 JSON, without the line's end; every number is finite or null."""
    text = json.dumps(estimate.to_json(), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")


class JsonLinesSink:
    """Writes one JSON object per estimate to a file, or to standard output for `-`, each line at once.

    When the reader of a pipe goes away, as `head` does, the sink is `finished` and says nothing.
    """

    name = "json"

    def __init__(self, path: str | os.PathLike[str], *, append: bool = False) -> None:
        """Open the file, which is emptied first unless lines are to be appended.

        Raises:
            ConfigurationError: it cannot be written.
        """
        self._path = os.fspath(path)
        self._to_stdout = self._path == STANDARD_OUTPUT
        self._stream: BinaryIO | None
        if self._to_stdout:
            self._stream = sys.stdout.buffer
            return
        try:
            self._stream = open(self._path, "ab" if append else "wb")  # noqa: SIM115 # closed by close()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise ConfigurationError(
                f"--json {self._path} cannot be written: {reason}; name a file in a folder that exists, or -"
            ) from error

    @property
    def finished(self) -> bool:
        """Whether the reader has gone away or the sink is closed."""
        return self._stream is None

    def open(self) -> None:
        """Nothing is left to do: the constructor has opened the file."""

    def write(self, estimate: Estimate) -> None:
        """Write one line and flush it.

        Raises:
            LiveError: the disk is full or has failed.
        """
        if self._stream is None:
            return
        try:
            self._stream.write(to_line(estimate) + b"\n")
            self._stream.flush()
        except BrokenPipeError:
            self._abandon()
        except OSError as error:
            self._abandon()
            remedy = "free some space" if error.errno == errno.ENOSPC else "choose another file"
            raise LiveError(f"--json {self._path}: {error.strerror}; {remedy}") from error

    def idle(self) -> None:
        """Nothing is due: every line is flushed as it is written."""

    def close(self) -> None:
        """Close the file; standard output stays open for the rest of the program."""
        stream, self._stream = self._stream, None
        if stream is not None and not self._to_stdout:
            stream.close()

    def _abandon(self) -> None:
        """Drop the stream with what it still buffers, so that nothing tries to flush it at exit."""
        stream, self._stream = self._stream, None
        if stream is None:
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        if not self._to_stdout:
            stream.close()
