"""The contract of every fusion engine, what engines share, and the errors of running a network.

`FusionEngine` and `FusionSession` are the contract. `CheckedEngine` checks input and output for an engine,
and `FullPassSession` is a session that computes whole windows. `Precision` names the precisions of compiled
networks, and `TOLERANCES` says how far each may differ from fp32. Importing this module loads no numpy and no
PyTorch.

The errors are below `emi_models.errors.EmiError`:

::

    EmiError
    └── EngineError                  an engine cannot run this checkpoint
        ├── EngineUnavailableError   its runtime is not installed, or there is no engine of that name
        ├── WindowLateError          a shared engine was busy with others until the window's deadline
        └── PlanError                a plan is damaged or does not match      (emi_engine.tensorrt.plans)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final, Literal, Protocol, Self, get_args, runtime_checkable

from emi_models import MODALITIES
from emi_models.errors import EmiError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    import numpy as np
    import torch
    from numpy.typing import NDArray

    from emi_models import Modality
    from emi_models.checkpoint import CheckpointHeader
    from emi_models.inputs import FusionInputs, FusionShapes, StreamWindow

__all__ = [
    "LEFT_OUT",
    "PRECISIONS",
    "TOLERANCES",
    "ArrayEngine",
    "CheckedEngine",
    "EngineError",
    "EngineUnavailableError",
    "FullPassSession",
    "FusionEngine",
    "FusionSession",
    "Precision",
    "WindowLateError",
    "rows_of",
    "torch_dtype",
]


class EngineError(EmiError, RuntimeError):
    """A fusion engine could not be built from a checkpoint, or its result is not an intensity."""


class EngineUnavailableError(EngineError):
    """No engine of that name exists, or the runtime behind it is not installed."""


class WindowLateError(EngineError):
    """A window was dropped: an engine that others use too was busy until its deadline."""


class FusionSession(Protocol):
    """Turns the windows of one stream into intensities, in the order of time; one thread at a time.

    Windows may overlap, skip frames or repeat: the result depends only on the window, not on earlier
    windows.
    """

    def infer(self, window: StreamWindow, *, counterfactuals: bool = False) -> NDArray[np.float32]:
        """Raw intensities (1, K) as from `FusionEngine.infer`; the caller owns them.

        With `counterfactuals` (4, K): the complete window, then as if vision, audio and text were missing.

        Raises:
            InputError: a shape or type is wrong, or a frame not seen before, or the text, is not finite.
            WindowLateError: the engine is shared, and dropped the window; the next one may be in time.
            EngineError: the engine is closed, or its result is not finite.
        """

    def restart(self) -> None:
        """Forget earlier windows: the next window is the first of another stream."""


class FusionEngine(Protocol):
    """Turns windows into intensities; a context manager that closes itself.

    One thread at a time may use an engine; it may be another thread than the one that made it. If an engine
    `reuses`, each of its sessions may run in its own thread. The engine reads
    the window's tensors only until `infer` returns, and the array that `infer` returns belongs to the caller.
    """

    @property
    def name(self) -> str:
        """Runtime and device, as shown to users and written into estimates: `incremental-cpu`."""

    @property
    def detail(self) -> str:
        """Further facts for users, in a few words: precision, plan, what it reuses."""

    @property
    def reuses(self) -> bool:
        """Whether sessions reuse what their windows share; such sessions may run at the same time."""

    @property
    def shapes(self) -> FusionShapes:
        """The sizes that windows must have."""

    @property
    def header(self) -> CheckpointHeader:
        """The metadata of the checkpoint that runs."""

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """The modalities that the checkpoint was trained on; the others are always their tokens."""

    def infer(self, window: FusionInputs) -> NDArray[np.float32]:
        """Raw intensities of each row, (B, K) in the order of `header.targets`: finite, not clipped.

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
        """Release the engine's memory; afterwards `infer` raises. A second call does nothing."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@runtime_checkable
class ArrayEngine(Protocol):
    """A `FusionEngine` that computes windows in numpy too, without PyTorch."""

    def run_arrays(self, arrays: Mapping[str, NDArray[np.generic]]) -> NDArray[np.float32]:
        """Raw intensities (B, 6) of B windows, by the names of `FusionInputs`, whose values were checked.

        Raises:
            EngineError: the engine is closed, or its result is not finite.
        """


# The rows of a counterfactual result: the complete window, then without each modality.
LEFT_OUT: Final[tuple[Modality | None, ...]] = (None, *MODALITIES)


Precision = Literal["fp32", "fp16", "bf16"]
PRECISIONS: Final[tuple[Precision, ...]] = get_args(Precision)

# The largest allowed difference of an intensity from PyTorch in fp32; up to this, an engine counts as running
# its checkpoint. Measured differences of fp16 and bf16: docs/engines.md.
TOLERANCES: Final[Mapping[Precision, float]] = {"fp32": 1e-4, "fp16": 5e-3, "bf16": 5e-3}


def torch_dtype(precision: Precision) -> torch.dtype:
    """PyTorch's type for that precision."""
    import torch  # imported here, so that the command line can list the precisions without loading it

    types: dict[Precision, torch.dtype] = {
        "fp32": torch.float32,
        "fp16": torch.float16,
        "bf16": torch.bfloat16,
    }
    return types[precision]


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
    return type(window).stack([window, *(window.without(modality) for modality in MODALITIES)])


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
        import numpy as np  # here, so that the command line can read the precisions without it

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
