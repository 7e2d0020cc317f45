"""What a measurement was made on: without it a number means nothing."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["Gpu", "Machine"]

PACKAGES = (
    "emi-live",
    "torch",
    "triton",
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "tensorrt",
    "tensorrt-rtx-cu13-bindings",
    "mediapipe",
    "faster-whisper",
    "ctranslate2",
    "pocketsphinx",
    "transformers",
    "pyzmq",
    "jiwer",
    "espeakng-loader",
)


GPU_QUERY = "name,driver_version,memory.total,clocks.sm,clocks.max.sm,persistence_mode"


@dataclass(frozen=True, slots=True)
class Gpu:
    """A card as `nvidia-smi` describes it; its clock is that of the moment, before or after work."""

    name: str
    driver: str
    memory: str
    clock: str
    top_clock: str
    persistence: str

    @classmethod
    def parse(cls, line: str) -> Gpu | None:
        """From one line of `nvidia-smi --query-gpu=… --format=csv,noheader`; None if it is no such line."""
        values = [value.strip() for value in line.split(",")]
        return cls(*values) if len(values) == len(GPU_QUERY.split(",")) else None

    def line(self) -> str:
        """All of it in a few words."""
        return (
            f"{self.name}, {self.memory}, driver {self.driver}, clock {self.clock} of {self.top_clock}, "
            f"persistence {self.persistence.lower()}"
        )


@dataclass(frozen=True, slots=True)
class Machine:
    """Processor, memory, GPUs, operating system and the versions that matter."""

    processor: str = field(default_factory=lambda: _processor())
    cores: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    memory_gib: float = field(
        default_factory=lambda: round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    )
    system: str = field(default_factory=lambda: f"{platform.system()} {platform.release()}")
    python: str = field(default_factory=platform.python_version)
    packages: dict[str, str] = field(default_factory=lambda: _versions())
    gpus: list[Gpu] = field(default_factory=lambda: _gpus())

    def line(self) -> str:
        """All of it in one line."""
        versions = ", ".join(f"{name} {number}" for name, number in self.packages.items())
        gpus = "; ".join(gpu.line() for gpu in self.gpus) or "no GPU"
        return (
            f"{self.processor}, {self.cores} cores, {self.memory_gib} GiB, {gpus}, {self.system}, "
            f"Python {self.python}, {versions}"
        )


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
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


def _gpus() -> list[Gpu]:
    """NVIDIA's cards, asked of the driver: whether PyTorch can use them is another question."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    try:
        done = subprocess.run(  # noqa: S603  # found on PATH, and only asked
            [tool, f"--query-gpu={GPU_QUERY}", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):  # a driver that hangs: what is measured will say so
        return []
    found = [Gpu.parse(line) for line in done.stdout.splitlines()] if done.returncode == 0 else []
    return [gpu for gpu in found if gpu is not None]
