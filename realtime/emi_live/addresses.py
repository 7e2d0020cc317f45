"""Addresses as they may be shown: without passwords, tokens and keys. Every output uses these functions.

A typed address may contain mistakes, so the end of its password is not always certain. In doubt, more is
hidden.
"""

from __future__ import annotations

import ipaddress
import logging
import re
from pathlib import Path
from typing import Final
from urllib.parse import unquote

__all__ = ["SafeFormatter", "has_scheme", "is_ros2", "safe_address", "safe_text"]

HIDDEN: Final = "…"

# One slash too: `rtsp:/x` is a misspelling, and `Path` makes it of `rtsp://x`.
SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/+")
AT: Final = re.compile(r"@|%40")
CREDENTIALS: Final = re.compile(r"[^/\s]*[:%]\S*(?:@|%40)")  # user:password@, without a scheme
# A part of a path that may be a stream's key: long, and letters with digits.
STREAM_KEY: Final = re.compile(r"(?=.*[0-9])(?=.*[A-Za-z])[A-Za-z0-9_~+-]{16,}")
LOCAL: Final = frozenset({"file", "ipc", "inproc", "tcp"})  # whose paths are names of files, or none

# What a query says of the picture. Every other value may be a secret.
HARMLESS: Final = frozenset(
    {
        *("channel", "subtype", "stream", "streamtype", "camera", "cam", "profile", "codec", "videocodec"),
        *("resolution", "size", "width", "height", "w", "h", "fps", "framerate", "rate", "quality"),
        *("compression", "transport", "tcp", "udp", "timeout", "listen"),
    }
)

# In a longer text an address ends at a space, and not with what belongs to the sentence around it.
WORD: Final = re.compile(r"\S+")
SENTENCE: Final = "`'\"«»()[]{}<>,;:.!"


def has_scheme(where: int | str | Path) -> bool:
    """Whether it is an address on a network (`rtsp://…`), in place of a device, a file or a number."""
    return not isinstance(where, int) and SCHEME.match(str(where)) is not None


def is_ros2(where: int | str | Path | None) -> bool:
    """Whether a camera or microphone is a topic of ROS 2 (`ros2:/TOPIC`)."""
    return isinstance(where, str) and where.startswith("ros2:")


def safe_address(where: int | str | Path) -> str:
    """The address as it may be shown, logged and stored; the path of a file or a device as it is.

    User and password, values of a query, a fragment and whatever looks like a stream's key become `…`.
    Applied twice, it changes nothing more.
    """
    text = str(where)
    if is_ros2(text):
        return text
    scheme = SCHEME.match(text)
    if scheme is None:
        forgotten = CREDENTIALS.match(text) is not None  # a URL without its scheme
        return _safe_rest(_without_user(text), keys=True) if forgotten else text
    name, rest = scheme.group(), text[scheme.end() :]
    if name.startswith(("file:", "ipc:")):
        return text
    return name + _safe_rest(_without_user(rest), keys=name.partition(":")[0].lower() not in LOCAL)


def safe_text(message: str) -> str:
    """A message of several words with every address in it as `safe_address` shows it."""
    return WORD.sub(lambda word: _safe_word(word.group()), message)


class SafeFormatter(logging.Formatter):
    """Log records, and the traces in them, with safe addresses."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        return safe_text(super().format(record))


def _safe_word(word: str) -> str:
    scheme = SCHEME.search(word)
    typed = None if scheme else CREDENTIALS.search(word)
    if scheme is None and typed is None:
        return word
    start = scheme.start() if scheme else len(word) - len(word.lstrip(SENTENCE))
    stop = max(start, len(word.rstrip(SENTENCE)))
    return word[:start] + safe_address(word[start:stop]) + word[stop:]


def _without_user(rest: str) -> str:
    """What follows the scheme, with everything that may be a user or a password hidden."""
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    beyond = AT.search(rest, len(authority))
    user = list(AT.finditer(authority))
    if beyond is None:
        return rest if not user else f"{HIDDEN}@{rest[user[-1].end() :]}"
    # A password may hold a slash or a question mark, so what follows can be its second half.
    return rest if not user and _is_host(authority) else HIDDEN


def _is_host(authority: str) -> bool:
    """Whether this can only be a host, so that an `@` after it belongs to a path.

    `admin:1234` is not: with a slash in it, a password that was typed as it is looks like a port.
    """
    host, colon, port = authority.rpartition(":") if not authority.endswith("]") else (authority, "", "")
    if not colon:
        host, port = authority, "0"
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return host == "localhost" or (not colon and "." in host)
    return port.isdecimal()


def _safe_rest(rest: str, *, keys: bool) -> str:
    """Host, path, query and fragment; `keys`: parts of the path may be keys."""
    rest, hash_, fragment = rest.partition("#")
    path, mark, query = rest.partition("?")
    host, *parts = path.split("/")
    shown = "/".join([host, *(_safe_part(part) if keys else part for part in parts)])
    fields = "".join(_safe_field(field) for field in re.split(r"([&;?])", query))
    return shown + mark + fields + hash_ + (HIDDEN if fragment else "")


def _safe_part(part: str) -> str:
    """One part of a path; some cameras take `user=admin&password=…` there."""
    name, separator, _ = re.sub(r"%3[Dd]", "=", part).partition("=")
    if separator:
        return f"{name}={HIDDEN}"
    return HIDDEN if STREAM_KEY.fullmatch(part) else part


def _safe_field(field: str) -> str:
    """One `name=value` of a query, or the sign between two."""
    name, separator, value = field.partition("=")
    if field in ("", "&", ";", "?") or unquote(name).lower() in HARMLESS:
        return field if len(value) <= 16 and not AT.search(value) else f"{name}={HIDDEN}"
    return f"{name}={HIDDEN}" if separator else HIDDEN
