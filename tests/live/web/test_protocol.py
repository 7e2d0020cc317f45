"""The messages of `emi serve`: what is accepted, what is refused, and the schema in the docs."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emi_live.web.protocol import (
    MAX_MESSAGE,
    MAX_SIDE,
    PICTURE,
    SOUND,
    Bye,
    Command,
    ProtocolError,
    decode_command,
    decode_event,
    encode,
    jpeg_size,
    json_schema,
    pack_media,
    unpack_media,
)

ROOT = Path(__file__).parents[3]
VECTORS = json.loads((Path(__file__).parent / "vectors.json").read_text())
JPEG = bytes.fromhex(VECTORS["media"][0]["payload"])


@pytest.mark.parametrize("vector", VECTORS["media"])
def test_media_are_packed_as_the_vectors_that_emi_js_is_tested_with(vector: dict[str, Any]) -> None:
    payload = bytes.fromhex(vector["payload"])
    message = pack_media(vector["kind"], vector["t_ms"], payload, vector["rate_hz"])
    assert message.hex() == vector["message"]
    media = unpack_media(message)
    assert (media.kind, media.t_ms, media.rate_hz) == (vector["kind"], vector["t_ms"], vector["rate_hz"])
    assert bytes(media.payload) == payload


@pytest.mark.parametrize(
    ("message", "word"),
    [
        (b"", "bytes"),
        (bytes(16), "bytes"),
        (bytes(MAX_MESSAGE + 1), "bytes"),
        (pack_media(3, 0.0, b"x"), "kind"),
        (b"\x02\x01" + pack_media(PICTURE, 0.0, JPEG)[2:], "kind"),
        (pack_media(PICTURE, float("nan"), JPEG), "time"),
        (pack_media(PICTURE, -1.0, JPEG), "time"),
        (pack_media(PICTURE, 1e13, JPEG), "time"),
        (pack_media(PICTURE, 0.0, JPEG, 48_000), "rate"),
        (pack_media(PICTURE, 0.0, b"\x89PNG" + bytes(20)), "JPEG"),
        (pack_media(PICTURE, 0.0, b"\xff\xd8" + bytes(20)), "size"),
        (
            pack_media(PICTURE, 0.0, JPEG.replace(b"\x00\x02\x00\x03", struct.pack(">HH", 9, MAX_SIDE + 1))),
            "pixels",
        ),
        (pack_media(SOUND, 0.0, b"\0\0", 7_999), "Hz"),
        (pack_media(SOUND, 0.0, b"\0\0\0", 48_000), "sound"),
        (pack_media(SOUND, 0.0, bytes(4 * 8_000 + 2), 8_000), "sound"),
    ],
)
def test_media_out_of_bounds_are_refused(message: bytes, word: str) -> None:
    with pytest.raises(ProtocolError, match=word):
        unpack_media(message)


@given(st.binary(max_size=200))
def test_random_messages_are_accepted_or_refused(message: bytes) -> None:
    for read in (lambda: unpack_media(message), lambda: decode_command(message.decode("latin-1"))):
        try:
            read()
        except ProtocolError:
            continue


def test_the_size_of_a_real_picture_is_found() -> None:
    ok, data = cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))
    assert ok
    assert jpeg_size(memoryview(data.tobytes())) == (64, 48)


@pytest.mark.parametrize(
    "text",
    ['{"type":"dance"}', '{"type":"follow","at":[0.5,1.5]}', '{"type":"mark","x":1}', "[]", "{", "x" * 5000],
)
def test_other_commands_are_refused(text: str) -> None:
    with pytest.raises(ProtocolError):
        decode_command(text)


def test_messages_come_back_as_they_were() -> None:
    assert decode_command(encode(Command(type="mark"))) == Command(type="mark")
    for event in VECTORS["events"]:
        assert json.loads(encode(decode_event(json.dumps(event)))) == event
    for command in VECTORS["commands"]:
        assert json.loads(encode(decode_command(json.dumps(command)))) == command
    assert decode_event(encode(Bye(reason="ended"))) == Bye(reason="ended")
    with pytest.raises(ProtocolError):
        decode_event('{"type":"hello"}')


def test_the_schema_in_the_docs_is_up_to_date() -> None:
    written = json.loads((ROOT / "docs" / "web-protocol.schema.json").read_text())
    assert written == json_schema(), "run: python -m emi_live.web.protocol > docs/web-protocol.schema.json"
