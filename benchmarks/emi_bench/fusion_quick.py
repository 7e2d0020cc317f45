"""A quick comparison of the CPU engines, by which the default was chosen (docs/decisions/0005).

    python -m emi_bench.fusion_quick --torch-threads 1

Engines take turns, window by window, in one process: first back to back, then with the idle gap of live use
before each window. Weights are random but for the packaged checkpoint: time does not depend on them.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from emi_engine import load_engine
from emi_engine.parity import probe_window
from emi_models.checkpoint import CheckpointHeader, packaged_checkpoint, save_checkpoint
from emi_models.inputs import COMPACT_SHAPES, TAEMI_SHAPES
from emi_models.networks.taemi import Taemi, TaemiConfig
from emi_models.systems import describe_config

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from emi_engine import FusionEngine

__all__ = ["main"]

WARM_UP: Final = 20  # windows per engine before any is timed
GAP_S: Final = 0.2  # a hop
CONFIGS: Final = {
    "compact, all modalities": TaemiConfig(shapes=COMPACT_SHAPES, d_model=64, heads=4, mlp_hidden=512),
    "taemi, all modalities": TaemiConfig(shapes=TAEMI_SHAPES),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(prog="python -m emi_bench.fusion_quick")
    parser.add_argument("--n", type=int, default=200, help="timed windows per engine and pace")
    parser.add_argument("--torch-threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.torch_threads)
    console = Console()
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "onnxruntime", "numpy"))
    console.print(
        f"{platform.machine()}, {versions}, n = {options.n}, {options.torch_threads} thread(s) for torch"
    )
    table = Table("network", "engine", "pace", "median ms", "p95 ms", "x torch")
    with tempfile.TemporaryDirectory() as folder:
        paths = {"compact, packaged": packaged_checkpoint("compact")}
        for name, config in CONFIGS.items():
            paths[name] = _random_checkpoint(Path(folder) / f"{name}.safetensors", config)
        for name, path in paths.items():
            with ExitStack() as stack:
                engines = {
                    f"torch, {options.torch_threads} thread(s)": load_engine(path, "torch"),
                    "onnxruntime, 1 thread": load_engine(path, "onnxruntime", threads=1, cache=Path(folder)),
                    "onnxruntime, 2 threads": load_engine(path, "onnxruntime", threads=2, cache=Path(folder)),
                }
                for engine in engines.values():
                    stack.enter_context(engine)
                for pace, gap_s in (("back to back", 0.0), ("200 ms gaps", GAP_S)):
                    times = _interleaved(engines, options.n, gap_s)
                    torch_ms = float(np.median(next(iter(times.values()))))
                    for label, ms in times.items():
                        median, p95 = np.percentile(ms, (50, 95))
                        table.add_row(
                            name, label, pace, f"{median:.2f}", f"{p95:.2f}", f"{median / torch_ms:.2f}"
                        )
    console.print(table)


def _interleaved(engines: Mapping[str, FusionEngine], n: int, gap_s: float) -> dict[str, list[float]]:
    """Milliseconds of each timed window, for each engine; the engines take turns."""
    yes = torch.tensor([True])
    probe = probe_window(next(iter(engines.values())).shapes, 1)
    window = replace(probe, vision_present=yes, audio_present=yes, text_present=yes)
    idle = threading.Event()  # never set: waiting on it is the gap
    times: dict[str, list[float]] = {name: [] for name in engines}
    for turn in range(WARM_UP + n):
        for name, engine in engines.items():
            if gap_s and turn >= WARM_UP:
                idle.wait(gap_s)
            start = time.perf_counter()
            engine.infer(window)
            if turn >= WARM_UP:
                times[name].append((time.perf_counter() - start) * 1e3)
    return times


def _random_checkpoint(path: Path, config: TaemiConfig) -> Path:
    torch.manual_seed(0)
    header = CheckpointHeader(
        system="taemi",
        config=describe_config(config),
        modalities=config.modalities,
        encoders=dict.fromkeys(config.modalities, "random"),
        data="none: random weights",
        licence="Apache-2.0",
        scores={},
        created_by="emi_bench.fusion_quick",
    )
    save_checkpoint(path, Taemi(config), header)
    return path


if __name__ == "__main__":
    main()
