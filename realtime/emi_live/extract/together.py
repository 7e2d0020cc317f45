"""Several clips at once in one process: each has its own stages, and the models compute for all in batches.

What has a state of its clip, the face tracker and prosody, each clip has for itself. Whisper decodes the
utterances that wait together in one call (`SharedModels`); crops of faces, sounds and texts that wait
together go through their encoder as one batch (`Batches`). So results depend on batch mates by rounding, less
than 1e-5. A GPU gains by it, and the decoder of Whisper on a CPU (docs/decisions/0045).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from emi_live.bundle.base import Encoders, load_face, load_speech
from emi_live.sharing import SharedModels
from emi_live.turns import Asked, Turns
from emi_models.encoders.prosody import ProsodyEncoder
from emi_models.errors import ModelUnavailableError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emi_live.bundle import CropEncoder
    from emi_live.bundle.base import TextEncoder
    from emi_live.config import LiveConfig
    from emi_models.encoders.wav2vec import Wav2vecEncoder
    from emi_models.speech.recognizer import Recognizer
    from emi_models.store import ModelStore

__all__ = ["Batches", "EncodersTogether"]


@dataclass(slots=True, eq=False, kw_only=True)
class _Given(Asked):
    """What one clip gives to an encoder."""

    what: Any


class Batches(Turns[_Given]):
    """An encoder of several clips; `sizes` counts its calls by the number of clips in them."""

    def __init__(self, encode: Callable[[list[Any]], Sequence[Any]]) -> None:
        """Take the encoder: it gets a list, one item of each clip, and returns a result for each item."""
        super().__init__()
        self._encode = encode
        self.sizes: Counter[int] = Counter()

    def __call__(self, what: Any) -> Any:
        """The result for one clip, in any thread."""
        return self.ask(_Given(what=what))

    def next_call(self) -> list[_Given]:
        """All that wait."""
        self.sizes[len(self.waiting)] += 1
        return list(self.waiting)

    def compute(self, call: list[_Given]) -> None:
        """The result of each."""
        for given, result in zip(call, self._encode([given.what for given in call]), strict=True):
            given.answer = result


class EncodersTogether:
    """The encoders of clips that are done at once. `lend` gives each of them its own.

    A recogniser that learns from its clip is not shared (`Encoders.shares_words`): there is one for each.

    Attributes:
        sound: encodes whole sounds, samples (n,) at 16 kHz, in batches; None: there is no encoder of sound.
    """

    def __init__(self, own: Encoders, config: LiveConfig, store: ModelStore) -> None:
        """Share encoders, which stay their owner's; `config` and `store` are those they were loaded with."""
        self._own = own
        self._config = config
        self._store = store
        self._words = SharedModels(own)
        self._unshared = None if own.shares_words else own.recognizer  # until somebody has it
        self._crops = None if own.crops is None else _Crops(own.crops)
        self.sound = None if own.voice is None else _Sound(own.voice)
        self._texts = None if own.sentence is None else _Texts(own.sentence)

    def lend(self) -> Encoders:
        """Encoders for one clip after the other, in any thread; closing them does not affect the others.

        Raises:
            EmiError: what a clip has for itself cannot be loaded once more.
        """
        own, config = self._own, self._config
        lent = Encoders()
        if own.face is not None:
            load_face(lent, config, self._store, None)
        if own.recognizer is not None:
            if own.shares_words:
                lent.recognizer = self._words.lend_recognizer(own.recognizer)
            elif self._unshared is not None:
                lent.recognizer, self._unshared = _Handed(self._unshared), None
            else:
                load_speech(lent, config, self._store, None)
        if (own.face and lent.face is None) or (own.recognizer and lent.recognizer is None):
            lent.close()
            raise ModelUnavailableError("; ".join(lent.unavailable.values()))
        return replace(
            own,
            face=lent.face,
            recognizer=lent.recognizer,
            smaller_recognizer=None,
            prosody=None if own.prosody is None else ProsodyEncoder(),
            crops=self._crops,
            sentence=self._texts,
        )


class _Handed:
    """A recogniser that only one has at a time; closing it leaves it to its owner."""

    def __init__(self, recognizer: Recognizer) -> None:
        self.name = recognizer.name
        self.agreement = recognizer.agreement
        self.begin = recognizer.begin
        self.accept = recognizer.accept
        self.hypothesis = recognizer.hypothesis
        self.finish = recognizer.finish
        self.forget = recognizer.forget

    def close(self) -> None:
        """Return it."""


class _Crops:
    """A `CropEncoder` for several clips."""

    def __init__(self, encoder: CropEncoder) -> None:
        self.side_px = encoder.side_px

        def encode(parts: list[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
            return _split(encoder.encode(np.concatenate(parts)), parts)

        self.encode = Batches(encode)


class _Sound:
    """A `SoundEncoder` for several clips."""

    def __init__(self, encoder: Wav2vecEncoder) -> None:
        self.encode = Batches(encoder.encode_together)


class _Texts:
    """A `TextEncoder` for several clips."""

    def __init__(self, encoder: TextEncoder) -> None:
        def batched(encode: Callable[[list[str]], NDArray[np.float32]]) -> Batches:
            return Batches(lambda parts: _split(encode([text for part in parts for text in part]), parts))

        self.encode = batched(encoder.encode)
        self.encode_marked = batched(encoder.encode_marked)


def _split(features: NDArray[np.float32], parts: Sequence[Any]) -> list[NDArray[np.float32]]:
    """The rows of each part."""
    ends = np.cumsum([len(part) for part in parts])
    return np.split(features, ends[:-1])
