"""Keeps the terminal readable: escapes foreign text, writes ASCII where needed, catches native log lines.

What a file, a stream or a library says must not control the terminal. What we print ourselves must not end a
command where the locale is not UTF-8. What native libraries log on standard error goes to our log; anything
else that is written there still arrives.
"""

from __future__ import annotations

import codecs
import logging
import os
import re
import sys
import tempfile
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from typing import Final, TextIO

__all__ = ["IN_ASCII", "LIMIT", "accept_any_text", "native_stderr_logged", "own_standard_error", "printable"]

LIMIT: Final = 2000  # characters; longer texts are cut
# Cc: control characters, ESC and C1 among them. Cf: bidi overrides and invisible ones. Zl, Zp: line
# separators. Cs: half a character, as names of files that are not UTF-8 have. Co, Cn: no known character.
HIDDEN: Final = frozenset({"Cc", "Cf", "Zl", "Zp", "Cs", "Co", "Cn"})
JOINERS: Final = "\u200c\u200d"  # needed within words of some scripts, and within emoji
IN_ASCII: Final = str.maketrans(
    {"·": "-", "–": "-", "—": "-", "→": "->", "×": "x", "…": "...", "’": "'", "“": '"', "”": '"', "µ": "u"}  # noqa: RUF001 # meant
)
HANDLER: Final = "emi_live.in_ascii"
# absl: "W0000 00:00:1795239455.937188 7481 file.cc:181] text"; TensorFlow Lite: "INFO: text"; absl before
# its start. Ray: "[2026-11-29 21:21:41,736 I 13889 13889] logging.cc:303: text".
NATIVE_LINE = re.compile(
    rb"(?:[IWEF]\d{4} \d\d:\d\d:|INFO: |WARNING: |ERROR: |\[\d{4}-\d\d-\d\d [\d:,]+ [IWEF] \d+ \d+\] )"
)

_owned: Final[dict[str, bool]] = {"standard error": False}
_under_way: Final[dict[str, object]] = {}


def printable(text: object, limit: int = LIMIT) -> str:
    """The text on one line, with escapes for characters that are not visible, and cut at `limit`.

    Use it where text that was not written here meets a terminal or a log. Markup of rich is left as it is:
    print with `markup=False`, or escape it.

    Args:
        text: any value; what is shown is its `str`.
        limit: characters at most, with the ellipsis that says that there were more.
    """
    found = str(text)
    cut = found[:limit]
    shown = cut if cut.isascii() and cut.isprintable() else "".join(map(_shown, cut))
    if len(found) <= limit and len(shown) <= limit:
        return shown
    return shown[: max(0, limit - 1)] + "…"


def accept_any_text(*streams: TextIO) -> None:
    """Have streams, by default standard output and error, write what their encoding lacks in ASCII or as `?`.

    Without a UTF-8 locale (LC_ALL=C, or PYTHONIOENCODING), printing an ellipsis would else end a command.
    """
    codecs.register_error(HANDLER, _in_ascii)
    for stream in streams or (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper) and not stream.encoding.lower().startswith("utf"):
            stream.reconfigure(errors=HANDLER)


def _shown(character: str) -> str:
    if character in JOINERS or unicodedata.category(character) not in HIDDEN:
        return character
    code = ord(character)
    named = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character)
    return named or (
        f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    )


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    said = error.object[error.start : error.end].translate(IN_ASCII)
    return said.encode("ascii", "replace").decode("ascii"), error.end


def own_standard_error() -> None:
    """Declare that this process is our own program, so its standard error may be redirected for a moment."""
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
