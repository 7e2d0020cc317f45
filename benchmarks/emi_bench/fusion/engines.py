"""The engines that are compared, by name, and how each is made for one network and one batch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

from emi_bench.fusion.settings import SettingsError
from emi_engine.load import load_engine

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from emi_bench.fusion.settings import FusionSettings, Where
    from emi_bench.fusion.subjects import Subject
    from emi_engine.precision import Precision
    from emi_engine.protocol import FusionEngine

__all__ = ["EAGER", "ENGINES", "Engine", "choose"]

Kind = Literal[
    "torch", "torch-graph", "torch-compile", "onnxruntime", "tensorrt", "tensorrt-rtx", "incremental"
]
EAGER: Final = {
    "cpu": "torch-cpu",
    "cuda": "torch-cuda-fp32",
}  # what the others on that device are set against


@dataclass(frozen=True, slots=True)
class Engine:
    """One row of the comparison: what is loaded, where, and in which precision."""

    kind: Kind
    device: Where = "cpu"
    precision: Precision = "fp32"
    threads: int | None = None  # None: a setting of the whole process
    running_sums: bool = True  # of `incremental`; without, self-attention is computed anew at each hop

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
        """Whether single windows are its own work; else it is measured on streams only."""
        return self.kind != "incremental"

    def open(self, subject: Subject, batch: int, cache: Path) -> FusionEngine:
        """The engine, for `batch` windows in a run; exports and plans are kept in `cache`.

        Raises:
            EngineError: it cannot run here, or not this network; the message is the reason.
        """
        if self.kind == "torch-graph":  # of use beside `torch` and `torch-compile` alone
            from emi_engine.torch_compiled import CompiledTorchEngine

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


# The first of each device is what the others are compared with.
ENGINES: Final = (
    Engine("torch"),
    Engine("torch", precision="bf16"),
    Engine("torch-compile"),
    Engine("onnxruntime", threads=1),
    Engine("onnxruntime", threads=2),
    Engine("incremental"),
    Engine("incremental", running_sums=False),
    Engine("torch", "cuda"),
    *(Engine("torch", "cuda", precision) for precision in ("fp16", "bf16")),
    Engine("torch-graph", "cuda", "fp16"),
    *(
        Engine(kind, "cuda", precision)
        for kind in ("torch-compile", "onnxruntime", "tensorrt", "tensorrt-rtx")
        for precision in ("fp32", "fp16", "bf16")
    ),
)


def choose(settings: FusionSettings, devices: Sequence[Where]) -> list[Engine]:
    """The engines that are asked for: by name, or all of these devices, with the eager ones of each first.

    Raises:
        SettingsError: an engine has no such name.
    """
    names = [engine.name for engine in ENGINES]
    if unknown := [name for name in settings.engines if name not in names]:
        raise SettingsError(f"there is no engine {unknown[0]!r}; choose of {', '.join(names)}")
    if settings.engines:
        wanted = {*settings.engines}
        wanted |= {EAGER[engine.device] for engine in ENGINES if engine.name in settings.engines}
        return [engine for engine in ENGINES if engine.name in wanted]
    return [
        engine for engine in ENGINES if engine.device in devices and not (settings.quick and _slow(engine))
    ]


def _slow(engine: Engine) -> bool:
    """Whether making it takes so long that a quick run leaves it out."""
    return engine.kind == "torch-compile"
