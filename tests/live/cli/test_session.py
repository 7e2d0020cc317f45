from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from emi_live.cli.session import StartTimes


def test_a_step_inside_another_is_indented_and_no_longer() -> None:
    times = StartTimes()
    with times.step("outer"), times.step("inner"):
        sum(range(2_000_000))
    console = Console(width=100)
    with console.capture() as shown:
        console.print(times.render())
    rows = {
        name.rstrip(): (float(wall_s), float(cpu_s))
        for name, wall_s, cpu_s in re.findall(r"^(.+?)\s+(\d+\.\d+)\s+(\d+\.\d+)", shown.get(), re.MULTILINE)
    }
    assert list(rows) == ["importing the program", "outer", "  inner"]
    assert rows["outer"][0] >= rows["  inner"][0] > 0
    assert rows["  inner"][1] > 0


@pytest.mark.slow
def test_timings_tell_the_steps_of_a_start_and_when_each_modality_was_live() -> None:
    program = Path(sys.executable).with_name("emi-live")
    done = subprocess.run(
        [str(program), "--demo", "--no-ui", "--duration", "3", "--timings"],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    for row in ("importing the program", "starting the network", "first estimate", "vision live"):
        assert row in done.stderr
    assert float(re.search(r"first estimate, since the start\s+([\d.]+)", done.stderr)[1]) > 0  # type: ignore[index]
