"""The contract of every fusion engine, whatever runs behind it, and what all engines share.

`FusionEngine` and `FusionSession` are the contract. `CheckedEngine` checks what goes in and what comes out.
`FullPassSession` serves a stream with an engine that computes each window whole. `Precision` names the
precisions of compiled networks, and `TOLERANCES` says how far each may differ from fp32.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final, Literal, Protocol, Self, get_args

import numpy as np

from emi_engine.errors import EngineError
from emi_models import EMOTIONS, MODALITIES
from emi_models.inputs import FusionInputs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    import torch
    from numpy.typing import NDArray

    from emi_models import Modality
    from emi_models.checkpoint import CheckpointHeader, LoadedCheckpoint
    from emi_models.inputs import FusionShapes, StreamWindow

__all__ = [
    "LEFT_OUT",
    "PRECISIONS",
    "TOLERANCES",
    "CheckedEngine",
    "FullPassSession",
    "FusionEngine",
    "FusionSession",
    "Precision",
    "rows_of",
    "torch_dtype",
]


class FusionSession(Protocol):
    """Turns the windows of one stream into intensities, in the order of time; of one thread at a time.

    Windows may overlap, skip and stand still as they like: the answer is that of the window alone, whatever
    came before.
    """

    def infer(self, window: StreamWindow, *, counterfactuals: bool = False) -> NDArray[np.float32]:
        """Raw intensities (1, 6) as `FusionEngine.infer` gives them, the caller's own.

        With `counterfactuals` (4, 6): the window as it is, then as if vision, audio and text were missing.

        Raises:
            InputError: a shape or type is wrong, or a frame not seen before, or the text, is not finite.
            EngineError: the engine is closed, or its result is not finite.
        """

    def restart(self) -> None:
        """Forget what came before: the next window is the first of another stream."""


class FusionEngine(Protocol):
    """Turns windows into intensities; a context manager that closes itself.

    One thread at a time may use an engine, but for the sessions of one that `reuses`, which may be used by a
    thread each; it may be another than the thread that made it. The engine reads
    the window's tensors only until `infer` returns, and the array that `infer` gives belongs to the caller.
    """

    @property
    def name(self) -> str:
        """Runtime and device, as shown to people and written into estimates: `incremental-cpu`."""

    @property
    def detail(self) -> str:
        """What else people should know of it, in a few words: precision, plan, what it reuses."""

    @property
    def reuses(self) -> bool:
        """Whether sessions reuse what their windows share; such sessions may run at the same time."""

    @property
    def shapes(self) -> FusionShapes:
        """The sizes that windows must have."""

    @property
    def header(self) -> CheckpointHeader:
        """The story of the checkpoint that runs."""

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """The modalities that the checkpoint was trained on; the others are always their tokens."""

    def infer(self, window: FusionInputs) -> NDArray[np.float32]:
        """Raw intensities of each row, (B, 6) in the order of `EMOTIONS`: finite, not clipped to [0, 1].

        Raises:
            InputError: the window's shapes or types are wrong, or a value is not finite.
            EngineError: the engine is closed, or its result is not finite.
        """

    def session(self) -> FusionSession:
        """One person's stream of windows, which may reuse what consecutive windows share.

        Raises:
            EngineError: the engine is closed.
        """

    def close(self) -> None:
        """Give back the engine's memory; afterwards `infer` raises. Closing twice is fine."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


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


class CheckedEngine(ABC):
    """A `FusionEngine` that refuses windows that do not fit and results that are not finite.

    A subclass gives `name`, `_run` and `_release`, and `detail` and `reuses` where they differ.
    """

    name: str
    detail: str = "fp32"
    reuses = False

    def __init__(self, checkpoint: LoadedCheckpoint) -> None:
        self._header = checkpoint.header
        self._shapes = checkpoint.network.config.shapes
        self._closed = False

    @property
    def shapes(self) -> FusionShapes:
        """The sizes that windows must have."""
        return self._shapes

    @property
    def header(self) -> CheckpointHeader:
        """The story of the checkpoint that runs."""
        return self._header

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """The modalities that the checkpoint was trained on; the others are always their tokens."""
        return self._header.modalities

    def infer(self, window: FusionInputs) -> NDArray[np.float32]:
        """Raw intensities of each row, as `FusionEngine.infer` says."""
        self.check_open()
        window.check(self._shapes)
        return self.checked(self._run(window), window.batch)

    def session(self) -> FusionSession:
        """A stream of windows, each computed whole; as `FusionEngine.session` says."""
        self.check_open()
        return FullPassSession(self)

    def check_open(self) -> None:
        """Return if the engine still runs; else raise EngineError."""
        if self._closed:
            raise EngineError(f"the {self.name} engine is closed; load it again")

    def checked(self, intensities: NDArray[np.float32], batch: int) -> NDArray[np.float32]:
        """The same array, if it holds six finite values for each of `batch` windows.

        Raises:
            EngineError: it does not.
        """
        if intensities.shape != (batch, len(EMOTIONS)) or not np.isfinite(intensities).all():
            raise self.not_finite(intensities.shape)
        return intensities

    def not_finite(self, shape: tuple[int, ...]) -> EngineError:
        """The error of a result of this shape that is not six finite values a row."""
        return EngineError(
            f"{self.name} gave a result of shape {shape} that is not rows of 6 finite values; "
            "features may be far outside of what the checkpoint was trained on"
        )

    def close(self) -> None:
        """Give back the engine's memory; afterwards `infer` raises."""
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
        """Intensities (B, 6) of a window that was checked; a fresh array."""

    @abstractmethod
    def _release(self) -> None:
        """Drop the network; called once."""


Precision = Literal["fp32", "fp16", "bf16"]
PRECISIONS: Final[tuple[Precision, ...]] = get_args(Precision)

# The largest difference of an intensity from PyTorch in fp32 with which an engine is still said to run its
# checkpoint. What fp16 and bf16 really cost is in docs/engines.md.
TOLERANCES: Final[Mapping[Precision, float]] = {"fp32": 1e-4, "fp16": 5e-3, "bf16": 5e-3}


def torch_dtype(precision: Precision) -> torch.dtype:
    """PyTorch's type of that precision."""
    import torch  # here, so that the command line can name the precisions without loading it

    types: dict[Precision, torch.dtype] = {
        "fp32": torch.float32,
        "fp16": torch.float16,
        "bf16": torch.bfloat16,
    }
    return types[precision]
