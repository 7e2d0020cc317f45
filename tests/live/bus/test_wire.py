from __future__ import annotations

import random
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import FieldInfo

from emi_live import wire
from emi_live.errors import WireError
from emi_live.messages import (
    MAX_TEXT,
    MAX_WORDS,
    PACKETS,
    SCHEMA_VERSION,
    AudioPacket,
    Estimate,
    Latency,
    Packet,
    TextPacket,
    Trace,
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


def test_arrays_are_little_endian_rows_and_the_receiver_cannot_change_them() -> None:
    frames = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    sent = wire.encode(AudioPacket(t_ns=0, progress_ns=0, frames=frames, last_voice_ns=None))
    assert bytes(sent[2]) == np.arange(6, dtype="<f4").tobytes()
    received = wire.decode(sent)
    assert isinstance(received, AudioPacket)
    with pytest.raises(ValueError, match="read-only"):
        received.frames[0, 0] = 9.0


def test_neither_end_copies_an_array() -> None:
    frames = np.arange(6, dtype=np.float32).reshape(2, 3)
    received = wire.decode(wire.encode(AudioPacket(t_ns=0, progress_ns=0, frames=frames, last_voice_ns=None)))
    assert isinstance(received, AudioPacket)
    assert np.shares_memory(received.frames, frames)


@pytest.mark.parametrize("kind", PACKETS)
def test_the_declaration_of_a_packet_is_its_header(kind: type[Packet]) -> None:
    header = msgspec.msgpack.decode(wire.encode(example(kind))[1])
    assert list(header) == ["packet", *(field.encode_name for field in msgspec.structs.fields(kind))]


@pytest.mark.parametrize(
    ("kind", "field"),
    [(kind, field) for kind in PACKETS for field in msgspec.structs.fields(kind)],
    ids=lambda value: getattr(value, "topic", None) or value.name,
)
def test_every_declared_field_is_checked_by_the_receiver(kind: type[Packet], field: FieldInfo) -> None:
    name, packed, payload = wire.encode(example(kind))
    header = msgspec.msgpack.decode(packed)
    for wrong in ({"unknown": 1}, 2**63, float("nan"), "\n" * (2**18)):
        try:
            msgspec.convert(wrong, field.type)
        except msgspec.ValidationError:
            message = [name, msgspec.msgpack.encode(header | {field.name: wrong}), payload]
            with pytest.raises(WireError):
                wire.decode(message)
    del header[field.name]
    with pytest.raises(WireError):
        wire.decode([name, msgspec.msgpack.encode(header), payload])


def test_a_field_of_a_nested_part_may_not_be_missing_either() -> None:
    name, packed, payload = wire.encode(example(Estimate))
    header = msgspec.msgpack.decode(packed)
    for part in (*header["modalities"].values(), header["latency"]):
        for field, value in list(part.items()):
            del part[field]
            with pytest.raises(WireError):
                wire.decode([name, msgspec.msgpack.encode(header), payload])
            part[field] = value


def test_a_field_may_not_come_twice() -> None:
    name, packed, payload = wire.encode(example(VisionPacket))
    count, repeated = packed[0] & 0x0F, msgspec.msgpack.encode("behind") + msgspec.msgpack.encode(False)
    assert packed[0] & 0xF0 == 0x80  # a map of fewer than 16 fields
    with pytest.raises(WireError):
        wire.decode([name, bytes([0x80 | (count + 1)]) + packed[1:] + repeated, payload])


@given(st.lists(st.binary(max_size=300), max_size=5))
def test_random_bytes_are_refused(frames: list[bytes]) -> None:
    with pytest.raises(WireError):
        wire.decode(frames)


@given(st.sampled_from(wire.TOPICS), st.binary(max_size=300), st.binary(max_size=64))
def test_random_headers_are_refused(topic: str, header: bytes, payload: bytes) -> None:
    with pytest.raises(WireError):
        wire.decode([topic.encode(), header, payload])


@pytest.mark.slow
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


@pytest.mark.slow
@settings(max_examples=300)
@given(packets, json_like, st.data())
def test_any_value_in_any_field_is_refused_or_within_the_schema(
    packet: Packet, value: object, data: st.DataObject
) -> None:
    name, packed, payload = wire.encode(packet)
    header = msgspec.msgpack.decode(packed)
    target: Any = header
    while True:
        key = data.draw(st.sampled_from(sorted(target) if isinstance(target, dict) else range(len(target))))
        if isinstance(target[key], (dict, list)) and target[key] and data.draw(st.booleans()):
            target = target[key]
        else:
            break
    target[key] = value
    try:
        received = wire.decode([name, msgspec.msgpack.encode(header), payload])
    except WireError:
        return
    assert same(wire.decode(wire.encode(received)), received)


def changed(packet: Packet, /, **fields: object) -> list[wire.Buffer]:
    name, packed, payload = wire.encode(packet)
    header = msgspec.msgpack.decode(packed) | fields
    return [
        name,
        msgspec.msgpack.encode({key: value for key, value in header.items() if value is not ...}),
        payload,
    ]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"packet": "vision/5"}, "vision/5"),
        ({"packet": True}, "packet"),
        ({"packet": ...}, "packet"),
        ({"packet": f"audio/{SCHEMA_VERSION}"}, "unknown field"),
        ({"seq": -1}, "seq"),
        ({"t_ns": 2**63}, "t_ns"),
        ({"t_ns": 1.0}, "t_ns"),
        ({"t_ns": True}, "t_ns"),
        ({"faces": ...}, "faces"),
        ({"extra": 1}, "extra"),
        ({"features": {"dtype": "<f8", "shape": [4]}}, "<f8"),
        ({"features": {"dtype": "<f4", "shape": [5]}}, "16 bytes"),
        ({"features": {"dtype": "<f4", "shape": [2, 2]}}, "shape"),
        ({"features": {"dtype": "<f4", "shape": []}}, "shape"),
        ({"features": {"dtype": "<f4", "shape": [-4]}}, "shape"),
        ({"features": {"dtype": "<f4", "shape": [2**40, 2**40]}}, "shape"),
        ({"features": {"dtype": "<f4", "shape": [1, 1, 4]}}, "shape"),
        ({"features": {"dtype": "<f4", "shape": [4], "order": "C"}}, "order"),
        ({"features": [4]}, "got `array`"),
        ({"features": None}, "16 bytes"),
    ],
)
def test_a_refusal_says_what_is_wrong(fields: dict[str, object], message: str) -> None:
    with pytest.raises(WireError, match=message):
        wire.decode(changed(vision(features=np.ones(4, np.float32)), **fields))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(WireError, match="finite"):
        wire.decode(wire.encode(vision(features=np.array([1.0, value], np.float32))))


@pytest.mark.parametrize(
    "change",
    [
        {"intensities": (0.0,) * 5},
        {"intensities": (0.0,) * 5 + (1.5,)},
        {"intensities": (0.0,) * 5 + (float("nan"),)},
        {"t_s": float("inf")},
        {"engine": "x" * 201},
        {"latency": Latency(0.0, float("nan"), None)},
    ],
)
def test_an_estimate_that_breaks_the_contract_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises((WireError, ValueError)):
        wire.decode(wire.encode(msgspec.structs.replace(estimate(), **change)))


def test_an_estimate_has_each_modality_once() -> None:
    with pytest.raises(ValueError, match="each"):
        msgspec.structs.replace(estimate(), modalities={})
    name, packed, payload = wire.encode(estimate())
    twice = packed.replace(b"\xa5audio", b"\xa6vision", 1)
    with pytest.raises(WireError, match="each"):
        wire.decode([name, twice, payload])


def test_what_is_too_large_is_refused() -> None:
    word = Word("a", 0, 0, True)
    many = TranscriptPacket(t_ns=0, progress_ns=0, words=(word,) * (MAX_WORDS + 1))
    text = "x" * (MAX_TEXT + 1)
    long = TextPacket(t_ns=0, progress_ns=0, embedding=None, committed=text, partial="", last_word_ns=None)
    wide = AudioPacket(t_ns=0, progress_ns=0, frames=np.ones((1, 5000), np.float32), last_voice_ns=None)
    for code in ("", "German", "DE", "de\n", "d"):
        with pytest.raises(WireError, match="language"):
            wire.decode(wire.encode(TranscriptPacket(t_ns=0, progress_ns=0, words=(), language=code)))
    for packet, key in ((many, "words"), (long, "committed"), (wide, "frames")):
        with pytest.raises(WireError, match=key):
            wire.decode(wire.encode(packet))


def test_what_cannot_be_written_is_refused_at_the_sender() -> None:
    with pytest.raises(WireError, match="payload"):
        wire.encode(vision(features=np.ones(5000, np.float32)))
    with pytest.raises(WireError, match="float32"):
        wire.encode(VisionPacket(t_ns=0, progress_ns=0, faces=1, features=np.ones(4)))  # type: ignore[arg-type] # the point
    with pytest.raises(WireError, match="msgpack"):
        wire.encode(TranscriptPacket(t_ns=0, progress_ns=0, words=(Word("\ud800", 0, 0, True),)))
    with pytest.raises(WireError, match="msgpack"):
        wire.encode(vision(2**64))


def test_the_largest_packet_of_each_kind_fits() -> None:
    full = "\U0001f600" * MAX_TEXT
    one = estimate()
    reports = {
        **one.modalities,
        "text": msgspec.structs.replace(one.modalities["text"], committed=full, partial=full),
    }
    for packet in (
        msgspec.structs.replace(one, modalities=reports),
        TextPacket(t_ns=0, progress_ns=0, embedding=None, committed=full, partial=full, last_word_ns=None),
        AudioPacket(t_ns=0, progress_ns=0, frames=np.zeros((1500, 1027), np.float32), last_voice_ns=None),
    ):
        assert same(wire.decode(wire.encode(packet)), packet)


@pytest.mark.parametrize("packet", PACKETS)
def test_oversized_frames_are_refused_unread(packet: type[Packet]) -> None:
    topic = packet.topic.encode()
    with pytest.raises(WireError, match="header"):
        wire.decode([topic, b"\x80" * (packet.max_header + 1), b""])
    with pytest.raises(WireError, match="payload"):
        wire.decode([topic, b"\x80", b"\0" * (packet.max_payload + 1)])


HOSTILE = {
    "nested lists": b"\x91" * 100_000,
    "nested maps": b"\x81\xa0" * 50_000,
    "a list of 4 billion": b"\xdd\xff\xff\xff\xff",
    "a map of 4 billion": b"\xdf\xff\xff\xff\xff",
    "a text of 4 billion": b"\xdb\xff\xff\xff\xff",
    "an extension": b"\xc7\x03\x05abc",
    "not UTF-8": b"\xa2\xff\xfe",
}


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("field", ["packet", "t_ns", "embedding", "committed", "other"])
def test_hostile_msgpack_is_refused(field: str, value: bytes) -> None:
    name, packed, _ = wire.encode(end_of_stream("text"))
    assert packed[0] >> 4 == 8 or packed[0] == 0xDE
    fields = {key: msgspec.msgpack.encode(one) for key, one in msgspec.msgpack.decode(packed).items()}
    fields[field] = value
    header = b"\xde" + len(fields).to_bytes(2, "big")
    header += b"".join(msgspec.msgpack.encode(key) + one for key, one in fields.items())
    with pytest.raises(WireError):
        wire.decode([name, header, b""])
    with pytest.raises(WireError):
        wire.decode([name, value, b""])


def mutated(frames: list[bytes], generator: random.Random) -> list[bytes]:
    """One to four bytes flipped, inserted or cut off, or a frame of random bytes."""
    parts = [bytearray(frame) for frame in frames]
    for _ in range(generator.randint(1, 4)):
        part = parts[generator.choice((0, 1, 1, 1, 1, 2))]
        place = generator.randrange(len(part) + 1)
        match generator.randrange(16):
            case 0:
                del part[place:]
            case 1:
                part[:] = generator.randbytes(generator.randrange(200))
            case 2 | 3 | 4:
                part.insert(place, generator.randrange(256))
            case _:
                part[place : place + 1] = bytes([generator.randrange(256)])
    return [bytes(part) for part in parts]


@pytest.mark.parametrize(
    "count",
    [5_000, pytest.param(1_000_000, marks=[pytest.mark.slow, pytest.mark.timeout(600)])],
)
def test_mutated_messages_are_refused_or_within_the_schema(count: int) -> None:
    generator = random.Random(count)  # noqa: S311 # not for secrets
    originals = [[bytes(frame) for frame in wire.encode(packet)] for packet in examples()]
    accepted = 0
    for index in range(count):
        try:
            received = wire.decode(mutated(originals[index % len(originals)], generator))
        except WireError:
            continue
        accepted += 1
        assert same(wire.decode(wire.encode(received)), received)
    assert 0 < accepted < count / 2


def examples() -> list[Packet]:
    """One full packet of each kind, and one that is as empty as it can be."""
    features = np.linspace(-1, 1, 8, dtype=np.float32)
    words = tuple(Word(f"word{i}", i, i + 1, i < 2, i, None) for i in range(3))
    return [
        vision(5, features=features),
        AudioPacket(t_ns=5, progress_ns=5, frames=features.reshape(2, 4), last_voice_ns=3),
        TranscriptPacket(t_ns=5, progress_ns=5, words=words, withdrawn=(7, 8), behind_s=0.5, language="de"),
        TextPacket(
            t_ns=5, progress_ns=5, embedding=features, committed="a day", partial="it", last_word_ns=4
        ),
        msgspec.structs.replace(estimate(), traces={"audio": Trace(1, 2, 3, 4)}, marker=1),
        *(end_of_stream(topic) for topic in ("vision", "audio", "transcript", "text")),
    ]


def example(kind: type[Packet]) -> Packet:
    return next(packet for packet in examples() if type(packet) is kind)
