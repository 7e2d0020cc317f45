"""Several people, one engine: windows that wait together are one batch, and none waits past its deadline.

A lone window runs at once. Those that come while a batch runs wait together, and are the next batch: the
earliest deadline first, and only as many as the engine computes, at its present pace, before that deadline. A
window whose deadline has passed is dropped (`WindowLateError`, counted as `late`); its sender then cuts the
newest one. So batches make a busy engine faster, on a GPU, and never cost a hop that one window alone
would not have cost. Each batch runs in the thread of a caller. ONNX Runtime on the CPU gets batches in
numpy, so that PyTorch is not needed. An engine that reuses earlier work (`incremental`) needs no batches:
each session runs in its caller's thread.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from emi_engine.protocol import ArrayEngine, EngineError, FullPassSession, WindowLateError
from emi_live.turns import Asked, Turns
from emi_models.inputs import FusionInputs
from emi_models.speech.isolated import RecognizerLostError
from emi_models.speech.recognizer import BatchRecognizer, Utterance

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from emi_engine import FusionEngine, FusionSession
    from emi_engine.load import Step
    from emi_live.bundle import Encoders, FaceReader
    from emi_live.bundle.base import Bundle
    from emi_live.config import LiveConfig
    from emi_models import Modality
    from emi_models.checkpoint import CheckpointHeader
    from emi_models.inputs import FusionShapes, StreamWindow
    from emi_models.speech.recognizer import Batching, Hypothesis, Recognizer
    from emi_models.store import ModelStore, Progress

__all__ = ["KeptModels", "LentRecognizer", "SharedEngine", "SharedModels"]

NEWEST: Final = 0.2  # weight of the newest batch in the engine's pace


@dataclass(slots=True, eq=False, kw_only=True)
class _Request(Asked):
    """One caller's rows, in numpy for an `ArrayEngine`."""

    window: FusionInputs | Mapping[str, NDArray[np.generic]]
    rows: int
    due_s: float  # by the engine's clock; inf: it waits for as long as it takes


class SharedEngine(Turns[_Request]):
    """One engine for several `LiveEngine`s of a process; each gets its own handle from `lend`.

    ::

        with SharedEngine(load_engine(path, "tensorrt")) as shared:
            people = [LiveEngine(config, engine=shared.lend(within_s=0.2)) for config in configs]

    `calls` and `rows` count batches and their windows: rows / calls is the mean size of a batch. `late`
    counts windows that were dropped.
    """

    def __init__(
        self, engine: FusionEngine, *, most: int = 16, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Take over an engine; `close` closes it.

        Args:
            engine: runs in the thread of the caller that runs a batch.
            most: rows of a batch; one caller may have more.
            clock: seconds, for deadlines.
        """
        super().__init__()
        self.engine = engine
        self._most = most
        self._clock = clock
        self._row_s = 0.0  # what a row takes at present
        self._started_s = 0.0
        self.calls = 0
        self.rows = 0
        self.late = 0

    def lend(self, within_s: float | None = None) -> FusionEngine:
        """A handle for one user, in any thread; closing it does not affect the others.

        Args:
            within_s: how long a window may wait for its turn, in live use at most a hop. None: for as long as
                it takes, as exact mode needs it.
        """
        return _Lent(self, within_s)

    def infer(self, window: FusionInputs, within_s: float | None = None) -> NDArray[np.float32]:
        """As `FusionEngine.infer`, from any thread; an error of one window does not affect the others.

        Raises:
            WindowLateError: its turn has not come `within_s`.
        """
        window.check(self.engine.shapes)
        if isinstance(self.engine, ArrayEngine):
            names = FusionInputs.names()
            arrays = {name: tensor.numpy() for name, tensor in zip(names, window.tensors(), strict=True)}
            return self._ask(arrays, window.batch, within_s)
        return self._ask(window, window.batch, within_s)

    def infer_arrays(
        self, arrays: Mapping[str, NDArray[np.generic]], within_s: float | None = None
    ) -> NDArray[np.float32]:
        """As `ArrayEngine.run_arrays`, from any thread; the engine must be one.

        Raises:
            WindowLateError: its turn has not come `within_s`.
        """
        return self._ask(arrays, len(arrays["text_present"]), within_s)

    def _ask(
        self, window: FusionInputs | Mapping[str, NDArray[np.generic]], rows: int, within_s: float | None
    ) -> NDArray[np.float32]:
        due_s = math.inf if within_s is None else self._clock() + within_s
        answer: NDArray[np.float32] = self.ask(_Request(window=window, rows=rows, due_s=due_s))
        return answer

    def close(self) -> None:
        """Close the engine; no handle may be used after that."""
        self.engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait(self, asked: _Request) -> None:
        """Wait for a change, or give up a window whose deadline has passed."""
        if asked not in self.waiting:
            self.changed.wait()  # it is in the batch that runs
        elif (left_s := asked.due_s - self._clock()) > 0:
            self.changed.wait(None if left_s == math.inf else left_s)
        else:
            self._drop(asked)

    def _drop(self, request: _Request) -> None:
        """Give up a window whose deadline has passed."""
        self.waiting.remove(request)
        self.late += request.rows
        request.error = WindowLateError("the engine was busy with the windows of others until the deadline")
        request.done = True

    def next_call(self) -> list[_Request]:
        """The windows of the next batch; those that are too late are dropped."""
        self._started_s = self._clock()
        if late := [one for one in self.waiting if one.due_s <= self._started_s]:
            for request in late:
                self._drop(request)
            return []  # one of them may be who would run the batch
        batch: list[_Request] = []
        rows = 0
        for request in sorted(self.waiting, key=lambda one: one.due_s):
            rows += request.rows
            if batch and (rows > self._most or self._started_s + rows * self._row_s > batch[0].due_s):
                break
            batch.append(request)
        if batch:
            self.calls += 1
            self.rows += sum(request.rows for request in batch)
        return batch

    def ended(self, call: list[_Request]) -> None:
        """Take the pace of the engine."""
        row_s = (self._clock() - self._started_s) / sum(request.rows for request in call)
        self._row_s += (NEWEST if self._row_s else 1.0) * (row_s - self._row_s)

    def compute(self, call: list[_Request]) -> None:
        """The intensities of each window."""
        answers, start = self._compute([request.window for request in call]), 0
        for request in call:
            request.answer = answers[start : start + request.rows]
            start += request.rows

    def _compute(self, windows: list[Any]) -> NDArray[np.float32]:
        """The rows of all windows; they are all of the kind that the engine takes."""
        if not isinstance(self.engine, ArrayEngine):
            return self.engine.infer(FusionInputs.stack(windows))
        if len(windows) == 1:
            return self.engine.run_arrays(windows[0])
        names = FusionInputs.names()
        return self.engine.run_arrays(
            {name: np.concatenate([window[name] for window in windows]) for name in names}
        )


class _SharedSession:
    """One user's `FusionSession` on a shared `ArrayEngine`; windows stay in numpy."""

    def __init__(self, lent: _Lent) -> None:
        self._lent = lent

    def infer(self, window: StreamWindow, *, counterfactuals: bool = False) -> NDArray[np.float32]:
        """As `FusionSession.infer`."""
        shared, shapes = self._lent.shared(), self._lent.shapes
        window.check(shapes)
        window.check_finite()
        arrays = window.arrays(shapes, counterfactuals=counterfactuals)
        return shared.infer_arrays(arrays, self._lent.within_s)

    def restart(self) -> None:
        """Nothing is kept from window to window."""


class _Lent:
    """One user's handle to a shared engine; itself a `FusionEngine`."""

    reuses: bool

    def __init__(self, shared: SharedEngine, within_s: float | None) -> None:
        engine = shared.engine
        self.within_s = within_s
        self._shared: SharedEngine | None = shared
        self.name: str = engine.name
        self.detail = engine.detail if engine.reuses else f"{engine.detail}, in batches shared with others"
        self.shapes: FusionShapes = engine.shapes
        self.header: CheckpointHeader = engine.header
        self.modalities: tuple[Modality, ...] = engine.modalities
        self.reuses = engine.reuses

    def infer(self, window: FusionInputs) -> NDArray[np.float32]:
        """As `FusionEngine.infer`."""
        return self.shared().infer(window, self.within_s)

    def session(self) -> FusionSession:
        """As `FusionEngine.session`."""
        engine = self.shared().engine
        if self.reuses:
            return engine.session()
        return _SharedSession(self) if isinstance(engine, ArrayEngine) else FullPassSession(self)

    def close(self) -> None:
        """Return the handle."""
        self._shared = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def shared(self) -> SharedEngine:
        """The engine that this is a handle of.

        Raises:
            EngineError: the handle was returned.
        """
        if self._shared is None:
            raise EngineError(f"the {self.name} engine was returned; call `lend` again")
        return self._shared


@dataclass(slots=True, eq=False, kw_only=True)
class _Question(Asked):
    """One user's question."""

    user: LentRecognizer
    last: bool


class SharedModels(Turns[_Question]):
    """A speech recogniser and a sentence encoder for several `LiveEngine`s of a process.

    ::

        with SharedModels(bundle_of(config).load_words(config, store)) as shared:
            people = [LiveEngine(config, shared=shared) for config in configs]

    Users of the recogniser are served in the order in which they ask. If it is a `BatchRecognizer`, those who
    wait and have an utterance of about the same length as the first one are served with it, in one call;
    nobody waits for company. One who is served alone hands over all sound of its utterance, if another one
    was served before. What the recogniser learns of a microphone (with `speech.language=auto`, its language)
    may be that of another user until the next utterance.
    """

    def __init__(self, encoders: Encoders) -> None:
        """Take over the recogniser and the sentence encoder of these; `close` closes them."""
        super().__init__()
        self._encoders = encoders
        own = encoders.recognizer
        self._batching = own.batching if isinstance(own, BatchRecognizer) else None
        self._served: LentRecognizer | None = None  # whose sound the recogniser has
        self._sizes: Counter[int] = Counter()  # hypotheses, by the size of their batch

    def lend(self) -> Encoders:
        """Handles for one user, in any thread; closing them does not affect the others."""
        own, recognizer = self._encoders, self._encoders.recognizer
        return replace(
            own,
            recognizer=None if recognizer is None else self.lend_recognizer(recognizer),
            smaller_recognizer=None,
            ids=dict(own.ids),
            dims=dict(own.dims),
            unavailable=dict(own.unavailable),
            announcements=list(own.announcements),
            terms=list(own.terms),
        )

    def lend_recognizer(self, recognizer: Recognizer) -> LentRecognizer:
        """A handle to the recogniser alone, which is that of these models."""
        return LentRecognizer(self, recognizer)

    def load(
        self,
        bundle: Bundle,
        config: LiveConfig,
        store: ModelStore,
        *,
        vision: bool,
        audio: bool,
        progress: Progress | None = None,
        step: Step | None = None,
    ) -> Encoders:
        """All encoders of one user: handles to what is shared, and the rest loaded as by `Bundle.load`."""
        return bundle.load(
            config, store, vision=vision, audio=audio, progress=progress, step=step, lent=self.lend()
        )

    def network(self, load: Callable[[], FusionEngine]) -> FusionEngine:
        """The fusion engine of one user: its own, from `load`."""
        return load()

    def close(self) -> None:
        """Close the models; no handle may be used after that."""
        self._encoders.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def counts(self) -> dict[str, int]:
        """How many hypotheses were asked for in batches of each size: `hypotheses_in_batch_of_2`."""
        with self.changed:
            return {f"hypotheses_in_batch_of_{size}": n for size, n in sorted(self._sizes.items())}

    def _count(self, together: int) -> None:
        with self.changed:
            self._sizes[together] += 1

    def wait(self, asked: _Question) -> None:
        """Wait for a change.

        Raises:
            RecognizerLostError: the handle was closed, or its utterance given up, meanwhile.
        """
        if asked.user.gone:
            raise RecognizerLostError("the speech recogniser was returned")
        self.changed.wait()

    def next_call(self) -> list[_Question]:
        """The first in the queue, and all that can share its call."""
        if gone := [one for one in self.waiting if one.user.gone]:
            for asked in gone:
                self.waiting.remove(asked)
                asked.error = RecognizerLostError("the speech recogniser was returned")
                asked.done = True
            return []  # one of them may be who would run the call
        first, batching = self.waiting[0], self._batching
        kind = None if batching is None else first.user.kind(batching)
        if batching is None or kind is None:
            return [first]
        return [asked for asked in self.waiting if asked.user.kind(batching) == kind][: batching.most]

    def ended(self, call: list[_Question]) -> None:
        """Count the hypotheses by the size of their batch."""
        for asked in call:
            asked.user.together = len(call)
            self._sizes[len(call)] += 1

    def compute(self, call: list[_Question]) -> None:
        """The words of each utterance."""
        recognizer = self._encoders.recognizer
        if len(call) == 1:
            (asked,) = call
            known, self._served = self._served is asked.user, None
            asked.answer = asked.user.recognise(last=asked.last, known=known)
            self._served = asked.user  # after an error, nobody's: the next one begins again
            return
        self._served = None
        assert isinstance(recognizer, BatchRecognizer)  # noqa: S101  # else nobody shares a call
        utterances = [asked.user.utterance(last=asked.last) for asked in call]
        for asked, answer in zip(call, recognizer.recognize(utterances), strict=True):
            asked.answer = answer


class KeptModels(SharedModels):
    """All models of a bundle, for `LiveEngine`s that run one after another, each on a clip of its own.

    Call `forget` between two of them: a clip then has the numbers that it has right after loading.

    Attributes:
        encoders: those of the bundle.
        engine: the fusion engine, once it is loaded.
    """

    def __init__(self, encoders: Encoders, engine: SharedEngine | None = None) -> None:
        """Take over encoders that were loaded for pictures and sound; `close` closes them.

        Args:
            encoders: those.
            engine: a fusion engine that stays another's; None: the first user loads one.
        """
        super().__init__(encoders)
        self.encoders = encoders
        self.engine = engine
        self._engine_is_ours = engine is None

    def load(
        self,
        bundle: Bundle,
        config: LiveConfig,
        store: ModelStore,
        *,
        vision: bool,
        audio: bool,
        progress: Progress | None = None,
        step: Step | None = None,
    ) -> Encoders:
        """Handles to those of the encoders that the clip's streams need; nothing is loaded."""
        lent = self.lend()
        lent.face = None if lent.face is None else _LentFace(lent.face)
        if not vision:
            lent.face = lent.crops = None
            lent.unavailable.pop("vision", None)
        if not audio:
            lent.prosody = lent.voice = lent.voice_gate = lent.recognizer = lent.sentence = None
            lent.unavailable.pop("audio", None)
            lent.unavailable.pop("text", None)
        return lent

    def network(self, load: Callable[[], FusionEngine]) -> FusionEngine:
        """A handle to the fusion engine, which the first user loads."""
        if self.engine is None:
            self.engine = SharedEngine(load(), most=1)  # one window is a batch: nobody waits for another
        return self.engine.lend()

    def forget(self) -> None:
        """Forget earlier clips."""
        self._encoders.forget()

    def abandon(self) -> None:
        """Close only the recogniser, which a process of its own runs: a thread may still use the others."""
        for recognizer in (self._encoders.recognizer, self._encoders.smaller_recognizer):
            if recognizer is not None:
                recognizer.close()

    def close(self) -> None:
        """Close the models; no handle may be used after that."""
        super().close()
        if self.engine is not None and self._engine_is_ours:
            self.engine.close()


class _LentFace:
    """A handle to a face encoder; closing it does not affect the next user."""

    def __init__(self, face: FaceReader) -> None:
        self.analyse = face.analyse
        self.follow = face.follow
        self.reset = face.reset

    def close(self) -> None:
        """Return the handle."""


class LentRecognizer:
    """One user's handle to a shared recogniser; itself a `Recognizer`."""

    def __init__(self, shared: SharedModels, recognizer: Recognizer) -> None:
        self._shared = shared
        self._recognizer = recognizer
        self.name = recognizer.name
        self.agreement = recognizer.agreement
        self.gone = False  # nobody waits for an answer any more
        self.together = 0  # utterances that shared the last call with this one, itself among them
        self._prompt = ""
        self._sound: list[NDArray[np.float32]] = []  # of the utterance
        self._given = 0  # how many of those blocks the recogniser has
        self._begun = False  # whether the recogniser knows that the utterance has begun

    def begin(self, prompt: str = "") -> None:
        """As `Recognizer.begin`."""
        self._prompt, self._sound, self._given, self._begun = prompt, [], 0, False

    def accept(self, samples: NDArray[np.float32]) -> None:
        """As `Recognizer.accept`; the recogniser gets them at the next turn."""
        self._sound.append(samples.copy())

    def hypothesis(self) -> Hypothesis:
        """As `Recognizer.hypothesis`, after those who asked before."""
        found: Hypothesis = self._shared.ask(_Question(user=self, last=False))
        return found

    def finish(self) -> Hypothesis:
        """As `Recognizer.finish`, after those who asked before."""
        found: Hypothesis = self._shared.ask(_Question(user=self, last=True))
        self.begin()
        return found

    def kind(self, batching: Batching) -> int | None:
        """As of `Batching`, of the utterance so far."""
        return batching.kind(sum(samples.size for samples in self._sound), self._prompt)

    def utterance(self, *, last: bool) -> Utterance:
        """All of the utterance so far."""
        sound = np.concatenate(self._sound) if self._sound else np.zeros(0, np.float32)
        return Utterance(sound, self._prompt, last)

    def recognise(self, *, last: bool, known: bool) -> Hypothesis:
        """Hand over the sound that the recogniser lacks, and ask it. `known`: it has that of this user."""
        if not (known and self._begun):
            self._recognizer.begin(self._prompt)
            self._begun, self._given = True, 0
        for samples in self._sound[self._given :]:
            self._recognizer.accept(samples)
        self._given = len(self._sound)
        return self._recognizer.finish() if last else self._recognizer.hypothesis()

    def forget(self) -> None:
        """Drop what was accepted; what was learnt of microphones stays, for the others."""
        self.gone = False
        self.begin()

    def give_up(self) -> None:
        """End a call that waits for its turn with an error, and all calls until `forget`."""
        with self._shared.changed:
            self.gone = True
            self._shared.changed.notify_all()

    def close(self) -> None:
        """Return the handle; a call that waits for its turn ends with an error."""
        self.give_up()
