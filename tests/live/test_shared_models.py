"""One recogniser for several people: turns, batches, handed-over sound, errors, the same words as alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from emi_live.bundle.base import Encoders
from emi_live.sharing import LentRecognizer, SharedModels
from emi_models.speech.isolated import RecognizerLostError
from emi_models.speech.recognizer import (
    Batching,
    Hypothesis,
    RecognizedWord,
    Recognizer,
    Segment,
    Utterance,
)
from tests.models.encoders.media import read_sound
from tests.support.waiting import until

PATIENCE_S = 30.0


class Counting:
    """Says how many samples of which loudness it has, and never serves two at once."""

    name, agreement = "counting", 2

    def __init__(self) -> None:
        self.sound: list[float] = []
        self.begun = 0
        self.calls: list[str] = []
        self.closed = False
        self.before: Callable[[], None] = lambda: None
        self._busy = threading.Lock()

    def begin(self, prompt: str = "") -> None:
        self.begun += 1
        self.sound = []

    def accept(self, samples: NDArray[np.float32]) -> None:
        self.sound += samples.tolist()

    def hypothesis(self) -> Hypothesis:
        assert self._busy.acquire(blocking=False), "two users at once"
        try:
            self.before()
            text = " ".join(f"{value:g}" for value in self.sound)
            self.calls.append(text)
            return Hypothesis((Segment((RecognizedWord(text, 0.0, 1.0, 1.0),)),))
        finally:
            self._busy.release()

    finish = hypothesis

    def forget(self) -> None: ...

    def close(self) -> None:
        self.closed = True


def lend(shared: SharedModels) -> Recognizer:
    recognizer = shared.lend().recognizer
    assert recognizer is not None
    recognizer.begin()
    return recognizer


def said(hypothesis: Hypothesis) -> str:
    return hypothesis.words[0].text


def test_each_user_gets_the_words_of_his_own_sound() -> None:
    model = Counting()
    with SharedModels(Encoders(recognizer=model)) as shared:
        one, two = lend(shared), lend(shared)
        one.accept(np.array([1], np.float32))
        two.accept(np.array([2], np.float32))
        assert said(one.hypothesis()) == "1"
        assert said(two.hypothesis()) == "2"
        one.accept(np.array([3], np.float32))
        assert said(one.hypothesis()) == "1 3"
        assert model.begun == 3
        one.accept(np.array([4], np.float32))
        assert said(one.hypothesis()) == "1 3 4"
        assert model.begun == 3, "one user alone never begins again"
        assert said(one.finish()) == "1 3 4"
        one.accept(np.array([5], np.float32))
        assert said(one.hypothesis()) == "5"
        one.close()
        assert said(two.finish()) == "2"
    assert model.closed


def test_turns_are_taken_in_the_order_of_asking() -> None:
    model, first_inside, go = Counting(), threading.Event(), threading.Event()

    def wait() -> None:
        first_inside.set()
        assert go.wait(PATIENCE_S)

    model.before = wait
    with SharedModels(Encoders(recognizer=model)) as shared:
        threads = []
        for number in range(4):
            user = lend(shared)
            user.accept(np.array([number], np.float32))
            threads.append(threading.Thread(target=user.hypothesis))
            threads[-1].start()
            assert first_inside.wait(PATIENCE_S)
            while len(shared.waiting) + shared.running <= number:
                threading.Event().wait(0.001)
        go.set()
        for thread in threads:
            thread.join(PATIENCE_S)
    assert model.calls == ["0", "1", "2", "3"]


def test_a_handle_that_is_returned_ends_its_wait_and_no_other() -> None:
    model, inside, go = Counting(), threading.Event(), threading.Event()

    def wait() -> None:
        inside.set()
        assert go.wait(PATIENCE_S)

    model.before = wait
    errors: list[BaseException] = []
    with SharedModels(Encoders(recognizer=model)) as shared:
        one, two = lend(shared), lend(shared)

        def ask() -> None:
            try:
                two.hypothesis()
            except RecognizerLostError as error:
                errors.append(error)

        first, second = threading.Thread(target=one.hypothesis), threading.Thread(target=ask)
        first.start()
        assert inside.wait(PATIENCE_S)
        second.start()
        two.close()
        second.join(PATIENCE_S)
        assert len(errors) == 1
        three = shared.lend().recognizer
        assert isinstance(three, LentRecognizer)

        def ask_third() -> None:
            with pytest.raises(RecognizerLostError):
                three.hypothesis()

        third = threading.Thread(target=ask_third)
        third.start()
        until(lambda: len(shared.waiting) == 1)
        three.give_up()
        third.join(PATIENCE_S)
        assert not third.is_alive()
        go.set()
        first.join(PATIENCE_S)
        assert said(one.hypothesis()) == ""
        with pytest.raises(RecognizerLostError):
            three.hypothesis()
        three.forget()
        assert said(three.hypothesis()) == ""


def test_after_an_error_everybody_begins_again() -> None:
    model = Counting()
    with SharedModels(Encoders(recognizer=model)) as shared:
        one = lend(shared)
        one.accept(np.array([1], np.float32))
        one.hypothesis()

        def fail() -> None:
            model.sound = []
            raise RecognizerLostError("gone")

        model.before = fail
        with pytest.raises(RecognizerLostError):
            one.hypothesis()
        model.before = lambda: None
        assert said(one.hypothesis()) == "1"


class Together(Counting):
    """Recognises up to three utterances in one call if they have equally many samples and no prompt."""

    batching = Batching(most=3, step=1)

    def __init__(self) -> None:
        super().__init__()
        self.poison: float | None = None  # with this sample a call fails

    def recognize(self, utterances: Sequence[Utterance]) -> list[Hypothesis]:
        texts = [" ".join(f"{value:g}" for value in one.samples) for one in utterances]
        self.calls.append(" + ".join(texts))
        if any(self.poison in one.samples for one in utterances):
            raise RecognizerLostError("gone")
        return [Hypothesis((Segment((RecognizedWord(text, 0.0, 1.0, 1.0),)),)) for text in texts]


class Waiting:
    """Users who ask while the recogniser is busy with the first one, each in a thread."""

    def __init__(self, shared: SharedModels, model: Counting) -> None:
        self.shared = shared
        self.answers: dict[float, str] = {}
        self.users: list[Recognizer] = []
        self._inside, self._go = threading.Event(), threading.Event()
        self._threads: list[threading.Thread] = []

        def wait() -> None:
            self._inside.set()
            assert self._go.wait(PATIENCE_S)

        model.before = wait

    def ask(self, *samples: float, prompt: str = "") -> None:
        user = lend(self.shared)
        user.begin(prompt)
        user.accept(np.array(samples, np.float32))

        def say() -> None:
            try:
                self.answers[samples[0]] = said(user.finish())
            except RecognizerLostError as error:
                self.answers[samples[0]] = str(error)

        self.users.append(user)
        self._threads.append(threading.Thread(target=say))
        self._threads[-1].start()
        assert self._inside.wait(PATIENCE_S)
        while len(self.shared.waiting) < len(self._threads) - 1:
            threading.Event().wait(0.001)

    def go(self) -> None:
        self._go.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)


def test_those_who_wait_with_alike_utterances_are_served_in_one_call() -> None:
    model = Together()
    with SharedModels(Encoders(recognizer=model)) as shared:
        waiting = Waiting(shared, model)
        waiting.ask(0)
        waiting.ask(1, 1)
        waiting.ask(2)
        for number in range(3, 7):
            waiting.ask(number, number)
        waiting.ask(7, 7, prompt="before")
        waiting.go()
    # The first one that waits is always served; those like it come with it, the others keep their order.
    assert model.calls == ["0", "1 1 + 3 3 + 4 4", "2", "5 5 + 6 6", "7 7"]
    assert waiting.answers == {0: "0", 2: "2", **{n: f"{n} {n}" for n in (1, 3, 4, 5, 6, 7)}}
    assert shared.counts() == {
        "hypotheses_in_batch_of_1": 3,
        "hypotheses_in_batch_of_2": 2,
        "hypotheses_in_batch_of_3": 3,
    }


def test_an_utterance_that_cannot_be_recognised_fails_alone() -> None:
    model = Together()
    model.poison = 2.0
    with SharedModels(Encoders(recognizer=model)) as shared:
        waiting = Waiting(shared, model)
        for number in range(4):
            waiting.ask(number)
        alone = model.accept

        def accept(samples: NDArray[np.float32]) -> None:
            if 2.0 in samples:
                raise RecognizerLostError("gone")
            alone(samples)

        model.accept = accept  # type: ignore[method-assign]
        waiting.go()
    assert model.calls == ["0", "1 + 2 + 3", "1", "3"]
    assert waiting.answers == {0: "0", 1: "1", 2: "gone", 3: "3"}


def test_who_has_left_is_not_recognised() -> None:
    model = Together()
    with SharedModels(Encoders(recognizer=model)) as shared:
        waiting = Waiting(shared, model)
        for number in range(4):
            waiting.ask(number)
        waiting.users[2].close()
        while 2 not in waiting.answers:
            threading.Event().wait(0.001)
        waiting.go()
    assert model.calls == ["0", "1 + 3"]
    assert waiting.answers[2] == "the speech recogniser was returned"


@pytest.mark.slow
@pytest.mark.assets
def test_whisper_says_to_two_users_what_it_says_to_one(assets: Path, whisper_base: Path) -> None:
    from emi_models.speech.whisper import WhisperRecognizer

    sound = read_sound(assets / "speech/jfk.flac")[: 6 * 16_000]
    model = WhisperRecognizer(whisper_base)

    def parts(user: Recognizer) -> list[str]:
        words = []
        for start in range(0, len(sound), 32_000):
            user.accept(sound[start : start + 32_000])
            words.append(" ".join(word.text for word in user.hypothesis().words))
        return words

    model.begin()
    alone = parts(model)
    with SharedModels(Encoders(recognizer=model)) as shared:
        one, two = lend(shared), lend(shared)
        both = []
        for start in range(0, len(sound), 32_000):
            for user in (one, two):
                user.accept(sound[start : start + 32_000])
            both.append([" ".join(word.text for word in user.hypothesis().words) for user in (one, two)])
    assert both == [[words, words] for words in alone]
