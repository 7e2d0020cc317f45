"""Ctrl-C at any moment of the start ends a command quietly, with exit code 130."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Python runs it at its start: it sends SIGINT as soon as the module is imported that the variable names.
INTERRUPT = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["INTERRUPT_AT"]:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
"""


@pytest.mark.parametrize(
    ("command", "module"),
    [
        ("emi-live --demo --no-ui", "emi_live.cli.live"),
        ("emi-live --demo --no-ui", "typer"),
        ("emi-live --demo --no-ui", "emi_live.config"),
        ("emi-live --demo --no-ui", "emi_live.cli.session"),
        ("emi-live --demo --no-ui", "onnxruntime"),
        ("emi models list", "typer"),
        ("emi models list", "emi_live.cli.models"),
        ("emi --help", "rich.table"),
    ],
)
def test_an_interrupt_while_modules_are_imported_is_quiet(tmp_path: Path, command: str, module: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(INTERRUPT, encoding="utf-8")
    name, *args = command.split()
    program = Path(sys.executable).with_name(name)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "INTERRUPT_AT": module}
    done = subprocess.run(
        [program, *args], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
