"""The encoders that run, of either bundle, and what stages need of those that both kinds of use load."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from emi_models import Modality
    from emi_models.encoders.face import FaceResult
    from emi_models.encoders.prosody import ProsodyEncoder
    from emi_models.encoders.voice_activity import VoiceGate
    from emi_models.encoders.wav2vec import Wav2vecEncoder
    from emi_models.speech.recognizer import Recognizer

__all__ = ["CropEncoder", "Encoders", "FaceReader", "TextEncoder"]


class FaceReader(Protocol):
    """What stages need of a face encoder."""

    def analyse(self, rgb: NDArray[np.uint8], t_ns: int) -> FaceResult:
        """What one picture, (height, width, 3), shows."""
        ...

    def reset(self) -> None:
        """Forget what was seen."""
        ...

    def close(self) -> None:
        """Release what is held."""
        ...


class CropEncoder(Protocol):
    """What the stage of crops needs of a vision transformer."""

    @property
    def side_px(self) -> int:
        """The side of the crops that it takes."""
        ...

    def encode(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Features (N, D) of crops (N, side, side, 3)."""
        ...


class TextEncoder(Protocol):
    """What the text stage needs of an encoder."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embeddings (len(texts), D)."""
        ...


@dataclass(slots=True)
class Encoders:
    """The encoders that run. None means not wanted or not available; then `unavailable` may say why."""

    face: FaceReader | None = None
    crops: CropEncoder | None = None  # of `taemi`: what is made of the face that `face` finds
    prosody: ProsodyEncoder | None = None  # of `compact`
    voice: Wav2vecEncoder | None = None  # of `taemi`
    voice_gate: Callable[[], VoiceGate] | None = None  # one gate per stage: a gate has state
    recognizer: Recognizer | None = None
    smaller_recognizer: Recognizer | None = None  # takes over when the other cannot keep up
    sentence: TextEncoder | None = None
    ids: dict[Modality, str] = field(default_factory=dict)  # what a checkpoint must have been trained on
    dims: dict[Modality, int] = field(default_factory=dict)  # values in a frame of those
    unavailable: dict[str, str] = field(default_factory=dict)  # modality -> why, with the remedy
    announcements: list[str] = field(default_factory=list)
    terms: list[str] = field(default_factory=list)  # what a licence demands of features, one line each

    def forget(self) -> None:
        """Drop all that was seen and heard, so that the next clip is met as if just loaded."""
        for encoder in (self.face, self.prosody):
            if encoder is not None:
                encoder.reset()
        for recognizer in (self.recognizer, self.smaller_recognizer):
            if recognizer is not None:
                recognizer.forget()

    def close(self) -> None:
        """Release what the encoders hold."""
        for encoder in (self.face, self.recognizer, self.smaller_recognizer):
            if encoder is not None:
                encoder.close()
