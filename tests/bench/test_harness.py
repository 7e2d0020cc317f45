from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from emi_bench.harness import ProcessTreeUsage, UsageSampler
from tests.support.fakes import FakeClock

CHILD = "import sys; sum(range(3_000_000)); print(flush=True); sys.stdin.read()"


class EndingClock(FakeClock):
    """A clock whose waits come to an end: the third one is stopped."""

    def wait_until(self, t_ns: int, stop: threading.Event) -> bool:
        return len(self.waits) < 2 and super().wait_until(t_ns, stop)


class Busy(ProcessTreeUsage):
    """Half a core, by the clock of a test."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self._clock = clock

    def cpu_s(self) -> float:
        return self._clock.now_ns() / 2e9


def test_a_sample_a_second_with_the_cores_busy_since_the_last() -> None:
    clock = EndingClock()
    sampler = UsageSampler(clock, Busy(clock))
    sampler(threading.Event())
    assert [(sample.t_s, sample.cores) for sample in sampler.samples] == [(1.0, 0.5), (2.0, 0.5)]
    assert all(sample.rss_mib > 0 for sample in sampler.samples)


def test_children_count_and_what_they_used_is_kept_when_they_end() -> None:
    usage = ProcessTreeUsage()
    alone_s = usage.cpu_s()
    with subprocess.Popen([sys.executable, "-c", CHILD], stdin=-1, stdout=-1) as child:
        assert child.stdout is not None
        child.stdout.readline()
        with_child_s = usage.cpu_s()
        assert usage.rss_mib() > ProcessTreeUsage().rss_mib() * 0.5
        child.communicate()
    assert with_child_s > alone_s
    assert usage.cpu_s() >= with_child_s


def test_samples_are_plain() -> None:
    with pytest.raises(AttributeError):
        UsageSampler().samples.t_s  # type: ignore[attr-defined]  # noqa: B018
