"""What a measurement was made on: without it a number means nothing."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["Machine"]

PACKAGES = (
    "emi-live",
    "torch",
    "onnxruntime",
    "mediapipe",
    "faster-whisper",
    "pocketsphinx",
    "transformers",
    "pyzmq",
)


@dataclass(frozen=True, slots=True)
class Machine:
    """Processor, memory, operating system and the versions that matter."""

    processor: str = field(default_factory=lambda: _processor())
    cores: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    memory_gib: float = field(
        default_factory=lambda: round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    )
    system: str = field(default_factory=lambda: f"{platform.system()} {platform.release()}")
    python: str = field(default_factory=platform.python_version)
    packages: dict[str, str] = field(default_factory=lambda: _versions())

    def line(self) -> str:
        """All of it in one line."""
        versions = ", ".join(f"{name} {number}" for name, number in self.packages.items())
        return (
            f"{self.processor}, {self.cores} cores, {self.memory_gib} GiB, {self.system}, "
            f"Python {self.python}, {versions}"
        )


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:  # no /proc on this system
        return platform.processor() or platform.machine()
    return platform.machine()


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
