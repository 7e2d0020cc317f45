"""Settings of what comes after the stages: bus, window, fusion engine, output."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from emi_engine.load import Device, EngineKind
from emi_engine.precision import Precision
from emi_live.config.section import Positive, Section

__all__ = ["BusConfig", "FusionConfig", "OutputConfig", "WindowConfig"]

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class BusConfig(Section):
    """The ZeroMQ fabric between stages, window and sinks."""

    transport: Literal["inproc", "ipc", "tcp"] = "inproc"
    host: str = "127.0.0.1"  # tcp only
    base_port: int = Field(5570, ge=1024, le=65500)  # tcp only: one port per topic from here on
    directory: Path | None = None  # ipc only; default: a private directory under the user's runtime folder
    high_water_mark: int = Field(
        1000, ge=1, le=100_000
    )  # messages queued per edge before drop or back-pressure
    curve_public_key: str | None = None  # Z85; both keys are needed when host is not loopback
    curve_secret_key: str | None = Field(None, repr=False)

    @model_validator(mode="after")
    def _remote_needs_curve(self) -> BusConfig:
        keyed = self.curve_public_key is not None and self.curve_secret_key is not None
        if self.transport == "tcp" and self.host not in LOOPBACK and not keyed:
            raise ValueError(
                f"bus.host={self.host} is not loopback and needs CURVE keys: set bus.curve_public_key and "
                "bus.curve_secret_key (make a pair with `emi keys`)"
            )
        return self


class WindowConfig(Section):
    """The window that every estimate is made from."""

    length_s: float = Field(12.0, gt=0, le=12.0)
    hop_s: float = Field(0.2, ge=0.02, le=10)
    vision_dropout_s: Positive = 1.0  # without a face
    audio_dropout_s: Positive = 1.0  # without voice
    text_dropout_s: Positive = 6.0  # without a new word


class FusionConfig(Section):
    """The fusion engine and its checkpoint. What the engines are: docs/engines.md."""

    engine: EngineKind = "auto"
    strict: bool = False  # an engine that is named and cannot run ends the start, in place of a fallback
    device: Device = "auto"  # auto = the CPU, but for engines that have none
    precision: Precision | None = None  # None = fp32, but for TensorRT, which has fp16 or the plan's own
    plan: Path | None = None  # of `emi compile`, for TensorRT; None = the cached one, else a new one
    checkpoint: Path | None = None  # None = the bundle's own, in the package
    # For one window, of ONNX Runtime and of numpy. Those of numpy are one setting for the whole process:
    # while an engine runs, an embedding program's own matrix products have as many.
    threads: int = Field(1, ge=1, le=64)
    contributions: bool = False  # also say, in each estimate, what each modality added


class OutputConfig(Section):
    """Where estimates go."""

    json_path: str | None = None  # a file, or "-" for standard output
    append: bool = False  # add to that file; else one that holds something is refused
    force: bool = False  # replace what a file holds, that of --picture too
    publish: str | None = None  # ZeroMQ address, e.g. tcp://127.0.0.1:5561
    ui: bool = True
