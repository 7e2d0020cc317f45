"""Keeps what native libraries print on standard error out of a terminal view, and loses nothing else."""

from __future__ import annotations

import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

__all__ = ["native_stderr_logged", "own_standard_error"]

# absl: "W0000 00:00:1795239455.937188 7481 file.cc:181] text"; TensorFlow Lite: "INFO: text"; absl before
# its start.
NATIVE_LINE = re.compile(rb"(?:[IWEF]\d{4} \d\d:\d\d:|INFO: |WARNING: |ERROR: )")


_owned: Final[dict[str, bool]] = {"standard error": False}
_under_way: Final[dict[str, object]] = {}


def own_standard_error() -> None:
    """Say that this process is a program of ours, whose standard error may be redirected for a moment."""
    _owned["standard error"] = True


@contextmanager
def native_stderr_logged(logger: logging.Logger) -> Iterator[None]:
    """A span in which log lines that native code writes to file descriptor 2 go to `logger`, as DEBUG.

    MediaPipe has no switch for them: `GLOG_minloglevel` and its like have no effect. Lines of any other form
    are written to standard error when the span ends, so what another thread prints meanwhile is late but not
    lost. The descriptor is the whole process's, so nothing is done in a process that has not called
    `own_standard_error`, as one that embeds the engine, nor inside another span.
    """
    mine = object()
    if not _owned["standard error"] or _under_way.setdefault("span", mine) is not mine:
        yield
        return
    try:
        with _redirected(logger):
            yield
    finally:
        del _under_way["span"]


@contextmanager
def _redirected(logger: logging.Logger) -> Iterator[None]:
    try:
        original = os.dup(2)
    except OSError:  # standard error is closed: there is nothing to keep clean
        yield
        return
    with tempfile.TemporaryFile() as caught:
        sys.stderr.flush()
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(original, 2)
            os.close(original)
            caught.seek(0)
            for line in caught:
                if NATIVE_LINE.match(line):
                    logger.debug("%s", line.decode("utf-8", "replace").rstrip())
                else:
                    os.write(2, line)
