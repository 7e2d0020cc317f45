"""The machine that a measurement was made on: processor, memory, GPUs, operating system, versions."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["GraphicsCard", "Machine", "UsageSample", "load_average"]

PACKAGES = (
    "emi-live",
    "torch",
    "triton",
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "tensorrt",
    "tensorrt-rtx-cu13-bindings",
    "ai-edge-litert",
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
class GraphicsCard:
    """A GPU as `nvidia-smi` describes it; `clock` is its clock at that moment, not under load."""

    name: str
    driver: str
    memory: str
    clock: str
    top_clock: str
    persistence: str

    @classmethod
    def parse(cls, line: str) -> GraphicsCard | None:
        """Read one line of `nvidia-smi --query-gpu=… --format=csv,noheader`; None if it is something else."""
        values = [value.strip() for value in line.split(",")]
        return cls(*values) if len(values) == len(GPU_QUERY.split(",")) else None

    def line(self) -> str:
        """All of it as one phrase."""
        return (
            f"{self.name}, {self.memory}, driver {self.driver}, clock {self.clock} of {self.top_clock}, "
            f"persistence {self.persistence.lower()}"
        )


@dataclass(frozen=True, slots=True)
class Machine:
    """Processor, memory, GPUs, operating system and the versions that matter."""

    processor: str
    cores: int
    memory_gib: float
    system: str
    python: str
    packages: dict[str, str]
    gpus: list[GraphicsCard] | None = None  # None: unknown

    @classmethod
    def here(cls) -> Machine:
        """This machine, now."""
        return cls(
            processor=_processor(),
            cores=len(os.sched_getaffinity(0)),
            memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            system=f"{platform.system()} {platform.release()}",
            python=platform.python_version(),
            packages=_versions(),
            gpus=_gpus(),
        )

    def line(self) -> str:
        """All of it in one line."""
        versions = ", ".join(f"{name} {number}" for name, number in self.packages.items())
        parts = [self.processor, f"{self.cores} cores", f"{self.memory_gib} GiB"]
        if self.gpus is not None:
            parts.append("; ".join(gpu.line() for gpu in self.gpus) or "no GPU")
        return ", ".join([*parts, self.system, f"Python {self.python}", versions])


@dataclass(frozen=True, slots=True)
class UsageSample:
    """Memory at one moment, and the cores that were busy since the sample before."""

    t_s: float  # since sampling began
    rss_mib: float
    cores: float


def load_average() -> float:
    """Mean number of processes that wanted a core in the last minute: how busy the machine is."""
    return os.getloadavg()[0]


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


def _gpus() -> list[GraphicsCard]:
    """NVIDIA's GPUs as the driver lists them, whether PyTorch can use them or not."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    try:
        done = subprocess.run(  # noqa: S603  # found on PATH, and only reads
            [tool, f"--query-gpu={GPU_QUERY}", "--format=csv,noheader"],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):  # the driver hangs: the measurement itself will report it
        return []
    found = [GraphicsCard.parse(line) for line in done.stdout.splitlines()] if done.returncode == 0 else []
    return [gpu for gpu in found if gpu is not None]
