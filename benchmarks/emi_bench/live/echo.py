"""Encoders and an engine by which the newest picture and sound of a window can be read in its estimate.

Light is measured by the real face stage around an encoder that sees brightness alone, since a real one wants
a face; sound by the real audio stage, whole. The engine computes each window in full, and then answers with
what the window shows last: the brightness of its newest picture and the level of its newest sound.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self

import numpy as np

from emi_live.bundle import Encoders
from emi_models.encoders.face import FACE_DIM, FaceResult
from emi_models.encoders.prosody import (
    ENERGY_DEVIATION_DB,
    ENERGY_FLOOR_DB,
    ENERGY_MEAN_DB,
    MEL_BANDS,
)

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import NDArray

    from emi_engine import FusionEngine
    from emi_engine.protocol import FusionSession
    from emi_models.checkpoint import CheckpointHeader
    from emi_models.inputs import FusionInputs, FusionShapes
    from emi_models.stream import StreamWindow
    from emi_models.vocabulary import Modality

__all__ = ["LIGHT", "SOUND", "EchoEngine", "EchoSession", "LightEncoder", "light_and_sound"]

LIGHT: Final = 0  # the place among the six values in which brightness is answered, 0 to 1
SOUND: Final = 1  # and level, 0 at -70 dBFS to 1 at 0 dBFS
ENERGY: Final = MEL_BANDS + 2  # the column of prosody


class LightEncoder:
    """Stands in for a face encoder: its features are the picture's brightness, in [0, 1]."""

    def analyse(self, rgb: NDArray[np.uint8], t_ns: int) -> FaceResult:
        """One "face" whose 58 features all have the value of the pixel in the middle."""
        height, width = rgb.shape[:2]
        value = float(rgb[height // 2, width // 2].mean()) / 255
        return FaceResult(1, np.full(FACE_DIM, value, np.float32), None)

    def reset(self) -> None:
        """Nothing is remembered."""

    def close(self) -> None:
        """Nothing is held."""


def light_and_sound() -> Encoders:
    """The encoders of a run that measures light and sound: no face, no words, no weights to fetch."""
    from emi_models.encoders.prosody import ProsodyEncoder
    from emi_models.encoders.voice import VoiceGate

    return Encoders(
        face=LightEncoder(),
        prosody=ProsodyEncoder(),
        voice_gate=VoiceGate,
        announcements=["light: the brightness of a picture, in place of a face", "sound: prosody at 50 Hz"],
    )


class EchoEngine:
    """Computes each window with the engine it is given, and answers with the newest light and sound of it."""

    def __init__(self, inner: FusionEngine) -> None:
        """Take over `inner`; `close` closes it."""
        self._inner = inner

    @property
    def name(self) -> str:
        """That of the engine that computes, and that its answer is not the one given."""
        return f"{self._inner.name}, echoing"

    @property
    def detail(self) -> str:
        """As the engine that computes has it."""
        return self._inner.detail

    @property
    def reuses(self) -> bool:
        """As the engine that computes has it."""
        return self._inner.reuses

    @property
    def shapes(self) -> FusionShapes:
        """As the engine that computes has them."""
        return self._inner.shapes

    @property
    def header(self) -> CheckpointHeader:
        """Of the checkpoint that is computed."""
        return self._inner.header

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """As the engine that computes has them."""
        return self._inner.modalities

    def infer(self, window: FusionInputs) -> NDArray[np.float32]:
        """Light at `LIGHT` and sound at `SOUND` of the newest frames, (B, 6); 0 without a frame."""
        answer = np.zeros_like(self._inner.infer(window))
        for row in range(len(answer)):
            vision = window.vision[row][window.vision_mask[row]].numpy()
            audio = window.audio[row][window.audio_mask[row]].numpy()
            answer[row] = _echo(vision, audio, answer.shape[1])
        return answer

    def session(self) -> EchoSession:
        """A stream of windows, answered likewise."""
        return EchoSession(self._inner.session())

    def close(self) -> None:
        """Close the engine that computes."""
        self._inner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class EchoSession:
    """Computes the windows of one stream, and answers each with its newest light and sound."""

    def __init__(self, inner: FusionSession) -> None:
        self._inner = inner

    def infer(self, window: StreamWindow, *, counterfactuals: bool = False) -> NDArray[np.float32]:
        """As `EchoEngine.infer`, the same in every row."""
        answer = np.zeros_like(self._inner.infer(window, counterfactuals=counterfactuals))
        answer[:] = _echo(window.vision.values, window.audio.values, answer.shape[1])
        return answer

    def restart(self) -> None:
        """Another stream follows."""
        self._inner.restart()


def _echo(vision: NDArray[np.float32], audio: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    answer = np.zeros(width, np.float32)
    if len(vision):
        answer[LIGHT] = vision[-1, 0]
    if len(audio):
        level_db = float(audio[-1, ENERGY]) * ENERGY_DEVIATION_DB + ENERGY_MEAN_DB
        answer[SOUND] = 1.0 - level_db / ENERGY_FLOOR_DB
    return answer
