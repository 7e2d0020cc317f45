"""Text for terminals and files that know fewer characters than we use: said otherwise, never an error."""

from __future__ import annotations

import codecs
import sys
from io import TextIOWrapper
from typing import Final, TextIO

__all__ = ["IN_ASCII", "accept_any_text"]

IN_ASCII: Final = str.maketrans(
    {"·": "-", "–": "-", "—": "-", "→": "->", "×": "x", "…": "...", "’": "'", "“": '"', "”": '"', "µ": "u"}  # noqa: RUF001 # meant
)
HANDLER: Final = "emi_live.in_ascii"


def accept_any_text(*streams: TextIO) -> None:
    """Have streams, by default standard output and error, write what their encoding lacks in ASCII or as `?`.

    Without a UTF-8 locale (LC_ALL=C, or PYTHONIOENCODING), printing an ellipsis would else end a command.
    """
    codecs.register_error(HANDLER, _in_ascii)
    for stream in streams or (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper) and not stream.encoding.lower().startswith("utf"):
            stream.reconfigure(errors=HANDLER)


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    said = error.object[error.start : error.end].translate(IN_ASCII)
    return said.encode("ascii", "replace").decode("ascii"), error.end
