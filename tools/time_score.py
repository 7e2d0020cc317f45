"""What `emi score` of a folder costs, next to one `emi-live` start for each clip.

    python -m tools.time_score FOLDER [emi-live's settings]

It prints a table in Markdown: wall seconds, and CPU seconds of all processes. Nothing else should run. The
models are those of EMI_MODEL_DIR or of the user's store; nothing is fetched.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

BIN = Path(sys.executable).parent
ROUNDS = 3  # the median counts


def cost(commands: Sequence[Sequence[str | Path]]) -> tuple[float, float]:
    """Wall and CPU seconds of commands that run one after another."""
    before, start_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    for command in commands:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wall_s, after = time.perf_counter() - start_s, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def duration_s(clip: Path) -> float:
    """Seconds of the clip."""
    import av

    with av.open(str(clip)) as container:
        return (container.duration or 0) / 1e6


def main() -> None:
    """Measure in turns, so that a slow minute counts for all."""
    folder, settings = Path(sys.argv[1]), sys.argv[2:]
    clips = sorted(
        path for path in folder.iterdir() if path.suffix in (".mp4", ".mov", ".mkv", ".wav", ".flac")
    )
    options = [part for setting in settings for part in ("--set", setting)]
    ways: dict[str, list[tuple[float, float]]] = {}
    for number in range(ROUNDS):
        with tempfile.TemporaryDirectory() as out:
            alone: list[list[str | Path]] = [
                [
                    BIN / "emi-live",
                    "--input",
                    clip,
                    "--no-ui",
                    "--offline",
                    "--json",
                    f"{out}/{clip.name}.jsonl",
                    *options,
                ]
                for clip in clips
            ]
            ways.setdefault("one `emi-live --input CLIP` for each", []).append(cost(alone))
            for workers in sorted({1, max(1, (os.cpu_count() or 1) // 2), os.cpu_count() or 1}):
                score: list[str | Path] = [
                    BIN / "emi",
                    "score",
                    folder,
                    "--out",
                    f"{out}/{workers}",
                    "--offline",
                    *options,
                ]
                measured = cost([[*score, "--workers", str(workers)]])
                ways.setdefault(f"`emi score --workers {workers}`", []).append(measured)
        sys.stderr.write(f"round {number + 1} of {ROUNDS}\n")
    seconds = sum(map(duration_s, clips))
    lines = [f"{len(clips)} clips, {seconds:.0f} s in all, median of {ROUNDS} rounds", ""]
    lines += ["| | wall s | CPU s | CPU s for each s of clip |", "|---|--:|--:|--:|"]
    for way, costs in ways.items():
        wall_s, cpu_s = (sorted(one[part] for one in costs)[len(costs) // 2] for part in (0, 1))
        lines.append(f"| {way} | {wall_s:.1f} | {cpu_s:.1f} | {cpu_s / seconds:.2f} |")
    sys.stdout.write("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
