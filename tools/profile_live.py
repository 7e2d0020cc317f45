"""Draw where a live run spends its CPU time: `python -m tools.profile_live CLIP --out profile.svg`.

    python -m tools.profile_live CLIP --seconds 40 --out profile.svg -- --set speech.backend=none

Width is CPU time: of all threads together, then of each thread, then of what it calls. Each thread's time is
the kernel's, from the first half of the run after the start. How a thread spent it is sampled in the second
half by py-spy (https://github.com/benfred/py-spy, MIT; `pip install py-spy`, Linux), 200 times a second,
Python and native code alike. py-spy stops all threads for each sample, so its own counts of threads would
mislead: a thread that wakes others would seem to take most of the time. Samples of a thread that waits are
left out.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Final

import psutil

__all__ = ["Node", "draw", "running"]

RATE_HZ: Final = 200
LOADING_S: Final = 8.0
# Innermost frames of a thread that waits for a lock, a socket or Python's own lock, or wakes another.
WAITS: Final = ("acquire_lock", "release_lock", "take_gil", "sem_", "pthread_cond_", "poll", "futex")
DEEPEST_WAIT: Final = 4  # frames from the innermost one in which these may be
HIDDEN: Final = ("Thread._bootstrap", "Thread.run", "Worker._run", "_bootstrap_inner")
ROW_PX, WIDTH_PX, LETTER_PX, LEAST_PX = 17, 1200, 6.6, 1.0
LINE: Final = re.compile(r":\d+\)$")
THREAD: Final = re.compile(r"thread \((\d+)\): (emi-.*)$")


@dataclass
class Node:
    """What one function took, with what it called; `name` is the thread or the function."""

    name: str
    seconds: float = 0.0
    calls: dict[str, Node] = field(default_factory=dict)

    @property
    def depth(self) -> int:
        """Rows of the picture."""
        return 1 + max((call.depth for call in self.calls.values()), default=0)


def running(folded: list[str], cpu_s: dict[int, float]) -> Node:
    """What the threads of emi-live computed, in seconds.

    Args:
        folded: py-spy's lines, `outermost;…;innermost COUNT`.
        cpu_s: CPU time of each thread, by its number in the system.
    """
    counts: dict[str, int] = {}
    kept: list[tuple[str, list[str], int]] = []
    for line in folded:
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        thread = next((frame for frame in frames if THREAD.match(frame)), None)
        innermost = frames[-DEEPEST_WAIT:]
        if thread is None or any(wait in frame for frame in innermost for wait in WAITS):
            continue
        kept.append((thread, frames, int(count)))
        counts[thread] = counts.get(thread, 0) + int(count)
    root = Node("all threads")
    for thread, frames, samples in kept:
        number, name = THREAD.match(thread).groups()  # type: ignore[union-attr]  # as above
        seconds = cpu_s.get(int(number), 0.0) * samples / counts[thread]
        named = [frame for frame in frames if ".py:" in frame and not frame.startswith(HIDDEN)]
        native = [frame for frame in frames[-1:] if ".py:" not in frame and not frame.startswith("0x")]
        root.seconds += seconds
        node = root
        for called in (name, *(LINE.sub(")", frame) for frame in named), *native):
            node = node.calls.setdefault(called, Node(called))
            node.seconds += seconds
    return root


def draw(root: Node, title: str) -> str:
    """The flame graph as SVG; the name and share of each bar is shown where the pointer rests."""
    height = ROW_PX * (root.depth + 2)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH_PX} {height}" '
        'font-family="monospace" font-size="11">',
        f'<rect width="{WIDTH_PX}" height="{height}" fill="#fff"/>',
        f'<text x="4" y="{ROW_PX - 4}">{escape(title)}</text>',
    ]
    _bars(root, 0.0, 1, WIDTH_PX / (root.seconds or 1.0), root.seconds or 1.0, parts)
    return "\n".join([*parts, "</svg>", ""])


def _bars(node: Node, left_px: float, row: int, scale: float, total: float, parts: list[str]) -> None:
    width_px = node.seconds * scale
    if width_px < LEAST_PX:
        return
    share = f"{100 * node.seconds / total:.1f} %"
    name = escape(node.name)
    shown = name if len(node.name) * LETTER_PX < width_px else escape(node.name[: int(width_px / LETTER_PX)])
    hue = sum(map(ord, node.name)) % 40 + 15
    y = ROW_PX * row
    parts.append(
        f'<g><title>{name}, {share}</title><rect x="{left_px:.1f}" y="{y}" width="{width_px:.1f}" '
        f'height="{ROW_PX - 1}" fill="hsl({hue},85%,70%)"/>'
        f'<text x="{left_px + 2:.1f}" y="{y + 12}">{shown}</text></g>'
    )
    for call in sorted(node.calls.values(), key=lambda each: -each.seconds):
        _bars(call, left_px, row + 1, scale, total, parts)
        left_px += call.seconds * scale


def _record(clip: Path, seconds: float, options: list[str]) -> Node:
    spy = Path(sys.executable).with_name("py-spy")
    if not spy.is_file():
        raise FileNotFoundError("py-spy is not installed here: pip install py-spy")
    half_s = seconds / 2
    command = [str(Path(sys.executable).with_name("emi-live")), "--input", str(clip), "--mode", "live"]
    command += ["--no-ui", "--duration", str(seconds + 2 * LOADING_S), *options]
    with tempfile.TemporaryDirectory() as folder:
        command += ["--json", str(Path(folder) / "lines")]
        found = Path(folder) / "folded"
        sample = [str(spy), "record", "--native", "--threads", "--rate", str(RATE_HZ), "--format", "raw"]
        sample += ["--output", str(found), "--duration", str(round(half_s))]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            try:
                _run_on(process, LOADING_S)
                before = _cpu_s(process.pid)
                _run_on(process, half_s)
                cpu_s = {number: now - before.get(number, 0.0) for number, now in _cpu_s(process.pid).items()}
                subprocess.run([*sample, "--pid", str(process.pid)], check=True, stdout=subprocess.DEVNULL)
            finally:
                process.terminate()
        return running(found.read_text(encoding="utf-8").splitlines(), cpu_s)


def _run_on(process: subprocess.Popen[bytes], seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return
    raise OSError(f"emi-live ended too early, with exit code {process.returncode}; give a longer clip")


def _cpu_s(pid: int) -> dict[int, float]:
    return {each.id: each.user_time + each.system_time for each in psutil.Process(pid).threads()}


def main() -> int:
    """Record and draw what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("clip", type=Path, help="a media file, long enough for --seconds")
    parser.add_argument("--seconds", type=float, default=40.0, help="of media (default: 40)")
    parser.add_argument("--out", type=Path, required=True, help="SVG to write")
    typed, _, options = " ".join(map(shlex.quote, sys.argv[1:])).partition(" -- ")
    given = parser.parse_args(shlex.split(typed))
    try:
        root = _record(given.clip, given.seconds, shlex.split(options))
    except (OSError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    given.out.write_text(draw(root, f"emi-live {options}: CPU time of {given.clip.name}"), encoding="utf-8")
    threads = {name: round(node.seconds / (root.seconds or 1.0), 3) for name, node in root.calls.items()}
    sys.stdout.write(json.dumps(threads) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
