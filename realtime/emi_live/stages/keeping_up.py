"""What the speech stage gives up when its recogniser is too slow for the sound, and how it says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from emi_live.health import Health
from emi_live.rings.audio import SAMPLE_RATE_HZ
from emi_models.speech.lag import LagController, LagStep

if TYPE_CHECKING:
    from emi_models.speech.incremental import IncrementalRecognizer
    from emi_models.speech.recognizer import Recognizer

__all__ = ["KeepingUp"]

COUNTERS: Final = {LagStep.SMALLER: "shrunk", LagStep.MISSING: "given_up"}


class KeepingUp:
    """Carries out what `LagController` decides, and reports each step: a counter and the part's status.

    Counters, of the part: `shrunk` and `given_up` count the steps, `skipped_samples` the sound that was left
    out while the text was missing.
    """

    def __init__(
        self,
        words: IncrementalRecognizer,
        smaller: Recognizer | None,
        budget_s: float,
        part: str,
        health: Health,
    ) -> None:
        self._words = words
        self._full = words.recognizer
        self._smaller = smaller
        self._lag = LagController(budget_s, has_smaller=smaller is not None)
        self._step = LagStep.NONE
        self._part = part
        self._health = health
        self._left_out = 0  # samples, since nothing was recognised any more

    @property
    def missing(self) -> bool:
        """Whether nothing is recognised for now."""
        return self._step == LagStep.MISSING

    @property
    def left_out_s(self) -> float:
        """Seconds of speech left out since then; 0 while words are recognised."""
        return self._left_out / SAMPLE_RATE_HZ if self.missing else 0.0

    def heard(self, samples: int) -> None:
        """So many samples were heard, of speech or silence."""
        self._go_to(self._lag.passed(samples / SAMPLE_RATE_HZ), 0.0)

    def take(self, samples: int, waiting: int) -> bool:
        """So many samples of an utterance are there, and so many wait; whether they are to be recognised."""
        if not self.missing:
            waiting_s = waiting / SAMPLE_RATE_HZ
            self._go_to(self._lag.taken(samples / SAMPLE_RATE_HZ, waiting_s), waiting_s)
        if self.missing:
            self._left_out += samples
            self._health.count(f"{self._part}.skipped_samples", samples)
        return not self.missing

    def answered(self, waiting: int) -> None:
        """The recogniser has answered, and so many samples wait now."""
        waiting_s = waiting / SAMPLE_RATE_HZ
        self._go_to(self._lag.answered(waiting_s), waiting_s)

    def _go_to(self, step: LagStep, waiting_s: float) -> None:
        if step == self._step:
            return
        worse, self._step = step > self._step, step
        self._left_out = 0
        recognizer = self._smaller if step == LagStep.SMALLER and self._smaller else self._full
        if step != LagStep.MISSING and recognizer is not self._words.recognizer:
            self._words.use(recognizer)
        if worse:
            self._health.count(f"{self._part}.{COUNTERS[step]}")
        self._health.report(self._part, "running", self._says(step, waiting_s))

    def _says(self, step: LagStep, waiting_s: float) -> str:
        if step == LagStep.NONE:
            return f"{self._full.name} again"
        behind = f"{waiting_s:.1f} s behind: " if waiting_s else ""
        if step == LagStep.MISSING:
            return f"{behind}words are left out for a while; choose a smaller model with --set speech.model"
        return f"{behind}{self._words.recognizer.name} answers until there is time"
