from __future__ import annotations

import dataclasses
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emi_live.bus import wire
from emi_live.bus.formats import CODECS, MAX_TEXT, MAX_WORDS
from emi_live.errors import WireError
from emi_live.messages import (
    AudioPacket,
    Packet,
    TextPacket,
    TranscriptPacket,
    VisionPacket,
    Word,
    end_of_stream,
)
from tests.live.bus.packets import estimate, packets, same, vision


@given(packets)
def test_every_packet_comes_back_as_it_was(packet: Packet) -> None:
    assert same(wire.decode(wire.encode(packet)), packet)


@pytest.mark.parametrize("topic", ["vision", "audio", "transcript", "text"])
def test_the_end_of_a_stream_comes_back(topic: str) -> None:
    packet = end_of_stream(topic, 5)
    assert same(wire.decode(wire.encode(packet)), packet)


def test_arrays_are_little_endian_rows_and_the_receiver_owns_them() -> None:
    frames = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    sent = wire.encode(AudioPacket(t_ns=0, progress_ns=0, frames=frames, last_voice_ns=None))
    assert sent[2] == np.arange(6, dtype="<f4").tobytes()
    received = wire.decode(sent)
    assert isinstance(received, AudioPacket)
    assert received.frames.flags.writeable
    received.frames[0, 0] = 9.0
    assert frames[0, 0] == 0.0


@given(st.lists(st.binary(max_size=300), max_size=5))
def test_random_bytes_are_refused(frames: list[bytes]) -> None:
    with pytest.raises(WireError):
        wire.decode(frames)


@given(st.sampled_from(wire.TOPICS), st.binary(max_size=300), st.binary(max_size=64))
def test_random_headers_are_refused(topic: str, header: bytes, payload: bytes) -> None:
    with pytest.raises(WireError):
        wire.decode([topic.encode(), header, payload])


@settings(max_examples=400)
@given(packets, st.data())
def test_a_damaged_packet_is_refused_or_within_the_schema(packet: Packet, data: st.DataObject) -> None:
    frames = [bytearray(frame) for frame in wire.encode(packet)]
    for _ in range(data.draw(st.integers(1, 4))):
        frame = data.draw(st.sampled_from([part for part in frames if part]))
        position = data.draw(st.integers(0, len(frame) - 1))
        match data.draw(st.sampled_from(["flip", "insert", "cut"])):
            case "flip":
                frame[position] = data.draw(st.integers(0, 255))
            case "insert":
                frame.insert(position, data.draw(st.integers(0, 255)))
            case "cut":
                del frame[max(1, position) :]
    try:
        received = wire.decode([bytes(frame) for frame in frames])
    except WireError:
        return
    assert same(wire.decode(wire.encode(received)), received)


json_like = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=300)
@given(packets, json_like, st.data())
def test_any_value_in_any_field_is_refused_or_within_the_schema(
    packet: Packet, value: object, data: st.DataObject
) -> None:
    name, packed, payload = wire.encode(packet)
    header = msgpack.unpackb(packed)
    target: Any = header
    while True:
        key = data.draw(st.sampled_from(sorted(target) if isinstance(target, dict) else range(len(target))))
        if isinstance(target[key], (dict, list)) and target[key] and data.draw(st.booleans()):
            target = target[key]
        else:
            break
    target[key] = value
    try:
        received = wire.decode([name, msgpack.packb(header), payload])
    except WireError:
        return
    assert same(wire.decode(wire.encode(received)), received)


def changed(packet: Packet, **fields: object) -> list[bytes]:
    name, packed, payload = wire.encode(packet)
    header = msgpack.unpackb(packed) | fields
    return [name, msgpack.packb({key: value for key, value in header.items() if value is not ...}), payload]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"v": 3}, "schema version 3"),
        ({"v": True}, "whole number"),
        ({"seq": -1}, "seq must be within"),
        ({"t_ns": 2**63}, "t_ns must be within"),
        ({"t_ns": 1.0}, "whole number"),
        ({"faces": ...}, "no field 'faces'"),
        ({"extra": 1}, "unknown fields"),
        ({"array": {"dtype": "<f8", "shape": [4]}}, "dtype must be one of <f4"),
        ({"array": {"dtype": "<f4", "shape": [5]}}, "16 bytes for an array of shape"),
        ({"array": {"dtype": "<f4", "shape": [2, 2]}}, "in one row"),
        ({"array": {"dtype": "<f4", "shape": []}}, "of shape"),
        ({"array": {"dtype": "<f4", "shape": [-4]}}, "within"),
        ({"array": {"dtype": "<f4", "shape": [2**40, 2**40]}}, "within"),
        ({"array": {"dtype": "<f4", "shape": [1, 1, 4]}}, "at most 2"),
        ({"array": None}, "carries 16 bytes"),
    ],
)
def test_a_refusal_says_what_is_wrong(fields: dict[str, object], message: str) -> None:
    with pytest.raises(WireError, match=message):
        wire.decode(changed(vision(features=np.ones(4, np.float32)), **fields))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_refused_on_both_ends(value: float) -> None:
    features = np.array([1.0, value], np.float32)
    with pytest.raises(WireError, match="not finite"):
        wire.encode(vision(features=features))
    name, header, _ = wire.encode(vision(features=np.ones(2, np.float32)))
    with pytest.raises(WireError, match="not finite"):
        wire.decode([name, header, features.tobytes()])


@pytest.mark.parametrize(
    "change",
    [
        {"intensities": (0.0,) * 5},
        {"intensities": (0.0,) * 5 + (1.5,)},
        {"intensities": (0.0,) * 5 + (float("nan"),)},
        {"t_s": float("inf")},
        {"engine": "x" * 201},
        {"modalities": {}},
    ],
)
def test_an_estimate_that_breaks_the_contract_is_refused_at_the_sender(change: dict[str, Any]) -> None:
    with pytest.raises(WireError):
        wire.encode(dataclasses.replace(estimate(), **change))


def test_what_is_too_large_is_refused_before_it_is_sent() -> None:
    word = Word("a", 0, 0, True)
    with pytest.raises(WireError, match="words has 1025 values"):
        wire.encode(TranscriptPacket(t_ns=0, progress_ns=0, words=(word,) * (MAX_WORDS + 1)))
    long = TextPacket(
        t_ns=0, progress_ns=0, embedding=None, committed="x" * (MAX_TEXT + 1), partial="", last_word_ns=None
    )
    with pytest.raises(WireError, match="at most 16384"):
        wire.encode(long)
    with pytest.raises(WireError, match="1 to 4096"):
        wire.encode(vision(features=np.ones(5000, np.float32)))
    with pytest.raises(WireError, match="float32"):
        wire.encode(VisionPacket(t_ns=0, progress_ns=0, faces=1, features=np.ones(4)))  # type: ignore[arg-type] # the point
    with pytest.raises(WireError, match="msgpack"):
        wire.encode(TranscriptPacket(t_ns=0, progress_ns=0, words=(Word("\ud800", 0, 0, True),)))


def test_the_largest_packet_of_each_kind_fits() -> None:
    full = "\U0001f600" * MAX_TEXT
    one = estimate()
    reports = {
        **one.modalities,
        "text": dataclasses.replace(one.modalities["text"], committed=full, partial=full),
    }
    for packet in (
        dataclasses.replace(one, modalities=reports),
        TextPacket(t_ns=0, progress_ns=0, embedding=None, committed=full, partial=full, last_word_ns=None),
        AudioPacket(t_ns=0, progress_ns=0, frames=np.zeros((1500, 1027), np.float32), last_voice_ns=None),
    ):
        assert same(wire.decode(wire.encode(packet)), packet)


@pytest.mark.parametrize("topic", wire.TOPICS)
def test_oversized_frames_are_refused_unread(topic: str) -> None:
    codec = CODECS[topic]
    with pytest.raises(WireError, match="header of the"):
        wire.decode([topic.encode(), b"\x80" * (codec.max_header + 1), b""])
    with pytest.raises(WireError, match="payload of the"):
        wire.decode([topic.encode(), b"\x80", b"\0" * (codec.max_payload + 1)])


def test_a_deeply_nested_header_is_refused() -> None:
    with pytest.raises(WireError, match="msgpack"):
        wire.decode([b"text", b"\x91" * 100_000, b""])
