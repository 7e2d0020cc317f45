"""Text that is safe to show: escapes for foreign text, and ASCII where a terminal knows no more.

What a file, a stream or a library says must not control the terminal. What we print ourselves must not end a
command where the locale is not UTF-8.
"""

from __future__ import annotations

import codecs
import sys
import unicodedata
from io import TextIOWrapper
from typing import Final, TextIO

__all__ = ["IN_ASCII", "LIMIT", "accept_any_text", "printable"]

LIMIT: Final = 2000  # characters; longer texts are cut
# Cc: control characters, ESC and C1 among them. Cf: bidi overrides and invisible ones. Zl, Zp: line
# separators. Cs: half a character, as names of files that are not UTF-8 have. Co, Cn: no known character.
HIDDEN: Final = frozenset({"Cc", "Cf", "Zl", "Zp", "Cs", "Co", "Cn"})
JOINERS: Final = "\u200c\u200d"  # needed within words of some scripts, and within emoji
IN_ASCII: Final = str.maketrans(
    {"·": "-", "–": "-", "—": "-", "→": "->", "×": "x", "…": "...", "’": "'", "“": '"', "”": '"', "µ": "u"}  # noqa: RUF001 # meant
)
HANDLER: Final = "emi_live.in_ascii"


def printable(text: object, limit: int = LIMIT) -> str:
    """The text on one line, with escapes for whatever is not a visible character, and cut at `limit`.

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
