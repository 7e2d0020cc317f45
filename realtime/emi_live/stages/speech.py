"""The speech stage: sound in, the words of the last half minute out, the newest still open to change."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from emi_live.clock import NS_PER_S, seconds_to_ns
from emi_live.config import SpeechConfig
from emi_live.health import Health
from emi_live.messages import Packet, TranscriptPacket, Word, end_of_stream
from emi_live.rings import AudioReader
from emi_live.rings.audio import SAMPLE_RATE_HZ
from emi_live.stages.chunks import Chunk, ChunkReader
from emi_models.speech.endpointer import Endpointer, Piece

if TYPE_CHECKING:
    from emi_models.encoders.voice import VoiceGate
    from emi_models.speech.recognizer import RecognizedWord, Recognizer

__all__ = ["SpeechStage"]

PROGRESS_CHUNKS: Final = 6  # 192 ms: nobody waits longer to learn that nothing was said
KEPT_NS: Final = 30 * NS_PER_S


class SpeechStage:
    """Recognises what is said: voice gate, then a recogniser on growing utterances.

    It works on chunks of 512 samples, counted from the start or the last gap. A packet follows each chunk
    that changed the words, and every sixth chunk in any case: so packets are the same however the sound was
    cut into blocks. Words are partial while their utterance lasts and committed when it ends. In `exact`
    mode the partial words are asked for every `partial_every_s` of an utterance; live, that waits
    (`speech.coalesced`) until the stage has caught up.

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
    ) -> None:
        """Without a recogniser the packets carry progress alone."""
        self._chunks = ChunkReader(reader, self.name, health)
        self._gate = gate
        self._recognizer = recognizer
        self._endpointer = Endpointer(
            config.voice_threshold, config.min_silence_s, config.preroll_s, config.max_utterance_s
        )
        self._partial_every = round(config.partial_every_s * SAMPLE_RATE_HZ)
        self._exact = exact
        self._health = health
        self._quiet_chunks = 0  # since the last packet
        self._utterance_ns = 0  # capture time of the first sample of the utterance
        self._unasked = 0  # samples since the recogniser was last asked
        self._committed: deque[Word] = deque()
        self._partial: list[Word] = []
        self._last_ns = 0
        self._arrived_ns = 0
        self.ended = False

    def wait(self, timeout_s: float) -> bool:
        """Wait for sound."""
        return self._chunks.wait(timeout_s)

    def step(self, now_ns: int) -> Sequence[Packet]:
        """The packets of the next quarter of a second of sound, if it has arrived."""
        packets = [packet for chunk in self._chunks.read() for packet in self._take(chunk)]
        if self._chunks.ended and not self.ended:
            self.ended = True
            packets += [*self._close(), end_of_stream(self.topic, self._last_ns)]
        return packets

    def reset(self) -> None:
        """Drop the utterance under way; words that were committed stay said."""
        self._start_afresh()
        self._partial = []

    def close(self) -> None:
        """Leave the input."""
        self._chunks.close()

    def _take(self, chunk: Chunk) -> Iterator[Packet]:
        self._last_ns, self._arrived_ns = chunk.end_ns, chunk.arrived_ns
        if chunk.whole:
            yield from self._hear(chunk.samples)
        elif chunk.samples.size and self._endpointer.speaking:
            self._recognize(Piece(chunk.samples, first=False, last=False))
        if chunk.gap_after:
            yield from self._close()

    def _hear(self, chunk: NDArray[np.float32]) -> Iterator[Packet]:
        probability = float(self._gate.push(chunk)[0])
        changed = False
        for piece in self._endpointer.push(chunk, probability):
            changed |= self._recognize(piece)
        self._quiet_chunks += 1
        if changed or self._quiet_chunks >= PROGRESS_CHUNKS:
            yield self._packet()

    def _close(self) -> Iterator[Packet]:
        """End the utterance, at a gap or the end of the stream."""
        changed = False
        for piece in self._endpointer.flush():
            changed |= self._recognize(piece)
        self._start_afresh()
        if changed:
            yield self._packet()

    def _recognize(self, piece: Piece) -> bool:
        """Pass a piece to the recogniser; whether the words have changed."""
        if self._recognizer is None:
            return False
        if piece.first:
            self._utterance_ns = self._last_ns - piece.samples.size * NS_PER_S // SAMPLE_RATE_HZ
            self._unasked = 0
            self._health.count("speech.utterances")
            self._recognizer.begin()
        if piece.samples.size:
            self._recognizer.accept(piece.samples)
            self._unasked += piece.samples.size
        before = self._partial
        if piece.last:
            self._committed += self._timed(self._recognizer.finish(), committed=True)
            self._partial = []
            return True
        if self._unasked < self._partial_every:
            return False
        if not self._exact and self._chunks.backlog >= self._partial_every:
            self._health.count("speech.coalesced")
            return False
        self._unasked = 0
        self._partial = self._timed(self._recognizer.hypothesis(), committed=False)
        return self._partial != before

    def _timed(self, words: Sequence[RecognizedWord], *, committed: bool) -> list[Word]:
        start_ns = self._utterance_ns
        return [
            Word(
                word.text,
                start_ns + seconds_to_ns(word.start_s),
                start_ns + seconds_to_ns(word.end_s),
                committed,
            )
            for word in words
        ]

    def _packet(self) -> TranscriptPacket:
        self._quiet_chunks = 0
        while self._committed and self._committed[0].end_ns <= self._last_ns - KEPT_NS:
            self._committed.popleft()
        return TranscriptPacket(
            t_ns=self._last_ns,
            progress_ns=self._last_ns,
            arrived_ns=self._arrived_ns,
            words=(*self._committed, *self._partial),
        )

    def _start_afresh(self) -> None:
        self._gate.reset()
        self._endpointer.reset()
