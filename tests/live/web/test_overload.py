"""When a machine is full: who is told, what is counted, who is refused."""

from __future__ import annotations

import asyncio

import pytest

from emi_live.config import load_config
from emi_live.web.broadcast import FullError
from emi_live.web.overload import SPAN_S, Pace, share_of
from emi_live.web.sessions import Sessions
from tests.live.web.conftest import without_models


def paced(*made_and_missed: tuple[int, int]) -> Pace:
    """A pace after so many seconds, with what each second added."""
    pace, made, missed = Pace(), 0, 0
    pace.take(0.0, 0, 0)
    for second, (more, lost) in enumerate(made_and_missed, start=1):
        made, missed = made + more, missed + lost
        pace.take(float(second), made, missed)
    return pace


def test_estimates_are_counted_over_the_last_seconds() -> None:
    assert paced(*[(5, 0)] * 4).counted is None
    assert paced(*[(5, 0)] * 5).counted == (25, 25)
    assert paced(*[(0, 5)] * 60, *[(4, 1)] * 5).counted == (20, 25)
    assert share_of([paced(*[(4, 1)] * 5), paced(*[(1, 4)] * 5), Pace()]) == 0.5
    assert share_of([Pace()]) is share_of([]) is None
    assert share_of([paced(*[(0, 0)] * 9)]) is None, "nothing was due"


def test_a_session_is_behind_until_it_is_clearly_in_time() -> None:
    assert not paced(*[(4, 1)] * 5).behind
    assert paced(*[(3, 2)] * 5).behind
    assert paced(*[(3, 2)] * 5, *[(4, 1)] * 9).behind
    assert not paced(*[(3, 2)] * 5, *[(5, 0)] * 5).behind


def test_a_session_that_gets_too_little_is_told_so_and_nobody_new_is_taken() -> None:
    async def run() -> None:
        sessions = Sessions(load_config(), most=8, make_engine=without_models)
        session = await sessions.open()
        assert session.starting is not None
        await session.starting
        outbox = session.join("source")
        health = session._engine.health

        def watch(first_s: int, last_s: int, missed: int) -> None:
            for second in range(first_s, last_s):
                health.count("fusion.missed_hops", missed)
                session.watch_pace(1000.0 + second)

        watch(0, 4, 1000)
        assert not session.behind
        await sessions.end(await sessions.open())
        watch(4, 3 * round(SPAN_S), 1000)
        assert session.behind
        with pytest.raises(FullError, match=r"machine is full: its 1 sessions get \d+ % of their estimates"):
            await sessions.open()
        assert sessions.counters["refused_full"] == 1
        assert session.counters["estimates_missed"] == 15_000
        assert session.counters["behind"] == 2  # told once in five seconds
        session.ended = "over"
        await sessions.end(session)
        texts = []
        while not (texts and '"bye"' in texts[-1]):
            texts.append(str(await outbox.take()))
        assert any('"warning"' in text and "this machine is full" in text for text in texts)
        await sessions.close()

    asyncio.run(run())
