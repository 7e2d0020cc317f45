"""What every measurement has: the machine that it was made on, and statistics of its timings.

The machine is processor, memory, GPUs, operating system and versions. Statistics are distributions,
percentiles, and the trend of a value over time.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections import defaultdict
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from math import sqrt
from pathlib import Path
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "SPAN_S",
    "Distribution",
    "GraphicsCard",
    "Machine",
    "Slope",
    "UsageSample",
    "load_average",
    "means_of_spans",
    "percentile",
    "slope",
]

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


SPAN_S: Final = 15.0  # longer than a sentence: within a sentence the lag rises and falls, which is no trend
LEAST_SPANS: Final = 4


def percentile(values: Sequence[float], p: float) -> float:
    """The p-th percentile (0 <= p <= 100) without interpolation: one of the values.

    It is the smallest value that at least p % of the values do not exceed: numpy's `inverted_cdf`, the
    nearest-rank definition, as in trtexec. Of the values 1 to 10, p90 is 9.

    Raises:
        ValueError: there are no values, or p is out of range.
    """
    if not values or not 0 <= p <= 100:
        raise ValueError(f"percentile {p} of {len(values)} values; give at least one value and 0 <= p <= 100")
    # 99.9 / 100 is slightly more than 0.999, which would be one rank too high for 1000 values.
    return float(np.quantile(values, round(p / 100, 9), method="inverted_cdf"))


@dataclass(frozen=True, slots=True)
class Distribution:
    """Summary of a set of timings, in the unit of the timings."""

    n: int
    min: float
    max: float
    mean: float
    median: float
    p90: float
    p95: float
    p99: float
    # Coefficient of variation: standard deviation / mean. trtexec calls a run above 0.025 unstable.
    cv: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Distribution | None:
        """The distribution of the values; None if there are none."""
        if not values:
            return None
        mean = fmean(values)
        return cls(
            n=len(values),
            min=min(values),
            max=max(values),
            mean=mean,
            median=percentile(values, 50),
            p90=percentile(values, 90),
            p95=percentile(values, 95),
            p99=percentile(values, 99),
            cv=pstdev(values) / mean if mean else 0.0,
        )


@dataclass(frozen=True, slots=True)
class Slope:
    """How much a value grows a minute, by a line of least squares, and how certain that is."""

    ms_per_minute: float
    standard_error: float  # of `ms_per_minute`, from the residuals of the line
    n: int  # points of the line


def means_of_spans(
    points: Iterable[tuple[float, float]], span_s: float = SPAN_S
) -> list[tuple[float, float]]:
    """Means of (seconds, ms) points over spans of `span_s`, as (middle of the span, mean).

    The first span is left out, because the engine settles in it.
    """
    spans: dict[int, list[float]] = defaultdict(list)
    for at_s, value in points:
        spans[int(at_s // span_s)].append(value)
    spans.pop(0, None)
    return [((index + 0.5) * span_s, fmean(spans[index])) for index in sorted(spans)]


def slope(points: list[tuple[float, float]]) -> Slope | None:
    """The line of least squares through (seconds, ms) points; None for fewer than four points."""
    if len(points) < LEAST_SPANS:
        return None
    minutes = [at_s / 60 for at_s, _ in points]
    values = [value for _, value in points]
    middle, mean = fmean(minutes), fmean(values)
    spread = sum((minute - middle) ** 2 for minute in minutes)
    rise = (
        sum((minute - middle) * (value - mean) for minute, value in zip(minutes, values, strict=True))
        / spread
    )
    residual = sum(
        (value - mean - rise * (minute - middle)) ** 2 for minute, value in zip(minutes, values, strict=True)
    )
    return Slope(rise, sqrt(residual / (len(points) - 2) / spread), len(points))
