"""Estimates reach a program however it asks: iterators in threads, asyncio, a callback, or the newest."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
from functools import partial

import pytest

from emi_live import EMOTIONS, Estimate, LiveConfig, LiveEngine
from emi_live.demo import demo_stages
from emi_live.errors import ConfigurationError
from tests.support.fakes import SMALL_SHAPES, FakeEngine
from tests.support.waiting import until

SCRIPT = partial(demo_stages, length_s=12.0)


def short(seconds: float = 1.0, hop_s: float = 0.1) -> LiveConfig:
    return LiveConfig.model_validate({"duration_s": seconds, "window": {"hop_s": hop_s}})


def total(live: LiveEngine, got: int) -> int:
    """Estimates, and what a slow machine left out."""
    counters = live.health.snapshot().counters
    return got + sum(counters.get(name, 0) for name in ("fusion.missed_hops", "estimates.skipped"))


def test_an_estimate_gives_its_intensities_by_name_and_tells_its_age() -> None:
    with LiveEngine(short(0.3), make_stages=SCRIPT) as live:
        *_, last = live.estimates()
    assert last.as_dict() == dict(zip(EMOTIONS, last.intensities, strict=True))
    assert last["joy"] == last.intensities[EMOTIONS.index("joy")]
    assert 0 < last.age_s < 60
    with pytest.raises(KeyError, match="Joy"):
        last["Joy"]
    line = last.to_json()
    assert (line["schema"], line["source"]) == (1, "demo")
    assert len(line["session"]) == 8


def test_sessions_differ_but_in_exact_mode() -> None:
    from emi_live.pipeline import _session, source_of

    exact = LiveConfig.model_validate({"source": {"input": "talk.mp4"}})
    assert source_of(exact) == "talk.mp4"
    assert _session(exact, "talk.mp4") == _session(exact, "talk.mp4") != _session(exact, "other.mp4")
    assert _session(LiveConfig(), "pushed media") != _session(LiveConfig(), "pushed media")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({}, "pushed media"),
        ({"camera": 0}, "camera 0, default microphone"),
        ({"camera": 0, "mic": "none"}, "camera 0"),
        ({"camera": 1, "mic": "USB"}, "camera 1, microphone USB"),
        ({"mic": "USB"}, "microphone USB"),
    ],
)
def test_the_source_is_said_in_words(source: dict[str, object], words: str) -> None:
    from emi_live.pipeline import source_of

    assert source_of(LiveConfig.model_validate({"source": source})) == words


def test_the_source_hides_a_camera_s_password() -> None:
    from emi_live.pipeline import source_of

    config = LiveConfig.model_validate({"source": {"camera": "rtsp://me:s3cret@host/live?pwd=s3cret"}})
    assert "s3cret" not in source_of(config)
    assert "host" in source_of(config)


def test_any_thread_may_take_estimates_and_each_goes_to_one() -> None:
    got: list[int] = []
    with LiveEngine(short(), make_stages=SCRIPT) as live:
        one = live.estimates()
        threads = [
            threading.Thread(target=lambda: got.extend(estimate.seq for estimate in one)),
            threading.Thread(target=lambda: got.extend(estimate.seq for estimate in live.estimates())),
            threading.Thread(target=lambda: [live.latest() for _ in range(100)]),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in threads)
        assert total(live, len(got)) == 10
    assert len(set(got)) == len(got)


def test_asyncio_iterates_without_a_thread_of_its_own_and_next_may_run_in_threads() -> None:
    async def main() -> tuple[list[int], list[int], int]:
        async with LiveEngine(short(), make_stages=SCRIPT) as live:
            iterator = live.estimates()
            threaded = [(await asyncio.to_thread(next, iterator)).seq for _ in range(3)]
            iterator.close()
            awaited = [estimate.seq async for estimate in live]
            ended = await asyncio.to_thread(next, iterator, None)
            assert ended is None
            return threaded, awaited, total(live, len(threaded) + len(awaited))

    threaded, awaited, count = asyncio.run(asyncio.wait_for(main(), 60))
    assert threaded == [0, 1, 2]
    assert awaited == sorted(awaited)
    assert count == 10
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("emi-")]


def test_two_tasks_share_the_estimates_and_a_cancelled_one_loses_none() -> None:
    async def main() -> None:
        async with LiveEngine(short(), make_stages=SCRIPT) as live:

            async def take() -> list[int]:
                return [estimate.seq async for estimate in live]

            waiting = asyncio.create_task(anext(live.__aiter__()))
            await asyncio.sleep(0)
            waiting.cancel()
            first, second = await asyncio.gather(take(), take())
            assert not set(first) & set(second)
            assert total(live, len(first) + len(second)) == 10

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_callback_is_called_in_its_own_thread_and_may_fail(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[tuple[int, str]] = []

    def on_estimate(estimate: Estimate) -> None:
        seen.append((estimate.seq, threading.current_thread().name))
        raise ValueError("mine")

    with (
        caplog.at_level(logging.ERROR),
        LiveEngine(short(), make_stages=SCRIPT, on_estimate=on_estimate) as live,
    ):
        until(lambda: live.health.status("on_estimate").state == "ended")
        live.check()
        counters = live.health.snapshot().counters
    assert {name for _, name in seen} == {"emi-on_estimate"}
    assert counters["on_estimate.failures"] == len(seen)
    assert len(seen) + counters.get("fusion.missed_hops", 0) == 10
    assert [record.message for record in caplog.records] == ["on_estimate raised ValueError: mine"]


def test_a_callback_may_close_the_engine() -> None:
    closed = threading.Event()

    def on_estimate(estimate: Estimate) -> None:
        live.close()
        closed.set()

    with LiveEngine(short(30.0), make_stages=SCRIPT, on_estimate=on_estimate) as live:
        assert closed.wait(20)
    assert not [
        thread
        for thread in threading.enumerate()
        if thread.name.startswith("emi-") and thread.name != "emi-on_estimate"
    ]


def test_latest_is_the_newest_taken_or_not_within_an_age() -> None:
    with LiveEngine(short(0.5), make_stages=SCRIPT) as live:
        taken = list(live.estimates())
        newest = live.latest()
        assert newest is not None
        assert newest.seq == taken[-1].seq
        assert live.latest(max_age_s=60) is newest
        assert live.latest(max_age_s=0) is None
        assert "estimates.skipped" not in live.health.snapshot().counters


def test_a_slow_reader_gets_newer_estimates_and_the_rest_is_counted() -> None:
    with LiveEngine(short(1.0, hop_s=0.05), make_stages=SCRIPT) as live:
        assert live._parts is not None
        live._parts.box._capacity = 3  # of 5 s
        reader = live.estimates()
        first = next(reader)
        until(lambda: live.health.status("estimates").state == "ended")
        rest = [estimate.seq for estimate in reader]
        skipped = live.health.snapshot().counters["estimates.skipped"]
        published = live._parts.loop.published
    assert len(rest) == 3
    assert rest[-1] == published - 1
    assert skipped == published - 3 - (first.seq + 1) > 5


def test_who_only_asks_for_the_newest_is_not_told_of_skipped_ones() -> None:
    with LiveEngine(short(1.0, hop_s=0.05), make_stages=SCRIPT) as live:
        assert live._parts is not None
        live._parts.box._capacity = 3
        next(live.estimates())
        live.latest()
        until(lambda: live.health.status("estimates").state == "ended")
        assert "estimates.skipped" not in live.health.snapshot().counters


def test_an_engine_may_be_used_again_and_its_end_is_said() -> None:
    live = LiveEngine(short(0.3), make_stages=SCRIPT)
    lines = []
    for _ in range(2):
        with live:
            lines.append([estimate.seq for estimate in live.estimates()])
            with pytest.raises(ConfigurationError, match="taken"):
                live.estimates()
        with pytest.raises(ConfigurationError, match="ended"):
            live.estimates()
        with pytest.raises(ConfigurationError, match="ended"):
            live.latest()
    assert [line[0] for line in lines] == [0, 0]
    assert len(live.announcements) == len(set(live.announcements))


def test_an_engine_that_was_given_parts_says_why_it_cannot_be_used_again() -> None:
    from emi_models.inputs import COMPACT_SHAPES

    live = LiveEngine(short(0.2), make_stages=SCRIPT, engine=FakeEngine(COMPACT_SHAPES))
    with live:
        next(live.estimates())
    with pytest.raises(ConfigurationError, match="closed"):
        live.load()
    assert SMALL_SHAPES != COMPACT_SHAPES


FORKED = """
import os, sys
from functools import partial
from emi_live import LiveConfig, LiveEngine
from emi_live.demo import demo_stages
from emi_live.errors import ConfigurationError

with LiveEngine(LiveConfig(), make_stages=partial(demo_stages, length_s=12.0)) as live:
    reader = live.estimates()
    next(reader)
    child = os.fork()
    if child == 0:
        for call in (live.latest, live.estimates, live.check, live.pause, lambda: next(reader)):
            try:
                call()
            except ConfigurationError as error:
                assert "forked child" in str(error), error
            else:
                raise AssertionError(call)
        del reader
        sys.exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert next(reader).seq > 0
"""


@pytest.mark.slow
def test_a_forked_child_is_refused_and_ends_while_the_parent_goes_on() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=150, check=False
    )
    assert done.returncode == 0, done.stderr
