"""Incremental recognition with any recogniser: utterances, guards, agreement, and a buffer of bounded length.

`Endpointer` finds where utterances begin and end, from the probability of speech in each chunk.
`SoundBuffer` holds the audio of an utterance that may still be recognised, and where there was speech in it.
`LagController` decides what to reduce when recognition falls behind: first how often words are asked for,
then the size of the model, then the text itself.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import TYPE_CHECKING, Final

import numpy as np

from emi_models.speech.agreement import (
    AlignmentEdge,
    CommitRule,
    Cut,
    LocalAgreement,
    limit_cut,
    word_cut,
)
from emi_models.speech.guards import Guards, GuardSettings

if TYPE_CHECKING:
    from collections import Counter

    from numpy.typing import NDArray

    from emi_models.speech.agreement import CutKind
    from emi_models.speech.recognizer import Hypothesis, RecognizedWord, Recognizer

__all__ = [
    "Endpointer",
    "IncrementalRecognizer",
    "IncrementalSettings",
    "LagController",
    "LagStep",
    "SoundBuffer",
    "Update",
    "UtteranceBlock",
]

RATE_HZ: Final = 16_000
EXIT_MARGIN: Final = 0.15  # below the threshold; what Silero's own segmenter and sherpa-onnx use
LEAST_EXIT: Final = 0.01


@dataclass(frozen=True, slots=True)
class UtteranceBlock:
    """The next samples of an utterance, shape (n,); the last `voiced` of them are speech."""

    samples: NDArray[np.float32]
    first: bool
    last: bool
    voiced: int = 0


class Endpointer:
    """Cuts a stream of chunks into utterances. Pure: it counts samples and has no clock.

    An utterance begins with the first chunk whose probability reaches `threshold`, and includes up to
    `preroll_s` of audio before it. It ends after `min_silence_s` below `threshold` - 0.15, and may have any
    length. No sample is in two utterances, and every chunk that reaches the threshold is in one.
    """

    def __init__(self, threshold: float, min_silence_s: float, preroll_s: float) -> None:
        self._enter = threshold
        self._exit = max(threshold - EXIT_MARGIN, LEAST_EXIT)
        self._min_silence = round(min_silence_s * RATE_HZ)
        self._preroll_limit = round(preroll_s * RATE_HZ)
        self.reset()

    @property
    def speaking(self) -> bool:
        """Whether an utterance has begun and not ended."""
        return self._speaking

    def reset(self) -> None:
        """Forget everything, also an utterance that has not ended."""
        self._speaking = False
        self._silence = 0  # samples since its last speech
        self._preroll: deque[NDArray[np.float32]] = deque()

    def push(self, chunk: NDArray[np.float32], probability: float) -> list[UtteranceBlock]:
        """The blocks that a chunk, shape (n,), adds to an utterance; none in silence."""
        if not self._speaking:
            if probability < self._enter:
                self._remember(chunk)
                return []
            samples = np.concatenate((*self._preroll, chunk))
            self._preroll.clear()
            self._speaking = True
            self._silence = 0
            return [UtteranceBlock(samples, first=True, last=False, voiced=chunk.size)]
        voiced = chunk.size if probability >= self._exit else 0
        self._silence = 0 if voiced else self._silence + chunk.size
        over = self._silence >= self._min_silence
        if over:
            self.reset()
        return [UtteranceBlock(chunk, first=False, last=over, voiced=voiced)]

    def flush(self) -> list[UtteranceBlock]:
        """The last, empty block of the current utterance, at a gap or the end of the stream."""
        blocks = [UtteranceBlock(np.empty(0, np.float32), first=False, last=True)] if self._speaking else []
        self.reset()
        return blocks

    def _remember(self, chunk: NDArray[np.float32]) -> None:
        self._preroll.append(chunk)
        while self._preroll and sum(part.size for part in self._preroll) > self._preroll_limit:
            self._preroll.popleft()


class SoundBuffer:
    """The newest samples of an utterance, at most `limit_s` seconds, in one preallocated array.

    Times are seconds since the first sample of the utterance. It also keeps where there was speech.
    """

    def __init__(self, limit_s: float) -> None:
        self._samples = np.zeros(round(limit_s * RATE_HZ), np.float32)
        self.clear()

    def clear(self) -> None:
        """Begin a new utterance."""
        self._size = 0
        self._start = 0  # samples of the utterance before the first in the buffer
        self._voice: deque[tuple[int, int]] = deque()  # spans of samples with speech, in order

    @property
    def start_s(self) -> float:
        """The time of the first sample."""
        return self._start / RATE_HZ

    @property
    def end_s(self) -> float:
        """The time after the last sample."""
        return (self._start + self._size) / RATE_HZ

    @property
    def duration_s(self) -> float:
        """Seconds of audio in it."""
        return self._size / RATE_HZ

    @property
    def room(self) -> int:
        """How many samples fit in until it is full."""
        return self._samples.size - self._size

    @property
    def samples(self) -> NDArray[np.float32]:
        """Its samples, shape (n,): a view, valid until the next change."""
        return self._samples[: self._size]

    def append(self, samples: NDArray[np.float32], voiced: int) -> None:
        """Add samples, shape (n,), n at most `room`; the last `voiced` of them are speech.

        Raises:
            ValueError: there is no room for them.
        """
        if samples.size > self.room:
            raise ValueError(f"{samples.size} samples for a buffer with room for {self.room}")
        self._samples[self._size : self._size + samples.size] = samples
        self._size += samples.size
        if voiced:
            end = self._start + self._size
            begin = end - voiced
            if self._voice and self._voice[-1][1] >= begin:
                begin = self._voice.pop()[0]
            self._voice.append((begin, end))

    def cut(self, at_s: float) -> None:
        """Drop the audio before `at_s`, to the nearest sample; a time outside the buffer is clipped to it."""
        count = min(max(0, round(at_s * RATE_HZ) - self._start), self._size)
        self._samples[: self._size - count] = self._samples[count : self._size].copy()
        self._size -= count
        self._start += count
        while self._voice and self._voice[0][1] <= self._start:
            self._voice.popleft()

    def any_between(self, start_s: float, end_s: float) -> bool:
        """Whether there was speech in that span, as far as it is in the buffer."""
        start, end = start_s * RATE_HZ, end_s * RATE_HZ
        return any(begin < end and stop > start for begin, stop in self._voice)


PROMPT_CHARACTERS: Final = 200  # of the committed words whose audio was cut off
LONGEST_WAIT_S: Final = 5.0  # after so much audio words are asked for, even if more audio is queued
UNFINISHED_S: Final = 1.0  # a word this close to the newest audio may be unfinished


@dataclass(frozen=True, slots=True, kw_only=True)
class IncrementalSettings:
    """How often words are asked for, when they are committed, and when the buffer is cut."""

    every_s: float = 0.5  # audio between two hypotheses
    first_s: float = 0.0  # audio before the first hypothesis of an utterance: one syllable is seldom enough
    agreement: int | None = None  # hypotheses in a row that must agree; None: as the recogniser says
    edge_s: float | None = None  # commit words that end so long before the audio, in place of agreement
    trim_s: float = 8.0  # a longer buffer is cut behind committed words
    limit_s: float = 20.0  # the buffer never holds more
    guards: GuardSettings = field(default_factory=GuardSettings)


@dataclass(frozen=True, slots=True)
class Update:
    """What a hypothesis has changed. Times count from the utterance's first sample."""

    committed: tuple[RecognizedWord, ...]  # newly committed
    partial: tuple[RecognizedWord, ...]  # all partial words; they replace those of the update before
    cut: CutKind | None = None  # where the buffer was cut, if it was


class IncrementalRecognizer:
    """Recognises one utterance after the other while they are spoken. Pure: no thread, clock or device.

    After every `every_s` of audio, the recogniser is asked for the words of the buffer. `LocalAgreement`
    commits them. From `trim_s` on, the buffer is cut behind the last committed word. At `limit_s` it is cut
    in any case; the words before that cut are committed if the hypothesis before has most of them, else lost.
    Words whose audio was cut off are the recogniser's prompt. No utterance influences the next one.
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
        self._gone = ""  # committed words whose sound has been cut off, as many as make a prompt
        self._said_any = False
        self._unasked = 0  # samples since the recogniser was last asked
        self.language: str | None = None  # of the last hypothesis, as `Hypothesis` has it
        self.other_language: str | None = None

    @property
    def recognizer(self) -> Recognizer:
        """The recogniser in use."""
        return self._recognizer

    @property
    def dropped(self) -> Counter[str]:
        """How many words each guard has dropped so far; `carry_over` counts prompts."""
        return self._guards.dropped

    @property
    def buffered_s(self) -> float:
        """Seconds of audio in the buffer, at most `limit_s`."""
        return self._buffer.duration_s

    @property
    def due(self) -> bool:
        """Whether it is time to ask for the words."""
        return self._unasked >= self._every and self._buffer.end_s >= self._settings.first_s

    @property
    def unasked_s(self) -> float:
        """Seconds of audio since the words were last asked for."""
        return self._unasked / RATE_HZ

    def begin(self) -> None:
        """Start an utterance; an unfinished one is dropped."""
        if self._said_any:
            self.dropped["carry_over"] += 1
        self._clear()
        self._recognizer.begin()

    def push(self, samples: NDArray[np.float32], voiced: int, *, wait: bool = False) -> Update | None:
        """Take the utterance's next samples; return what changed, or None if words were not asked for.

        Args:
            samples: shape (n,), 16 kHz mono, in [-1, 1].
            voiced: how many samples at the end are speech.
            wait: do not ask for words now, unless the buffer is full or 5 s of audio have come since.
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
        """End the utterance and commit the rest of its words."""
        found = self._recognizer.finish()
        committed = self._take(found, last=True)
        said_any = self._said_any
        self._clear()
        self._said_any = said_any
        return Update(tuple(committed), ())

    def drop(self) -> None:
        """Forget the current utterance, for example after a failure."""
        self._clear()

    def use(self, recognizer: Recognizer) -> None:
        """Continue with another recogniser, which gets the buffer again. Committed words stay."""
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
        found = self._recognizer.hypothesis()
        committed = self._take(found, last=False)
        cut = None
        if self._buffer.duration_s >= self._settings.trim_s:
            cut, forced = self._choose_cut()
            committed += forced
        self._said_any |= bool(committed)
        if cut is not None:
            self._cut(cut)
        return Update(tuple(committed), self._rule.partial, cut.kind if cut else None)

    def _take(self, found: Hypothesis, *, last: bool) -> list[RecognizedWord]:
        """Commit words by a hypothesis, and return these."""
        self.language, self.other_language = found.language, found.other_language
        hypothesis = found.later(self._buffer.start_s)
        said, words = self._rule.match(hypothesis.words)
        hypothesis = hypothesis.with_words(words)
        beyond = self._guards.passed(hypothesis, self._buffer, said)
        committed = self._rule.insert(beyond, self._buffer.end_s, last=last)
        self._said_any |= bool(committed)
        return committed

    def _choose_cut(self) -> tuple[Cut | None, list[RecognizedWord]]:
        """Where to cut the buffer, and the words that are committed with it."""
        buffer, rule = self._buffer, self._rule
        cut = word_cut(rule, buffer.end_s)
        if cut is not None and cut.at_s <= buffer.start_s:
            cut = None
        if buffer.room or (cut is not None and cut.at_s > buffer.start_s + self._settings.every_s):
            return cut, []
        forced = rule.force(buffer.end_s - UNFINISHED_S)
        behind = word_cut(rule, buffer.end_s, "limit") if forced else None
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
    return replace(after, committed=before.committed + after.committed, cut=after.cut or before.cut)


def _last_words(text: str) -> str:
    """The end of a text, in whole words, as long as a prompt may be."""
    if len(text) <= PROMPT_CHARACTERS:
        return text
    return text[-PROMPT_CHARACTERS:].partition(" ")[2]


STRIKES: Final = 3  # a step is taken after so many late answers, or so many seconds without progress
HEADWAY_S: Final = 0.5  # progress: the queue beyond the budget shrinks by so much per second of audio taken
FORGIVING_S: Final = 30.0  # after so long without a late answer, the large model is tried again
REST_S: Final = 10.0  # after so long without text, recognition is tried again
LONGEST: Final = 16  # each failure doubles both, up to so many times their length
FORGETTING_S: Final = 300.0  # after so long with the large model in time, failures are forgotten
IN_TIME: Final = 1 / 3  # an answer is in time if at most this share of the budget is queued


class LagStep(IntEnum):
    """How far recognition has been reduced."""

    NONE = 0  # the chosen model answers; queued audio is taken in first (coalesced)
    SMALLER = 1  # the smaller model answers
    MISSING = 2  # nothing is recognised: the text is missing


class LagController:
    """Decides how far recognition is reduced, from the audio that is queued after each answer. Pure.

    A stage that is behind first takes in all queued audio and then asks for words (coalescing). So it asks
    less often as answers get slower, and the lag stays at the length of one answer. This controller acts
    when that length alone is more than the budget.
    """

    def __init__(self, budget_s: float, *, has_smaller: bool) -> None:
        """`budget_s`: how much audio may be queued; `has_smaller`: there is a smaller model."""
        self._budget_s = budget_s
        self._has_smaller = has_smaller
        self.step = LagStep.NONE
        self._strikes = 0
        self._taken_s = 0.0  # audio taken in since the last check of progress
        self._waited_s = 0.0  # audio queued at that check
        self._calm_s = 0.0  # since the last late answer
        self._rested_s = 0.0  # since the text went missing
        self._shrunk = 0  # how often SMALLER was entered
        self._missed = 0  # how often MISSING was entered

    def answered(self, waiting_s: float) -> LagStep:
        """Take note of an answer after which `waiting_s` of audio are queued; return the new step."""
        self._taken_s, self._waited_s = 0.0, waiting_s
        if waiting_s > self._budget_s:
            self._strike()
        elif waiting_s <= self._budget_s * IN_TIME:
            self._strikes = max(0, self._strikes - 1)
        return self.step

    def taken(self, seconds: float, waiting_s: float) -> LagStep:
        """Take note of `seconds` of audio taken in and `waiting_s` still queued; return the new step.

        A recogniser may also be slow at taking in audio. If more than the budget is queued and the queue
        hardly shrinks, that counts like a late answer.
        """
        self._taken_s += seconds
        if self._taken_s >= 1.0:
            if waiting_s > self._budget_s and waiting_s > self._waited_s - HEADWAY_S * self._taken_s:
                self._strike()
            self._taken_s, self._waited_s = 0.0, waiting_s
        return self.step

    def _strike(self) -> None:
        self._strikes += 1
        self._calm_s = 0.0
        if self._strikes >= STRIKES:
            self._strikes = 0
            if self.step == LagStep.NONE and self._has_smaller:
                self.step = LagStep.SMALLER
                self._shrunk += 1
            else:
                self.step = LagStep.MISSING
                self._missed += 1
                self._rested_s = 0.0

    def passed(self, seconds: float) -> LagStep:
        """Take note of `seconds` of stream time, silence included; return the new step."""
        if self.step == LagStep.MISSING:
            self._rested_s += seconds
            if self._rested_s >= _doubled(REST_S, self._missed):
                self.step = LagStep.SMALLER if self._has_smaller else LagStep.NONE
                self._calm_s = 0.0
            return self.step
        self._calm_s += seconds
        if self.step == LagStep.SMALLER and self._calm_s >= _doubled(FORGIVING_S, self._shrunk):
            self.step = LagStep.NONE
            self._calm_s = 0.0
        if self.step == LagStep.NONE and self._calm_s >= FORGETTING_S:
            self._shrunk = self._missed = 0
        return self.step


def _doubled(seconds: float, failures: int) -> float:
    return float(seconds * min(2 ** max(0, failures - 1), LONGEST))
