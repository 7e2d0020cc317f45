"""Which replica gets a request, and how many there are; no Ray runs."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from emi_live.web.sessions import Tickets
from tests.live.web.clients import SECRET
from tests.support.ports import free_port


def test_an_id_tells_its_server_and_none_can_be_made_up() -> None:
    one, two = Tickets("one", SECRET), Tickets("two", SECRET)
    ticket = one.issue()
    assert ticket.startswith("one.")
    assert two.foreign(ticket)
    assert not one.foreign(ticket)
    assert not Tickets("two", b"another").foreign(ticket)
    assert not any(two.foreign(wrong) for wrong in (ticket[:-1], "one.x.y", "", "one", ticket + "0"))


@dataclass(frozen=True)
class _Id:
    unique_id: str


@dataclass(frozen=True)
class _Replica:
    replica_id: _Id
    routing_stats: dict[str, Any] = field(default_factory=dict, hash=False)


def chosen(replicas: list[_Replica], found: re.Match[bytes] | None, *lost: str) -> list[list[_Replica]]:
    """The choice of a router, for which these machines do not answer."""
    from emi_live.web.routing import choose

    async def lost_among(machines: Iterable[str]) -> set[str]:
        return {*machines} & {*lost}

    return asyncio.run(choose(replicas, found, lost_among))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray, as it is imported
def test_requests_of_a_session_go_to_its_replica_and_all_of_them_to_the_same_other_one_if_it_is_gone() -> (
    None
):
    pytest.importorskip("ray")
    from emi_live.web.routing import ID

    replicas = [_Replica(_Id(name)) for name in ("aaa", "bbb", "ccc", "ddd")]
    tickets = [Tickets("bbb", SECRET).issue() for _ in range(40)]
    for ticket in tickets:
        found = ID.search(f"\x94/v1/sessions/{ticket}/latest\x94".encode())
        assert chosen(replicas, found) == [[replicas[1]]]
    left = [one for one in replicas if one is not replicas[1]]
    heirs = []
    for ticket in tickets:
        found = ID.search(f"/v1/sessions/{ticket}".encode())
        ((heir,),) = chosen(left, found)
        assert chosen(left[::-1], found) == [[heir]]
        heirs.append(heir)
    assert set(heirs) == set(left), "one replica would get all people of the lost one"
    nobody = ID.search(b"/v1/sessions")
    assert chosen(replicas, nobody) == [replicas, []]
    full = [_Replica(one.replica_id, {"room": 0}) for one in replicas[:1]]
    assert chosen([*full, *replicas[1:]], nobody) == [replicas[1:], full], "who has no room is asked last"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray, as it is imported
def test_nobody_is_sent_to_a_machine_that_does_not_answer() -> None:
    pytest.importorskip("ray")
    from emi_live.web.routing import ID, choose

    at = {"aaa": "m1", "bbb": "m2", "ccc": "m2", "ddd": "m3"}
    replicas = [_Replica(_Id(name), {"at": machine}) for name, machine in at.items()]
    found = ID.search(f"/v1/sessions/{Tickets('bbb', SECRET).issue()}".encode())
    asked: list[str] = []

    async def lost_among(machines: Iterable[str]) -> set[str]:
        asked.extend(machines)
        return {"m1", "m3"}

    assert asyncio.run(choose(replicas, found, lost_among)) == [[replicas[1]]]
    assert asked == ["m2"], "nobody waits for the answer of a machine that is not needed"
    left = [replicas[0], replicas[3]]
    assert chosen(replicas, found, "m2") == chosen(left, found)
    assert chosen(replicas, None, "m2") == [left, []]
    assert chosen(replicas, None, "m1", "m2", "m3") == [replicas, []]
    assert chosen(replicas, found, "m1", "m2", "m3") == [[replicas[1]]], "then it is this one that is alone"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray, as it is imported
def test_a_machine_is_lost_when_its_kernel_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    from emi_live.web import routing

    monkeypatch.setattr(routing, "ANSWERS_S", 0.5)
    monkeypatch.setattr(routing, "KNOWN_S", 0.0)
    asked: list[str] = []

    async def answers(address: str) -> bool:
        asked.append(address)
        return await ask_kernel(address)

    ask_kernel = routing._answers
    monkeypatch.setattr(routing, "_answers", answers)

    async def ask() -> None:
        lost = routing.Lost()
        assert await lost.among([]) == set()
        found = asyncio.create_task(lost.among([there, ended, silent, silent]))
        await asyncio.sleep(0.1)
        threading.Event().wait(0.7)  # this program is late, and the answers wait
        assert await found == {silent}
        assert sorted(asked) == sorted([there, ended, silent])
        assert await lost.among([silent]) == {silent}
        await asyncio.sleep(0)
        assert len(asked) == 4, "it is asked again, and nobody waits for that"
        full.close()
        while await lost.among([silent]):
            await asyncio.sleep(0.05)

    with ExitStack() as opened:
        listens = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
        full = opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        there, silent = (f"127.0.0.1:{one.getsockname()[1]}" for one in (listens, full))
        ended = f"127.0.0.1:{free_port(1)}"
        for _ in range(4):  # the kernel answers nobody more
            one = opened.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        asyncio.run(ask())


@dataclass
class _Scaling:
    target_ongoing_requests: float


@dataclass
class _Context:
    aggregated_metrics: dict[str, dict[str, float]] | None
    config: _Scaling


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray, as it is imported
@pytest.mark.parametrize(
    ("sessions", "replicas"),
    [(None, 0), ([0], 0), ([1], 1), ([2], 2), ([2, 0], 2), ([2, 2], 3), ([1, 1, 1], 3)],
)
def test_replicas_are_as_many_as_sessions_need_with_room_for_more(
    sessions: list[float] | None, replicas: int
) -> None:
    pytest.importorskip("ray")
    from emi_live.web.routing import replicas_for

    counted = None if sessions is None else {"sessions": {str(i): n for i, n in enumerate(sessions)}}
    context: Any = _Context(counted, _Scaling(0.7 * 2))
    assert replicas_for(context) == (replicas, {})


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_new_replicas_start_beside_the_old_ones_as_far_as_there_are_cores() -> None:
    pytest.importorskip("ray")
    from emi_live.web.replicas import _surge

    def more(replicas: int, beside: float) -> int:
        return (_surge(replicas, beside) * replicas + 99) // 100  # as Ray calculates

    assert [more(3, beside) for beside in (-1, 0, 0.5, 1, 2, 3, float("inf"))] == [0, 0, 0, 1, 2, 3, 3]
    assert [more(100, beside) for beside in (1, 7, 100)] == [1, 7, 100]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("wanted", "runs", "room", "beside"),
    [
        ((0, 2), (0, 2), 1, (0, 1)),
        ((0, 2), (0, 2), 9, (0, 2)),
        ((0, 3), (0, 2), 1, (0, 0)),  # the free core is for the third; an old one ends before the next starts
        ((1, 2), (1, 2), 2, (1, 1)),
        ((1, 2), (0, 2), 2, (1, 0)),
        ((0, 1), (0, 3), 0, (0, 0)),
        ((1, 2), (1, 2), float("inf"), (1, 2)),
    ],
)
def test_free_cores_are_first_for_replicas_that_were_not_there_before(
    wanted: tuple[int, int], runs: tuple[int, int], room: float, beside: tuple[int, int]
) -> None:
    pytest.importorskip("ray")
    from emi_live.web.replicas import _beside

    def named(both: tuple[int, int]) -> dict[str, int]:
        return dict(zip(("Fusion", "People"), both, strict=True))

    assert _beside(named(wanted), named(runs), room) == named(beside)
