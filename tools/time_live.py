"""Time whole runs of emi-live from outside: `python -m tools.time_live CLIP -- --set speech.backend=none`.

    python -m tools.time_live CLIP --seconds 60 -- --config small
    python -m tools.time_live CLIP --program OTHER/.venv/bin/emi-live     # another version, for comparison
    python -m tools.time_live CLIP --under "taskset -c 0"                 # on one core

Prints one JSON object. Seconds and CPU seconds count from the start of the process to the first estimate in
which vision and audio are live, and to the first with words. Memory is the largest sum of PSS over all
processes, in MiB, sampled once a second. `cores` is CPU seconds per second from the tenth second on. Ages are
those of an estimate's newest evidence, in milliseconds, from the second 2 on. It runs in live mode.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil

__all__ = ["time_run"]

WARM_UP_S: Final = 10.0  # of the cores: loading is not counted
FIRST_AGE_S: Final = 2.0


class Watch:
    """Memory and CPU time of a process with all its children."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._over = threading.Event()
        self._start_s = time.monotonic()
        self.pss_mib: list[float] = []
        self.cpu: list[tuple[float, float]] = []  # seconds since the start, CPU seconds
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def now(self) -> tuple[float, float]:
        """Seconds and CPU seconds since the start."""
        spent = 0.0
        for process in self._processes():
            try:
                spent += sum(process.cpu_times()[:2])
            except psutil.Error:  # it has just ended
                continue
        return time.monotonic() - self._start_s, spent

    def close(self) -> None:
        """Take no more samples."""
        self._over.set()
        self._thread.join()

    def _processes(self) -> list[psutil.Process]:
        try:
            return [self._root, *self._root.children(recursive=True)]
        except psutil.Error:
            return []

    def _sample(self) -> None:
        while not self._over.wait(1.0):
            total = 0.0
            for process in self._processes():
                try:
                    total += process.memory_full_info().pss / 2**20
                except psutil.Error:
                    continue
            self.pss_mib.append(total)
            self.cpu.append(self.now())


def time_run(program: str, clip: Path, seconds: float, under: str, options: list[str]) -> dict[str, Any]:
    """Run the program once; gives the figures that the module describes."""
    command = [*shlex.split(under), program, "--input", str(clip), "--mode", "live", "--json", "-", "--no-ui"]
    command += ["--duration", str(seconds), *options]
    found: dict[str, Any] = {"options": options, "under": under}
    ages: list[float] = []
    with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, encoding="utf-8") as process:
            watch = Watch(process.pid)
            for count, line in enumerate(process.stdout or (), 1):
                estimate = json.loads(line)
                states = {name: each["state"] for name, each in estimate["modalities"].items()}
                if states["vision"] == states["audio"] == "live":
                    found.setdefault("vision_and_audio", watch.now())
                if states["text"] == "live":
                    found.setdefault("words", watch.now())
                age_ms = estimate["latency_ms"].get("capture_to_estimate")
                if estimate["t"] > FIRST_AGE_S and age_ms is not None:
                    ages.append(age_ms)
                found["estimates"], found["per_s"] = count, count / max(estimate["t"], 1e-9)
            watch.close()
        said.seek(0)
        found["lost"] = [line.strip() for line in said if "lost" in line or "as it should be" in line]
    found["rc"] = process.returncode
    found["pss_mib"] = max(watch.pss_mib, default=None)
    later = [each for each in watch.cpu if each[0] > WARM_UP_S][:-1]
    if len(later) > 1:
        (begin_s, begin_cpu), (end_s, end_cpu) = later[0], later[-1]
        found["cores"] = (end_cpu - begin_cpu) / (end_s - begin_s)
    if ages:
        found["age_ms"] = {f"p{share}": float(np.percentile(ages, share)) for share in (50, 95)}
        found["ages"] = len(ages)
    return found


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("clip", type=Path, help="a media file, long enough for --seconds")
    parser.add_argument("--seconds", type=float, default=60.0, help="of media (default: 60)")
    parser.add_argument("--program", default=str(Path(sys.executable).with_name("emi-live")))
    parser.add_argument("--under", default="", metavar="COMMAND", help="run it under this command")
    typed, _, options = " ".join(map(shlex.quote, sys.argv[1:])).partition(" -- ")
    given = parser.parse_args(shlex.split(typed))
    if not given.clip.is_file():
        sys.stderr.write(f"error: {given.clip} does not exist\n")
        return 2
    found = time_run(given.program, given.clip, given.seconds, given.under, shlex.split(options))
    sys.stdout.write(json.dumps(found) + "\n")
    return 0 if found["rc"] == 0 else 1


if __name__ == "__main__":
    raise SystemExit(main())
