"""Many sessions, simulated: actors on Ray that sleep for the measured cost of a hop in place of computing it.

Each actor simulates some machines. On a machine, a session's hop is due every 0.2 s, waits for a core, and
holds it for its cost. What is measured is the waiting: how late estimates come when many people share cores,
and when there is one machine fewer for as many of them; none is lost while it runs. Media, network and memory
are not simulated.
"""

from __future__ import annotations

import asyncio
import math
import random
from typing import TYPE_CHECKING, Final

import numpy as np

from emi_bench.serve_report import BUSY, Cost, Simulated
from emi_live.cluster.ray_start import connected

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["simulate_sessions"]

CORES: Final = 16
SECONDS: Final = 15.0
ACTORS: Final = 2  # processes: 1,000 sessions sleep 5,000 times a second


async def run_machine(
    sessions: int, cores: int, cost_s: float, hop_s: float, seconds: float, seed: int
) -> tuple[list[float], int]:
    """Ages of the estimates in seconds, from when each was due, and how many hops were missed."""
    free, chance = asyncio.Semaphore(cores), random.Random(seed)  # noqa: S311  # nothing secret
    ages: list[float] = []
    missed = 0

    clock = asyncio.get_running_loop()

    async def session(phase_s: float) -> None:
        nonlocal missed
        due_s = began_s + phase_s
        while due_s < began_s + seconds:
            await asyncio.sleep(max(0.0, due_s - clock.time()))
            async with free:
                await asyncio.sleep(cost_s)
            ages.append(clock.time() - due_s)
            late = int(ages[-1] / hop_s)  # the hops that came meanwhile: the newest is next
            missed += late
            due_s += (late + 1) * hop_s

    began_s = clock.time() + hop_s
    await asyncio.gather(*(session(chance.random() * hop_s) for _ in range(sessions)))
    return ages, missed


def simulate_sessions(
    sessions: int, cost: Cost, hop_s: float, *, cores: int = CORES, seconds: float = SECONDS
) -> list[Simulated]:
    """So many sessions on as many machines as they need, then on one fewer, and on two thirds of them.

    Args:
        sessions: in all.
        cost: of one session, as it was measured.
        hop_s: between a session's estimates.
        cores: of a machine.
        seconds: of each case.

    Raises:
        MissingPackageError: Ray is not installed.
        StageError: it does not start.
    """
    needed = max(2, math.ceil(sessions * cost.cores / (BUSY * cores)))
    cases = {
        "all machines run": needed,
        "one machine fewer": needed - 1,
        "too few machines": max(1, math.floor(sessions * cost.cores / cores * 0.9)),
    }
    found: list[Simulated] = []
    with connected(cpus=ACTORS):
        import ray

        actors = [ray.remote(_Machines).options(num_cpus=1).remote() for _ in range(ACTORS)]
        for what, machines in cases.items():
            shares = [sessions // machines + (index < sessions % machines) for index in range(machines)]
            asked = [
                actor.run.remote(shares[index::ACTORS], cores, cost.cores * hop_s, hop_s, seconds)
                for index, actor in enumerate(actors)
            ]
            answers: list[tuple[list[float], int]] = ray.get(asked)
            ages, missed = [age for each, _ in answers for age in each], sum(lost for _, lost in answers)
            found.append(
                Simulated(
                    what=what,
                    sessions=sessions,
                    machines=machines,
                    cores=cores,
                    seconds=seconds,
                    estimates_per_s=len(ages) / seconds,
                    age_p95_ms=1000 * float(np.percentile(ages, 95)),
                    missed=missed / (len(ages) + missed),
                )
            )
    return found


class _Machines:
    """An actor."""

    async def run(
        self, shares: Sequence[int], cores: int, cost_s: float, hop_s: float, seconds: float
    ) -> tuple[list[float], int]:
        """As `run_machine`, for machines with so many sessions each."""
        runs = (run_machine(share, cores, cost_s, hop_s, seconds, seed) for seed, share in enumerate(shares))
        answers = await asyncio.gather(*runs)
        return [age for ages, _ in answers for age in ages], sum(missed for _, missed in answers)
