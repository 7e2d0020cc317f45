"""Clip ids: what a CSV writes, what a file is called, and what may become the name of a file."""

from __future__ import annotations

import re
from typing import Final

from emi_models.data.errors import DataError

__all__ = ["check_id", "normal_id"]

DIGITS: Final = 5  # Hume-Vidmimic2 counts its clips from 00000
LONGEST: Final = 200  # characters; a file system allows 255 bytes, suffix included


def normal_id(name: str) -> str:
    """The clip that a CSV's cell or a file's name means: `1`, `1.0` and `00001.mp4` are all `00001`.

    Numbers are padded to five digits; a spreadsheet's `.0` and a file's suffix are taken off.

    Raises:
        DataError: nothing is left, or what is left can be no file's name.
    """
    bare = re.sub(r"\.0+$", "", name.strip())
    bare = re.sub(r"\.[A-Za-z][A-Za-z0-9]*$", "", bare)
    return check_id(bare.zfill(DIGITS) if re.fullmatch(r"[0-9]+", bare) else bare)


def check_id(clip_id: str) -> str:
    """The same id, if a file may be called so.

    Raises:
        DataError: it is empty, too long, begins with a dot or holds a slash or a control character.
    """
    if (
        not 1 <= len(clip_id) <= LONGEST
        or clip_id != clip_id.strip()
        or clip_id.startswith(".")
        or re.search(r"[/\\\x00-\x1f\x7f]", clip_id)
    ):
        raise DataError(
            f"{clip_id[:LONGEST]!r} can be no clip's id: it becomes a file's name, so give 1 to {LONGEST} "
            "characters, no slash, no control character, no dot in front"
        )
    return clip_id
