from __future__ import annotations

import io

import pytest

from emi_models.characters import accept_any_text


@pytest.mark.parametrize(
    ("encoding", "written"),
    [("ascii", b"loading ... 3 us - ?"), ("latin-1", b"loading ... 3 \xb5s - ?"), ("utf-8", None)],
)
def test_what_an_encoding_lacks_is_said_otherwise(encoding: str, written: bytes | None) -> None:
    text = "loading … 3 µs – 笑"  # noqa: RUF001 # the dash is meant
    held = io.BytesIO()
    stream = io.TextIOWrapper(held, encoding=encoding)
    accept_any_text(stream)
    stream.write(text)
    stream.flush()
    assert held.getvalue() == (written or text.encode())
