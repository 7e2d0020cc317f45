"""Measure how long it takes until a user's mistake is reported, as a table.

    python tools/time_errors.py --n 5 --out docs/benchmarks/errors.md

Run it with the Python of the environment that has emi-live, on an idle machine.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from emi_bench.measurement import Machine

# The command, and what is wrong with it; {folder} holds clip.wav, text.txt and full.jsonl.
MISTAKES: Final = (
    ("emi-live", "nothing to watch"),
    ("emi-live --input none.mp4", "no such file"),
    ("emi-live {folder}/text.txt", "not a media file"),
    ("emi-live {folder}/clip.wav --json none/x.jsonl", "no such folder"),
    ("emi-live {folder}/clip.wav --json {folder}/full.jsonl", "the file is not empty"),
    ("emi-live {folder}/clip.wav --picture none/x.svg", "no such folder"),
    ("emi-live {folder}/clip.wav --checkpoint none.safetensors", "no such checkpoint"),
    ("emi-live {folder}/clip.wav --checkpoint {folder}/text.txt", "not a checkpoint"),
    ("emi-live {folder}/clip.wav --config none", "no such preset"),
    ("emi-live {folder}/clip.wav --set none.key=1", "no such setting"),
    ("emi-live {folder}/clip.wav --engine none", "no such engine"),
    ("emi-live {folder}/clip.wav --publish tcp://1.2.3.4:5", "an address without keys"),
    ("emi-live {folder}/clip.wav --audio-track 9", "no such track"),
    ("emi-live --camera 99", "no such camera"),
    ("emi-live --camera http://127.0.0.1:1/x --mic none", "a port that nobody listens on"),
    ("emi-live --mic none-such", "no such microphone"),
    ("emi extract --videos none --labels none.csv --out {folder}/out", "no such folder"),
    ("emi train --system taemi --data none --out {folder}/run", "no such data"),
    ("emi eval --data none --checkpoint none", "no such checkpoint"),
    ("emi bench live --input none", "no such file"),
    ("emi compile --checkpoint none --engine tensorrt-rtx", "no such checkpoint"),
)


def main() -> None:
    """Time all mistakes and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--n", type=int, default=5, help="runs of each")
    parser.add_argument("--out", type=Path, help="a Markdown file; default: standard output")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [_row(command, what, Path(folder), options.n) for command, what in MISTAKES]
    table = "\n".join(
        (
            "# How long does it take until a mistake is reported?",
            "",
            f"Seconds from the command to its end, n = {options.n} each. {Machine.here().line()}. "
            "Made by `tools/time_errors.py`.",
            "",
            "| command | what is wrong | median | max | exit code |",
            "|---|---|--:|--:|--:|",
            *rows,
            "",
        )
    )
    if options.out is None:
        sys.stdout.write(table)
    else:
        options.out.write_text(table, encoding="utf-8")


def _row(command: str, what: str, folder: Path, n: int) -> str:
    subprocess.run(
        ["ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", "sine=duration=1", folder / "clip.wav"],
        check=True,
    )
    for name in ("text.txt", "full.jsonl"):
        (folder / name).write_text("{}\n" * 400, encoding="utf-8")
    program, *arguments = command.format(folder=folder).split()
    seconds = []
    for _ in range(n):
        start = time.perf_counter()
        done = subprocess.run(
            [str(Path(sys.executable).with_name(program)), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        )
        seconds.append(time.perf_counter() - start)
        if done.returncode not in (1, 2, 3) or not done.stderr.startswith(b"error: "):
            sys.exit(f"{command}: exit code {done.returncode}: {done.stderr.decode(errors='replace')}")
    shown = command.format(folder="DIR")
    return (
        f"| `{shown}` | {what} | {statistics.median(seconds):.2f} | {max(seconds):.2f} | {done.returncode} |"
    )


if __name__ == "__main__":
    main()
