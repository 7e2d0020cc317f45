from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
import unicodedata
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emi_models.console import LIMIT, accept_any_text, native_stderr_logged, own_standard_error, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, déjà vu 日本 [red]", "plain text, déjà vu 日本 [red]"),
        ("\x1b]0;owned\x07\x1b[2J", "\\x1b]0;owned\\x07\\x1b[2J"),
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("\x9b31m", "\\x9b31m"),
        ("invoice\u202egpj.exe", "invoice\\u202egpj.exe"),
        ("one\u2028two\u2029", "one\\u2028two\\u2029"),
        ("half \ud800", "half \\ud800"),
        ("می‌خواهم", "می‌خواهم"),
        (ValueError("no\x00"), "no\\x00"),
    ],
)
def test_what_steers_a_terminal_is_shown_as_an_escape(text: object, shown: str) -> None:
    assert printable(text) == shown


def test_long_texts_are_cut() -> None:
    assert printable("x" * 10**6) == "x" * (LIMIT - 1) + "…"
    assert printable("\x1b" * 100, 20) == ("\\x1b" * 5)[:19] + "…"
    assert printable("x" * 20, 20) == "x" * 20


@given(st.text(), st.integers(1, 50))
def test_nothing_hidden_comes_through(text: str, limit: int) -> None:
    shown = printable(text, limit)
    assert len(shown) <= limit
    assert not any(unicodedata.category(c) in ("Cc", "Zl", "Zp", "Cs") for c in shown)
    assert not set(shown) & set("\u202a\u202b\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f")


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


NATIVE = b"W0000 00:00:1795239455.937188    7481 graph.cc:181] Sets acceleration to xnnpack.\n"
EMBEDDED = """
import logging, os
from emi_models.console import native_stderr_logged
before = os.fstat(2)
with native_stderr_logged(logging.getLogger("test")):
    assert os.path.samestat(os.fstat(2), before)
    os.write(2, b"W0000 00:00:1795239455.937188 7481 graph.cc:181] text")
"""


def test_native_log_lines_go_to_the_log(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    own_standard_error()
    with caplog.at_level(logging.DEBUG), native_stderr_logged(logging.getLogger("test")):
        os.write(2, NATIVE + b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n")
        os.write(2, b"[2026-11-29 21:21:41,736 I 13889 13889] logging.cc:303: Set ray log level\n")
    assert capfd.readouterr().err == ""
    assert [record.levelname for record in caplog.records] == ["DEBUG"] * 3


def test_what_others_print_is_kept_even_if_the_span_fails(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        os.write(2, b"ours\n" + NATIVE)
        raise RuntimeError("no model")

    own_standard_error()
    with native_stderr_logged(logging.getLogger("test")), pytest.raises(RuntimeError):
        fail()
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "ours\nafter\n"


def test_spans_that_overlap_leave_standard_error_as_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    """Two engines that load at once: the first to begin ends first."""
    own_standard_error()
    before = os.fstat(2)
    first, second = ExitStack(), ExitStack()
    first.enter_context(native_stderr_logged(logging.getLogger("one")))
    second.enter_context(native_stderr_logged(logging.getLogger("other")))
    first.close()
    second.close()
    assert os.path.samestat(os.fstat(2), before)
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


def test_a_program_that_embeds_the_engine_keeps_its_standard_error() -> None:
    done = subprocess.run([sys.executable, "-c", EMBEDDED], capture_output=True, timeout=60, check=True)
    assert b"graph.cc" in done.stderr
