"""PocketSphinx: small, offline, with an English model in its wheel. It makes more errors than Whisper."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from emi_models.errors import ModelUnavailableError
from emi_models.speech.recognizer import Hypothesis, RecognizedWord, Segment

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SphinxRecognizer"]

RATE_HZ: Final = 16_000
FRAME_S: Final = 0.01
AGREEMENT: Final = 5  # each search continues the last one, so hypotheses are not independent of each other
NOT_A_WORD: Final = ("<", "[", "+")  # <s>, </s>, <sil>, [NOISE], [SPEECH], ++UH++
VARIANT = re.compile(r"\(\d+\)$")  # read(2): the second pronunciation of "read"
LEARNING_SAMPLES: Final = 2 * RATE_HZ
BLOCK_SAMPLES: Final = RATE_HZ // 10  # fixed: search and cepstral mean depend on how the audio is cut

# On our clips these give the same words as the defaults, in about a quarter less time.
SEARCH: Final = {"maxhmmpf": 10_000, "pl_window": 5}


class SphinxRecognizer:
    """Recognises English with the model in PocketSphinx's wheel while the audio arrives.

    Its acoustic model needs the mean of the cepstrum, which depends on the microphone. With the default mean,
    every second word is wrong. So the first utterance waits until 2 s of it have arrived; the mean is learnt
    from these and updated from then on. One thread at a time.
    """

    name = "pocketsphinx en-us"
    agreement = AGREEMENT

    def __init__(self) -> None:
        """Load the model.

        Raises:
            ModelUnavailableError: PocketSphinx is not installed.
        """
        try:
            from pocketsphinx import Decoder
        except ImportError as error:
            raise ModelUnavailableError(
                "PocketSphinx is not installed: pip install 'emi-live[pocketsphinx]'"
            ) from error
        self._load = partial(Decoder, samprate=RATE_HZ, loglevel="FATAL", **SEARCH)
        self._decoder: Any = self._load()
        self._cepstral_mean: str | None = None
        self._held = np.empty(0, np.int16)  # samples not searched yet
        self._open = False

    def begin(self, prompt: str = "") -> None:
        """Start again; an unfinished utterance is dropped. The prompt is ignored."""
        self._abandon()
        self._held = self._held[:0]
        self._open = True
        if self._cepstral_mean is not None:
            self._start()

    def accept(self, samples: NDArray[np.float32]) -> None:
        """Take the next samples, shape (n,), 16 kHz mono, in [-1, 1]."""
        pcm = (np.clip(samples, -1.0, 1.0) * 32767).astype(np.int16)
        self._held = np.concatenate((self._held, pcm))
        if self._cepstral_mean is None and self._held.size >= LEARNING_SAMPLES:
            self._learn(LEARNING_SAMPLES)
        if self._cepstral_mean is not None:
            self._search()

    def hypothesis(self) -> Hypothesis:
        """The words so far; all of them may still change."""
        return Hypothesis() if self._cepstral_mean is None else self._words()

    def finish(self) -> Hypothesis:
        """The words of all accepted audio, after a second pass over the lattice."""
        if self._cepstral_mean is None:
            if not self._held.size:
                self._open = False
                return Hypothesis()
            self._learn(self._held.size)
        self._search(rest=True)
        self._decoder.end_utt()
        self._open = False
        self._cepstral_mean = self._decoder.get_cmn(True)
        return self._words()

    def forget(self) -> None:
        """Load the model again: the decoder keeps more state than the mean."""
        self._abandon()
        self._held = self._held[:0]
        self._cepstral_mean = None
        self._decoder = self._load()

    def close(self) -> None:
        """Release the model."""
        self._abandon()
        self._decoder = None

    def _start(self) -> None:
        self._decoder.set_cmn(self._cepstral_mean)
        self._decoder.start_utt()

    def _learn(self, samples: int) -> None:
        """Compute the mean from the first samples that are held."""
        self._decoder.start_utt()
        # Features and their mean only.
        self._decoder.process_raw(self._held[:samples].tobytes(), no_search=True, full_utt=True)
        self._decoder.end_utt()
        self._cepstral_mean = self._decoder.get_cmn(False)
        self._start()

    def _search(self, *, rest: bool = False) -> None:
        """Search the held samples in blocks of one size; with `rest`, also the last, shorter block."""
        while self._held.size >= BLOCK_SAMPLES or (rest and self._held.size):
            block, self._held = self._held[:BLOCK_SAMPLES], self._held[BLOCK_SAMPLES:]
            self._decoder.process_raw(block.tobytes())

    def _abandon(self) -> None:
        if self._open and self._cepstral_mean is not None:
            self._decoder.end_utt()
        self._open = False

    def _words(self) -> Hypothesis:
        words = tuple(
            RecognizedWord(
                VARIANT.sub("", segment.word),
                segment.start_frame * FRAME_S,
                (segment.end_frame + 1) * FRAME_S,
                min(1.0, max(0.0, float(segment.prob))),
            )
            for segment in self._decoder.seg() or ()
            if not segment.word.startswith(NOT_A_WORD)
        )
        return Hypothesis((Segment(words),) if words else (), language="en")
