"""The speech stage: audio in, the words of the last half minute out; the newest may still change.

`LoadControl` decides what is skipped when the recogniser is too slow. `CaptureTimeline` keeps the capture
time of each chunk of an utterance, because sound cards' clocks drift.
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
    Update,
    UtteranceBlock,
)
from emi_models.speech.recognizer import Transcript

if TYPE_CHECKING:
    from emi_models.encoders.voice_activity import VoiceGate
    from emi_models.speech.recognizer import Recognizer

__all__ = ["CaptureTimeline", "LoadControl", "SpeechStage"]

COUNTERS: Final = {LagStep.SMALLER: "shrunk", LagStep.MISSING: "given_up"}
SMOOTHING: Final = 0.3  # weight of the newest answer
BUSY: Final = 0.6  # largest share of the time that recognition may take, while there is speech


class LoadControl:
    """Asks for words as often as the machine can answer, and carries out what `LagController` decides.

    After an answer that took a second, words are asked for again after 1.7 s of audio at the earliest, so
    that no audio is queued. Each further step is reported by a counter and the part's status. Counters of the
    part: `shrunk` and `given_up` count the steps, `skipped_samples` the audio that was not recognised.
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
        self._left_out = 0  # samples, since recognition was stopped
        self._answer_s = 0.0  # how long an answer takes, smoothed

    @property
    def missing(self) -> bool:
        """Whether recognition is stopped for now."""
        return self._step == LagStep.MISSING

    @property
    def left_out_s(self) -> float:
        """Seconds of speech that were skipped since then; 0 while words are recognised."""
        return self._left_out / SAMPLE_RATE_HZ if self.missing else 0.0

    @property
    def every_s(self) -> float:
        """The least audio between two hypotheses."""
        return self._answer_s / BUSY

    def passed(self, samples: int) -> None:
        """Take note that `samples` samples of speech or silence have passed."""
        self._go_to(self._lag.passed(samples / SAMPLE_RATE_HZ), 0.0)

    def take(self, samples: int, waiting: int) -> bool:
        """Whether to recognise the next `samples` samples of an utterance; `waiting` more are queued."""
        if not self.missing:
            waiting_s = waiting / SAMPLE_RATE_HZ
            self._go_to(self._lag.taken(samples / SAMPLE_RATE_HZ, waiting_s), waiting_s)
        if self.missing:
            self._left_out += samples
            self._health.count(f"{self._part}.skipped_samples", samples)
        return not self.missing

    def answered(self, waiting: int, took_s: float) -> None:
        """Take note of an answer that took `took_s`; `waiting` samples are queued now."""
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


PROGRESS_CHUNKS: Final = 6  # a packet at least every 192 ms, also without new words
KEPT_NS: Final = 30 * NS_PER_S
HOLE_STEP_NS: Final = NS_PER_S  # between two packets within a gap; words get older with each


class SpeechStage:
    """Recognises speech while it is spoken: voice gate, then incremental recognition of utterances.

    It works on chunks of 512 samples, counted from the start or the last gap. A packet follows each chunk
    that changed the words, and every sixth chunk in any case. So packets do not depend on how the audio was
    cut into blocks. Words are partial at first. They are committed when hypotheses agree on them, or when
    their utterance ends; then they do not change. In `exact` mode, words are asked for every
    `partial_every_s` of an utterance. In live mode, that waits until all queued audio is taken in
    (`speech.coalesced`), and `LoadControl` decides what is reduced beyond that.

    Without audio for `no_data_s`, the utterance ends, and packets say `no data`, which is not silence. In
    `exact` mode, the utterance ends where a gap begins, and `no data` is sent at fixed times of the gap as
    long as there are words. Packets that repeat the last one say how far the audio has been read. Audio that
    was overwritten before it was read is counted as `speech.lost_samples`; a gap ends the utterance.
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
            exact: words are asked for at fixed times of the stream, however long an answer takes.
            health: gets counters and the status.
            smaller: the recogniser that answers when `recognizer` is too slow.
            timer: seconds, by which answers are timed.
        """
        self._chunks = ChunkReader(reader, self.name, health)
        self._gate = gate
        self._endpointer = Endpointer(config.voice_threshold, config.min_silence_s, config.preroll_s)
        self._words = None if recognizer is None else IncrementalRecognizer(recognizer, settings_of(config))
        self._load_control = (
            None
            if exact or self._words is None
            else LoadControl(self._words, smaller, config.lag_budget_s, self.name, health)
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
        self._open = False  # the recogniser has an utterance that has not ended
        self._committed: deque[Word] = deque()
        self._partial: list[Word] = []
        self._withdrawn: tuple[int, ...] = ()  # since the last packet
        self._read_ns: int | None = None  # when audio was last read; None: never
        self._no_data = not exact
        self._last_ns = 0
        self._after_gap = False  # no audio has come since a gap
        self._told: TranscriptPacket | None = None  # the last packet
        self._covered_ns: int | None = None  # hypotheses cover the speech up to here; None: all of it
        self._arrived_ns = 0
        self.ended = False

    def wait(self, timeout_s: float) -> bool:
        """Wait for audio."""
        return self._chunks.wait(timeout_s)

    def step(self, now_ns: int) -> Sequence[Packet]:
        """The packets of the next quarter of a second of audio, if it has arrived."""
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
        """Drop the current utterance; committed words stay."""
        self._drop()
        self._start_afresh()

    def close(self) -> None:
        """Leave the input."""
        self._chunks.close()

    def _falls_silent(self, now_ns: int) -> bool:
        """Whether no audio has come for `no_data_s`, and this was not reported yet."""
        return (
            not (self._exact or self._no_data)
            and self._read_ns is not None
            and now_ns - self._read_ns >= self._no_data_ns
        )

    def _pass(self, until_ns: int | None) -> Iterator[Packet]:
        """The packets of a gap up to `until_ns`; they do not depend on how the gap became known."""
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
            self._read_ns, self._no_data = now_ns, False
            if self._load_control is not None:
                self._load_control.passed(chunk.samples.size)
        if chunk.whole:
            yield from self._hear(chunk.samples)
        elif chunk.samples.size and self._endpointer.speaking:
            self._recognize(UtteranceBlock(chunk.samples, first=False, last=False))
        if chunk.gap_after:
            yield from self._close()
            self._after_gap = self._exact

    def _hear(self, chunk: NDArray[np.float32]) -> Iterator[Packet]:
        probability = float(self._gate.push(chunk)[0])
        changed = False
        for block in self._endpointer.push(chunk, probability):
            changed |= self._recognize(block)
        self._quiet_chunks += 1
        if changed or self._quiet_chunks >= PROGRESS_CHUNKS:
            yield self._packet()

    def _close(self) -> Iterator[Packet]:
        """End the utterance: at a gap, without audio, or at the end of the stream."""
        changed = False
        for block in self._endpointer.flush():
            changed |= self._recognize(block)
        self._start_afresh()
        if changed:
            yield self._packet()

    def _recognize(self, block: UtteranceBlock) -> bool:
        """Pass a block to the recogniser; return whether the words have changed."""
        words, load_control = self._words, self._load_control
        if words is None:
            return False
        if block.first:
            self._health.count("speech.utterances")
        if load_control is not None and not load_control.take(block.samples.size, self._chunks.backlog):
            return self._drop()
        if block.first or not self._open:  # not the first: earlier blocks were skipped
            self._timeline.begin()
            self._covered_ns = self._last_ns - block.samples.size * NS_PER_S // SAMPLE_RATE_HZ
            words.begin()
            self._open = True
        changed = False
        if block.samples.size:
            self._timeline.add(block.samples.size, self._last_ns)
            behind = load_control is not None and self._chunks.backlog >= self._partial_every
            wait = behind or (load_control is not None and words.unasked_s < load_control.every_s)
            start_s = self._timer()
            changed = self._answered(words.push(block.samples, block.voiced, wait=wait), start_s)
            if behind and words.due:
                self._health.count("speech.coalesced")
        if block.last and self._open:
            start_s = self._timer()
            changed |= self._answered(words.finish(), start_s)
            self._tell_language(words)
            self._open = False
        return changed

    def _answered(self, update: Update | None, start_s: float) -> bool:
        """Take the recogniser's answer and note how much audio is queued; whether the words have changed."""
        if update is None:
            return False
        self._covered_ns = self._last_ns
        self._spoken = (self._words and self._words.language) or self._spoken
        changed = self._show(update)
        if self._load_control is not None:
            self._load_control.answered(self._chunks.backlog, self._timer() - start_s)
        return changed

    def _tell_language(self, words: IncrementalRecognizer) -> None:
        """Report the language at the end of an utterance, if it is new."""
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
        """Number and time the words of an update; return whether the words have changed."""
        spoken = (*update.committed, *update.partial)
        marks, withdrawn = self._transcript.show(
            [word.text for word in update.committed], [word.text for word in update.partial]
        )
        self._withdrawn += withdrawn
        shown = [
            Word(
                word.text,
                self._timeline.at(word.start_s),
                self._timeline.at(word.end_s),
                index < len(update.committed),
                mark.number,
                mark.revises,
            )
            for index, (word, mark) in enumerate(zip(spoken, marks, strict=True))
        ]
        self._committed += shown[: len(update.committed)]
        partial = shown[len(update.committed) :]
        changed = bool(update.committed or withdrawn) or partial != self._partial
        self._partial = partial
        if update.cut is not None:
            self._health.count(f"speech.cut_{update.cut}")
        self._count()
        return changed

    def _count(self) -> None:
        """Add to health what transcript and guards have counted since the last time."""
        now = Counter({"speech.words": self._transcript.committed, "speech.erased": self._transcript.erased})
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
            behind=self._load_control is not None and self._load_control.missing,
            behind_s=self._behind_s,
            left_out_s=0.0 if self._load_control is None else self._load_control.left_out_s,
            language=self._spoken,
        )
        return self._told

    @property
    def _behind_s(self) -> float:
        """Seconds of the current utterance that no hypothesis covers."""
        if not self._open or self._covered_ns is None:
            return 0.0
        return max(0, self._last_ns - self._covered_ns) / NS_PER_S

    @property
    def _hearing(self) -> Hearing:
        if self._no_data:
            return "no data"
        return "speaking" if self._endpointer.speaking else "silent"

    def _drop(self) -> bool:
        """Take back the partial words; return whether there were any."""
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
    """The settings of the incremental recogniser."""
    return IncrementalSettings(
        every_s=config.partial_every_s,
        agreement=config.agreement,
        edge_s=config.edge_s if config.commit == "alignment" else None,
        trim_s=config.trim_s,
        limit_s=config.limit_s,
        guards=GuardSettings(config.most_no_speech, config.least_log_probability, config.most_compression),
    )
