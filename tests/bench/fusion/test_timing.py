"""Taking turns: how many calls, in which order, with which rests; without a clock."""

from __future__ import annotations

from emi_bench.fusion.timing import LEAST, WARM_UP, time_in_turns


class Meter:
    """Says that each call took so long, and writes down when it was called."""

    def __init__(self, ms: float, log: list[str], name: str) -> None:
        self.ms, self.log, self.name = ms, log, name

    def __call__(self) -> float:
        self.log.append(self.name)
        return self.ms


def test_each_is_called_n_times_after_its_warm_up_in_turns() -> None:
    log: list[str] = []
    rests: list[float] = []
    meters = {name: Meter(1.0, log, name) for name in "abc"}
    turns = time_in_turns(meters, 50, gap_s=0.2, idle=rests.append)
    assert (turns.n, turns.asked) == (50, 50)
    assert {name: len(ms) for name, ms in turns.ms.items()} == dict.fromkeys("abc", 50)
    timed = log[3 * WARM_UP :]
    rounds = [timed[at : at + 3] for at in range(0, len(timed), 3)]
    assert all(sorted(each) == ["a", "b", "c"] for each in rounds)
    assert len({tuple(each) for each in rounds}) > 1  # nobody always comes after the same neighbour
    assert rests == [0.2] * 150


def test_what_is_slow_is_called_less_often_and_that_is_told() -> None:
    log: list[str] = []
    turns = time_in_turns({"slow": Meter(2_000.0, log, "slow")}, 200, budget_s=60.0)
    assert (turns.n, turns.asked) == (30, 200)
    assert len(turns.ms["slow"]) == 30
    assert time_in_turns({"slower": Meter(60_000.0, log, "slower")}, 200).n == LEAST


def test_gaps_do_not_count_as_work() -> None:
    meters = {"fast": Meter(10.0, [], "fast")}
    assert time_in_turns(meters, 200, gap_s=10.0, budget_s=2.0, idle=lambda _: None).n == 200
