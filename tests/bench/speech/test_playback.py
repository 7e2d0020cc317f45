"""The clocks, on a recogniser that takes as long as it is told; nothing here looks at a real clock."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from emi_bench.speech.playback import (
    BLOCK_SAMPLES,
    AwareClock,
    Playback,
    PlaybackClock,
    PlaybackResult,
    RealClock,
    UnawareClock,
    WatchedRecognizer,
    play_through,
)
from emi_bench.speech.scoring import word_history
from emi_live.config import SpeechConfig
from emi_live.health import Health
from emi_live.stages.speech import SpeechStage
from emi_models.speech.recognizer import Hypothesis
from tests.live.stages.room import PositionGate
from tests.models.speech.timed import RATE_HZ, Spoken, TimedRecognizer, positions
from tests.support.fakes import FakeClock

S = 1_000_000_000
LENGTH_S = 9.0


def speech(words: int) -> list[Spoken]:
    """From 1 s on, without a pause."""
    return [(f"w{k}", 1.0 + 0.4 * k, 1.4 + 0.4 * k) for k in range(words)]


SPOKEN = speech(15)  # until 7 s


class Slow(TimedRecognizer):
    """Each answer takes `takes_s` of a clock."""

    def __init__(self, spoken: list[Spoken], clock: FakeClock, takes_s: float) -> None:
        super().__init__(spoken)
        self._clock = clock
        self._takes_ns = round(takes_s * S)

    def hypothesis(self) -> Hypothesis:
        self._clock.advance(self._takes_ns)
        return super().hypothesis()


class Run:
    """One clip by one clock."""

    def __init__(
        self, clock: str, takes_s: float, length_s: float = LENGTH_S, spoken: list[Spoken] = SPOKEN
    ) -> None:
        time = FakeClock(S)
        paces: dict[str, PlaybackClock] = {
            "unaware": UnawareClock(time.now_ns),
            "aware": AwareClock(time.now_ns),
            "real": RealClock(time, time.now_ns),
        }
        play = Playback(positions(length_s), paces[clock])
        self.recognizer = WatchedRecognizer(Slow(spoken, time, takes_s), play.tick)
        self.health = Health()
        gate: Any = PositionGate(spoken, ())
        stage = SpeechStage(
            play.reader, gate, self.recognizer, SpeechConfig(), exact=clock == "unaware", health=self.health
        )
        self.done: PlaybackResult = play_through(stage, play)

    def count(self, name: str) -> int:
        return self.health.snapshot().counters.get(f"speech.{name}", 0)

    @property
    def commits_s(self) -> dict[str, float]:
        return {word.text: word.committed_ns / S for word in word_history(self.done.shown).committed}


def test_unaware_of_computing_nothing_is_late_however_long_it_takes() -> None:
    slow, quick = Run("unaware", 0.7), Run("unaware", 0.0)
    assert slow.done.shown == quick.done.shown
    assert {one.lag_ms for one in slow.done.shown} == {0.0}
    assert list(slow.commits_s) == [text for text, _, _ in SPOKEN]
    assert slow.done.max_backlog_s == BLOCK_SAMPLES / RATE_HZ


def test_aware_of_computing_an_answer_comes_as_late_as_it_took() -> None:
    run, unaware = Run("aware", 0.7), Run("unaware", 0.7)
    assert sum(run.done.steps_ns) == pytest.approx(run.recognizer.calls * 0.7 * S)
    first = next(one for one in run.done.shown if one.packet.words)
    assert first.lag_ms == pytest.approx(700.0)  # nothing waited before it
    said_anew = [
        now
        for before, now in pairwise(run.done.shown)
        if {word.number for word in now.packet.words if word.committed}
        - {word.number for word in before.packet.words if word.committed}
    ]
    assert said_anew
    assert min(one.lag_ms for one in said_anew) >= 700.0 - 1e-6
    assert list(run.commits_s) == list(unaware.commits_s)
    assert all(run.commits_s[text] >= at_s + 0.7 - 1e-9 for text, at_s in unaware.commits_s.items())


def test_sound_arrives_while_an_answer_is_made_and_the_stage_sees_it_wait() -> None:
    run = Run("aware", 0.7)
    assert 0.65 < run.done.max_backlog_s < 1.4  # of one answer, or of two in a row at an utterance's end
    assert run.count("coalesced") > 0
    assert run.recognizer.calls < Run("unaware", 0.7).recognizer.calls
    hopeless = Run(
        "aware", 4.0, 34.0, speech(80)
    )  # more than its budget at each answer: the words are given up
    assert hopeless.count("given_up") > 0
    assert hopeless.count("skipped_samples") > 0


def test_without_cost_both_clocks_agree() -> None:
    unaware, aware = Run("unaware", 0.0), Run("aware", 0.0)
    assert unaware.done.shown == aware.done.shown


@pytest.mark.parametrize("takes_s", [0.0, 0.3, 0.7, 2.0])
def test_the_simulated_clock_gives_what_the_wall_s_clock_does(takes_s: float) -> None:
    aware, real = Run("aware", takes_s), Run("real", takes_s)
    assert aware.done.shown == real.done.shown
    assert aware.done.steps_ns == real.done.steps_ns


def test_all_of_a_clip_is_heard_whatever_its_length() -> None:
    samples = 3 * BLOCK_SAMPLES + 100
    run = Run("aware", 0.0, length_s=samples / RATE_HZ)
    assert run.done.shown == []  # no word, and less than six blocks
    run = Run("aware", 0.0, length_s=1.3)
    assert run.done.shown[-1].packet.t_ns == pytest.approx(1.3 * S, abs=2)
    assert np.all(np.diff([one.emitted_ns for one in run.done.shown]) >= 0)
