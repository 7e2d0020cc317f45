"""What becomes of sessions and connections: clocks, slow readers, limits."""

from __future__ import annotations

import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emi_live.config import load_config
from emi_live.errors import ConfigurationError
from emi_live.web import sessions
from emi_live.web.broadcast import OUTBOX, Outbox
from emi_live.web.protocol import Bye, EstimateEvent, StateEvent, encode
from emi_live.web.sessions import ClientClock, Sessions
from tests.live.web.conftest import without_models

MS = 1_000_000


@given(st.lists(st.integers(min_value=0, max_value=300), min_size=1, max_size=60))
def test_a_clients_clock_is_placed_by_its_fastest_message(delays_ms: list[int]) -> None:
    clock, offset_ns = ClientClock(), 5_000 * MS
    for number, delay_ms in enumerate(delays_ms):
        t_ms = 40.0 * number
        arrived_ns = offset_ns + round(t_ms * MS) + delay_ms * MS
        placed_ns = clock.to_ours(t_ms, 0, arrived_ns)
        best = min(delays_ms[: number + 1])
        drift_ms = (40 * number + 300) / 1000  # what a slower clock may have lost since
        assert best * MS <= placed_ns - offset_ns - round(t_ms * MS) <= (best + drift_ms) * MS + 1
        back = clock.to_theirs_ms(placed_ns)
        assert back == pytest.approx(t_ms, abs=1e-3)


def test_sound_is_placed_by_its_start() -> None:
    clock = ClientClock()
    assert clock.to_ours(100.0, 40 * MS, 1_140 * MS) == 1_100 * MS
    assert clock.to_ours(130.0, 0, 1_130 * MS) == 1_130 * MS


def test_a_slow_reader_gets_the_newest_estimate_and_never_too_many_messages() -> None:
    async def read() -> list[str]:
        outbox = Outbox("viewer")
        for number in range(100):
            estimate = EstimateEvent(estimate={"seq": number})
            outbox.put(estimate, encode(estimate))
            state = StateEvent(state="running")
            outbox.put(state, encode(state))
        end = Bye(reason="over")
        outbox.put(end, encode(end))
        assert outbox.skipped == 99 + 100 - OUTBOX
        return [str(await outbox.take()) for _ in range(OUTBOX + 2)]

    texts = asyncio.run(read())
    assert sum('"estimate"' in text for text in texts) == 1
    assert any('"seq":99' in text for text in texts)
    assert any('"over"' in text for text in texts)


def test_a_server_has_no_camera_of_its_own() -> None:
    with pytest.raises(ConfigurationError, match="browsers"):
        Sessions(load_config(settings=["source.camera=0"]))


def test_a_session_that_is_just_ending_when_the_server_stops_leaves_no_thread() -> None:
    before = set(threading.enumerate())

    async def run() -> None:
        sessions = Sessions(load_config(), make_engine=without_models)
        session = await sessions.open()
        assert session.starting is not None
        await session.starting
        close = session.close

        async def slowly() -> None:
            await asyncio.sleep(0.2)
            await close()

        session.close = slowly  # type: ignore[method-assign]
        session.ended = "over"
        watch = asyncio.create_task(sessions.watch())
        while session.id in sessions.running:
            await asyncio.sleep(0.01)
        watch.cancel()
        await sessions.close()

    asyncio.run(run())
    assert not [one for one in set(threading.enumerate()) - before if one.name.startswith("emi-")]


def test_what_a_session_has_left_is_freed_when_it_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    freed = threading.Event()
    monkeypatch.setattr(sessions, "give_memory_back", freed.set)
    monkeypatch.setattr(sessions, "COLLECT_S", 0.0)

    async def run() -> None:
        crowd = Sessions(load_config(), make_engine=without_models)
        session = await crowd.open()
        assert not freed.is_set()
        await crowd.end(session)
        assert await asyncio.to_thread(freed.wait, 10)
        await crowd.close()

    asyncio.run(run())
