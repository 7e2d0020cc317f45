"""The protocol of speech recognisers, and the types that they and the incremental layer exchange.

Whisper and PocketSphinx implement `Recognizer`. `Mark` numbers a shown word, so that a revision can say which
word it replaces. `read_frame` and `write_frame` carry requests to a recogniser in a separate process: a
letter, the length of the rest as 4 bytes (little-endian), and that many bytes. Requests: `b`egin (the
prompt), `a`ccept (float32 samples), `h`ypothesis, `f`inish, `r`eset, `t`ogether (utterances in MessagePack).
Each is answered by one frame `w`ords (JSON; a list for `t`) or `e`rror (text).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from typing import IO, TYPE_CHECKING, Final, Protocol, runtime_checkable

from emi_models.speech.agreement import spoken_form

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "ACCEPT",
    "BEGIN",
    "ERROR",
    "FINISH",
    "FORGET",
    "HYPOTHESIS",
    "TOGETHER",
    "WORDS",
    "BatchRecognizer",
    "Batching",
    "Hypothesis",
    "Mark",
    "RecognizedWord",
    "Recognizer",
    "Segment",
    "Transcript",
    "Utterance",
    "read_frame",
    "write_frame",
]


@dataclass(frozen=True, slots=True)
class RecognizedWord:
    """One word, as the recogniser spells it, and when it was spoken."""

    text: str
    start_s: float  # seconds since the first sample after `begin`
    end_s: float
    probability: float  # as the recogniser estimates it, in [0, 1]

    def later(self, seconds: float) -> RecognizedWord:
        """The same word by a clock that started so much earlier."""
        return replace(self, start_s=self.start_s + seconds, end_s=self.end_s + seconds)


@dataclass(frozen=True, slots=True)
class Segment:
    """Words that were decoded together, and how probable they are; None if the recogniser does not say.

    Attributes:
        words: in order of time.
        no_speech: probability that nothing was said, in [0, 1].
        log_probability: mean over the tokens, natural logarithm, at most 0.
        stopped: decoding was stopped at its limit; most likely the recogniser repeats itself.
    """

    words: tuple[RecognizedWord, ...]
    no_speech: float | None = None
    log_probability: float | None = None
    stopped: bool = False


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """What a recogniser returns for the audio since `begin`.

    Attributes:
        segments: in order of time.
        language: code of the language, as set or recognised; None: not known yet.
        other_language: code of the language that is spoken, if another one was set.
    """

    segments: tuple[Segment, ...] = ()
    language: str | None = None
    other_language: str | None = None

    @property
    def words(self) -> tuple[RecognizedWord, ...]:
        """All words, in order of time."""
        return tuple(word for segment in self.segments for word in segment.words)

    def with_words(self, words: Sequence[RecognizedWord]) -> Hypothesis:
        """The same segments with other words; each word goes to the segment in whose time it begins."""
        if tuple(words) == self.words:
            return self
        rest = list(words)
        segments = []
        for index, segment in enumerate(self.segments):
            following = self.segments[index + 1 :]
            until_s = next((one.words[0].start_s for one in following if one.words), float("inf"))
            count = next((place for place, word in enumerate(rest) if word.start_s >= until_s), len(rest))
            segments.append(replace(segment, words=tuple(rest[:count])))
            rest = rest[count:]
        return replace(self, segments=tuple(segments))

    def later(self, seconds: float) -> Hypothesis:
        """The same by a clock that started so much earlier."""
        return replace(
            self,
            segments=tuple(
                replace(segment, words=tuple(word.later(seconds) for word in segment.words))
                for segment in self.segments
            ),
        )


class Recognizer(Protocol):
    """Turns audio into words. Has no clock: the same audio in the same blocks gives the same words.

    Calls come from one thread in this order: `begin`, then `accept` and `hypothesis` in any number and
    order, then `finish`; then `begin` again, or `close`. What it learns about the microphone is kept for the
    next `begin`; words are not.
    """

    @property
    def name(self) -> str:
        """Engine and model, as shown to the user."""
        ...

    @property
    def agreement(self) -> int:
        """How many hypotheses must agree on a word before it is committed."""
        ...

    def begin(self, prompt: str = "") -> None:
        """Start again; an unfinished utterance is dropped.

        Args:
            prompt: the words before, for a recogniser that can use them.
        """
        ...

    def accept(self, samples: NDArray[np.float32]) -> None:
        """Take the next samples, shape (n,), 16 kHz mono, in [-1, 1]."""
        ...

    def hypothesis(self) -> Hypothesis:
        """The words so far; all of them may still change."""
        ...

    def finish(self) -> Hypothesis:
        """The words of all accepted audio; ends the utterance."""
        ...

    def forget(self) -> None:
        """Drop what was accepted and what was learnt about the microphone: the state after loading."""
        ...

    def close(self) -> None:
        """Release the model."""
        ...


@dataclass(frozen=True, slots=True)
class Utterance:
    """All that a recogniser needs for one hypothesis.

    Attributes:
        samples: all since `begin`, shape (n,), 16 kHz mono, in [-1, 1].
        prompt: the words before, as of `begin`.
        last: the utterance has ended.
    """

    samples: NDArray[np.float32]
    prompt: str = ""
    last: bool = False


@dataclass(frozen=True, slots=True)
class Batching:
    """Which utterances a recogniser recognises in one call.

    Attributes:
        most: utterances of a call.
        step: samples; lengths are alike if they are the same number of whole steps, rounded up.
    """

    most: int
    step: int

    def kind(self, samples: int, prompt: str) -> int | None:
        """Utterances of the same kind may share a call; None: this one shares none, because of its prompt."""
        return None if prompt else -(-samples // self.step)


@runtime_checkable
class BatchRecognizer(Recognizer, Protocol):
    """A recogniser that can recognise utterances of several users in one call."""

    @property
    def batching(self) -> Batching | None:
        """Which utterances may share a call; None: none may."""
        ...

    def recognize(self, utterances: Sequence[Utterance]) -> list[Hypothesis]:
        """The words of each utterance, as alone; what was accepted since `begin` stays.

        Raises:
            ValueError: one is longer than the recogniser takes.
        """
        ...


@dataclass(frozen=True, slots=True)
class Mark:
    """A word's number, unique in its transcript, and the number of the word that it replaced."""

    number: int
    revises: int | None = None


class Transcript:
    """Numbers the words of successive displays, and counts how many were taken back. Pure.

    A word that is shown again keeps its number; case and punctuation do not matter. Erasure is counted as in
    simultaneous translation (Arivazhagan et al. 2020, arXiv:1912.03393, §3): the words that must be removed
    from the end of one display before the next one can be written by only adding words.
    """

    def __init__(self) -> None:
        self._next = 0
        self._open: list[tuple[str, Mark]] = []  # the partial words shown last: spoken form, mark
        self.erased = 0  # words shown and then taken back
        self.committed = 0  # words committed

    def show(self, committed: Sequence[str], partial: Sequence[str]) -> tuple[list[Mark], tuple[int, ...]]:
        """The marks of all words shown now, and the numbers of words that were removed without replacement.

        Args:
            committed: the words committed since the last display.
            partial: the words after them, which may still change.
        """
        before = [form for form, _ in self._open]
        now = [spoken_form(text) for text in (*committed, *partial)]
        self.erased += len(before) - _common_prefix(before, now)
        marks: list[Mark] = []
        withdrawn: list[int] = []
        for kind, a0, a1, b0, b1 in SequenceMatcher(None, before, now, autojunk=False).get_opcodes():
            old = [mark for _, mark in self._open[a0:a1]]
            if kind == "equal":
                marks += old
                continue
            marks += [self._new(old[index].number if index < len(old) else None) for index in range(b1 - b0)]
            withdrawn += [mark.number for mark in old[b1 - b0 :]]
        self.committed += len(committed)
        self._open = list(zip(now, marks, strict=True))[len(committed) :]
        return marks, tuple(withdrawn)

    def _new(self, revises: int | None) -> Mark:
        self._next += 1
        return Mark(self._next - 1, revises)


def _common_prefix(before: Sequence[str], now: Sequence[str]) -> int:
    count = 0
    for old, new in zip(before, now, strict=False):
        if old != new:
            break
        count += 1
    return count


BEGIN: Final = b"b"
ACCEPT: Final = b"a"
HYPOTHESIS: Final = b"h"
FINISH: Final = b"f"
FORGET: Final = b"r"
TOGETHER: Final = b"t"
WORDS: Final = b"w"
ERROR: Final = b"e"

HEADER: Final = struct.Struct("<cI")
MAX_BYTES: Final = 16 * 1024 * 1024  # over four minutes of audio: more is a fault, not a message


def write_frame(stream: IO[bytes], letter: bytes, payload: bytes = b"") -> None:
    """Send one frame and flush."""
    stream.write(HEADER.pack(letter, len(payload)) + payload)
    stream.flush()


def read_frame(stream: IO[bytes]) -> tuple[bytes, bytes] | None:
    """The next frame; None if the other side has closed the pipe.

    Raises:
        ValueError: the frame is larger than `MAX_BYTES`.
    """
    header = stream.read(HEADER.size)
    if len(header) < HEADER.size:
        return None
    letter, length = HEADER.unpack(header)
    if length > MAX_BYTES:
        raise ValueError(f"a frame of {length} bytes; the largest is {MAX_BYTES}")
    payload = stream.read(length)
    return (letter, payload) if len(payload) == length else None
