"""A recogniser that knows what is said when, and hears no more of it than its buffer holds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emi_models.speech.recognizer import Hypothesis, RecognizedWord, Segment

RATE_HZ = 16_000
HEARD = 0.7  # of a word: more of it is recognised, less is taken for something else

Spoken = tuple[str, float, float]  # text, start and end in seconds


def word_of(number: int) -> str:
    """A word for a number below 26^5: without digits, which are compared one by one, and hard to compress."""
    mixed = number * 7_368_787 % 26**5  # a prime: no two numbers give the same
    return "".join(chr(ord("a") + mixed // 26**place % 26) for place in range(5))


def positions(seconds: float, start_s: float = 0.0) -> NDArray[np.float32]:
    """Sound whose samples are their own indices, so that a recogniser knows where it is; exact to 17 min."""
    first = round(start_s * RATE_HZ)
    return np.arange(first, first + round(seconds * RATE_HZ), dtype=np.float32)


def blocks(samples: NDArray[np.float32], size: int = 512) -> Iterator[NDArray[np.float32]]:
    for start in range(0, samples.size, size):
        yield samples[start : start + size]


def librivox(assets: Path, seconds: float) -> list[Spoken]:
    """Read speech with its words' times, over and over, numbered so that no two are alike."""
    spoken: list[Spoken] = []
    offset = 0.0
    while offset < seconds:
        for clip in ("0870", "0880"):
            said = json.loads((assets / "speech" / f"librivox_sense_{clip}.json").read_text())
            for word in said["w"]:
                text, start = word["t"].partition("(")[0], offset + word["b"]
                if text != "<sil>":
                    spoken.append((f"{text}{word_of(len(spoken))}", start, start + word["d"]))
            offset += said["d"]
    return spoken


class TimedRecognizer:
    """Hears `spoken` in `positions`; a word cut off by the buffer's end it hears otherwise each time.

    `jitter_s`: how far its times are off. `segment`: words after which it closes a segment; 0: never.
    """

    name = "timed"
    agreement = 2

    def __init__(
        self, spoken: Sequence[Spoken], *, jitter_s: float = 0.0, segment: int = 0, seed: int = 0
    ) -> None:
        self._spoken = spoken
        self._jitter_s = jitter_s
        self._segment = segment
        self._random = np.random.default_rng(seed)
        self._parts: list[NDArray[np.float32]] = []
        self.prompts: list[str] = []
        self.most_samples = 0
        self.asked = 0

    def begin(self, prompt: str = "") -> None:
        self._parts = []
        self.prompts.append(prompt)

    def accept(self, samples: NDArray[np.float32]) -> None:
        self._parts.append(samples)
        self.most_samples = max(self.most_samples, sum(part.size for part in self._parts))

    def hypothesis(self) -> Hypothesis:
        self.asked += 1
        if not self._parts:
            return Hypothesis()
        sound = np.concatenate(self._parts)
        begin, end = float(sound[0]) / RATE_HZ, (float(sound[-1]) + 1) / RATE_HZ
        np.testing.assert_array_equal(np.diff(sound), 1)  # what is heard is one piece of what was said
        words = [self._heard(word, begin, end) for word in self._spoken if word[2] > begin and word[1] < end]
        size = self._segment or len(words) or 1
        groups = [words[start : start + size] for start in range(0, len(words), size)]
        return Hypothesis(tuple(Segment(tuple(group)) for group in groups))

    def finish(self) -> Hypothesis:
        heard = self.hypothesis()
        self._parts = []
        return heard

    def forget(self) -> None:
        self._parts = []

    def close(self) -> None:
        self._parts = []

    def _heard(self, word: Spoken, begin: float, end: float) -> RecognizedWord:
        text, start_s, end_s = word
        share = (min(end_s, end) - max(start_s, begin)) / (end_s - start_s)
        if share < HEARD:
            text = f"~{self.asked}" if end_s > end else f"~{text}"
        shift = self._random.uniform(-self._jitter_s, self._jitter_s)
        start, stop = max(start_s - begin + shift, 0.0), min(end_s + shift, end) - begin
        return RecognizedWord(text, start, max(stop, start), 0.9)
