"""Packets as bytes: three frames, `[topic, msgpack header, raw array]`, schema-checked in both directions.

The header holds the schema version `v`, all fields of the packet and, as `array`, its dtype and shape or
null. The payload is the array in C order, little-endian float32, or empty. Nothing is pickled or evaluated.
Whatever the bytes are, `decode` returns a packet within the limits of `formats` or raises `WireError`; and so
does `encode` for a packet that no receiver would accept, such as one whose features are not finite.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import msgpack
import numpy as np
from numpy.typing import NDArray

from emi_live.bus.fields import Fields
from emi_live.bus.formats import CODECS, MAX_TEXT, MAX_WORDS, Codec, Stamps
from emi_live.errors import WireError
from emi_live.messages import Packet

__all__ = ["MAX_FRAME_BYTES", "SCHEMA_VERSION", "TOPICS", "decode", "encode"]

SCHEMA_VERSION: Final = 5
TOPICS: Final = tuple(CODECS)
DTYPE: Final = "<f4"
FRAME_COUNT: Final = 3
MAX_FIELDS: Final = 32  # of one record; an estimate has 17
MAX_FRAME_BYTES: Final = max(max(codec.max_header, codec.max_payload) for codec in CODECS.values())


def encode(packet: Packet) -> list[bytes]:
    """The packet's three frames; they share no memory with it.

    Raises:
        WireError: a value is of the wrong type, too long, out of range or not finite.
    """
    codec = CODECS.get(packet.topic)
    if codec is None or type(packet) is not codec.packet:
        raise WireError(f"{type(packet).__name__} is not a packet of the bus; topics are {', '.join(TOPICS)}")
    fields, array = codec.write(packet)
    header = {
        "v": SCHEMA_VERSION,
        "t_ns": packet.t_ns,
        "progress_ns": packet.progress_ns,
        "arrived_ns": packet.arrived_ns,
        "seq": packet.seq,
        "published_ns": packet.published_ns,
        **fields,
        "array": None if array is None else {"dtype": DTYPE, "shape": list(array.shape)},
    }
    payload = b"" if array is None else _payload_of(array, packet.topic)
    _read(packet.topic, codec, header, payload)
    try:
        packed: bytes = msgpack.packb(header, use_bin_type=True)
    except (ValueError, TypeError, OverflowError) as error:
        raise WireError(f"the {packet.topic} packet cannot be written as msgpack: {error}") from error
    _check_size(packet.topic, "header", len(packed), codec.max_header)
    _check_size(packet.topic, "payload", len(payload), codec.max_payload)
    return [packet.topic.encode(), packed, payload]


def decode(frames: Sequence[bytes]) -> Packet:
    """The packet in three frames of untrusted bytes; its arrays are the caller's own, writable.

    Raises:
        WireError: anything else than a packet of this schema version, within its limits.
    """
    if len(frames) != FRAME_COUNT:
        raise WireError(f"a packet has {FRAME_COUNT} frames, got {len(frames)}")
    name, packed, payload = frames
    topic = next((known for known in TOPICS if known.encode() == name), None)
    if topic is None:
        raise WireError(f"unknown topic {bytes(name[:40])!r}; topics are {', '.join(TOPICS)}")
    codec = CODECS[topic]
    _check_size(topic, "header", len(packed), codec.max_header)
    _check_size(topic, "payload", len(payload), codec.max_payload)
    try:
        header = msgpack.unpackb(
            packed,
            raw=False,
            strict_map_key=True,
            max_str_len=4 * MAX_TEXT,
            max_bin_len=0,
            max_ext_len=0,
            max_array_len=MAX_WORDS,
            max_map_len=MAX_FIELDS,
        )
    except ValueError as error:  # every error of msgpack on bad bytes derives from it
        raise WireError(f"the header of the {topic} packet is not valid msgpack: {error}") from error
    return _read(topic, codec, header, payload)


def _read(topic: str, codec: Codec, header: object, payload: bytes) -> Packet:
    fields = Fields(header, topic)
    version = fields.integer("v")
    if version != SCHEMA_VERSION:
        raise WireError(
            f"the {topic} packet has schema version {version}, this program speaks {SCHEMA_VERSION}"
        )
    stamps = Stamps(
        t_ns=fields.integer("t_ns"),
        progress_ns=fields.integer("progress_ns"),
        arrived_ns=fields.integer("arrived_ns"),
        seq=fields.integer("seq", 0),
        published_ns=fields.integer("published_ns"),
    )
    packet = codec.read(fields, stamps, _array(topic, fields.optional_record("array"), payload))
    fields.end()
    return packet


def _array(topic: str, described: Fields | None, payload: bytes) -> NDArray[np.float32] | None:
    if described is None:
        if payload:
            raise WireError(f"the {topic} packet describes no array but carries {len(payload)} bytes")
        return None
    described.choice("dtype", (DTYPE,))
    shape = tuple(
        Fields({"size": size}, f"{topic}.array.shape[{index}]").integer("size", 0, MAX_FRAME_BYTES)
        for index, size in enumerate(described.items("shape", 2))
    )
    described.end()
    if not shape or math.prod(shape) * np.dtype(DTYPE).itemsize != len(payload):
        raise WireError(f"the {topic} packet carries {len(payload)} bytes for an array of shape {shape}")
    array = np.frombuffer(payload, DTYPE).astype(np.float32).reshape(shape)
    if not np.isfinite(array).all():
        raise WireError(f"the array of the {topic} packet has values that are not finite")
    return array


def _payload_of(array: NDArray[np.float32], topic: str) -> bytes:
    if array.dtype != np.float32:
        raise WireError(f"the array of a {topic} packet must be float32, got {array.dtype}")
    return array.astype(DTYPE, copy=False).tobytes(order="C")


def _check_size(topic: str, part: str, size: int, limit: int) -> None:
    if size > limit:
        raise WireError(f"the {part} of the {topic} packet has {size} bytes; at most {limit} are allowed")
