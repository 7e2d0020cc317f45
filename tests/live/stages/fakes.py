"""Encoders that need no model, and the shortest way to run a stage to its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from emi_live.messages import Packet
from emi_live.stages import Stage
from emi_models.encoders.face import FaceResult
from emi_models.encoders.voice_activity import CHUNK_SAMPLES
from emi_models.encoders.wav2vec import frames_for
from emi_models.encoders.wav2vec_stream import WindowFrames
from emi_models.speech.recognizer import Hypothesis, RecognizedWord, Segment

RATE_HZ = 16_000
WORD_SAMPLES = 4000  # a scripted word lasts a quarter of a second


class LoudnessGate:
    """A voice gate that takes whatever is loud for voice."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._rest = np.empty(0, np.float32)

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        heard = np.concatenate((self._rest, samples))
        whole = heard.size // CHUNK_SAMPLES
        self._rest = heard[whole * CHUNK_SAMPLES :]
        chunks = heard[: whole * CHUNK_SAMPLES].reshape(whole, CHUNK_SAMPLES)
        loud: NDArray[np.bool_] = np.abs(chunks).max(axis=1, initial=0.0) > 0.05
        return loud.astype(np.float32)


class ScriptedRecognizer:
    """Hears one word in each quarter of a second of an utterance; of the last, until it is over, a sound."""

    name = "scripted"
    agreement = 2

    def __init__(self, fail_at: int | None = None, languages: Sequence[str] = ()) -> None:
        """`languages`: of each utterance in turn; not known after the last."""
        self._languages = languages
        self.utterances: list[NDArray[np.float32]] = []
        self.closed = False
        self._parts: list[NDArray[np.float32]] | None = None
        self._fail_at = fail_at
        self.fails_to_finish = False

    def begin(self, prompt: str = "") -> None:
        self._parts = []

    def accept(self, samples: NDArray[np.float32]) -> None:
        assert self._parts is not None, "begin() comes first"
        self._parts.append(samples)
        if len(self.utterances) == self._fail_at:
            self._fail_at = None
            raise RuntimeError("the recogniser broke down")

    def hypothesis(self) -> Hypothesis:
        return self._words(np.concatenate(self._parts or [np.empty(0, np.float32)]).size, over=False)

    def finish(self) -> Hypothesis:
        assert self._parts is not None
        if self.fails_to_finish:
            self.fails_to_finish = False
            raise RuntimeError("the recogniser broke down at the end")
        self.utterances.append(np.concatenate([np.empty(0, np.float32), *self._parts]))
        self._parts = None
        return self._words(self.utterances[-1].size, over=True)

    def forget(self) -> None:
        self._parts = None

    def close(self) -> None:
        self.closed = True

    def _words(self, size: int, *, over: bool) -> Hypothesis:
        number = len(self.utterances) - over
        whole = size // WORD_SAMPLES
        words = [f"u{number}w{k}" for k in range(whole)] + ["…"] * (not over and size % WORD_SAMPLES > 0)
        heard = [
            RecognizedWord(text, k * WORD_SAMPLES / RATE_HZ, (k + 1) * WORD_SAMPLES / RATE_HZ, 1.0)
            for k, text in enumerate(words)
        ]
        language = self._languages[number] if number < len(self._languages) else None
        return Hypothesis((Segment(tuple(heard)),), language)


class BrightnessFace:
    """A face encoder that sees a face in every frame that is not black."""

    def __init__(self) -> None:
        self.resets = 0
        self.closed = False

    def follow(self, wish: object) -> None:
        pass

    def analyse(self, rgb: NDArray[np.uint8], t_ns: int) -> FaceResult:
        if not rgb.any():
            return FaceResult(0, None, None)
        return FaceResult(1, np.full(58, rgb[0, 0, 0], np.float32), None)

    def reset(self) -> None:
        self.resets += 1

    def close(self) -> None:
        self.closed = True


class MeshFace(BrightnessFace):
    """Sees a face in every frame that is not black; `place` says where its middle lies, by frame."""

    def __init__(self, place: Callable[[int], tuple[float, float]] = lambda t_ns: (0.5, 0.5)) -> None:
        super().__init__()
        self._place = place
        points = np.random.default_rng(0).uniform(-0.2, 0.2, (478, 2))
        points[[33, 133]], points[[362, 263]] = (-0.1, -0.05), (0.1, -0.05)
        self._points = points

    def analyse(self, rgb: NDArray[np.uint8], t_ns: int) -> FaceResult:
        seen = super().analyse(rgb, t_ns)
        if seen.features is None:
            return seen
        return FaceResult(1, seen.features, None, (self._points + self._place(t_ns)).astype(np.float32))


class BatchEncoder:
    """A vision transformer that tells a crop's largest value, and with how many it came; it keeps crops."""

    side_px = 64

    def __init__(self) -> None:
        self.seen: list[NDArray[np.uint8]] = []

    def encode(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        assert crops.shape[1:] == (64, 64, 3)
        self.seen += list(crops)
        return np.array([[crop.max(), len(crops)] for crop in crops], np.float32)


class StepModel:
    """A speech model that waits, steps and says each frame once: the first and the last sample of each."""

    dim = 2

    def __init__(self, hop_frames: int = 25, held_back: int = 12) -> None:
        self._hop, self._held_back = hop_frames, held_back
        self.reset()

    def reset(self) -> None:
        self._heard = np.empty(0, np.float32)
        self._said = 0

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        self._heard = np.concatenate((self._heard, samples))
        steps = frames_for(self._heard.size) // self._hop
        return self._say(max(0, steps * self._hop - self._held_back))

    def flush(self) -> NDArray[np.float32]:
        frames = self._say(frames_for(self._heard.size))
        self.reset()
        return frames

    def _say(self, until: int) -> NDArray[np.float32]:
        starts = 320 * np.arange(self._said, until)
        self._said = max(self._said, until)
        return np.stack((self._heard[starts], self._heard[starts + 399]), axis=1)


class WindowModel:
    """A speech model that says the last `span` frames again at each hop; likewise."""

    dim = 2

    def __init__(self, hop_frames: int = 25, span: int = 100) -> None:
        self._hop, self._span = hop_frames, span
        self.asked = 0
        self.reset()

    def reset(self) -> None:
        self._heard = np.empty(0, np.float32)
        self._steps = 0

    def push(self, samples: NDArray[np.float32]) -> WindowFrames | None:
        self._heard = np.concatenate((self._heard, samples))
        steps = frames_for(self._heard.size) // self._hop
        if steps == self._steps:
            return None
        self._steps = steps
        return self._window(steps * self._hop)

    def flush(self) -> WindowFrames | None:
        stop = frames_for(self._heard.size)
        window = self._window(stop) if stop > self._steps * self._hop else None
        self.reset()
        return window

    def _window(self, stop: int) -> WindowFrames:
        self.asked += 1
        first = max(0, stop - self._span)
        starts = 320 * np.arange(first, stop)
        return WindowFrames(first, np.stack((self._heard[starts], self._heard[starts + 399]), axis=1))


class LengthEncoder:
    """A sentence encoder whose vectors tell how long a text is; it remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.asked += texts
        return np.array([[len(text)] for text in texts], np.float32)


def run_stage(stage: Stage, feed: Callable[[], bool] = lambda: False) -> list[Packet]:
    """All packets of a stage. `feed` adds input after each step and says whether it added any."""
    packets: list[Packet] = []
    for _ in range(100_000):
        if stage.ended:
            return packets
        found = stage.step(0)
        packets += found
        assert feed() or found or stage.ended or stage.wait(0.0), "the stage neither ends nor asks for more"
    raise AssertionError("the stage does not end")


def key(packet: Packet) -> tuple[object, ...]:
    """A packet as a value that can be compared, its array as bytes."""
    values = (getattr(packet, field.name) for field in msgspec.structs.fields(packet))
    return tuple(value.tobytes() if isinstance(value, np.ndarray) else value for value in values)


def sound(pattern: str, piece_s: float = 0.25) -> NDArray[np.float32]:
    """Loud and silent pieces: `x` is loud, anything else silent."""
    size = round(piece_s * RATE_HZ)
    tone = 0.3 * np.sin(2 * np.pi * 200 * np.arange(size) / RATE_HZ).astype(np.float32)
    return np.concatenate([tone if letter == "x" else np.zeros(size, np.float32) for letter in pattern])
