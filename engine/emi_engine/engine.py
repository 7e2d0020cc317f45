"""What all fusion engines share: checks of input and output, and sessions that compute whole windows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Self

import numpy as np

from emi_engine.protocol import EngineError
from emi_models import MODALITIES
from emi_models.inputs import FusionInputs

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import NDArray

    from emi_engine.protocol import FusionEngine, FusionSession
    from emi_models import Modality
    from emi_models.checkpoint import CheckpointHeader
    from emi_models.inputs import FusionShapes, StreamWindow

__all__ = ["CheckedEngine", "FullPassSession", "rows_of"]


class FullPassSession:
    """A `FusionSession` that pads each window; the engine computes it completely."""

    def __init__(self, engine: FusionEngine) -> None:
        self._engine = engine

    def infer(self, window: StreamWindow, *, counterfactuals: bool = False) -> NDArray[np.float32]:
        """As `FusionSession.infer`."""
        shapes = self._engine.shapes
        window.check(shapes)
        return self._engine.infer(rows_of(window.inputs(shapes), counterfactuals))

    def restart(self) -> None:
        """Does nothing: no state is kept between windows."""


def rows_of(window: FusionInputs, counterfactuals: bool) -> FusionInputs:
    """The window; with `counterfactuals` a batch: complete, and without each modality as in `LEFT_OUT`."""
    if not counterfactuals:
        return window
    return FusionInputs.stack([window, *(window.without(modality) for modality in MODALITIES)])


class CheckedEngine(ABC):
    """A `FusionEngine` that refuses windows of the wrong shape and results that are not finite.

    A subclass defines `name`, `_run` and `_release`, and `detail` and `reuses` if they differ.
    """

    name: str
    detail: str = "fp32"
    reuses = False

    def __init__(self, header: CheckpointHeader) -> None:
        self._header = header
        self._shapes = header.shapes
        self._outputs = len(header.targets)
        self._closed = False

    @property
    def shapes(self) -> FusionShapes:
        """The sizes that windows must have."""
        return self._shapes

    @property
    def header(self) -> CheckpointHeader:
        """The metadata of the checkpoint that runs."""
        return self._header

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """The modalities that the checkpoint was trained on; the others are always their tokens."""
        return self._header.modalities

    def infer(self, window: FusionInputs) -> NDArray[np.float32]:
        """Raw intensities of each row; see `FusionEngine.infer`."""
        self.check_open()
        window.check(self._shapes)
        return self.checked(self._run(window), window.batch)

    def session(self) -> FusionSession:
        """A stream of windows, each computed completely; see `FusionEngine.session`."""
        self.check_open()
        return FullPassSession(self)

    def check_open(self) -> None:
        """Raise EngineError if the engine is closed."""
        if self._closed:
            raise EngineError(f"the {self.name} engine is closed; load it again")

    def checked(self, intensities: NDArray[np.float32], batch: int) -> NDArray[np.float32]:
        """Return the same array if it holds a finite value of each target for each of `batch` windows.

        Raises:
            EngineError: it does not.
        """
        if intensities.shape != (batch, self._outputs) or not np.isfinite(intensities).all():
            raise self.not_finite(intensities.shape)
        return intensities

    def not_finite(self, shape: tuple[int, ...]) -> EngineError:
        """The error for a result of this shape that is not a finite value of each target a row."""
        return EngineError(
            f"{self.name} gave a result of shape {shape} that is not rows of {self._outputs} finite values; "
            "the features may be far outside the range that the checkpoint was trained on"
        )

    def close(self) -> None:
        """Release the engine's memory; afterwards `infer` raises."""
        if not self._closed:
            self._closed = True
            self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def _run(self, window: FusionInputs) -> NDArray[np.float32]:
        """Intensities (B, K) of a window that was checked; a new array."""

    @abstractmethod
    def _release(self) -> None:
        """Drop the network; called once."""
