"""`/healthz` and `/metrics` of one server, and of replicas."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

from prometheus_client.parser import text_string_to_metric_families

from emi_live.web.figures import AskAll, Figures, Report

PATIENCE_S = 10.0
ONE = Figures(3, 4, 1, {"opened": 5, "estimates": 40}, "one")
TWO = Figures(1, 4, 0, {"opened": 2}, "two")


def scraped(report: Report) -> dict[tuple[str, ...], float]:
    """What Prometheus reads: by the name of each series and the values of its labels."""
    families = text_string_to_metric_families(report.metrics().decode())
    return {
        (one.name, *(one.labels[name] for name in sorted(one.labels))): one.value
        for family in families
        for one in family.samples
    }


def test_a_server_without_others_names_none() -> None:
    alone = Report([Figures(3, 4, 1, {"opened": 5})])
    assert alone.health() == {"status": "ok", "sessions": 3, "most": 4, "behind": 1}
    assert scraped(alone) == {
        ("emi_sessions",): 3,
        ("emi_sessions_behind",): 1,
        ("emi_events_total", "opened"): 5,
    }


def test_replicas_are_added_up_for_health_and_told_apart_for_prometheus() -> None:
    report = Report([ONE, TWO], silent=1)
    assert report.health() == {
        "status": "ok",
        "sessions": 4,
        "most": 8,
        "behind": 1,
        "replicas": 3,
        "replicas_without_answer": 1,
    }
    assert scraped(report) == {
        ("emi_sessions", "one"): 3,
        ("emi_sessions", "two"): 1,
        ("emi_sessions_behind", "one"): 1,
        ("emi_sessions_behind", "two"): 0,
        ("emi_events_total", "estimates", "one"): 40,
        ("emi_events_total", "opened", "one"): 5,
        ("emi_events_total", "opened", "two"): 2,
        ("emi_replicas",): 3,
        ("emi_replicas_without_answer",): 1,
    }


def test_a_replica_that_does_not_answer_is_counted_and_the_others_are_told() -> None:
    ask_all = AskAll(lambda: [TimeoutError(), TWO, ONE], lambda: ONE, 2)
    assert asyncio.run(ask_all_of(ask_all)) == Report([ONE, TWO], silent=1)


def test_a_replica_that_can_ask_nobody_tells_its_own_figures_and_how_many_are_missing() -> None:
    answers: list[Sequence[object]] = [[ONE, TWO, ONE]]
    ask_all = AskAll(lambda: answers.pop(), lambda: ONE, 2)

    async def ask_twice() -> list[Report]:
        reports = [await ask_all()]
        ask_all._asked_s -= 60.0
        return [*reports, await ask_all()]

    assert asyncio.run(ask_twice()) == [Report([ONE, TWO], silent=1), Report([ONE], silent=2)]
    never = AskAll(lambda: answers.pop(), lambda: ONE, 4)
    assert asyncio.run(ask_all_of(never)) == Report([ONE], silent=3)


async def ask_all_of(ask_all: AskAll) -> Report:
    return await ask_all()


def test_who_asks_at_the_same_time_gets_the_same_answer_even_if_the_first_has_gone() -> None:
    asked, answer = threading.Semaphore(0), threading.Event()

    def ask() -> list[object]:
        asked.release()
        assert answer.wait(PATIENCE_S)
        return [ONE, TWO]

    async def ask_together() -> list[Report]:
        ask_all = AskAll(ask, lambda: ONE, 2)
        waiting = [asyncio.create_task(ask_all_of(ask_all)) for _ in range(4)]
        assert await asyncio.to_thread(asked.acquire, timeout=PATIENCE_S)
        waiting[0].cancel()
        answer.set()
        return [*await asyncio.gather(*waiting[1:]), await ask_all()]

    assert asyncio.run(ask_together()) == [Report([ONE, TWO], silent=0)] * 4
    assert not asked.acquire(blocking=False), "the replicas were asked more than once"
