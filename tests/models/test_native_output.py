from __future__ import annotations

import logging
import os
import subprocess
import sys
from contextlib import ExitStack

import pytest

from emi_models.console import native_stderr_logged, own_standard_error

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
    assert capfd.readouterr().err == ""
    assert [record.levelname for record in caplog.records] == ["DEBUG", "DEBUG"]


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
