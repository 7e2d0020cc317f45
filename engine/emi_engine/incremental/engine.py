"""The CPU engine that reuses, hop after hop, what it computed before: the default for a large TAEMI."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from emi_engine.engine import CheckedEngine
from emi_engine.errors import EngineError
from emi_engine.incremental.network import SlidingTaemi, TaemiWeights
from emi_engine.protocol import LEFT_OUT
from emi_models.networks.taemi import Taemi, taemi_work

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from emi_engine.protocol import FusionEngine
    from emi_models.checkpoint import LoadedCheckpoint
    from emi_models.inputs import FusionInputs, StreamWindow

__all__ = ["IncrementalEngine", "IncrementalSession", "pays"]

# Of a whole pass, from which on it takes longer than a hop's hundred calls and their waits for Python's lock.
PAYS_FLOPS: Final = 1_000_000_000


def pays(checkpoint: LoadedCheckpoint) -> bool:
    """Whether to reuse frames across hops is possible and worth it: a TAEMI, and a large one.

    The packaged one is too small: with busy stages its hops took twice as long as whole windows
    (docs/decisions/0011).
    """
    network = checkpoint.network
    return isinstance(network, Taemi) and taemi_work(network.config).flops >= PAYS_FLOPS


class IncrementalEngine(CheckedEngine):
    """Streams by exact reuse, in fp32 and numpy; single windows by another engine, built when one comes.

    Weights are shared and only read: sessions may run in threads of their own, one thread each.
    """

    name = "incremental-cpu"
    detail = "fp32, each hop computes its new frames alone"
    reuses = True

    def __init__(
        self,
        checkpoint: LoadedCheckpoint,
        full: Callable[[], FusionEngine],
        *,
        running_sums: bool = True,
    ) -> None:
        """Take a checkpoint's weights over.

        Args:
            checkpoint: a TAEMI.
            full: makes the engine for windows that belong to no stream.
            running_sums: off, self-attention is computed again at each hop; the rest is reused all the same.

        Raises:
            EngineError: the network is not one that can be reused across hops.
        """
        super().__init__(checkpoint)
        network = checkpoint.network
        if not isinstance(network, Taemi):
            raise EngineError(
                f"only TAEMI can be computed hop by hop, and this is a {self.header.system} checkpoint; "
                "choose the engine `onnxruntime` or `torch`"
            )
        self._weights: TaemiWeights | None = TaemiWeights(network)
        self._running_sums = running_sums
        self._make_full: Callable[[], FusionEngine] | None = full
        self._full: FusionEngine | None = None

    def session(self) -> IncrementalSession:
        """A new stream, as `FusionEngine.session`."""
        if self._weights is None:
            raise EngineError(f"the {self.name} engine is closed; load it again")
        return IncrementalSession(self, SlidingTaemi(self._weights, running_sums=self._running_sums))

    def _run(self, window: FusionInputs) -> NDArray[np.float32]:
        if self._full is None:
            assert self._make_full is not None  # noqa: S101  # `infer` has refused a closed engine
            self._full = self._make_full()
        return self._full.infer(window)

    def _release(self) -> None:
        self._weights = self._make_full = None  # the latter holds the checkpoint
        if self._full is not None:
            self._full.close()
            self._full = None


class IncrementalSession:
    """A `FusionSession` that remembers the frames of its last window."""

    def __init__(self, engine: IncrementalEngine, network: SlidingTaemi) -> None:
        self._engine = engine
        self._network = network

    @property
    def computed(self) -> int:
        """Attention rows that were computed whole so far; the rest was reused."""
        return self._network.computed

    def infer(self, window: StreamWindow, *, counterfactuals: bool = False) -> NDArray[np.float32]:
        """As `FusionSession.infer`; whatever is raised, the next window is computed whole."""
        self._engine.check_open()
        window.check(self._engine.shapes)
        try:
            with np.errstate(all="ignore"):  # what overflows is found in the result
                answers = self._network.forward(window, LEFT_OUT if counterfactuals else (None,))
            if not np.isfinite(answers).all():
                raise self._engine.not_finite(answers.shape)
        except BaseException:
            self._network.restart()  # what was half taken in would be taken for known
            raise
        return answers

    def restart(self) -> None:
        """Forget the stream; the next window is computed whole."""
        self._network.restart()
