"""A device is missed when it falls silent, opened again with growing waits, and released in the end."""

from __future__ import annotations

import re

import pytest

from emi_live.clock import NS_PER_S
from emi_live.health import Health
from emi_live.sources import DeviceLoop, DeviceLostError, FeedEndedError
from emi_live.worker import Backoff
from tests.live.sources.fakes import ScriptedDevice, ScriptedFeed, Stop
from tests.support.fakes import FakeClock

Script = list[str | float | DeviceLostError] | DeviceLostError


class Bench:
    """One loop on a scripted device."""

    def __init__(self, *scripts: Script) -> None:
        self.clock, self.health = FakeClock(), Health()
        self.stop = Stop(self.clock)
        self.device = ScriptedDevice[str](*scripts, clock=self.clock, stop=self.stop)
        self.items: list[str] = []
        self.loop = DeviceLoop[str](
            "camera",
            self.device,
            self.clock,
            self.health,
            nothing="no frames arriving",
            first_s=5.0,
            silent_s=2.0,
            backoff=Backoff(0.25, 3.0),
        )

    def accept(self, item: str) -> bool:
        self.items.append(item)
        return item != "stale"

    def run(self) -> None:
        self.loop.open()
        self.loop.run(self.accept, self.stop)

    @property
    def lost(self) -> int:
        return self.health.snapshot().counters.get("camera.lost", 0)


def test_items_are_handed_on_and_the_device_is_released() -> None:
    bench = Bench(["first", "a", "b", "c"])
    bench.run()
    assert bench.items == ["a", "b", "c"]
    assert bench.device.feeds[0].closed == 1
    assert bench.health.status("camera").state == "running"


def test_a_device_that_cannot_be_opened_says_why() -> None:
    bench = Bench(DeviceLostError("it cannot be opened"))
    with pytest.raises(DeviceLostError, match="opened"):
        bench.loop.open()


def test_a_device_that_opens_but_gives_nothing_is_released() -> None:
    bench = Bench([60.0], [])
    with pytest.raises(DeviceLostError, match=r"5\.0 s"):
        bench.loop.open()
    assert bench.device.feeds[0].closed == 1


def test_silence_is_a_loss_and_the_return_is_noticed() -> None:
    bench = Bench(["first", "a", 2.0], ["b"])
    bench.run()
    assert bench.items == ["a", "b"]
    assert bench.lost == 1
    assert [feed.closed for feed in bench.device.feeds] == [1, 1]
    assert bench.health.status("camera").state == "running"


def test_a_short_silence_is_none() -> None:
    bench = Bench(["first", "a", 1.8, "b", 1.8, "c"])
    bench.run()
    assert bench.items == ["a", "b", "c"]
    assert bench.lost == 0


def test_the_loss_is_reported_with_its_reason() -> None:
    bench = Bench(["first", "a", DeviceLostError("the camera gave no frame")], [60.0])
    seen: list[str] = []

    class Watching(Stop):
        def wait(self, timeout: float | None = None) -> bool:
            seen.append(f"{bench.health.status('camera').state}: {bench.health.status('camera').detail}")
            self.set()
            return True

    bench.stop = Watching(bench.clock)
    bench.run()
    (failed,) = seen
    assert re.fullmatch(r"failed: lost at \d\d:\d\d:\d\d, trying again: the camera gave no frame", failed)


def test_a_long_loss_says_for_how_long_and_since_when_in_few_log_lines(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gone = DeviceLostError("it cannot be opened")
    bench = Bench(["first", "a", gone], *[gone] * 100, ["b"])
    with caplog.at_level("WARNING", logger="emi_live.health"):
        bench.run()
    said = [re.sub(r"\d\d:\d\d:\d\d", "T", record.getMessage()) for record in caplog.records]
    assert said == [
        f"camera: failed (lost {when}, trying again: it cannot be opened)"
        for when in (
            *("at T", "for 10 s, since T", "for 30 s, since T"),
            *("for 1 min, since T", "for 2 min, since T"),
        )
    ]
    assert bench.health.status("camera").state == "running"
    assert bench.lost == 1  # however often it could not be opened again


def test_a_recording_that_ends_is_not_opened_again() -> None:
    bench = Bench(["first", "a", FeedEndedError("the recording has ended")])
    bench.run()
    assert bench.items == ["a"]
    assert bench.lost == 0
    assert bench.device.feeds[0].closed == 1


def test_a_recording_is_played_from_its_start_and_may_stand_still() -> None:
    class Recording(ScriptedFeed[str]):
        recorded = True

    bench = Bench()
    feeds = [Recording(["a", 60.0, "b"], bench.clock, bench.stop.set) for _ in range(2)]
    opened = iter(feeds)
    loop = DeviceLoop[str](
        "camera",
        lambda: next(opened),
        bench.clock,
        bench.health,
        nothing="no frames arriving",
        first_s=5.0,
        silent_s=2.0,
        backoff=Backoff(0.25, 3.0),
    )
    loop.open()
    loop.run(bench.accept, bench.stop)
    assert bench.items == ["a", "b"]
    assert bench.lost == 0
    assert [feed.closed for feed in feeds] == [1, 1]


def test_waits_double_up_to_the_last_and_start_afresh_after_a_return() -> None:
    gone = DeviceLostError("it cannot be opened")
    bench = Bench(["first", "a", gone], gone, gone, gone, gone, gone, ["b", gone], ["c"])
    bench.run()
    assert bench.items == ["a", "b", "c"]
    assert bench.stop.waits_s == [0.25, 0.5, 1.0, 2.0, 3.0, 3.0, 0.25]


def test_a_sign_of_no_life_does_not_shorten_the_waits() -> None:
    gone = DeviceLostError("frozen")
    bench = Bench(["first", gone], ["stale", gone], ["stale", gone], ["b"])
    bench.run()
    assert bench.stop.waits_s == [0.25, 0.5, 1.0]


def test_a_reopened_device_gets_time_to_start() -> None:
    bench = Bench(["first", "a", DeviceLostError("gone")], [4.0, "b"])
    bench.run()
    assert bench.items == ["a", "b"]
    assert bench.lost == 1


def test_stopping_during_a_wait_ends_at_once() -> None:
    bench = Bench(["first"], [])
    bench.loop.open()
    bench.stop.set()
    bench.loop.run(bench.accept, bench.stop)
    assert bench.device.feeds[0].closed == 1
    assert bench.clock.now_ns() < NS_PER_S


def test_a_loop_that_never_ran_can_be_closed_twice() -> None:
    bench = Bench(["first"], [])
    bench.loop.open()
    bench.loop.close()
    bench.loop.close()
    assert bench.device.feeds[0].closed == 1
