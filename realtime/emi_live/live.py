"""The engine as its users hold it: start it, push media or let it capture, take estimates, stop it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from emi_engine.load import no_step
from emi_live.assembly import Builder, Parts
from emi_live.clock import Clock, MonotonicClock
from emi_live.config import LiveConfig
from emi_live.errors import ConfigurationError, StageError
from emi_live.flow import Script
from emi_live.health import Health
from emi_live.messages import Estimate
from emi_live.sources import PushSource

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from emi_engine import FusionEngine
    from emi_engine.load import Step
    from emi_live.bundle import Encoders
    from emi_live.bus.ends import PacketReader
    from emi_live.drift.watch import DriftReport
    from emi_live.sinks import Sink
    from emi_models.store import Progress

__all__ = ["LiveEngine"]

LAST_WORDS_S: Final = 0.3  # for the fusion loop, then each sink, to finish what is under way
JOIN_S: Final = 0.7  # for all parts together; one that needs longer is left behind, and said so

logger = logging.getLogger(__name__)


class LiveEngine:
    """Watches one person and says how strongly six emotions show; captured or pushed media, the same engine.

    ::

        with LiveEngine(config) as live:
            live.push_frame(rgb, t_ns)          # (height, width, 3) uint8 RGB
            live.push_audio(pcm, t_ns, 48_000)  # (n,) or (n, channels)
            for estimate in live.estimates():
                ...

    Capture times are nanoseconds of `time.monotonic_ns()` in `live` mode; in `exact` mode any increasing
    stamps will do, and the first one pushed is t = 0. In `exact` mode a window waits for every stream: end
    those that will not come (`end_video`, `end_audio`), and `end` when all is pushed. `push_frame` and
    `push_audio` may be called from one thread each; `estimates` and `latest` belong to one thread.
    """

    def __init__(
        self,
        config: LiveConfig | None = None,
        *,
        sinks: Sequence[Sink] = (),
        script: Script | None = None,
        engine: FusionEngine | None = None,
        encoders: Encoders | None = None,
        health: Health | None = None,
        clock: Clock | None = None,
        progress: Progress | None = None,
        step: Step | None = None,
    ) -> None:
        """Prepare an engine; nothing is opened, loaded or started before `with`.

        Args:
            config: settings; the default takes pushed media.
            sinks: where estimates go beside `estimates()`, each in a thread of its own.
            script: makes the stages that stand in for sources and encoders, as the demo's do.
            engine: answers in place of the checkpoint's own engine; `close` closes it.
            encoders: run in place of the bundle's own; `close` closes them.
            health: counters and states, for sinks that show them; a new one by default.
            clock: the clock of capture times.
            progress: told of every download of encoder weights.
            step: entered around each part of loading, e.g. "loading the face model"; nothing is printed here.
        """
        self.config = config or LiveConfig()
        self.health = health or Health()
        self.announcements: list[str] = []  # what runs, one line each; complete after `with`
        self._sinks = sinks
        self._script = script
        self._engine = engine
        self._encoders = encoders
        self._clock = clock or MonotonicClock()
        self._progress = progress
        self._stop = threading.Event()
        self._start_ns: int | None = None
        self._parts: Parts | None = None
        self._builder = Builder(
            self.config,
            self.health,
            self._clock,
            self.announcements.append,
            lambda: self._start_ns,
            step or no_step,
        )

    def load(self) -> None:
        """Load the models and open the devices, which takes seconds; `with` does it if it is not done.

        Once loaded, this does nothing until `close`.

        Raises:
            ConfigurationError: settings that contradict each other.
            SourceError: nothing to watch or listen to.
            CheckpointError: the checkpoint is not one for the encoders that run.
        """
        if self._parts is not None:
            return
        self._parts = self._builder.build(
            self._script, self._sinks, self._progress, self._engine, self._encoders
        )

    def swap(self, checkpoint: Path) -> None:
        """Change to another checkpoint between two windows, without a pause; it is loaded in this thread.

        Where its engine runs ONNX, have that beside the checkpoint: exports take seconds and Python's lock.

        Raises:
            CheckpointError: the checkpoint is not one for the encoders that run.
            EngineError: the engine of the settings cannot run it; the one that runs goes on.
            ConfigurationError: it is one for other windows, or the engine is not running.
        """
        parts = self._running()
        engine = self._builder.load_engine(checkpoint)
        second = None if parts.watch is None else self._builder.drift_engine(checkpoint)
        try:
            parts.loop.swap(engine)
        except ConfigurationError:
            engine.close()
            if second is not None:
                second.close()
            raise
        if parts.watch is not None and second is not None:
            parts.watch.swap(second)

    @property
    def drift(self) -> list[DriftReport]:
        """What each check of `audio.drift_every_s` found, oldest first; empty without it."""
        watch = self._running().watch
        return [] if watch is None else watch.reports

    def subscribe(self, topics: Sequence[str]) -> PacketReader:
        """The packets of the stages as they are published, for a program that records or measures.

        Call it between `load` and `with`, and read it in one thread. In exact mode, whatever is not read
        holds up its stage.

        Raises:
            ConfigurationError: not a topic of the bus, or nothing is loaded.
        """
        return self._running().bus.subscriber(topics)

    def __enter__(self) -> Self:
        """Start; raises as `load` does, and ConfigurationError for a sink that cannot write."""
        if self._parts is None:
            self.load()
        parts = self._running()
        try:
            for sink in self._sinks:
                sink.open()
        except BaseException:
            self.close()
            raise
        self._start_ns = self._clock.now_ns()
        watchers = [] if parts.watcher is None else [parts.watcher]
        for worker in (*parts.sinks, parts.fusion, *watchers, *parts.stages, *parts.sources):
            worker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop every thread, close every socket and device."""
        self.close()

    def push_frame(self, rgb: NDArray[np.uint8], t_ns: int) -> None:
        """Give one picture, as `Intake.push_frame`."""
        self._pushed().push_frame(rgb, t_ns)

    def push_audio(
        self,
        pcm: NDArray[np.float32] | NDArray[np.int16] | NDArray[np.int32],
        t_ns: int,
        rate_hz: int = 16_000,
    ) -> None:
        """Give one block of sound, as `Intake.push_audio`."""
        self._pushed().push_audio(pcm, t_ns, rate_hz)

    def end_video(self) -> None:
        """No more pictures will be pushed."""
        self._pushed().end_video()

    def end_audio(self) -> None:
        """No more sound will be pushed."""
        self._pushed().end_audio()

    def end(self) -> None:
        """No more media will be pushed: `estimates()` ends after the last window."""
        self._pushed().end()

    def estimates(self) -> Iterator[Estimate]:
        """Estimates as they come, until the media or the duration end.

        Raises:
            EmiError: as `check`, at the end.
        """
        yield from self._running().feed.iterate(self._stop)
        if self._parts is not None:
            self.check()

    def latest(self) -> Estimate | None:
        """The newest estimate not yet taken, without waiting, or None; for the loop of a robot or a game.

        Raises:
            EmiError: as `check`.
        """
        feed, newest = self._running().feed, None
        while (estimate := feed.next(0.0)) is not None:
            newest = estimate
        self.check()
        return newest

    def check(self) -> None:
        """Return if nothing has failed for good.

        Raises:
            StageError: the fusion loop has.
            LiveError: a sink can write no more, e.g. to a full disk.
        """
        parts = self._running()
        if parts.fusion.finished and parts.fusion.error is not None:
            raise StageError(f"the fusion loop failed: {parts.fusion.error}") from parts.fusion.error
        for sink in parts.sinks:
            if sink.error is not None:
                raise sink.error

    def close(self) -> None:
        """Stop and release everything, within about a second; safe to call again."""
        parts, self._parts = self._parts, None
        if parts is None:
            return
        if parts.watcher is not None:
            parts.watcher.request_stop()
        for worker in parts.producers:
            worker.request_stop()
        parts.intake.abort()
        if parts.fusion.join(LAST_WORDS_S):
            for worker in parts.sinks:  # these end by themselves, once they have the last estimate
                worker.join(LAST_WORDS_S)
        self._stop.set()
        parts.bus.stop()  # releases whoever waits for room
        deadline = time.monotonic() + JOIN_S
        left_behind = []
        for worker in (*parts.producers, *parts.sinks):
            worker.request_stop()
            if not worker.join(max(0.0, deadline - time.monotonic())):
                left_behind.append(worker.name)
        if parts.watcher is not None and not parts.watcher.join(max(0.0, deadline - time.monotonic())):
            logger.debug("a whole pass over the last window's sound is under way, and ends by itself")
        parts.limits.close()
        if left_behind:  # what they still use must not be released under them
            logger.warning("%s did not stop within %.1f s: left behind", ", ".join(left_behind), JOIN_S)
        else:
            parts.release.close()

    def _pushed(self) -> PushSource:
        source = self._running().pushed
        if source is None:
            raise ConfigurationError(
                "this engine captures media; leave out source.camera, source.input and source.mic to push it"
            )
        return source

    def _running(self) -> Parts:
        if self._parts is None:
            raise ConfigurationError(
                "the engine is not running; use it inside `with LiveEngine(config) as live:`"
            )
        return self._parts
