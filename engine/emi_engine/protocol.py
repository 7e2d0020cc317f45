"""The contract that every fusion engine keeps, whatever runs behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from types import TracebackType

    import numpy as np
    from numpy.typing import NDArray

    from emi_models.checkpoint import CheckpointHeader
    from emi_models.inputs import FusionInputs, FusionShapes
    from emi_models.stream import StreamWindow
    from emi_models.vocabulary import Modality

__all__ = ["FusionEngine", "FusionSession"]


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
