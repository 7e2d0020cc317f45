"""What a recogniser in a process of its own and its owner say to each other: frames of one letter and bytes.

A frame is a letter, the length of what follows as 4 bytes (little-endian), and that many bytes. Requests:
`b`egin (the prompt), `a`ccept (float32 samples), `h`ypothesis, `f`inish. Each is answered by one `w`ords
(JSON) or `e`rror (text) frame.
"""

from __future__ import annotations

import struct
from typing import IO, Final

__all__ = ["ACCEPT", "BEGIN", "ERROR", "FINISH", "HYPOTHESIS", "WORDS", "read_frame", "write_frame"]

BEGIN: Final = b"b"
ACCEPT: Final = b"a"
HYPOTHESIS: Final = b"h"
FINISH: Final = b"f"
WORDS: Final = b"w"
ERROR: Final = b"e"

HEADER: Final = struct.Struct("<cI")
MAX_BYTES: Final = 16 * 1024 * 1024  # over four minutes of sound: more is a fault, not a message


def write_frame(stream: IO[bytes], letter: bytes, payload: bytes = b"") -> None:
    """Send one frame at once."""
    stream.write(HEADER.pack(letter, len(payload)) + payload)
    stream.flush()


def read_frame(stream: IO[bytes]) -> tuple[bytes, bytes] | None:
    """The next frame; None when the other side is gone.

    Raises:
        ValueError: what comes is not a frame.
    """
    header = stream.read(HEADER.size)
    if len(header) < HEADER.size:
        return None
    letter, length = HEADER.unpack(header)
    if length > MAX_BYTES:
        raise ValueError(f"a frame of {length} bytes; the largest is {MAX_BYTES}")
    payload = stream.read(length)
    return (letter, payload) if len(payload) == length else None
