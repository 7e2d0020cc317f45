"""The demo: a scripted person, played through the real bus, window and fusion engine.

A smile grows, words come, the face is lost, speech stops, and everything returns. No camera, microphone,
encoder or download is needed: faces are drawn from the script; the sentence embeddings of its words and the
prosody of a synthesised voice were recorded once with the real encoders (`python -m tools.record_demo`).
All times are seconds from the start of the demo.
"""

from __future__ import annotations

import json
import math
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from emi_live.bus import Bus
from emi_live.clock import NS_PER_S, seconds_to_ns
from emi_live.errors import ConfigurationError
from emi_live.messages import AudioPacket, Packet, TranscriptPacket, VisionPacket, Word, end_of_stream
from emi_live.stages import Stage
from emi_live.stages.text import TextStage
from emi_models.inputs import COMPACT_SHAPES

__all__ = [
    "LENGTH_S",
    "RECORDING",
    "UTTERANCES",
    "RecordedSentences",
    "ScriptedStage",
    "Utterance",
    "demo_stages",
    "face_at",
    "recorded_prosody",
    "spoken",
    "transcript",
]

LENGTH_S: Final = 38.0
WORD_S: Final = 0.32  # a calm speaker: about three words a second


@dataclass(frozen=True, slots=True)
class Utterance:
    """One sentence, spoken word by word from `start_s` on; committed `settle_s` after its last word."""

    start_s: float
    text: str

    @property
    def words(self) -> list[str]:
        """The words, in order."""
        return self.text.split()

    @property
    def end_s(self) -> float:
        """When the last word ends."""
        return self.start_s + WORD_S * len(self.words)


UTTERANCES: Final = (
    Utterance(3.5, "oh stop it that is hilarious i can not stop laughing"),
    Utterance(10.0, "you did an amazing job i really admire how you handled that"),
    Utterance(24.0, "i am so excited i can not wait for this"),
    Utterance(30.5, "thank you so much i am so happy this makes my day"),
)
FACE_LOST_S: Final = (9.5, 14.0)
# (time, intensity) of the smile, joined by straight lines
SMILE: Final = (
    (0.0, 0.02),
    (1.5, 0.05),
    (5.0, 0.8),
    (9.5, 0.6),
    (14.0, 0.3),
    (17.0, 0.1),
    (22.0, 0.05),
    (26.0, 0.85),
)
# (time, intensity) of a laughing mouth, and of raised brows
LAUGH: Final = ((4.5, 0.0), (5.5, 1.0), (8.0, 1.0), (9.0, 0.2), (14.0, 0.0))
BROWS: Final = ((23.5, 0.0), (24.5, 1.0), (28.0, 1.0), (30.0, 0.0))
BLINK_EVERY_S: Final = 3.7
BLINK_S: Final = 0.15

# Positions in MediaPipe's list of 52 blendshapes.
BROWS_UP: Final = (3, 4, 5)
EYE_BLINK: Final = (9, 10)
EYE_SQUINT: Final = (19, 20)
EYE_WIDE: Final = (21, 22)
JAW_OPEN: Final = 25
LOWER_LIP_DOWN: Final = (34, 35)
MOUTH_SMILE: Final = (44, 45)
UPPER_LIP_UP: Final = (48, 49)
PITCH, YAW, ROLL = 52, 53, 54


def face_at(t_s: float) -> NDArray[np.float32] | None:
    """Blendshapes and head pose at an instant, shape (58,); None while the face is out of the picture."""
    if FACE_LOST_S[0] <= t_s < FACE_LOST_S[1]:
        return None
    features = np.zeros(COMPACT_SHAPES.vision_dim, np.float32)
    smile, laugh, brows = (
        float(np.interp(t_s, [at for at, _ in course], [strength for _, strength in course]))
        for course in (SMILE, LAUGH, BROWS)
    )
    features[list(MOUTH_SMILE)] = smile
    features[list(UPPER_LIP_UP)] = 0.65 * smile
    features[list(LOWER_LIP_DOWN)] = 0.3 * smile
    features[list(EYE_SQUINT)] = 0.2 + 0.25 * smile - 0.2 * brows
    features[list(EYE_WIDE)] = 0.4 * brows
    features[list(BROWS_UP)] = 0.08 + 0.65 * brows
    features[list(EYE_BLINK)] = 0.7 if t_s % BLINK_EVERY_S < BLINK_S else 0.1
    moving = 0.08 + 0.08 * math.sin(2 * math.pi * 4 * t_s) if spoken(t_s) else 0.02
    features[JAW_OPEN] = moving + 0.3 * laugh + 0.1 * brows
    features[PITCH] = 0.05 * math.sin(0.7 * t_s) - 0.15 * laugh
    features[YAW] = 0.12 * math.sin(0.4 * t_s)
    features[ROLL] = 0.03 * math.sin(0.9 * t_s)
    return features


def spoken(t_s: float) -> bool:
    """Whether somebody speaks at that instant."""
    return any(u.start_s <= t_s < u.end_s for u in UTTERANCES)


RECORDING: Final = Path(str(resources.files("emi_live"))) / "data" / "demo.safetensors"


def recorded_prosody() -> NDArray[np.float32]:
    """The prosody of the whole demo, (T, 73), 50 frames a second (stored in half precision)."""
    with safe_open(RECORDING, framework="np") as file:
        prosody: NDArray[np.float32] = file.get_tensor("prosody").astype(np.float32)
    return prosody


class RecordedSentences:
    """A sentence encoder that knows only the sentences of the script."""

    def __init__(self, table: dict[str, NDArray[np.float32]]) -> None:
        self._table = table

    @classmethod
    def load(cls) -> Self:
        """The embeddings in the package (stored in half precision)."""
        with safe_open(RECORDING, framework="np") as file:
            sentences = json.loads(file.metadata()["sentences"])
            vectors = file.get_tensor("embeddings").astype(np.float32)
        return cls(dict(zip(sentences, vectors, strict=True)))

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embeddings, shape (len(texts), 384).

        Raises:
            ConfigurationError: a sentence was never recorded.
        """
        unknown = [text for text in texts if text not in self._table]
        if unknown:
            raise ConfigurationError(
                f"the demo has no recorded embedding of {unknown[0]!r}; run `python -m tools.record_demo`"
            )
        return np.stack([self._table[text] for text in texts])


FRAME_S: Final = 1 / 30
BLOCK_FRAMES: Final = 2  # of prosody
BLOCK_S: Final = 0.02 * BLOCK_FRAMES
WORDS_EVERY_S: Final = 0.1
SETTLE_S: Final = 0.6  # silence after which a recogniser commits an utterance


class ScriptedStage:
    """A stage with prepared packets; `make(start_ns)` returns them for a start of the demo."""

    def __init__(self, name: str, topic: str, make: Callable[[int], Iterator[Packet]]) -> None:
        self.name = name
        self.topic = topic
        self._make = make
        self._due: deque[Packet] | None = None
        self._now_ns = 0
        self._pause = threading.Event()  # never set: only time ends a wait

    @property
    def ended(self) -> bool:
        """Whether the demo is over."""
        return self._due is not None and not self._due

    def wait(self, timeout_s: float) -> bool:
        """Wait for the time of the next packet, counted from the last step."""
        if not self._due:
            return True
        remaining_s = (self._due[0].t_ns - self._now_ns) / NS_PER_S
        self._pause.wait(min(timeout_s, max(remaining_s, 0.0)))
        return remaining_s <= timeout_s

    def step(self, now_ns: int) -> Sequence[Packet]:
        """The packets that became due since the last step."""
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
        """Do nothing: the stage reads no input."""


def demo_stages(bus: Bus, length_s: float) -> list[Stage]:
    """The scripted face, the recorded voice, and the real text stage over recorded embeddings.

    Args:
        bus: where the text stage receives the words.
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
    """The words that a recogniser would have recognised so far, ten times a second."""
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
