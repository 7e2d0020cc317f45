"""`emi bench gpu`: everything that is to be measured on a GPU, in pieces; it can be interrupted.

Each piece is another benchmark in its own process with a time limit, so that an engine that crashes the
process, hangs or cannot be loaded costs its piece alone. What a piece found is one file in the folder; a
piece whose file is there is not measured again. At the end all files become one page with one figure.

Runs where little more than PyTorch is installed: `python -m emi_bench.gpu`. The pieces of the whole engine
need emi-live with its models; without them they are recorded as failed, and the rest goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from emi_bench.fusion.settings import ENGINES, NETWORKS
from emi_bench.measurement import Machine
from emi_bench.render import ReportError
from emi_bench.report import make_report, read_report
from emi_models.console import accept_any_text
from emi_models.errors import EmiError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["GpuBenchError", "Piece", "Result", "measure_gpu", "pieces", "run_piece"]

LIMIT_S: Final = 480.0  # of a piece: a machine that is lent for minutes can run one at a time
BUDGET_S: Final = 20.0  # of a case of fusion, so that the cases of a piece fit
LIVE_S: Final = 60.0
QUICK_LIVE_S: Final = 10.0
INTERRUPT_S: Final = 10.0  # to write what it has, after Ctrl-C
SUMMARY: Final = "gpu.json"
EMI: Final = "from emi_live.cli import start_emi; start_emi()"

Where = Literal["cuda", "cpu"]
State = Literal["done", "kept", "failed"]


class GpuBenchError(EmiError):
    """Nothing can be measured; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One benchmark: its name, which is that of its file, and the program that measures it."""

    name: str
    command: tuple[str, ...]  # arguments of Python; `--json FILE` is added


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a piece: `kept` means that it was measured by an earlier run."""

    name: str
    state: State
    seconds: float = 0.0
    reason: str = ""  # why it failed, one line


def pieces(device: Where, clip: Path | None, *, quick: bool = False) -> list[Piece]:
    """What is measured, in order: each kind of engine on each network, then the whole engine live.

    Args:
        device: `cpu` shows on a machine without a GPU what would happen; its numbers are those of the CPU.
        clip: a media file for the live pieces; None: generated light and sound.
        quick: a few calls of each; shows that it works, not how fast.
    """
    kinds = dict.fromkeys(engine.kind for engine in ENGINES if engine.device == device)
    found = []
    for network in NETWORKS[:1] if quick else NETWORKS:
        for kind in kinds:
            names = [each.name for each in ENGINES if (each.kind, each.device) == (kind, device)]
            chosen = [part for name in names for part in ("--engine", name)]
            pace = ["--quick"] if quick else ["--budget-s", f"{BUDGET_S:g}"]
            command = ("-m", "emi_bench.fusion", "--device", device, "--network", network, *pace, *chosen)
            found.append(Piece(f"fusion-{network}-{kind}", command))
    media = ("--flash-beep",) if clip is None else ("--input", str(clip))
    seconds = QUICK_LIVE_S if quick else LIVE_S
    for engine in ("onnxruntime", "torch-compile", "tensorrt"):
        where = ("--set", f"fusion.engine={engine}", "--set", f"fusion.device={device}")
        command = ("-c", EMI, "bench", "live", *media, "--duration", f"{seconds:g}", *where)
        found.append(Piece(f"live-{engine}", command))
    return found


def run_piece(piece: Piece, file: Path, limit_s: float) -> str:
    """Measure one piece in its own process; returns one line that says why it failed, or nothing.

    The process is asked to end at the limit, as by Ctrl-C, so that a benchmark keeps what it has.
    """
    command = [sys.executable, *piece.command, "--json", str(file)]
    with subprocess.Popen(  # noqa: S603  # our own benchmarks
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, encoding="utf-8", errors="replace"
    ) as process:
        try:
            _, said = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            said = _end(process)
            if file.exists():
                return ""
            return f"stopped after {limit_s:g} s; it said last: {_last(said)}"
        except KeyboardInterrupt:
            _end(process)
            raise
    if process.returncode < 0:
        name = signal.Signals(-process.returncode).name
        return f"the process was ended by {name}; it said last: {_last(said)}"
    return "" if process.returncode == 0 else _last(said)


def measure_gpu(
    folder: Path,
    wanted: Sequence[Piece],
    say: Callable[[str], None],
    *,
    limit_s: float = LIMIT_S,
    run: Callable[[Piece, Path, float], str] = run_piece,
    figure: bool = True,
) -> list[Result]:
    """Measure what is not in the folder yet, and write `gpu.json`, `gpu.md` and `gpu.png` there.

    The summary is written after each piece, so that nothing is lost when the machine is taken away.

    Args:
        folder: is made if it does not exist.
        wanted: the pieces, in order.
        say: is given a line before and after each.
        limit_s: seconds of a piece.
        run: measures one piece.
        figure: draw the figure too; it needs matplotlib.

    Raises:
        GpuBenchError: no piece could be measured.
    """
    folder.mkdir(parents=True, exist_ok=True)
    results: list[Result] = []
    for number, piece in enumerate(wanted, 1):
        file = folder / f"{piece.name}.json"
        if _complete(file):
            results.append(Result(piece.name, "kept"))
            continue
        say(f"{number} of {len(wanted)}: {piece.name}, {limit_s:g} s at most")
        start_s = time.monotonic()
        reason = run(piece, file, limit_s) or ("" if _complete(file) else "it wrote no report")
        seconds = round(time.monotonic() - start_s, 1)
        results.append(Result(piece.name, "failed" if reason else "done", seconds, reason))
        say(f"{piece.name}: failed: {reason}" if reason else f"{piece.name}: {seconds:g} s")
        _write_summary(folder, results)
    _write_summary(folder, results)
    files = [folder / f"{each.name}.json" for each in results if each.state != "failed"]
    if not files:
        raise GpuBenchError(f"nothing could be measured: {results[0].reason if results else 'no piece'}")
    make_report(files, folder / "gpu", figure=figure)
    page = folder / "gpu.md"
    page.write_text(page.read_text(encoding="utf-8") + _failures(results), encoding="utf-8")
    return results


def _complete(file: Path) -> bool:
    """Whether a piece's report is there and readable; of an interrupted piece, what there is counts."""
    if not file.exists():
        return False
    try:
        read_report(file)
    except ReportError:
        return False
    return True


def _write_summary(folder: Path, results: Sequence[Result]) -> None:
    summary = {"machine": asdict(Machine.here()), "pieces": [asdict(each) for each in results]}
    partial = folder / f"{SUMMARY}.part"
    partial.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, folder / SUMMARY)


def _failures(results: Sequence[Result]) -> str:
    failed = [each for each in results if each.state == "failed"]
    if not failed:
        return ""
    rows = "\n".join(f"| {each.name} | {each.reason.replace('|', '/')} |" for each in failed)
    return f"\n## What could not be measured\n\n| piece | reason |\n|---|---|\n{rows}\n"


def _end(process: subprocess.Popen[str]) -> str:
    process.send_signal(signal.SIGINT)
    try:
        return process.communicate(timeout=INTERRUPT_S)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()[1]


def _last(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1].removeprefix("error: ")[:300] if lines else "nothing"


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m emi_bench.gpu`. Exit code: 0 done, 1 nothing could be measured, 130 interrupted."""
    accept_any_text()
    parser = argparse.ArgumentParser(
        prog="python -m emi_bench.gpu",
        description="Measure on a GPU every engine that can be loaded, and the whole engine live.",
        epilog="The same command continues after an interruption.",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for what is found")
    parser.add_argument("--clip", type=Path, help="a media file for the live runs; default: generated media")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="(%(default)s)")
    parser.add_argument("--limit-s", type=float, default=LIMIT_S, help="of a piece (%(default)g)")
    parser.add_argument("--quick", action="store_true", help="a few calls of each, to see that it works")
    parser.add_argument("--no-figure", action="store_true", help="leave the figure out")
    given = parser.parse_args(arguments)
    return bench_gpu(
        given.out, given.clip, given.device, given.limit_s, quick=given.quick, figure=not given.no_figure
    )


def bench_gpu(
    out: Path, clip: Path | None, device: Where, limit_s: float, *, quick: bool, figure: bool
) -> int:
    """What both command lines do; gives the exit code."""

    def say(line: str) -> None:
        sys.stderr.write(f"… {line}\n")
        sys.stderr.flush()

    try:
        if clip is not None and not clip.is_file():
            raise GpuBenchError(f"--clip {clip} does not exist; give a media file, or leave it out")
        if device == "cuda" and not _has_gpu():
            raise GpuBenchError(
                "there is no GPU that PyTorch can use here; see what `nvidia-smi` says, or try --device cpu"
            )
        results = measure_gpu(out, pieces(device, clip, quick=quick), say, limit_s=limit_s, figure=figure)
    except (GpuBenchError, ReportError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        say(f"interrupted: what was measured is kept in {out}; the same command continues")
        return 130
    failed = sum(each.state == "failed" for each in results)
    say(f"{len(results) - failed} of {len(results)} pieces measured: {out / 'gpu.md'}")
    return 0


def _has_gpu() -> bool:
    try:
        import torch
    except ImportError:
        return False
    return bool(torch.cuda.is_available())


if __name__ == "__main__":
    sys.exit(main())
