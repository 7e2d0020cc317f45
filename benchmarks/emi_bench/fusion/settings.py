"""What `emi bench fusion` measures: its settings with their defaults, and the engines that it compares."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

from emi_engine.load import load_engine
from emi_models.errors import EmiError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from emi_bench.fusion.networks import BenchNetwork
    from emi_engine.protocol import FusionEngine, Precision

__all__ = [
    "EAGER",
    "ENGINES",
    "NETWORKS",
    "EngineChoice",
    "FusionSettings",
    "SettingsError",
    "choose_engines",
]

NETWORKS: Final = ("compact", "compact-12s", "taemi")
QUICK_NETWORKS: Final = ("compact", "taemi")
Where = Literal["cpu", "cuda"]
EngineKind = Literal[
    "torch", "torch-graph", "torch-compile", "onnxruntime", "tensorrt", "tensorrt-rtx", "incremental"
]
# The engine that the others on a device are compared with.
EAGER: Final = {"cpu": "torch-cpu", "cuda": "torch-cuda-fp32"}


class SettingsError(EmiError, ValueError):
    """A setting cannot be measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FusionSettings:
    """Which engines on which windows, and how long to measure each.

    Empty `engines` or `networks` mean all. If one turn of all engines is slow, fewer than `n` calls are
    timed, so that a case takes about `budget_s` of work without gaps; the output says so.
    """

    engines: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    checkpoint: Path | None = None  # in place of the networks
    batches: tuple[int, ...] = (1, 4, 16, 64)
    n: int = 200
    gap_s: float = 0.2  # a hop of live use; 0 leaves the sparse cases out
    budget_s: float = 60.0
    parity_windows: int = 200
    device: Where | None = None  # None: all that there are
    torch_threads: int | None = None  # None: PyTorch's own choice
    streams: bool = True  # also hop by hop, through sessions
    quick: bool = False

    def checked(self) -> FusionSettings:
        """These settings, with `quick` resolved.

        Raises:
            SettingsError: a value is impossible; the message names it.
        """
        for name, value, least in (
            ("--n", self.n, 10),
            ("--parity-windows", self.parity_windows, 1),
            ("--torch-threads", self.torch_threads or 1, 1),
            *(("--batch", batch, 1) for batch in self.batches),
        ):
            if value < least:
                raise SettingsError(f"{name} is {value}; it must be at least {least}")
        if not self.batches:
            raise SettingsError("there is no --batch; name at least one")
        if not math.isfinite(self.gap_s) or not 0.0 <= self.gap_s <= 10.0:
            raise SettingsError(f"--gap-s is {self.gap_s}; it must lie in [0, 10]")
        if not math.isfinite(self.budget_s) or self.budget_s <= 0:
            raise SettingsError(f"--budget-s is {self.budget_s}; it must be above 0")
        if unknown := [name for name in self.networks if name not in NETWORKS]:
            raise SettingsError(f"there is no network {unknown[0]!r}; choose from {', '.join(NETWORKS)}")
        if self.networks and self.checkpoint is not None:
            raise SettingsError("--network and --checkpoint cannot be used together; leave one out")
        if not self.quick:
            return self
        few = tuple(batch for batch in self.batches if batch <= 4) or self.batches[:1]
        return replace(
            self,
            networks=self.networks or QUICK_NETWORKS,
            batches=few,
            n=min(self.n, 10),
            budget_s=min(self.budget_s, 2.0),
            parity_windows=min(self.parity_windows, 4),
        )


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """One row of the comparison: what is loaded, where, and in which precision."""

    kind: EngineKind
    device: Where = "cpu"
    precision: Precision = "fp32"
    threads: int | None = None  # None: set for the whole process
    running_sums: bool = True  # of `incremental`; without them, self-attention is computed again at each hop

    @property
    def name(self) -> str:
        """What `--engine` takes: `onnxruntime-cpu-2t`, `torch-cuda-bf16`."""
        parts: list[str] = [self.kind, self.device]
        if self.device == "cuda" or self.precision != "fp32":
            parts.append(self.precision)
        if self.threads is not None:
            parts.append(f"{self.threads}t")
        if not self.running_sums:
            parts.append("plain")
        return "-".join(parts)

    @property
    def takes_windows(self) -> bool:
        """Whether it is measured on single windows; else on streams only."""
        return self.kind != "incremental"

    def open(self, subject: BenchNetwork, batch: int, cache: Path) -> FusionEngine:
        """Open the engine for `batch` windows in a run; exports and plans are kept in `cache`.

        Raises:
            EngineError: it cannot run here, or not this network; the message is the reason.
        """
        if self.kind == "torch-graph":  # useful only next to `torch` and `torch-compile`
            from emi_engine.torch_engine import CompiledTorchEngine

            return CompiledTorchEngine(
                subject.loaded, device=self.device, precision=self.precision, batch=batch, compiled=False
            )
        if not self.running_sums:
            from emi_engine.incremental import IncrementalEngine

            whole = partial(load_engine, subject.path, "onnxruntime", cache=cache)
            return IncrementalEngine(subject.loaded, whole, running_sums=False)
        return load_engine(
            subject.path,
            self.kind,
            device=self.device,
            precision=self.precision,
            batch=batch,
            threads=self.threads or 1,
            cache=cache,
        )


# The first engine of each device is the one that the others are compared with.
ENGINES: Final = (
    EngineChoice("torch"),
    EngineChoice("torch", precision="bf16"),
    EngineChoice("torch-compile"),
    EngineChoice("onnxruntime", threads=1),
    EngineChoice("onnxruntime", threads=2),
    EngineChoice("incremental"),
    EngineChoice("incremental", running_sums=False),
    EngineChoice("torch", "cuda"),
    *(EngineChoice("torch", "cuda", precision) for precision in ("fp16", "bf16")),
    EngineChoice("torch-graph", "cuda", "fp16"),
    *(
        EngineChoice(kind, "cuda", precision)
        for kind in ("torch-compile", "onnxruntime", "tensorrt", "tensorrt-rtx")
        for precision in ("fp32", "fp16", "bf16")
    ),
)


def choose_engines(settings: FusionSettings, devices: Sequence[Where]) -> list[EngineChoice]:
    """The engines that are asked for: by name, or all of these devices; the eager ones come first.

    Raises:
        SettingsError: an engine has no such name.
    """
    names = [engine.name for engine in ENGINES]
    if unknown := [name for name in settings.engines if name not in names]:
        raise SettingsError(f"there is no engine {unknown[0]!r}; choose from {', '.join(names)}")
    if settings.engines:
        wanted = {*settings.engines}
        wanted |= {EAGER[engine.device] for engine in ENGINES if engine.name in settings.engines}
        return [engine for engine in ENGINES if engine.name in wanted]
    return [
        engine for engine in ENGINES if engine.device in devices and not (settings.quick and _slow(engine))
    ]


def _slow(engine: EngineChoice) -> bool:
    """Whether it takes so long to open that a quick run leaves it out."""
    return engine.kind == "torch-compile"
