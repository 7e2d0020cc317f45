"""No address that is shown holds a secret, however it was typed."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from emi_live.addresses import SafeFormatter, safe_address, safe_text


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://me:secret@10.0.0.2:554/main", "rtsp://…@10.0.0.2:554/main"),
        ("rtsp://me:se@cret@10.0.0.2/main", "rtsp://…@10.0.0.2/main"),
        ("rtsp://secret@10.0.0.2/main", "rtsp://…@10.0.0.2/main"),
        ("rtsp://:secret@10.0.0.2/main", "rtsp://…@10.0.0.2/main"),
        ("rtsp://me:se%40cret@10.0.0.2/main", "rtsp://…@10.0.0.2/main"),
        ("rtsp://me:secret%4010.0.0.2/main", "rtsp://…@10.0.0.2/main"),
        ("rtsp://me:sec/ret@10.0.0.2/main", "rtsp://…@10.0.0.2/main"),
        ("rtsp://me:12/34@10.0.0.2/main", "rtsp://…@10.0.0.2/main"),
        ("rtsp://me:sec?ret#x@10.0.0.2/main", "rtsp://…@10.0.0.2/main"),
        ("rtsp://m%65:secret@[fe80::1]:554/main", "rtsp://…@[fe80::1]:554/main"),
        ("http:/me:secret@host/a.mp4", "http:/…@host/a.mp4"),
        ("me:secret@host/a.mp4", "…@host/a.mp4"),
        ("http://h/cam?user=me&pwd=secret&channel=1", "http://h/cam?user=…&pwd=…&channel=1"),
        ("http://h/cam?p%77d=secret;token=secret", "http://h/cam?p%77d=…;token=…"),
        ("http://h/cam?fps=5&password=se?cret&key=secret", "http://h/cam?fps=5&password=…?…&key=…"),
        ("http://h/cam?secret", "http://h/cam?…"),
        ("http://h/cam#token=secret", "http://h/cam#…"),
        ("rtsp://10.0.0.2/user=me_password=secret_channel=1_stream=0.sdp", "rtsp://10.0.0.2/user=…"),
        ("rtsp://10.0.0.2/user%3Dme&password=secret", "rtsp://10.0.0.2/user=…"),
        ("rtsps://10.0.0.2:7441/AbCd1234EfGh5678Secret?enableSrtp", "rtsps://10.0.0.2:7441/…?…"),
        ("tcp://me:secret@127.0.0.1:5561", "tcp://…@127.0.0.1:5561"),
    ],
)
def test_secrets_are_hidden(address: str, shown: str) -> None:
    assert safe_address(address) == shown
    assert safe_text(f"camera {address}: lost (see '{address}')") == f"camera {shown}: lost (see '{shown}')"


@pytest.mark.parametrize(
    "address",
    [
        0,
        "/dev/video0",
        Path("/home/me@work/a=b?c/clip.mp4"),
        "clip.mp4",
        "http://10.0.0.2:8080/cam@home",
        "rtsp://camera.local/live/ch1",
        "http://[::1]:8080/video",
        "rtsp://10.0.0.2/cam/realmonitor?channel=1&subtype=0",
        "tcp://127.0.0.1:*",
        "tcp://[::1]:5669",
        "ipc:///run/user/1000/emi-live-4711abcdefgh/estimate",
    ],
)
def test_an_address_without_a_secret_is_shown_as_it_is(address: int | str | Path) -> None:
    assert safe_address(address) == str(address)


def test_a_message_without_an_address_is_left_alone() -> None:
    message = (
        "12:30:01 WARNING camera: failed (it gave no picture); see docs/x.md, a/b: 3 @ 4 fps\n  next line"
    )
    assert safe_text(message) == message


PRINTED = st.characters(min_codepoint=33, max_codepoint=126)
SECRET = st.text(PRINTED, min_size=4, max_size=30)
PLACES = [
    "rtsp://me:{0}@10.0.0.2:554/main",
    "rtsp://{0}@10.0.0.2/main",
    "http://me:x{0}@cam/main?channel=1",
    "https://{0}:me@cam.example.org/a@b",
    "http://cam/x?user=me&pwd={0}",
    "http://cam/x?subtype=1;token={0}",
    "http://cam/x#{0}",
    "rtsp://10.0.0.2/user=me&password={0}&channel=1",
    "me:{0}@10.0.0.2/main",
]


@given(SECRET, st.sampled_from(PLACES))
def test_no_secret_is_ever_shown(secret: str, place: str) -> None:
    if "{0}@" not in place and "{0}:" not in place:
        secret = secret.translate({ord(sign): None for sign in "/?&;#"})  # these end a value
    assume(len(secret) >= 4 and secret not in place)
    address = place.format(secret)
    assert secret not in safe_address(address)
    assert secret not in safe_text(f"it said: {address}")
    assert safe_address(safe_address(address)) == safe_address(address)


def test_logs_and_their_traces_are_safe() -> None:
    try:
        raise OSError(111, "Connection refused", "rtsp://me:secret@10.0.0.2/main")
    except OSError as error:
        cause = (OSError, error, error.__traceback__)
        record = logging.LogRecord("emi", 30, "x.py", 1, "lost %s", ("http://h/?pwd=secret",), cause)
    text = SafeFormatter("%(message)s").format(record)
    assert "Traceback" in text
    assert "secret" not in text
    assert "'rtsp://…@10.0.0.2/main'" in text
