from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emi_models.speech.incremental import IncrementalRecognizer, IncrementalSettings, Update
from emi_models.speech.recognizer import Hypothesis, RecognizedWord, Segment
from tests.models.speech.timed import RATE_HZ, Spoken, TimedRecognizer, blocks, librivox, positions, word_of

TEN_MINUTES_S = 600.0
SETTINGS = IncrementalSettings()


class Heard:
    """An utterance through an incremental recogniser, and what became of it."""

    def __init__(
        self, recognizer: TimedRecognizer | Babbler, settings: IncrementalSettings = SETTINGS
    ) -> None:
        self.incremental = IncrementalRecognizer(recognizer, settings)
        self.committed: list[RecognizedWord] = []
        self.cuts: list[str] = []
        self.longest_s = 0.0
        self.incremental.begin()

    def hear(self, seconds: float, *, start_s: float = 0.0, block: int = 512, wait: bool = False) -> Heard:
        for samples in blocks(positions(seconds, start_s), block):
            self.take(self.incremental.push(samples, samples.size, wait=wait))
            self.longest_s = max(self.longest_s, self.incremental.buffered_s)
        return self

    def finish(self) -> Heard:
        self.take(self.incremental.finish())
        return self

    def take(self, update: Update | None) -> None:
        if update is not None:
            self.committed += update.committed
            self.cuts += [update.cut] if update.cut else []

    @property
    def texts(self) -> list[str]:
        return [word.text for word in self.committed]


class Babbler:
    """Says something else each time, of any sound: nothing is ever agreed upon."""

    name = "babbler"
    agreement = 2

    def __init__(self, words: int) -> None:
        self._words = words
        self._turn = 0
        self._size = 0
        self.most_samples = 0

    def begin(self, prompt: str = "") -> None:
        self._size = 0

    def accept(self, samples: np.ndarray) -> None:
        self._size += samples.size
        self.most_samples = max(self.most_samples, self._size)

    def hypothesis(self) -> Hypothesis:
        self._turn += 1
        length = self._size / RATE_HZ / max(1, self._words)
        return Hypothesis(
            (
                Segment(
                    tuple(
                        RecognizedWord(f"{self._turn}.{k}", k * length, (k + 1) * length, 0.5)
                        for k in range(self._words)
                    )
                ),
            )
        )

    finish = hypothesis

    def forget(self) -> None: ...

    def close(self) -> None: ...


def steady(count: int, each_s: float = 0.3, pause_s: float = 0.05) -> list[Spoken]:
    return [(word_of(k), k * (each_s + pause_s), k * (each_s + pause_s) + each_s) for k in range(count)]


def texts(spoken: Sequence[Spoken]) -> list[str]:
    return [word[0] for word in spoken]


def test_words_are_certain_long_before_the_utterance_ends() -> None:
    spoken = steady(20)
    heard = Heard(TimedRecognizer(spoken)).hear(5.0)
    assert texts(spoken[:10]) == heard.texts[:10]
    assert heard.hear(2.5, start_s=5.0).finish().texts == texts(spoken)


@pytest.mark.assets
@pytest.mark.parametrize(("segment", "jitter_s"), [(0, 0.03), (9, 0.03), (0, 0.2), (9, 0.2)])
def test_a_ten_minute_monologue_keeps_every_word_and_a_short_buffer(
    assets: Path, segment: int, jitter_s: float
) -> None:
    spoken = librivox(assets, TEN_MINUTES_S - 10)
    recognizer = TimedRecognizer(spoken, segment=segment, jitter_s=jitter_s)
    heard = Heard(recognizer).hear(TEN_MINUTES_S).finish()
    changes = [
        (kind, max(a1 - a0, b1 - b0))
        for kind, a0, a1, b0, b1 in SequenceMatcher(
            None, texts(spoken), heard.texts, autojunk=False
        ).get_opcodes()
        if kind != "equal"
    ]
    assert not any(kind == "delete" for kind, _ in changes)
    # Times that are 0.2 s off put a cut into a word, where it is shorter than that and there is no pause: it
    # is written in another way.
    assert sum(count for _, count in changes) <= (0 if jitter_s < 0.1 else len(spoken) // 100)
    assert heard.longest_s <= SETTINGS.trim_s + SETTINGS.every_s + 0.04
    assert recognizer.most_samples <= SETTINGS.limit_s * RATE_HZ
    assert set(heard.cuts) == {"word"}
    assert len(heard.cuts) >= TEN_MINUTES_S / SETTINGS.limit_s
    assert all(len(prompt) <= 200 for prompt in recognizer.prompts)
    assert recognizer.prompts[-1].split()[-1] in heard.texts[-40:]  # the words just before the buffer


@pytest.mark.parametrize("words", [0, 1, 30])
def test_ten_minutes_of_noise_stay_bounded(words: int) -> None:
    babbler = Babbler(words)
    heard = Heard(babbler).hear(TEN_MINUTES_S, block=4096).finish()
    assert heard.longest_s <= SETTINGS.limit_s
    assert babbler.most_samples <= SETTINGS.limit_s * RATE_HZ
    assert set(heard.cuts) == {"limit"}
    assert len(heard.texts) <= words  # of the last hypothesis, at the end


def test_at_the_limit_words_are_kept_rather_than_lost() -> None:
    spoken = steady(80)
    slow = IncrementalSettings(every_s=3600.0)  # asked only when it must be
    heard = Heard(TimedRecognizer(spoken), slow).hear(28.5).finish()
    assert heard.texts == texts(spoken)
    assert heard.cuts == ["limit"]


@pytest.mark.slow
@given(
    pauses=st.lists(st.floats(0, 1.5), min_size=1, max_size=40),
    lengths=st.lists(st.floats(0.1, 0.9), min_size=1, max_size=40),
    block=st.integers(100, 20_000),
    segment=st.sampled_from([0, 3]),
    seed=st.integers(0, 9),
)
@settings(max_examples=40, deadline=None)
def test_no_word_is_lost_at_a_cut(
    pauses: list[float], lengths: list[float], block: int, segment: int, seed: int
) -> None:
    spoken: list[Spoken] = []
    time_s = 0.0
    for k in range(40):
        start = time_s + pauses[k % len(pauses)]
        time_s = start + lengths[k % len(lengths)]
        spoken.append((word_of(k), start, time_s))
    early = IncrementalSettings(trim_s=4.0, limit_s=6.0)
    recognizer = TimedRecognizer(spoken, segment=segment, seed=seed)
    heard = Heard(recognizer, early).hear(time_s + 0.5, block=block).finish()
    assert heard.longest_s <= early.limit_s
    assert heard.texts == texts(spoken)


def test_any_split_of_the_sound_asks_at_the_same_places_if_it_is_fed_alike() -> None:
    spoken = steady(60)
    runs = []
    for _ in range(2):
        heard = Heard(TimedRecognizer(spoken, jitter_s=0.02)).hear(21.0).finish()
        runs.append((heard.committed, heard.cuts))
    assert runs[0] == runs[1]


def test_one_that_waits_asks_after_five_seconds_all_the_same() -> None:
    recognizer = TimedRecognizer(steady(100))
    heard = Heard(recognizer).hear(4.9, wait=True)
    assert recognizer.asked == 0
    assert heard.incremental.due
    heard.hear(15.2, start_s=4.9, wait=True)
    assert recognizer.asked == 4


def test_an_utterance_s_words_are_not_the_next_one_s_prompt() -> None:
    recognizer = TimedRecognizer(steady(200))
    heard = Heard(recognizer).hear(35.0).finish()
    assert any(recognizer.prompts)
    heard.incremental.begin()
    assert recognizer.prompts[-1] == ""
    assert heard.incremental.dropped["carry_over"] == 1
    heard.incremental.begin()  # nothing was said in between
    assert heard.incremental.dropped["carry_over"] == 1


def test_another_recogniser_goes_on_where_the_first_was() -> None:
    spoken = steady(30)
    heard = Heard(TimedRecognizer(spoken)).hear(5.0)
    smaller = TimedRecognizer(spoken)
    heard.incremental.use(smaller)
    assert heard.hear(5.6, start_s=5.0).finish().texts == texts(spoken)
    assert smaller.asked > 5


def test_a_dropped_utterance_leaves_nothing() -> None:
    heard = Heard(TimedRecognizer(steady(10))).hear(2.0)
    heard.incremental.drop()
    heard.incremental.begin()
    assert heard.incremental.buffered_s == 0.0
    assert heard.incremental.finish() == Update((), ())
