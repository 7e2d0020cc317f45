"""One person's stream of windows through an engine that knows nothing of streams: each window in full."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from emi_models.inputs import FusionInputs
from emi_models.vocabulary import MODALITIES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emi_engine.protocol import FusionEngine
    from emi_models.stream import StreamWindow
    from emi_models.vocabulary import Modality

__all__ = ["LEFT_OUT", "FullPassSession", "rows_of"]

# The rows of a counterfactual answer: the window as it is, then without each modality.
LEFT_OUT: Final[tuple[Modality | None, ...]] = (None, *MODALITIES)


class FullPassSession:
    """A `FusionSession` that pads each window and has the engine compute it whole."""

    def __init__(self, engine: FusionEngine) -> None:
        self._engine = engine

    def infer(self, window: StreamWindow, *, counterfactuals: bool = False) -> NDArray[np.float32]:
        """As `FusionSession.infer`."""
        shapes = self._engine.shapes
        window.check(shapes)
        return self._engine.infer(rows_of(window.inputs(shapes), counterfactuals))

    def restart(self) -> None:
        """Nothing is kept from window to window."""


def rows_of(window: FusionInputs, counterfactuals: bool) -> FusionInputs:
    """The window, or with `counterfactuals` a batch of it and of it without each modality, as `LEFT_OUT`."""
    if not counterfactuals:
        return window
    return FusionInputs.stack([window, *(window.without(modality) for modality in MODALITIES)])
