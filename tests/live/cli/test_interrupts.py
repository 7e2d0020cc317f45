"""Ctrl-C, SIGTERM or SIGHUP at any moment of the start ends a command quietly, with exit code 130."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

# Python runs it at its start: it sends a signal as soon as the module is imported that the variable names.
INTERRUPT = """
import os, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["INTERRUPT_AT"]:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), int(os.environ["INTERRUPT_BY"]))

sys.meta_path.insert(0, Interrupt())
"""


@pytest.mark.parametrize(
    ("command", "module", "number"),
    [
        ("emi-live --demo --no-ui", "emi_live.cli.live", signal.SIGINT),
        ("emi-live --demo --no-ui", "typer", signal.SIGTERM),
        ("emi-live --demo --no-ui", "emi_live.config", signal.SIGINT),
        ("emi-live --demo --no-ui", "emi_live.cli.session", signal.SIGHUP),
        ("emi-live --demo --no-ui", "onnxruntime", signal.SIGINT),
        ("emi models list", "typer", signal.SIGINT),
        ("emi models list", "emi_live.cli.models", signal.SIGTERM),
        ("emi --help", "rich.table", signal.SIGINT),
    ],
)
def test_an_interrupt_while_modules_are_imported_is_quiet(
    tmp_path: Path, command: str, module: str, number: signal.Signals
) -> None:
    (tmp_path / "sitecustomize.py").write_text(INTERRUPT, encoding="utf-8")
    name, *args = command.split()
    program = Path(sys.executable).with_name(name)
    told = {"INTERRUPT_AT": module, "INTERRUPT_BY": str(int(number))}
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), **told}
    done = subprocess.run(
        [program, *args], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
