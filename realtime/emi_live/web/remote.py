"""A network and a recogniser for many servers: deployments of Ray Serve, and their clients.

`Fusion` computes the windows of all sessions in batches (`SharedEngine`), `Words` decodes utterances that
wait together in one call (`SharedModels`). In a server, `RemoteEngine` is a `FusionEngine` and `RemoteModels`
is `SharedModels`. A window waits for its answer at most a hop.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from emi_engine.protocol import ArrayEngine, EngineError, WindowLateError
from emi_live.errors import ConfigurationError
from emi_live.sharing import SharedEngine, SharedModels
from emi_live.web.ray_inside import bind_to_own_address
from emi_models.errors import EmiError
from emi_models.inputs import FusionInputs
from emi_models.speech.isolated import RecognizerLostError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray
    from ray.serve.handle import DeploymentHandle

    from emi_engine import FusionSession
    from emi_live.bundle import Encoders
    from emi_live.config import LiveConfig
    from emi_models import Modality
    from emi_models.checkpoint import CheckpointHeader
    from emi_models.inputs import FusionShapes, StreamWindow
    from emi_models.speech.recognizer import Hypothesis

__all__ = ["EngineFacts", "Fusion", "RemoteEngine", "RemoteModels", "Words"]

START_S: Final = 120.0  # models load
WORDS_S: Final = 60.0  # for an utterance, after those of others
CALLS: Final = 256  # windows or utterances that wait in one process


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What a `FusionEngine` says of itself."""

    name: str
    detail: str
    header: CheckpointHeader


class Fusion:
    """A deployment: the network of the settings, for the windows of any number of sessions."""

    def __init__(self, config: LiveConfig, most: int) -> None:
        """Load it; a batch has at most `most` rows."""
        bind_to_own_address()
        from emi_engine import load_engine
        from emi_live.bundle import bundle_of

        fusion, bundle = config.fusion, bundle_of(config)
        path = fusion.checkpoint or bundle.packaged_checkpoint()
        # An engine that reuses a stream's earlier work has no batches: ONNX Runtime computes them whole.
        kind = "onnxruntime" if fusion.engine in ("auto", "incremental") else fusion.engine
        load = partial(load_engine, path, kind, threads=fusion.threads)
        self._engine = load(device=fusion.device, precision=fusion.precision, plan=fusion.plan)
        self._shared = SharedEngine(self._engine, most=most)
        self._pool = ThreadPoolExecutor(CALLS, thread_name_prefix="fusion")

    async def about(self) -> EngineFacts:
        """What it runs."""
        detail = f"{self._engine.detail}, in batches shared with other servers"
        return EngineFacts(self._engine.name, detail, self._engine.header)

    async def infer(
        self, arrays: Mapping[str, NDArray[np.generic]], within_s: float | None
    ) -> NDArray[np.float32] | None:
        """Raw intensities (B, K) of rows by the names of `FusionInputs`; None: dropped at its deadline."""
        try:
            compute = partial(self._compute, arrays, within_s)
            return await asyncio.get_running_loop().run_in_executor(self._pool, compute)
        except WindowLateError:
            return None

    def _compute(
        self, arrays: Mapping[str, NDArray[np.generic]], within_s: float | None
    ) -> NDArray[np.float32]:
        if isinstance(self._engine, ArrayEngine):
            return self._shared.infer_arrays(arrays, within_s)
        import torch

        tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
        return self._shared.infer(FusionInputs(**tensors), within_s)


class RemoteEngine:
    """One user's `FusionEngine` that asks a `Fusion` deployment; every window is computed completely."""

    reuses = False

    def __init__(self, fusion: DeploymentHandle[Any], facts: EngineFacts, within_s: float) -> None:
        """Windows wait at most `within_s`, which is a hop."""
        self._fusion = fusion
        self._within_s = within_s
        self._closed = False
        self.name, self.detail, self.header = facts.name, facts.detail, facts.header
        self.shapes: FusionShapes = facts.header.shapes
        self.modalities: tuple[Modality, ...] = facts.header.modalities

    def infer(self, window: FusionInputs) -> NDArray[np.float32]:
        """As `FusionEngine.infer`."""
        window.check(self.shapes)
        names = FusionInputs.names()
        return self.ask({name: t.numpy() for name, t in zip(names, window.tensors(), strict=True)})

    def ask(self, arrays: Mapping[str, NDArray[np.generic]]) -> NDArray[np.float32]:
        """Raw intensities of rows in numpy; the caller must not be in an event loop.

        Raises:
            WindowLateError: no answer came in time.
            EngineError: the network failed, or nobody runs it; another replica is asked at the next window.
        """
        if self._closed:
            raise EngineError(f"the {self.name} engine was returned")
        asked = self._fusion.infer.remote(dict(arrays), self._within_s)
        try:
            answer = asked.result(timeout_s=self._within_s)
        except TimeoutError:
            asked.cancel()
            raise WindowLateError("the network of other servers did not answer within a hop") from None
        except Exception as error:  # whatever Ray raises
            raise EngineError(f"the network of other servers failed: {_line(error)}") from error
        if answer is None:
            raise WindowLateError("the network was busy with the windows of others until the deadline")
        found: NDArray[np.float32] = np.array(answer)
        return found

    def session(self) -> FusionSession:
        """As `FusionEngine.session`."""
        return _RemoteSession(self)

    def close(self) -> None:
        """Return it; the others keep the network."""
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _RemoteSession:
    """One stream of windows, each computed completely."""

    def __init__(self, engine: RemoteEngine) -> None:
        self._engine = engine

    def infer(self, window: StreamWindow, *, counterfactuals: bool = False) -> NDArray[np.float32]:
        """As `FusionSession.infer`."""
        shapes = self._engine.shapes
        window.check(shapes)
        window.check_finite()
        return self._engine.ask(window.arrays(shapes, counterfactuals=counterfactuals))

    def restart(self) -> None:
        """Nothing is kept from window to window."""


class Words:
    """A deployment: the speech recogniser of the settings, for utterances of any number of sessions.

    Utterances that wait together share a call where they can (`SharedModels`). More replicas recognise at
    the same time.
    """

    def __init__(self, config: LiveConfig) -> None:
        """Load it.

        Raises:
            ConfigurationError: it is not installed, or switched off.
        """
        from emi_live.bundle.base import Encoders, load_speech

        bind_to_own_address()
        from emi_models.store import ModelStore

        words = Encoders()
        store = ModelStore(config.models.directory, offline=config.models.offline)
        load_speech(words, config, store, None)
        if words.recognizer is None:
            raise ConfigurationError(f"no recogniser: {words.unavailable.get('text', 'it is switched off')}")
        self._recognizer = words.recognizer
        self._shared = SharedModels(words)
        self._pool = ThreadPoolExecutor(CALLS, thread_name_prefix="words")

    async def about(self) -> tuple[str, int]:
        """Its name, and how many hypotheses must agree."""
        return self._recognizer.name, self._recognizer.agreement

    async def recognise(self, prompt: str, sound: NDArray[np.float32], last: bool) -> tuple[Hypothesis, int]:
        """The words of an utterance, (n,) at 16 kHz, from its beginning, and how many shared its call.

        `last`: it has ended.
        """
        user = self._shared.lend_recognizer(self._recognizer)
        user.begin(prompt)
        user.accept(sound)
        ask = user.finish if last else user.hypothesis
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, ask), user.together
        finally:
            user.close()  # if who asks has gone: its thread does not wait for a turn


class _RemoteRecognizer:
    """One user's `Recognizer` that asks a `Words` deployment, with all sound of the utterance each time."""

    def __init__(
        self, words: DeploymentHandle[Any], name: str, agreement: int, answered: Callable[[int], None]
    ) -> None:
        """`answered` is told how many utterances shared a call."""
        self._words = words
        self._answered = answered
        self.name = name
        self.agreement = agreement
        self._prompt = ""
        self._sound: list[NDArray[np.float32]] = []
        self._asked: Any = None
        self._lock = threading.Lock()
        self._closed = False

    def begin(self, prompt: str = "") -> None:
        """As `Recognizer.begin`."""
        self._prompt, self._sound = prompt, []

    def accept(self, samples: NDArray[np.float32]) -> None:
        """As `Recognizer.accept`; nothing is sent yet."""
        self._sound.append(samples.copy())

    def hypothesis(self) -> Hypothesis:
        """As `Recognizer.hypothesis`."""
        return self._ask(last=False)

    def finish(self) -> Hypothesis:
        """As `Recognizer.finish`."""
        found = self._ask(last=True)
        self.begin()
        return found

    def forget(self) -> None:
        """Drop what was accepted."""
        self.begin()

    def close(self) -> None:
        """Return it; a call that waits ends with an error."""
        with self._lock:
            self._closed = True
            if self._asked is not None:
                self._asked.cancel()

    def _ask(self, *, last: bool) -> Hypothesis:
        sound = np.concatenate(self._sound) if self._sound else np.zeros(0, np.float32)
        with self._lock:
            if self._closed:
                raise RecognizerLostError("the speech recogniser was returned")
            self._asked = asked = self._words.recognise.remote(self._prompt, sound, last)
        try:
            found, together = asked.result(timeout_s=WORDS_S)
        except Exception as error:  # whatever Ray raises
            with suppress(Exception):
                asked.cancel()
            raise RecognizerLostError(f"the recogniser of other servers failed: {_line(error)}") from error
        finally:
            self._asked = None
        self._answered(together)
        answer: Hypothesis = found
        return answer


class RemoteModels(SharedModels):
    """`SharedModels` whose recogniser is a `Words` deployment; the sentence encoder is this process's own."""

    def __init__(self, encoders: Encoders, words: DeploymentHandle[Any]) -> None:
        """Take over the sentence encoder of these; their recogniser is a `recognizer`."""
        super().__init__(encoders)
        self._words = words

    @staticmethod
    def recognizer(words: DeploymentHandle[Any], name: str, agreement: int) -> _RemoteRecognizer:
        """A recogniser to load the other models with."""
        return _RemoteRecognizer(words, name, agreement, lambda _: None)

    def lend(self) -> Encoders:
        """As `SharedModels.lend`; users do not wait for each other in this process."""
        lent = super().lend()
        if lent.recognizer is None:
            return lent
        name, agreement = lent.recognizer.name, lent.recognizer.agreement
        own = _RemoteRecognizer(self._words, name, agreement, self._count)
        return replace(lent, recognizer=own)


def _line(error: BaseException) -> str:
    """Ray puts the remote traceback into its messages: its last line says what it was."""
    cause = error.__cause__ if isinstance(error.__cause__, EmiError) else error
    return next(reversed(str(cause).strip().splitlines()), type(error).__name__)
