"""The figures of docs/scale.md on a corpus: calculated from measured costs, simulated, or measured here.

python -m tools.scale calculate [--cost vision=0.37] [--gpu L4 --utilisation 0.1:0.4 --feed crops_per_s=3]
python -m tools.scale simulate --actors 2 --clips 40 --cost-s 0.5
python -m tools.scale throughput CLIP… --n 40 -- --without text --offline
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path
from threading import Event
from time import monotonic
from typing import TYPE_CHECKING, Final

from emi_bench.harness import ProcessTreeUsage
from emi_live.extract.folder import Entry
from emi_live.extract.pool import Do, Job, Pool, Ready, Written, serve
from tools.encoder_flops import GPUS, Feed, gpu_table

if TYPE_CHECKING:
    from collections.abc import Mapping

# Core seconds a second of media, from docs/benchmarks/light.md ("Where the time goes"): 0.50 cores with face
# and voice (face 73 %, file 16 %, audio 8 %, the rest 3 %); and 0.80 with Whisper base. That is live use,
# with hypotheses while somebody speaks: an upper limit for a file.
MEASURED: Final = {
    "vision": 0.365,
    "audio": 0.04,
    "decoding and the rest": 0.095,
    "text (Whisper base)": 0.30,
}
CORPORA: Final = {"15,000 clips of 12 s": 15_000 * 12 / 3600, "1,000,000 hours": 1_000_000.0}
CLIP_S: Final = 12.0
LOOK_S: Final = 0.5


def table(costs: Mapping[str, float]) -> str:
    """Core hours of each corpus, as a table in Markdown.

    Args:
        costs: core seconds for a second of media, by encoder.
    """
    lines = [
        "| encoder | core seconds a second of media | " + " | ".join(CORPORA) + " |",
        "|---|--:|--:|--:|",
    ]
    for name, cost in (*costs.items(), ("**all**", sum(costs.values()))):
        hours = " | ".join(f"{cost * of:,.0f} h" for of in CORPORA.values())
        lines.append(f"| {name} | {cost:.3f} | {hours} |")
    return "\n".join(lines)


@dataclass(frozen=True)
class Sleeping:
    """A task that takes as long as a clip was measured to take, and does nothing."""

    cost_s: float
    debug: bool = False
    device: str = "cpu"

    def open(self, opened: ExitStack) -> tuple[Ready, Do]:
        """Nothing is loaded."""

        def do(job: Job) -> Written:
            Event().wait(self.cost_s)
            entry = Entry(
                id=job.id,
                source=job.name,
                size=0,
                mtime_ns=0,
                settings="",
                duration_s=CLIP_S,
                pictures=0,
                faces=0,
                sounds=0,
                words=0,
            )
            return Written(entry=entry, damaged=0)

        return Ready(encoders={}, recognizer="", settings=""), do


def simulate(actors: int, clips: int, cost_s: float, cluster: str | None) -> dict[str, object]:
    """How much of the ideal speed is left with workers that sleep."""
    from emi_live.cluster.clips import RayWorkers

    jobs = [Job(id=str(number), path="", name=f"{number}.mp4", size=0, mtime_ns=0) for number in range(clips)]
    task = Sleeping(cost_s)
    pool = Pool(actors, serve, task) if cluster is None else RayWorkers(task, cluster, actors)
    with pool as workers:
        workers.ready()
        started = monotonic()
        stamps = [monotonic() - started for _ in workers.run(jobs)]
    steady_s = stamps[-1] - stamps[0]
    return {
        "simulated": True,
        "workers": "processes" if cluster is None else "actors of Ray",
        "count": actors,
        "clips": clips,
        "cost_s": cost_s,
        "first_after_s": round(stamps[0], 2),
        "clips_per_s": round((clips - 1) / steady_s, 3),
        "ideal": round(actors / cost_s, 3),
    }


def throughput(clips: list[Path], count: int, options: list[str]) -> list[dict[str, object]]:
    """The same clips in one process, with several at once, in two processes and two actors of Ray, in turn.

    Cores and memory are of all processes of a run.
    """
    ways = {
        "one process": ["--workers", "1"],
        "one process, 2 clips at once": ["--workers", "1", "--at-once", "2"],
        "one process, 4 clips at once": ["--workers", "1", "--at-once", "4"],
        "two processes": ["--workers", "2"],
        "two actors of Ray": ["--workers", "2", "--cluster", "auto"],
    }
    emi = str(Path(sys.executable).with_name("emi"))
    found: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "clips").mkdir()
        for number, clip in zip(range(count), cycle(clips), strict=False):
            shutil.copy(clip, Path(folder) / f"clips/clip{number:03d}{clip.suffix}")
        for number, (way, asked) in enumerate(ways.items()):
            command = [emi, "extract", "--videos", "clips", "--out", f"out{number}", *asked, *options]
            said, started = Path(folder) / "said", monotonic()
            with said.open("wb") as file:
                run = subprocess.Popen(command, cwd=folder, stdout=file, stderr=file)
                cpu_s, pss_mib = _watch(run)
            took_s, text = monotonic() - started, said.read_text(encoding="utf-8")
            if run.returncode:
                raise SystemExit(text)
            found.append(
                {
                    "way": way,
                    "s": round(took_s, 1),
                    "cpu_s": round(cpu_s, 1),
                    "pss_mib": round(pss_mib),
                    "without_start": [line for line in text.splitlines() if "times real time" in line][-1],
                }
            )
    return found


def _watch(run: subprocess.Popen[bytes]) -> tuple[float, float]:
    """CPU seconds and the most memory of a command and of all that it starts, looked at each half second."""
    usage = ProcessTreeUsage(run.pid)
    cpu_s = most = 0.0
    while run.poll() is None:
        cpu_s, most = usage.cpu_s(), max(most, sum(usage.pss_mib()))
        Event().wait(LOOK_S)
    return cpu_s, most


def _costs(given: list[str]) -> dict[str, float]:
    return {name: float(cost) for name, _, cost in (text.partition("=") for text in given)}


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    actions = parser.add_subparsers(dest="action", required=True)
    calculate = actions.add_parser("calculate")
    calculate.add_argument("--cost", action="append", default=[], metavar="NAME=S")
    calculate.add_argument("--gpu", choices=GPUS, default="A100")
    calculate.add_argument("--utilisation", default="0.1:0.4", metavar="LEAST:MOST", help="of its peak")
    calculate.add_argument(
        "--feed", action="append", default=[], metavar="NAME=N", help=", ".join(asdict(Feed()))
    )
    simulated = actions.add_parser("simulate")
    simulated.add_argument("--actors", type=int, default=2)
    simulated.add_argument("--clips", type=int, default=40)
    simulated.add_argument("--cost-s", type=float, default=MEASURED["vision"] * CLIP_S)
    simulated.add_argument("--cluster", help="auto or HOST:PORT; left out: processes")
    measured = actions.add_parser("throughput")
    measured.add_argument("clips", type=Path, nargs="+", help="each is copied in turn")
    measured.add_argument("--n", type=int, default=40)
    measured.epilog = "Options of emi extract follow after --."
    mine = sys.argv[1:]
    options = mine[mine.index("--") + 1 :] if "--" in mine else []
    args = parser.parse_args(mine[: mine.index("--")] if "--" in mine else mine)
    if args.action == "calculate":
        sys.stdout.write(table(_costs(args.cost) or MEASURED) + "\n\n")
        least, most = (float(share) for share in args.utilisation.split(":"))
        sys.stdout.write(gpu_table(Feed(**_costs(args.feed)), args.gpu, (least, most), CORPORA) + "\n")
    elif args.action == "simulate":
        result = simulate(args.actors, args.clips, args.cost_s, args.cluster)
        sys.stdout.write(json.dumps(result) + "\n")
    else:
        sys.stdout.write(json.dumps(throughput(args.clips, args.n, options), indent=2) + "\n")


if __name__ == "__main__":
    main()
