"""The speech stage: sound in, the words of the last half minute out; the newest may still change.

`KeepingUp` decides what is skipped when the recogniser is too slow. `CaptureTimeline` notes the capture
time of each chunk of an utterance, since sound cards' clocks drift.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from emi_live.clock import NS_PER_S, seconds_to_ns
from emi_live.config import SpeechConfig
from emi_live.health import Health
from emi_live.messages import NOTHING_YET, Hearing, Packet, TranscriptPacket, Word, end_of_stream
from emi_live.rings import SAMPLE_RATE_HZ, AudioReader
from emi_live.stages.audio import Chunk, ChunkReader
from emi_models.speech import AUTO, LANGUAGES
from emi_models.speech.guards import GuardSettings
from emi_models.speech.incremental import (
    Endpointer,
    IncrementalRecognizer,
    IncrementalSettings,
    LagController,
    LagStep,
    Piece,
    Update,
)
from emi_models.speech.recognizer import Transcript

if TYPE_CHECKING:
    from emi_models.encoders.voice_activity import VoiceGate
    from emi_models.speech.recognizer import Recognizer

__all__ = ["CaptureTimeline", "KeepingUp", "SpeechStage"]

COUNTERS: Final = {LagStep.SMALLER: "shrunk", LagStep.MISSING: "given_up"}
SMOOTHING: Final = 0.3  # weight of the newest answer
BUSY: Final = 0.6  # most of the time that recognising may take, while there is speech


class KeepingUp:
    """Asks for words as often as the machine can answer, and carries out what `LagController` decides.

    After an answer that took a second, words are asked for again after 1.7 s of sound at the earliest, so
    that no sound queues up. Each step beyond that is reported: a counter and the part's status. Counters, of
    the part: `shrunk` and `given_up` count the steps, `skipped_samples` the sound that was left out while the
    text was missing.
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
        self._answer_s = 0.0  # how long an answer takes, smoothed

    @property
    def missing(self) -> bool:
        """Whether nothing is recognised for now."""
        return self._step == LagStep.MISSING

    @property
    def left_out_s(self) -> float:
        """Seconds of speech left out since then; 0 while words are recognised."""
        return self._left_out / SAMPLE_RATE_HZ if self.missing else 0.0

    @property
    def every_s(self) -> float:
        """The least sound between two questions."""
        return self._answer_s / BUSY

    def passed(self, samples: int) -> None:
        """So many samples have been taken in, of speech or silence."""
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

    def answered(self, waiting: int, took_s: float) -> None:
        """The recogniser has answered after so long, and so many samples wait now."""
        self._answer_s += (took_s - self._answer_s) * (SMOOTHING if self._answer_s else 1.0)
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


KEPT_SAMPLES: Final = 40 * SAMPLE_RATE_HZ  # longer than a recogniser's buffer


class CaptureTimeline:
    """Maps seconds of an utterance, counted in samples, to capture time."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Start an utterance."""
        self._size = 0
        self._ends: deque[tuple[int, int]] = deque()  # samples so far, the capture time at which they end

    def add(self, samples: int, end_ns: int) -> None:
        """The next samples end at `end_ns`."""
        self._size += samples
        self._ends.append((self._size, end_ns))
        while self._ends[0][0] < self._size - KEPT_SAMPLES:
            self._ends.popleft()

    def at(self, seconds: float) -> int:
        """The capture time of a moment, in nanoseconds."""
        sample = round(seconds * SAMPLE_RATE_HZ)
        after = next((noted for noted in self._ends if noted[0] >= sample), self._ends[-1])
        return after[1] + (sample - after[0]) * NS_PER_S // SAMPLE_RATE_HZ


PROGRESS_CHUNKS: Final = 6  # 192 ms: nobody waits longer to learn that nothing was said
KEPT_NS: Final = 30 * NS_PER_S
HOLE_STEP_NS: Final = NS_PER_S  # between two packets that let words grow old while no sound comes


class SpeechStage:
    """Recognises what is said while it is said: voice gate, then incremental recognition of utterances.

    It works on chunks of 512 samples, counted from the start or the last gap. A packet follows each chunk
    that changed the words, and every sixth chunk in any case: so packets are the same however the sound was
    cut into blocks. Words are partial at first and committed once hypotheses agree on them, or when their
    utterance ends; what is committed does not change. In `exact` mode the words are asked for every
    `partial_every_s` of an utterance; live, that waits (`speech.coalesced`) until all sound that has arrived
    is taken in, and what is given up beyond that is `KeepingUp`'s business.

    Without sound for `no_data_s` the utterance is over, and the packets say `no data`, which is not silence.
    In `exact` mode it is over where a gap begins, and `no data` is said at set times of the gap for as long
    as there are words; packets that repeat the last one say how far the sound has been read.
    Sound overwritten before it was read is counted as `speech.lost_samples`; a gap ends the utterance.
    """

    name = "speech"
    topic = "transcript"

    def __init__(
        self,
        reader: AudioReader,
        gate: VoiceGate,
        recognizer: Recognizer | None,
        config: SpeechConfig,
        *,
        exact: bool,
        health: Health,
        smaller: Recognizer | None = None,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Without a recogniser the packets carry progress alone.

        Args:
            reader: of the ring with the sound.
            gate: for this stream alone.
            recognizer: for this stage alone.
            config: `speech.*`.
            exact: words are asked for at set times of the sound, however long an answer takes.
            health: gets counters and the status.
            smaller: the recogniser that answers when `recognizer` is too slow.
            timer: seconds, by which answers are timed.
        """
        self._chunks = ChunkReader(reader, self.name, health)
        self._gate = gate
        self._endpointer = Endpointer(config.voice_threshold, config.min_silence_s, config.preroll_s)
        self._words = None if recognizer is None else IncrementalRecognizer(recognizer, settings_of(config))
        self._keeping_up = (
            None
            if exact or self._words is None
            else KeepingUp(self._words, smaller, config.lag_budget_s, self.name, health)
        )
        self._exact = exact
        self._partial_every = round(config.partial_every_s * SAMPLE_RATE_HZ)
        self._no_data_ns = seconds_to_ns(config.no_data_s)
        self._timer = timer
        self._language = config.language
        self._told_language = ""
        self._spoken: str | None = None  # the language of the newest hypothesis
        self._health = health
        self._timeline = CaptureTimeline()
        self._transcript = Transcript()
        self._counted: Counter[str] = Counter()
        self._quiet_chunks = 0  # since the last packet
        self._open = False  # the recogniser has an utterance under way
        self._committed: deque[Word] = deque()
        self._partial: list[Word] = []
        self._withdrawn: tuple[int, ...] = ()  # since the last packet
        self._heard_ns: int | None = None  # when sound was last there to be read; None: never
        self._no_data = not exact
        self._last_ns = 0
        self._after_gap = False  # no sound has come since one
        self._told: TranscriptPacket | None = None  # the last packet
        self._covered_ns: int | None = None  # up to here, hypotheses cover what was said; None: all of it
        self._arrived_ns = 0
        self.ended = False

    def wait(self, timeout_s: float) -> bool:
        """Wait for sound."""
        return self._chunks.wait(timeout_s)

    def step(self, now_ns: int) -> Sequence[Packet]:
        """The packets of the next quarter of a second of sound, if it has arrived."""
        packets = [packet for chunk in self._chunks.read() for packet in self._take(chunk, now_ns)]
        packets += self._pass(self._chunks.hole_until_ns)
        if self._chunks.ended and not self.ended:
            packets += [*self._close(), end_of_stream(self.topic, self._last_ns)]
            self.ended = True  # not before: what fails is tried again
        elif self._falls_silent(now_ns):
            self._no_data = True
            self._health.count("speech.no_data")
            packets += list(self._close()) or [self._packet()]
        elif (progress_ns := self._chunks.promise()) is not None:
            nothing = TranscriptPacket(t_ns=NOTHING_YET, progress_ns=0, words=(), hearing="no data")
            packets.append(replace(self._told or nothing, withdrawn=(), progress_ns=progress_ns))
        return packets

    def reset(self) -> None:
        """Drop the utterance under way; words that were committed stay said."""
        self._drop()
        self._start_afresh()

    def close(self) -> None:
        """Leave the input."""
        self._chunks.close()

    def _falls_silent(self, now_ns: int) -> bool:
        """Whether it is now that no sound has come for too long."""
        return (
            not (self._exact or self._no_data)
            and self._heard_ns is not None
            and now_ns - self._heard_ns >= self._no_data_ns
        )

    def _pass(self, until_ns: int | None) -> Iterator[Packet]:
        """What is said of a gap up to there, the same however it becomes known."""
        if not self._after_gap or until_ns is None:
            return
        step_ns = HOLE_STEP_NS if self._no_data else self._no_data_ns
        while (due_ns := self._last_ns + step_ns) < until_ns and (self._committed or not self._no_data):
            if not self._no_data:
                self._no_data, step_ns = True, HOLE_STEP_NS
                self._health.count("speech.no_data")
            self._last_ns = due_ns
            yield self._packet()

    def _take(self, chunk: Chunk, now_ns: int) -> Iterator[Packet]:
        if chunk.samples.size:
            yield from self._pass(chunk.start_ns)
            self._after_gap = False
        self._last_ns, self._arrived_ns = chunk.end_ns, chunk.arrived_ns
        if chunk.samples.size:
            self._heard_ns, self._no_data = now_ns, False
            if self._keeping_up is not None:
                self._keeping_up.passed(chunk.samples.size)
        if chunk.whole:
            yield from self._hear(chunk.samples)
        elif chunk.samples.size and self._endpointer.speaking:
            self._recognize(Piece(chunk.samples, first=False, last=False))
        if chunk.gap_after:
            yield from self._close()
            self._after_gap = self._exact

    def _hear(self, chunk: NDArray[np.float32]) -> Iterator[Packet]:
        probability = float(self._gate.push(chunk)[0])
        changed = False
        for piece in self._endpointer.push(chunk, probability):
            changed |= self._recognize(piece)
        self._quiet_chunks += 1
        if changed or self._quiet_chunks >= PROGRESS_CHUNKS:
            yield self._packet()

    def _close(self) -> Iterator[Packet]:
        """End the utterance, at a gap, without sound, or at the end of the stream."""
        changed = False
        for piece in self._endpointer.flush():
            changed |= self._recognize(piece)
        self._start_afresh()
        if changed:
            yield self._packet()

    def _recognize(self, piece: Piece) -> bool:
        """Pass a piece to the recogniser; whether what is shown has changed."""
        words, keeping_up = self._words, self._keeping_up
        if words is None:
            return False
        if piece.first:
            self._health.count("speech.utterances")
        if keeping_up is not None and not keeping_up.take(piece.samples.size, self._chunks.backlog):
            return self._drop()
        if piece.first or not self._open:  # not the first: what came before was left out
            self._timeline.begin()
            self._covered_ns = self._last_ns - piece.samples.size * NS_PER_S // SAMPLE_RATE_HZ
            words.begin()
            self._open = True
        changed = False
        if piece.samples.size:
            self._timeline.add(piece.samples.size, self._last_ns)
            behind = keeping_up is not None and self._chunks.backlog >= self._partial_every
            wait = behind or (keeping_up is not None and words.unasked_s < keeping_up.every_s)
            start_s = self._timer()
            changed = self._answered(words.push(piece.samples, piece.voiced, wait=wait), start_s)
            if behind and words.due:
                self._health.count("speech.coalesced")
        if piece.last and self._open:
            start_s = self._timer()
            changed |= self._answered(words.finish(), start_s)
            self._tell_language(words)
            self._open = False
        return changed

    def _answered(self, update: Update | None, start_s: float) -> bool:
        """Take in what the recogniser said, and look how much sound has come meanwhile."""
        if update is None:
            return False
        self._covered_ns = self._last_ns
        self._spoken = (self._words and self._words.language) or self._spoken
        changed = self._show(update)
        if self._keeping_up is not None:
            self._keeping_up.answered(self._chunks.backlog, self._timer() - start_s)
        return changed

    def _tell_language(self, words: IncrementalRecognizer) -> None:
        """Say, at the end of an utterance, in which language it was, if that is news."""
        other, language = words.other_language, words.language
        if other is not None:
            self._health.count("speech.other_language")
        if other is not None and other != self._told_language:
            self._told_language = other
            self._health.report(
                self.name,
                "running",
                f"this sounds like {LANGUAGES.get(other, other)}, but speech.language is {self._language}: "
                f"--set speech.language={other}, or auto; for a language other than English also "
                "--set speech.translate=true",
            )
        if self._language == AUTO and language is not None and language != self._told_language:
            self._told_language = language
            self._health.report(self.name, "running", f"the language is {LANGUAGES.get(language, language)}")

    def _show(self, update: Update) -> bool:
        """Number and time the words of an update; whether what is shown has changed."""
        spoken = (*update.certain, *update.tentative)
        marks, withdrawn = self._transcript.show(
            [word.text for word in update.certain], [word.text for word in update.tentative]
        )
        self._withdrawn += withdrawn
        shown = [
            Word(
                word.text,
                self._timeline.at(word.start_s),
                self._timeline.at(word.end_s),
                index < len(update.certain),
                mark.number,
                mark.revises,
            )
            for index, (word, mark) in enumerate(zip(spoken, marks, strict=True))
        ]
        self._committed += shown[: len(update.certain)]
        partial = shown[len(update.certain) :]
        changed = bool(update.certain or withdrawn) or partial != self._partial
        self._partial = partial
        if update.cut is not None:
            self._health.count(f"speech.cut_{update.cut}")
        self._count()
        return changed

    def _count(self) -> None:
        """Tell health what has been counted elsewhere since the last time."""
        now = Counter({"speech.words": self._transcript.certain, "speech.erased": self._transcript.erased})
        if self._words is not None:
            now.update({f"speech.guard_{guard}": count for guard, count in self._words.dropped.items()})
        for name, count in (now - self._counted).items():
            self._health.count(name, count)
        self._counted = now

    def _packet(self) -> TranscriptPacket:
        self._quiet_chunks = 0
        while self._committed and self._committed[0].end_ns <= self._last_ns - KEPT_NS:
            self._committed.popleft()
        withdrawn, self._withdrawn = self._withdrawn, ()
        self._told = TranscriptPacket(
            t_ns=self._last_ns,
            progress_ns=self._last_ns - self._endpointer.speaking,  # its last words may come at the same time
            arrived_ns=self._arrived_ns,
            words=(*self._committed, *self._partial),
            withdrawn=withdrawn,
            hearing=self._hearing,
            behind=self._keeping_up is not None and self._keeping_up.missing,
            behind_s=self._behind_s,
            left_out_s=0.0 if self._keeping_up is None else self._keeping_up.left_out_s,
            language=self._spoken,
        )
        return self._told

    @property
    def _behind_s(self) -> float:
        """Of the utterance under way, how much no hypothesis covers."""
        if not self._open or self._covered_ns is None:
            return 0.0
        return max(0, self._last_ns - self._covered_ns) / NS_PER_S

    @property
    def _hearing(self) -> Hearing:
        if self._no_data:
            return "no data"
        return "speaking" if self._endpointer.speaking else "silent"

    def _drop(self) -> bool:
        """Take back the words that are not committed; whether there were any."""
        if self._words is not None:
            self._words.drop()
        self._open = False
        changed = bool(self._partial)
        self._show(Update((), ()))
        return changed

    def _start_afresh(self) -> None:
        self._gate.reset()
        self._endpointer.reset()


def settings_of(config: SpeechConfig) -> IncrementalSettings:
    """What the incremental recogniser is to do."""
    return IncrementalSettings(
        every_s=config.partial_every_s,
        agreement=config.agreement,
        edge_s=config.edge_s if config.commit == "alignment" else None,
        trim_s=config.trim_s,
        limit_s=config.limit_s,
        guards=GuardSettings(config.most_no_speech, config.least_log_probability, config.most_compression),
    )
