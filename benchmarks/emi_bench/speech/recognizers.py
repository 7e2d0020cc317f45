"""The recogniser that `emi-live` would run with these settings, and one that is watched while it works."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from emi_bench.speech.words import spoken
from emi_live.bundle import Encoders, load_speech
from emi_live.errors import ConfigurationError
from emi_models.store import ModelStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from emi_live.config import LiveConfig
    from emi_models.speech.recognizer import Hypothesis, Recognizer
    from emi_models.store import Progress

__all__ = ["Watched", "load_recognizers", "offline_words", "prepare", "warm_up"]

RATE_HZ: Final = 16_000
BLOCK_SAMPLES: Final = 1_600  # recognisers may follow the microphone's colour from one block to the next


def load_recognizers(config: LiveConfig, progress: Progress | None = None) -> Encoders:
    """Load what `speech.*` names, `recognizer` and `smaller_recognizer`; fetched first where it is absent.

    The caller closes what it gets.

    Raises:
        ConfigurationError: it cannot be had; the message says why, and what to do.
    """
    if config.speech.backend == "none":
        raise ConfigurationError(
            "speech.backend=none recognises nothing; choose faster-whisper or pocketsphinx"
        )
    encoders = Encoders()
    store = ModelStore(config.models.directory, offline=config.models.offline)
    load_speech(encoders, config, store, progress)
    if encoders.recognizer is None:
        raise ConfigurationError(encoders.unavailable["text"])
    return encoders


def warm_up(recognizer: Recognizer) -> None:
    """Have it answer once, then forget: no clip pays for what happens once in a process."""
    recognizer.begin()
    recognizer.accept(np.random.default_rng(0).normal(0.0, 0.01, RATE_HZ).astype(np.float32))
    recognizer.finish()
    prepare(recognizer)


def prepare(recognizer: Recognizer) -> None:
    """Make it meet the next clip as if just loaded, and have done what it does at loading."""
    recognizer.forget()
    recognizer.begin()  # a child process that was ended is started again here, not in the clip's first word


def offline_words(recognizer: Recognizer, samples: NDArray[np.float32]) -> list[str]:
    """What it hears in a clip as one utterance, nothing being hurried: what streaming is held against.

    Args:
        recognizer: in any state.
        samples: shape (n,), 16 kHz.
    """
    prepare(recognizer)
    for start in range(0, samples.size, BLOCK_SAMPLES):
        recognizer.accept(samples[start : start + BLOCK_SAMPLES])
    return [text for word in recognizer.finish().words for text in spoken(word.text)]


class Watched:
    """A recogniser that says when it has worked, and how often it was asked for words."""

    def __init__(self, recognizer: Recognizer, tick: Callable[[], None]) -> None:
        self._recognizer = recognizer
        self._tick = tick
        self.calls = 0  # of `hypothesis` and `finish`

    @property
    def name(self) -> str:
        """That of the one that is watched."""
        return self._recognizer.name

    @property
    def agreement(self) -> int:
        """That of the one that is watched."""
        return self._recognizer.agreement

    def begin(self, prompt: str = "") -> None:
        """As the one that is watched."""
        self._recognizer.begin(prompt)
        self._tick()

    def accept(self, samples: NDArray[np.float32]) -> None:
        """As the one that is watched."""
        self._recognizer.accept(samples)
        self._tick()

    def hypothesis(self) -> Hypothesis:
        """As the one that is watched."""
        self.calls += 1
        found = self._recognizer.hypothesis()
        self._tick()
        return found

    def finish(self) -> Hypothesis:
        """As the one that is watched."""
        self.calls += 1
        found = self._recognizer.finish()
        self._tick()
        return found

    def forget(self) -> None:
        """As the one that is watched."""
        self._recognizer.forget()

    def close(self) -> None:
        """As the one that is watched."""
        self._recognizer.close()
