"""Messages between `emi serve` and its clients, version 1. docs/web.md explains them with examples.

The server sends JSON text: `Hello`, `EstimateEvent`, `WordsEvent`, `StateEvent`, `WarningEvent`, `Bye`, and
`FacesEvent` to who asks for it. A client sends JSON commands, and media as binary messages: 16 bytes of
header (`pack_media`), then PCM or one JPEG picture. A JSON Schema is made from these declarations; a test
keeps it up to date:

    python -m emi_live.web.protocol > docs/web-protocol.schema.json
"""

from __future__ import annotations

import json
import struct
import sys
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import msgspec

from emi_live.errors import ConfigurationError

__all__ = [
    "MAX_KEY",
    "MAX_MESSAGE",
    "PICTURE",
    "PROTOCOL",
    "SOUND",
    "Bye",
    "Command",
    "EstimateEvent",
    "Event",
    "FacesEvent",
    "Hello",
    "Media",
    "Offer",
    "ProtocolError",
    "Role",
    "Rules",
    "SpokenWord",
    "StateEvent",
    "WarningEvent",
    "WordsEvent",
    "decode_command",
    "decode_event",
    "encode",
    "jpeg_size",
    "json_schema",
    "pack_media",
    "unpack_media",
]

PROTOCOL: Final = 1  # a new field does not change it; a new meaning does
MAX_MESSAGE: Final = 1 << 20  # bytes of one message from a client
MAX_KEY: Final = 64  # characters by which a source is known
MAX_OFFER: Final = 128 * 1024  # bytes of an offer of WebRTC
MAX_COMMAND: Final = 4096  # bytes of one JSON command
MAX_SIDE: Final = 2048  # pixels of a picture
RATES_HZ: Final = (8_000, 192_000)  # of sound
MAX_SOUND_S: Final = 2.0  # of one block
SOUND: Final = 1
PICTURE: Final = 2
HEADER: Final = struct.Struct("<B3xId")  # kind, sample rate (0 for a picture), capture time in ms
LATEST_MS: Final = 1e12  # 31 years since the client's clock began
VIOLATIONS: Final = 20  # refused messages after which a connection is closed
MESSAGES_A_SECOND: Final = 400  # of one connection, as a mean over `BURST_S`
BURST_S: Final = 5.0


class ProtocolError(ConfigurationError):
    """A client sent what the protocol does not allow."""


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", forbid_unknown_fields=True):
    """What the server sends; `type` says which one it is."""


# A source sends media and commands, a controller commands; a viewer only reads.
Role = Literal["source", "controller", "viewer"]


class Hello(Event, frozen=True, kw_only=True, tag="hello"):
    """The first message of a connection."""

    session: str
    protocol: int = PROTOCOL
    role: Role
    emotions: list[str]  # names of the intensities, in order
    hop_s: float  # seconds between estimates
    window_s: float
    bundle: str
    version: str  # of emi-live
    max_message: int = MAX_MESSAGE  # bytes
    notice: str | None = None  # for the person who is analysed


class EstimateEvent(Event, frozen=True, kw_only=True, tag="estimate"):
    """One estimate: the object of the JSON line (docs/messages.md).

    `end_ms` is the end of its window by the client's clock, as in its media; None before any media.
    """

    estimate: dict[str, Any]
    end_ms: float | None = None


class SpokenWord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One word. It keeps its number; until it is committed it may still change."""

    number: int
    text: str
    start: float  # seconds since the session began, as `t` of an estimate
    end: float
    committed: bool


class WordsEvent(Event, frozen=True, kw_only=True, tag="words"):
    """Words that are new or have changed, and the numbers of partial words that were withdrawn."""

    words: list[SpokenWord]
    withdrawn: list[int] = []
    language: str | None = None


class FacesEvent(Event, frozen=True, kw_only=True, tag="faces"):
    """Where the faces of one picture are; only for connections that ask for it (`?faces=1`).

    A box is x, y of its upper left corner, width and height, in fractions of the picture; a face at the
    edge goes beyond it. `followed` is the number of the box of the face that is read, from 0; null: it is not
    among them. `at_ms` is the picture's capture time by the client's clock. `landmarks`, after the command
    `show_landmarks`: x and y of the 478 points of that face, one after the other, in thousandths.
    """

    boxes: list[tuple[float, float, float, float]]
    followed: int | None = None
    at_ms: float | None = None
    landmarks: list[int] | None = None


class StateEvent(Event, frozen=True, kw_only=True, tag="state"):
    """What the session does.

    `loading`: models load. `running`: estimates come. `paused`: the source paused it. `lost`: the source has
    gone, and may come back within `seconds`.
    """

    state: Literal["loading", "running", "paused", "lost"]
    muted: bool = False
    seconds: float | None = None


class WarningEvent(Event, frozen=True, kw_only=True, tag="warning"):
    """Something was refused or lost. `counter` is the name under which it is counted, `count` how often."""

    text: str
    counter: str | None = None
    count: int | None = None


class Bye(Event, frozen=True, kw_only=True, tag="bye"):
    """The last message: why the session has ended."""

    reason: str


Fraction = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]


class Command(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the source of a session may ask for.

    `mark` sets a marker in the next estimate; `mute` ignores sound; `end` ends the session. `follow` chooses
    the face nearest to the point `at`, x and y in fractions of the picture, or without it the largest.
    `show_landmarks` and `hide_landmarks` are for this connection's `faces`. `clock` tells the client's clock,
    `ms`, where no message with media does: with WebRTC.
    """

    type: Literal[
        "mark",
        "pause",
        "resume",
        "mute",
        "unmute",
        "end",
        "follow",
        "show_landmarks",
        "hide_landmarks",
        "clock",
    ]
    at: tuple[Fraction, Fraction] | None = None  # of `follow` alone
    ms: Annotated[float, msgspec.Meta(ge=0.0, le=LATEST_MS)] | None = None  # of `clock` alone


class Offer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a client begins a WebRTC connection, as `RTCPeerConnection.createOffer` gives it."""

    type: Literal["offer"]
    sdp: str


class Rules:
    """Counts what one connection sends, and what was refused of it."""

    def __init__(self) -> None:
        self._violations = 0
        self._count = 0
        self._since_s: float | None = None

    def count(self, now_s: float) -> bool:
        """Count a message; True if there are too many."""
        if self._since_s is None or now_s - self._since_s >= BURST_S:
            self._count, self._since_s = 0, now_s
        self._count += 1
        return self._count > MESSAGES_A_SECOND * BURST_S

    def violated(self) -> bool:
        """Count a message that was refused; True if there are too many."""
        self._violations += 1
        return self._violations > VIOLATIONS


@dataclass(frozen=True, slots=True)
class Media:
    """One binary message.

    Attributes:
        kind: `SOUND` or `PICTURE`.
        rate_hz: sample rate of sound; 0 for a picture.
        t_ms: capture time of the picture or of the first sample: milliseconds of the client's clock.
        payload: PCM, 16 bits, little-endian, one channel; or a JPEG picture.
    """

    kind: int
    rate_hz: int
    t_ms: float
    payload: memoryview


def pack_media(kind: int, t_ms: float, payload: bytes, rate_hz: int = 0) -> bytes:
    """One binary message; see `Media`."""
    return HEADER.pack(kind, rate_hz, t_ms) + payload


def unpack_media(message: bytes) -> Media:
    """Check and read one binary message.

    Raises:
        ProtocolError: it is too short, too long, of an unknown kind, or its fields are out of range.
    """
    if not HEADER.size < len(message) <= MAX_MESSAGE:
        raise ProtocolError(
            f"a binary message of {len(message)} bytes: use {HEADER.size + 1} to {MAX_MESSAGE}"
        )
    kind, rate_hz, t_ms = HEADER.unpack_from(message)
    payload = memoryview(message)[HEADER.size :]
    if message[1:4] != b"\0\0\0" or kind not in (SOUND, PICTURE):
        raise ProtocolError("a binary message of an unknown kind; 1 is sound and 2 is a picture")
    if not 0 <= t_ms <= LATEST_MS:  # also refuses NaN
        raise ProtocolError("a capture time that is not a number of milliseconds from 0 on")
    if kind == SOUND:
        low, high = RATES_HZ
        if not low <= rate_hz <= high:
            raise ProtocolError(f"sound of {rate_hz} Hz; use {low} to {high}")
        if len(payload) % 2 or len(payload) > 2 * MAX_SOUND_S * rate_hz:
            raise ProtocolError(
                f"sound of {len(payload)} bytes; use 16-bit samples, at most {MAX_SOUND_S:g} s"
            )
    elif rate_hz:
        raise ProtocolError("a picture has no sample rate; the field must be 0")
    else:
        jpeg_size(payload)
    return Media(kind, rate_hz, t_ms, payload)


# The markers of JPEG's start of frame; C4, C8 and CC in this range are others.
FRAME_MARKERS: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def jpeg_size(data: memoryview) -> tuple[int, int]:
    """Width and height of a JPEG picture from its header, so that nothing large is decoded.

    Raises:
        ProtocolError: it is no JPEG picture, or larger than `MAX_SIDE`.
    """
    if bytes(data[:2]) != b"\xff\xd8":
        raise ProtocolError("a picture that is not JPEG")
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in FRAME_MARKERS:
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
                raise ProtocolError(f"a picture of {width} x {height} pixels; use at most {MAX_SIDE}")
            return width, height
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    raise ProtocolError("a JPEG picture without a size")


_events: Final[msgspec.json.Decoder[Event]] = msgspec.json.Decoder(
    Hello | EstimateEvent | WordsEvent | FacesEvent | StateEvent | WarningEvent | Bye
)
_commands: Final = msgspec.json.Decoder(Command)


def encode(message: Event | Command) -> str:
    """One message as JSON text."""
    return msgspec.json.encode(message).decode()


def decode_event(text: str | bytes) -> Event:
    """A message of the server.

    Raises:
        ProtocolError: it is not one of this version.
    """
    try:
        return _events.decode(text)
    except msgspec.DecodeError as error:
        raise ProtocolError(f"not a message of protocol {PROTOCOL}: {error}") from error


def decode_command(text: str) -> Command:
    """A command of a client.

    Raises:
        ProtocolError: it is not one.
    """
    if len(text) > MAX_COMMAND:
        raise ProtocolError(f"a command of {len(text)} characters; use at most {MAX_COMMAND}")
    try:
        return _commands.decode(text)
    except msgspec.DecodeError as error:
        raise ProtocolError(f"not a command: {error}") from error


def json_schema() -> dict[str, Any]:
    """The JSON Schema of all text messages."""
    kinds = [Hello, EstimateEvent, WordsEvent, FacesEvent, StateEvent, WarningEvent, Bye, Command]
    refs, definitions = msgspec.json.schema_components(kinds, ref_template="#/$defs/{name}")
    named = dict(definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"emi serve, protocol {PROTOCOL}",
        "oneOf": list(refs),
        "$defs": named,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(json_schema(), indent=2) + "\n")
