"""The scripted stages: packets of the show, each released when its moment has come."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from emi_live.bus import Bus
from emi_live.clock import NS_PER_S, seconds_to_ns
from emi_live.demo.recorded import RecordedSentences, recorded_prosody
from emi_live.demo.script import LENGTH_S, UTTERANCES, WORD_S, face_at, spoken
from emi_live.messages import AudioPacket, Packet, TranscriptPacket, VisionPacket, Word, end_of_stream
from emi_live.stages import Stage
from emi_live.stages.text import TextStage

__all__ = ["ScriptedStage", "demo_stages", "transcript"]

FRAME_S: Final = 1 / 30
BLOCK_FRAMES: Final = 2  # of prosody
BLOCK_S: Final = 0.02 * BLOCK_FRAMES
WORDS_EVERY_S: Final = 0.1
SETTLE_S: Final = 0.6  # silence after which a recogniser commits an utterance


class ScriptedStage:
    """A stage whose packets are known beforehand; `make(start_ns)` gives them for a start of the show."""

    def __init__(self, name: str, topic: str, make: Callable[[int], Iterator[Packet]]) -> None:
        self.name = name
        self.topic = topic
        self._make = make
        self._due: deque[Packet] | None = None
        self._now_ns = 0
        self._pause = threading.Event()  # never set: waiting for a moment of the script has no other trigger

    @property
    def ended(self) -> bool:
        """Whether the show is over."""
        return self._due is not None and not self._due

    def wait(self, timeout_s: float) -> bool:
        """Wait for the moment of the next packet, counted from the last step."""
        if not self._due:
            return True
        remaining_s = (self._due[0].t_ns - self._now_ns) / NS_PER_S
        self._pause.wait(min(timeout_s, max(remaining_s, 0.0)))
        return remaining_s <= timeout_s

    def step(self, now_ns: int) -> Sequence[Packet]:
        """The packets whose moment has come since the last step."""
        if self._due is None:
            self._due = deque(
                [*self._make(now_ns), end_of_stream(self.topic, now_ns + seconds_to_ns(LENGTH_S))]
            )
        self._now_ns = now_ns
        released = []
        while self._due and self._due[0].t_ns <= now_ns:
            released.append(self._due.popleft())
        return released

    def reset(self) -> None:
        """Nothing to forget."""

    def close(self) -> None:
        """There is no input to leave."""


def demo_stages(bus: Bus, length_s: float) -> list[Stage]:
    """The scripted face, the recorded voice, and the real text stage over recorded embeddings.

    Args:
        bus: where the text stage hears the words.
        length_s: the window, in seconds.
    """
    words = bus.subscriber(["transcript"])
    return [
        ScriptedStage("face", "vision", faces),
        ScriptedStage("audio", "audio", voices),
        ScriptedStage("speech", "transcript", transcript),
        TextStage(words, RecordedSentences.load(), length_s),
    ]


def faces(start_ns: int) -> Iterator[Packet]:
    """30 pictures a second, with a face or without."""
    for index in range(1, round(LENGTH_S / FRAME_S)):
        t_s = index * FRAME_S
        t_ns = start_ns + seconds_to_ns(t_s)
        features = face_at(t_s)
        yield VisionPacket(t_ns=t_ns, progress_ns=t_ns, faces=int(features is not None), features=features)


def voices(start_ns: int) -> Iterator[Packet]:
    """Prosody at 50 Hz, two frames a packet."""
    prosody = recorded_prosody()
    last_voice_ns: int | None = None
    for index in range(1, round(LENGTH_S / BLOCK_S)):
        t_s = index * BLOCK_S
        t_ns = start_ns + seconds_to_ns(t_s)
        if spoken(t_s):
            last_voice_ns = t_ns
        frames = prosody[BLOCK_FRAMES * (index - 1) : BLOCK_FRAMES * index]
        yield AudioPacket(t_ns=t_ns, progress_ns=t_ns, frames=frames, last_voice_ns=last_voice_ns)


def transcript(start_ns: int) -> Iterator[TranscriptPacket]:
    """What a recogniser would have understood so far, ten times a second."""
    for index in range(1, round(LENGTH_S / WORDS_EVERY_S)):
        t_s = index * WORDS_EVERY_S
        t_ns = start_ns + seconds_to_ns(t_s)
        words = []
        for utterance in UTTERANCES:
            for place, text in enumerate(utterance.words):
                from_s = utterance.start_s + place * WORD_S
                if from_s + WORD_S <= t_s:
                    committed = t_s >= utterance.end_s + SETTLE_S
                    from_ns, until_ns = seconds_to_ns(from_s), seconds_to_ns(from_s + WORD_S)
                    words.append(Word(text, start_ns + from_ns, start_ns + until_ns, committed))
        recent = tuple(word for word in words if word.end_ns > t_ns - 30 * NS_PER_S)
        yield TranscriptPacket(t_ns=t_ns, progress_ns=t_ns, words=recent)
