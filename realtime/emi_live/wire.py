"""Packets as bytes: three frames, `[topic, msgpack header, raw array]`.

The declarations in `emi_live.messages` are the format. The header is a packet's fields as msgspec writes
them; `packet` names the kind and the schema version, such as `vision/7`. In the header an array is only its
dtype and shape; the payload is the array itself, little-endian float32 in C order, or empty.

Nothing is pickled or evaluated. Whatever the bytes are, `decode` returns a packet within the declared limits
or raises `WireError`. The sender does not check its own values: the receiver does, once. A header is accepted
only in the form in which `encode` writes it: every field once, in the order of the declaration.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, TypeAlias, Union, cast

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from emi_live.errors import WireError
from emi_live.messages import PACKETS, Packet

__all__ = ["MAX_FRAME_BYTES", "TOPICS", "Buffer", "decode", "encode"]

Buffer: TypeAlias = bytes | memoryview

TOPICS: Final = tuple(packet.topic for packet in PACKETS)
FRAME_COUNT: Final = 3
MAX_FRAME_BYTES: Final = max(max(packet.max_header, packet.max_payload) for packet in PACKETS)
DTYPE: Final = "<f4"
ITEM_BYTES: Final = 4


class _Array(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An array as the header describes it."""

    dtype: Literal["<f4"]
    shape: Annotated[
        tuple[Annotated[int, Meta(ge=0, le=MAX_FRAME_BYTES)], ...], Meta(min_length=1, max_length=2)
    ]


class _Layout:
    """What a packet's declaration says of its array, if it has one: the field, and limits of the shape."""

    def __init__(self, packet: type[Packet]) -> None:
        self.packet = packet
        self.field: str | None = None
        declared = cast("msgspec.inspect.StructType", msgspec.inspect.type_info(packet))
        for field in declared.fields:
            if isinstance(field.type, msgspec.inspect.Metadata) and field.type.extra is not None:
                self.field = field.name
                self.largest: tuple[int, ...] = field.type.extra["shape"]
                self.least: int = field.type.extra["least"]

    def array_of(self, packet: Packet) -> NDArray[np.float32] | None:
        return None if self.field is None else getattr(packet, self.field)

    def accepts(self, shape: tuple[int, ...]) -> bool:
        return len(shape) == len(self.largest) and all(
            self.least <= size <= most for size, most in zip(shape, self.largest, strict=True)
        )

    def check_size(self, header: Buffer, payload: Buffer) -> None:
        for part, size, most in (
            ("header", len(header), self.packet.max_header),
            ("payload", len(payload), self.packet.max_payload),
        ):
            if size > most:
                raise WireError(
                    f"the {part} of the {self.packet.topic} packet has {size} bytes; {most} are allowed"
                )


LAYOUTS: Final = {packet.topic.encode(): _Layout(packet) for packet in PACKETS}


def encode(packet: Packet) -> tuple[bytes, bytes, Buffer]:
    """The packet's three frames; the last one is the packet's own array where it lies in C order.

    Raises:
        WireError: it cannot be written: another type, a number of more than 64 bits, or too long.
    """
    topic = packet.topic.encode()
    layout = LAYOUTS.get(topic)
    if layout is None or type(packet) is not layout.packet:
        raise WireError(f"{type(packet).__name__} is not a packet of the bus; topics are {', '.join(TOPICS)}")
    try:
        header = _ENCODER.encode(packet)
    except (ValueError, TypeError, OverflowError) as error:
        raise WireError(f"the {packet.topic} packet cannot be written as msgpack: {error}") from error
    array = layout.array_of(packet)
    payload: Buffer = b""
    if array is not None and array.size:
        payload = np.ascontiguousarray(array, DTYPE).data.cast("B")
    layout.check_size(header, payload)
    return topic, header, payload


def decode(frames: Sequence[Buffer]) -> Packet:
    """The packet in three frames of untrusted bytes; its array is a read-only view of the last one.

    Raises:
        WireError: anything but a packet of this schema version, within its limits.
    """
    if len(frames) != FRAME_COUNT:
        raise WireError(f"a packet has {FRAME_COUNT} frames, got {len(frames)}")
    name, header, payload = frames
    layout = LAYOUTS.get(bytes(name))
    if layout is None:
        raise WireError(f"unknown topic {bytes(name[:40])!r}; topics are {', '.join(TOPICS)}")
    layout.check_size(header, payload)
    try:
        packet = _DECODER.read(header, payload)
    except (ValueError, RecursionError) as error:  # msgspec's errors derive from ValueError
        raise WireError(
            f"not a {layout.packet.topic} packet of this version of emi-live: {str(error)[:200]}"
        ) from error
    if type(packet) is not layout.packet:
        raise WireError(f"the topic is {layout.packet.topic}, but the packet is of {packet.topic}")
    array = layout.array_of(packet)
    if array is None and payload:
        raise WireError(f"the {packet.topic} packet describes no array but carries {len(payload)} bytes")
    if array is not None and not layout.accepts(array.shape):
        raise WireError(
            f"{packet.topic}.{layout.field} has the shape {array.shape}; at least {layout.least} and at "
            f"most {layout.largest} are allowed"
        )
    # msgspec fills a missing field from its default and lets the last of two win; we accept neither.
    if _ENCODER.encode(packet) != header:
        raise WireError(f"a field of the {packet.topic} packet is missing, repeated or in another form")
    return packet


def _describe(array: Any) -> dict[str, object]:
    if not isinstance(array, np.ndarray) or array.dtype != np.float32:
        raise TypeError(f"an array must be float32, got {getattr(array, 'dtype', type(array).__name__)}")
    return {"dtype": DTYPE, "shape": array.shape}


class _PacketDecoder(threading.local):
    """The decoder of each thread. It takes the array of a message from the message's last frame."""

    def __init__(self) -> None:
        self._payload: Buffer = b""
        # In a union the decoder requires the tag that names kind and version; for one type it may be absent.
        any_packet: Any = Union.__getitem__(PACKETS)
        self._decoder = msgspec.msgpack.Decoder(any_packet, dec_hook=self._array)

    def read(self, header: Buffer, payload: Buffer) -> Packet:
        self._payload = payload
        try:
            packet: Packet = self._decoder.decode(header)
        finally:
            self._payload = b""
        return packet

    def _array(self, _: type, described: Any) -> NDArray[np.float32]:
        shape = msgspec.convert(described, _Array).shape
        if math.prod(shape) * ITEM_BYTES != len(self._payload):
            raise WireError(f"{len(self._payload)} bytes for an array of shape {shape}")
        array: NDArray[np.float32] = np.frombuffer(self._payload, DTYPE).reshape(shape)
        if not np.isfinite(array).all():
            raise WireError("the array has values that are not finite")
        array.flags.writeable = False
        return array


_DECODER: Final = _PacketDecoder()
_ENCODER: Final = msgspec.msgpack.Encoder(enc_hook=_describe)
