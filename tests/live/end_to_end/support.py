"""Running `emi-live` as a user does, and reading what it wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HOP_S = 0.2
PROGRAM = str(Path(sys.executable).with_name("emi-live"))


@dataclass(frozen=True)
class Run:
    """One finished run of the program."""

    exit_code: int
    lines: list[dict[str, Any]]
    stderr: str

    def at(self, t_s: float) -> dict[str, Any]:
        """The estimate of that time."""
        return next(line for line in self.lines if abs(line["t"] - t_s) < 1e-6)

    def states(self, modality: str) -> list[tuple[float, str]]:
        """(t, state) of every estimate."""
        return [(line["t"], line["modalities"][modality]["state"]) for line in self.lines]

    def comparable(self) -> list[dict[str, Any]]:
        """The lines without what depends on the machine's speed."""
        return [{k: v for k, v in line.items() if k not in ("wall", "latency_ms")} for line in self.lines]


def first_seconds(clip: Path, seconds: float, folder: Path) -> Path:
    """A file of the clip's first seconds. With `duration_s` alone, stages work on what comes after, too."""
    short = folder / f"{seconds:g}s-{clip.name}"
    command = ["ffmpeg", "-loglevel", "error", "-i", str(clip), "-t", str(seconds), "-c", "copy", str(short)]
    subprocess.run(command, check=True)
    return short


def environment(assets: Path) -> dict[str, str]:
    """The user's environment, with the face model of the test media and no way to the network for models."""
    return {**os.environ, "EMI_MODEL_DIR": str(assets / "mediapipe")}


def emi_live(assets: Path, *args: str | Path, timeout_s: float = 240, backend: str = "pocketsphinx") -> Run:
    """Run the program without a view, JSON to standard output, by default with a recogniser that is here."""
    command = [
        PROGRAM,
        *map(str, args),
        "--no-ui",
        "--json",
        "-",
        "--offline",
        "--set",
        f"speech.backend={backend}",
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout_s, check=False, env=environment(assets)
    )
    lines = [json.loads(line, parse_constant=_refuse) for line in done.stdout.splitlines()]
    return Run(done.returncode, lines, done.stderr)


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")
