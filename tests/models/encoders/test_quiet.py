from __future__ import annotations

import logging
import os

import pytest

from emi_models.encoders.quiet import native_stderr_logged

NATIVE = b"W0000 00:00:1795239455.937188    7481 graph.cc:181] Sets acceleration to xnnpack.\n"


def test_native_log_lines_go_to_the_log(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), native_stderr_logged(logging.getLogger("test")):
        os.write(2, NATIVE + b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n")
    assert capfd.readouterr().err == ""
    assert [record.levelname for record in caplog.records] == ["DEBUG", "DEBUG"]


def test_what_others_print_is_kept_even_if_the_span_fails(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        os.write(2, b"ours\n" + NATIVE)
        raise RuntimeError("no model")

    with native_stderr_logged(logging.getLogger("test")), pytest.raises(RuntimeError):
        fail()
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "ours\nafter\n"
