"""Incremental recognition over any recogniser: guards, agreement, and a buffer that stays short."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from emi_models.speech.agreement import AlignmentEdge, CommitRule, LocalAgreement
from emi_models.speech.guards import Guards, GuardSettings
from emi_models.speech.sound_buffer import RATE_HZ, SoundBuffer
from emi_models.speech.trimming import Cut, limit_cut, segment_cut, word_cut

if TYPE_CHECKING:
    from collections import Counter

    import numpy as np
    from numpy.typing import NDArray

    from emi_models.speech.recognizer import Hypothesis, RecognizedWord, Recognizer
    from emi_models.speech.trimming import CutKind

__all__ = ["IncrementalRecognizer", "IncrementalSettings", "Update"]

PROMPT_CHARACTERS: Final = 200  # of what has scrolled out of the buffer
LONGEST_WAIT_S: Final = 5.0  # of sound, before words are asked for though more of it waits
UNFINISHED_S: Final = 1.0  # a word this close to the newest sound may still be under way


@dataclass(frozen=True, slots=True, kw_only=True)
class IncrementalSettings:
    """How often words are asked for, what makes them certain, and when the buffer is cut."""

    every_s: float = 0.5  # sound between two hypotheses
    agreement: int | None = None  # hypotheses in a row that must agree; None: as the recogniser says
    edge_s: float | None = None  # not by agreement: certain is what ends so long before the sound does
    trim_s: float = 15.0  # from here on, cut where words are certain
    limit_s: float = 20.0  # never hold more than this
    guards: GuardSettings = field(default_factory=GuardSettings)


@dataclass(frozen=True, slots=True)
class Update:
    """What a hypothesis has changed. Times count from the utterance's first sample."""

    certain: tuple[RecognizedWord, ...]  # certain with this update; what was certain before stays so
    tentative: tuple[RecognizedWord, ...]  # all that is shown beyond what is certain; replaces the last
    cut: CutKind | None = None  # why the buffer was cut, if it was


class IncrementalRecognizer:
    """Recognises one utterance after the other while they are spoken. Pure: no thread, clock or device.

    The words of a growing buffer are asked for every `every_s` of sound and become certain by
    `LocalAgreement`. From `trim_s` on the buffer is cut at the end of a completed segment of certain words,
    or else behind the last certain word; at `limit_s` regardless, and then the words before the cut are
    certain without agreement rather than lost. The words that scrolled away are the recogniser's prompt, and
    nothing of an utterance is carried into the next.
    """

    def __init__(self, recognizer: Recognizer, settings: IncrementalSettings | None = None) -> None:
        self._settings = settings or IncrementalSettings()
        self._recognizer = recognizer
        self._every = round(self._settings.every_s * RATE_HZ)
        self._longest = max(self._every, round(LONGEST_WAIT_S * RATE_HZ))
        self._buffer = SoundBuffer(self._settings.limit_s)
        self._guards = Guards(self._settings.guards)
        self._rule: CommitRule = (
            LocalAgreement(self._settings.agreement or recognizer.agreement)
            if self._settings.edge_s is None
            else AlignmentEdge(self._settings.edge_s)
        )
        self._gone = ""  # certain words whose sound has been cut off, as many as make a prompt
        self._said_any = False
        self._unasked = 0  # samples since the recogniser was last asked

    @property
    def recognizer(self) -> Recognizer:
        """The one that is asked."""
        return self._recognizer

    @property
    def dropped(self) -> Counter[str]:
        """How much each guard has kept out so far: words, of `carry_over` prompts."""
        return self._guards.dropped

    @property
    def buffered_s(self) -> float:
        """Seconds of sound in the buffer, at most `limit_s`."""
        return self._buffer.duration_s

    @property
    def due(self) -> bool:
        """Whether it is time to ask for the words."""
        return self._unasked >= self._every

    def begin(self) -> None:
        """Start an utterance; one that was not finished is dropped."""
        if self._said_any:
            self.dropped["carry_over"] += 1
        self._clear()
        self._recognizer.begin()

    def push(self, samples: NDArray[np.float32], voiced: int, *, wait: bool = False) -> Update | None:
        """Take the utterance's next samples; what that changes, if the words were asked for.

        Args:
            samples: shape (n,), 16 kHz mono, in [-1, 1].
            voiced: how many of them, at the end, are voice.
            wait: do not ask for the words now, unless the buffer is full or they were last asked for 5 s ago.
        """
        update: Update | None = None
        while samples.size:
            part, samples = samples[: self._buffer.room], samples[self._buffer.room :]
            self._buffer.append(part, min(part.size, max(0, voiced - samples.size)))
            self._recognizer.accept(part)
            self._unasked += part.size
            waits = wait and self._unasked < self._longest
            if not self._buffer.room or (self.due and not samples.size and not waits):
                update = _joined(update, self._ask())
        return update

    def finish(self) -> Update:
        """The rest of the utterance's words, all certain; the utterance is over with this call."""
        _, certain = self._take(self._recognizer.finish(), last=True)
        said_any = self._said_any
        self._clear()
        self._said_any = said_any
        return Update(tuple(certain), ())

    def drop(self) -> None:
        """Forget the utterance under way, as after a failure."""
        self._clear()

    def use(self, recognizer: Recognizer) -> None:
        """Go on with another recogniser, which hears the buffer anew; what is certain stays so."""
        self._recognizer = recognizer
        if isinstance(self._rule, LocalAgreement):
            self._rule.deepen(self._settings.agreement or recognizer.agreement)
        self._restart()

    def _clear(self) -> None:
        self._buffer.clear()
        self._rule.reset()
        self._gone = ""
        self._said_any = False
        self._unasked = 0

    def _ask(self) -> Update:
        self._unasked = 0
        hypothesis, certain = self._take(self._recognizer.hypothesis(), last=False)
        cut = None
        if self._buffer.duration_s >= self._settings.trim_s:
            cut, forced = self._choose_cut(hypothesis)
            certain += forced
        self._said_any |= bool(certain)
        if cut is not None:
            self._cut(cut)
        return Update(tuple(certain), self._rule.tentative, cut.kind if cut else None)

    def _take(self, heard: Hypothesis, *, last: bool) -> tuple[Hypothesis, list[RecognizedWord]]:
        """The hypothesis by the utterance's clock, and the words that it makes certain."""
        hypothesis = heard.later(self._buffer.start_s)
        said = self._rule.match(hypothesis.words)
        beyond = self._guards.passed(hypothesis, self._buffer, said)
        certain = self._rule.insert(beyond, self._buffer.end_s, last=last)
        self._said_any |= bool(certain)
        return hypothesis, certain

    def _choose_cut(self, hypothesis: Hypothesis) -> tuple[Cut | None, list[RecognizedWord]]:
        """Where to cut, and the words that become certain with it, agreed upon or not."""
        buffer, rule = self._buffer, self._rule
        cut = segment_cut(hypothesis.segments, rule) or word_cut(rule)
        if cut is not None and cut.at_s <= buffer.start_s:
            cut = None
        if buffer.room or (cut is not None and cut.at_s > buffer.start_s + self._settings.every_s):
            return cut, []
        forced = rule.force(buffer.end_s - UNFINISHED_S)
        behind = word_cut(rule, "limit") if forced else None
        return behind or limit_cut(rule, buffer.start_s, buffer.end_s), forced

    def _cut(self, cut: Cut) -> None:
        gone = [word.text for word in self._rule.cut(cut.gone, cut.at_s)]
        self._gone = _last_words(" ".join([self._gone, *gone]).strip())
        self._buffer.cut(cut.at_s)
        self._restart()

    def _restart(self) -> None:
        self._recognizer.begin(self._gone)
        if self._buffer.duration_s:
            self._recognizer.accept(self._buffer.samples.copy())


def _joined(before: Update | None, after: Update) -> Update:
    if before is None:
        return after
    return Update(before.certain + after.certain, after.tentative, after.cut or before.cut)


def _last_words(text: str) -> str:
    """The end of a text, in whole words."""
    if len(text) <= PROMPT_CHARACTERS:
        return text
    return text[-PROMPT_CHARACTERS:].partition(" ")[2]
