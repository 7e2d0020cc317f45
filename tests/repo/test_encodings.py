"""Nothing depends on the locale: files are opened with an encoding, and what a terminal lacks is no error."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
SOURCES = ("models", "engine", "realtime", "benchmarks", "configs", "bootstrap.py")
NO_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
IMPLICIT = re.compile(r"\b(?:text|universal_newlines)=True\b")


def test_every_file_is_opened_with_an_encoding() -> None:
    # The rule is one of ruff's previews, which are switched on for this check alone.
    check = [str(BIN / "ruff"), "check", "--no-cache", "--preview", "--select", "PLW1514", *SOURCES]
    done = subprocess.run(check, cwd=ROOT, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_child_process_is_read_with_an_encoding() -> None:
    files = [path for folder in SOURCES for path in (ROOT / folder).rglob("*.py")]
    assert files
    assert [path for path in files if IMPLICIT.search(path.read_text(encoding="utf-8"))] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "exit_code", "said"),
    [
        (("emi", "models", "list"), 0, "face-landmarker"),
        (("emi", "train", "--help"), 0, "--data"),
        (("emi", "privacy", "--input", "Küche …/ä.mp4"), 0, ".mp4"),
        (("emi-live", "--input", "nowhere …/ä.mp4"), 2, "error: "),
        (("emi-live", "--demo", "--duration", "1"), 0, "estimates"),
    ],
)
def test_a_command_works_without_a_utf_8_locale(command: tuple[str, ...], exit_code: int, said: str) -> None:
    program, *args = command
    done = subprocess.run(
        [str(BIN / program), *args],
        capture_output=True,
        check=False,
        timeout=120,
        env={**os.environ, **NO_LOCALE},
    )
    written = (done.stdout + done.stderr).decode("ascii")  # and nothing else
    assert done.returncode == exit_code, written
    assert said in written
    assert "Traceback" not in written
