"""A run imports the modules that it uses, and not those of other sources, sinks and commands."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.live.end_to_end.support import environment

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.assets, pytest.mark.slow]

# Modules of ours with PocketSphinx and --json; 161 before docs/decisions/0023, 70 before targets, intervals,
# the check of faces and the rhythm of a voice (0032, 0034, 0046).
MOST = 75
# Each with what it belongs to: another source, another sink, a view, a download, another command.
UNUSED = {
    "emi_live.sources.camera",
    "emi_live.sources.microphone",
    "emi_live.sources.push",
    "emi_live.sinks.publish",
    "emi_live.sinks.terminal",
    "emi_live.sinks.view",
    "emi_live.bundle.taemi",
    "emi_live.demo",
    "emi_live.drift",
    "emi_models.store.downloads",
    "emi_models.store.wheels",
}
OTHERS = ("emi_bench", "emi_live.extract", "emi_models.data", "emi_models.training", "emi_engine.tensorrt")


def test_a_clip_imports_what_it_uses(assets: Path) -> None:
    start = "from emi_live.cli import start_emi_live; start_emi_live()"
    clip = ["--input", str(assets / "face" / "pyfeat_single_face.mp4"), "--set", "duration_s=0.5"]
    quiet = ["--no-ui", "--offline", "--json", "-"]
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", start, *clip, *quiet],
        capture_output=True,
        text=True,
        check=False,
        env=environment(assets),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout
    imported = set(re.findall(r"^import time:.*\| *(emi_\w+(?:\.\w+)*)$", done.stderr, re.MULTILINE))
    assert "emi_live.sources.file" in imported
    assert not imported & UNUSED
    assert not {name for name in imported if name.startswith(OTHERS)}
    assert len(imported) <= MOST, sorted(imported)
