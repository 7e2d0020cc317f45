"""The live engine for programs: start it, push media or let it capture, take estimates, stop it."""

from __future__ import annotations

import ctypes
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from emi_engine.load import no_step
from emi_live.bundle import with_tuned_encoders
from emi_live.clock import NS_PER_S, Clock, MonotonicClock
from emi_live.config import LiveConfig
from emi_live.errors import ConfigurationError, SourceError, StageError
from emi_live.flow import StageMaker
from emi_live.health import Health
from emi_live.messages import Estimate
from emi_live.pipeline import Builder, Parts
from emi_live.sinks import AsyncEstimates, AttachedSink, EstimateReader
from emi_live.worker import Worker
from emi_models.errors import EmiError

if TYPE_CHECKING:
    from contextlib import ExitStack

    from emi_engine import FusionEngine
    from emi_engine.load import Step
    from emi_live.bundle import Encoders
    from emi_live.bus import PacketReader
    from emi_live.drift import DriftReport
    from emi_live.media import PixelFormat, SoundLayout
    from emi_live.rings import VideoReader
    from emi_live.sharing import SharedModels
    from emi_live.sinks import EstimateBox, Sink
    from emi_live.sources.push import PushSource
    from emi_models.store import Progress

__all__ = ["LiveEngine"]

LAST_WORDS_S: Final = 0.3  # for the fusion loop, then each sink, to finish their work
SLICE_S: Final = 0.1  # how often a wait for sinks checks whether the engine was closed
JOIN_S: Final = 0.7  # for all parts together; what a slower one uses is released when it has ended

logger = logging.getLogger(__name__)


class LiveEngine:
    """Watches one person and estimates how strongly six emotions show, from captured or pushed media.

    ::

        with LiveEngine(config) as live:
            live.push_frame(rgb)            # (height, width, 3) uint8 RGB, captured now
            live.push_audio(pcm, t_ns, 48_000)  # (n,) or (n, channels)
            for estimate in live.estimates():
                print(estimate["joy"])

    Or `async with LiveEngine(config) as live: async for estimate in live: …`, or `on_estimate`.

    Capture times are nanoseconds of `time.monotonic_ns()` in `live` mode; in `exact` mode any increasing
    stamps are valid, and the first one pushed is t = 0. In `exact` mode a window waits for every stream: push
    them in order of time, call `advance` in pauses, end those that will not come (`end_video`, `end_audio`),
    and `end` after the last push. A stream that is `source.push_lead_s` behind is not waited for.

    Any thread may call any method; docs/embedding.md says more.
    """

    def __init__(
        self,
        config: LiveConfig | None = None,
        *,
        sinks: Sequence[Sink] = (),
        make_stages: StageMaker | None = None,
        engine: FusionEngine | None = None,
        encoders: Encoders | None = None,
        shared: SharedModels | None = None,
        health: Health | None = None,
        clock: Clock | None = None,
        progress: Progress | None = None,
        on_estimate: Callable[[Estimate], object] | None = None,
        step: Step | None = None,
    ) -> None:
        """Create an engine; nothing is opened, loaded or started before `with`.

        Args:
            config: settings; the default takes pushed media.
            sinks: where estimates go, in addition to `estimates()`; each runs in its own thread.
            make_stages: takes the bus and returns stages that replace sources and encoders, as `demo_stages`
                does.
            engine: the fusion engine to use in place of one for the checkpoint; `close` closes it.
            encoders: run in place of the bundle's own; `close` closes them.
            shared: lends the models of words, which are then not loaded again.
            health: counters and states, for sinks that show them; a new one by default.
            clock: the clock of capture times.
            progress: called on every download of encoder weights.
            on_estimate: called with each estimate, in its own thread; its exceptions are logged and
                counted as `on_estimate.failures`.
            step: entered around each part of loading, e.g. "loading the face model"; nothing is printed here.
        """
        if config is not None and not isinstance(config, LiveConfig):
            raise ConfigurationError(
                f"LiveEngine takes a LiveConfig, not {config!r}; make one with LiveConfig(mode='exact') or "
                "load_config('robot')"
            )
        self.config = with_tuned_encoders(config or LiveConfig())
        if self.config.source.is_recording:
            from emi_live.recording import with_recorded

            self.config = with_recorded(self.config)
        self.health = health or Health()
        self.announcements: list[str] = []  # what runs, one line each; complete after `with`
        self._sinks = sinks
        self._make_stages = make_stages
        self._engine = engine
        self._encoders = encoders
        self._shared = shared
        self._clock = clock or MonotonicClock()
        self._progress = progress
        self._on_estimate = on_estimate
        self._marks = 0
        self._marking = threading.Lock()
        self._start_ns: int | None = None
        self._parts: Parts | None = None
        self._pid = os.getpid()  # the process in which it was loaded
        self._ended = False  # it has run and was closed
        self._told_end = False  # the last estimate was taken
        self._builder = Builder(
            self.config,
            self.health,
            self._clock,
            self.announcements.append,
            lambda: self._start_ns,
            step or no_step,
        )

    def load(self) -> None:
        """Load the models and open the devices, which takes seconds; `with` does it if you have not.

        A second call does nothing until `close`; after that the engine may be used again.

        Raises:
            ConfigurationError: settings that contradict each other, or the engine was closed with what it was
                given.
            SourceError: there is no source of pictures or sound.
            CheckpointError: the checkpoint is not one for the encoders that run.
        """
        if self._parts is not None:
            self._running()
            return
        given = {"sinks": self._sinks, "engine": self._engine, "encoders": self._encoders}
        if self._ended and (closed := [name for name, what in given.items() if what]):
            raise ConfigurationError(
                f"this engine has ended, and closed the {' and '.join(closed)} that it was given; make a new "
                "LiveEngine with new ones"
            )
        self._pid = os.getpid()
        self._start_ns, self._told_end = None, False
        self.announcements.clear()
        self._parts = self._builder.build(
            self._make_stages,
            self._sinks,
            self._progress,
            self._engine,
            self._encoders,
            self._on_estimate,
            self._shared,
        )
        _running_engines.add(self)
        for sink in self._sinks:
            if isinstance(sink, AttachedSink):
                sink.attach(self)

    def swap(self, checkpoint: str | Path) -> None:
        """Change to another checkpoint between two windows, without a pause; it is loaded in this thread.

        Any checkpoint for the encoders that run is possible, with windows of any size.
        If its engine runs ONNX, export it beforehand: an export takes seconds and holds Python's lock.

        Raises:
            CheckpointError: the checkpoint is not one for the encoders that run.
            EngineError: the engine of the settings cannot run it; the present one continues.
            ConfigurationError: it takes other features, or the engine is not running.
        """
        parts, checkpoint = self._running(), Path(checkpoint)
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

    def mark(self, label: str = "", t_ns: int | None = None, *, origin: str = "python") -> int:
        """Set a marker, such as the start of a stimulus; any thread may call.

        The next estimate carries it, and so does every sink.

        Args:
            label: what happened, at most 100 characters.
            t_ns: when, by the clock of capture times; None = now; in exact mode, the end of the next
                window.
            origin: who sets it.

        Returns:
            Its number in this run, from 1.

        Raises:
            ConfigurationError: a label that is too long, over 32 markers for one estimate, or the engine is
                not running.
        """
        loop = self._running().loop
        with self._marking:
            loop.mark(self._marks + 1, t_ns, label, origin)
            self._marks += 1
            return self._marks

    def follow(self, face: tuple[float, float] | Literal["largest"] = "largest") -> None:
        """Choose again which face is followed, in the next picture that shows one; any thread may call.

        Without this call the face that was found first, the largest, is followed for as long as it is seen.

        Args:
            face: `largest`, or the one nearest to a point (x, y), in fractions of the picture from its upper
                left corner.

        Raises:
            ConfigurationError: nothing reads faces, the engine is not running, or the point is outside.
        """
        parts = self._running()
        if parts.face is None:
            raise ConfigurationError("no face can be followed: the face stage does not run")
        if face != "largest" and not all(0 <= part <= 1 for part in face):
            raise ConfigurationError(f"follow{face}: the point must be in fractions of the picture, 0 to 1")
        parts.face.follow(face)

    def show_landmarks(self, on: bool = True) -> None:
        """Whether packets of `vision` carry the landmarks of the followed face; at first they do not.

        Raises:
            ConfigurationError: nothing reads faces, or the engine is not running.
        """
        parts = self._running()
        if parts.face is None or parts.landmarks is None:
            raise ConfigurationError("there are no landmarks: the face stage does not run")
        if on:
            parts.landmarks.set()
        else:
            parts.landmarks.clear()

    @property
    def drift(self) -> list[DriftReport]:
        """The results of the checks of `audio.drift_every_s`, oldest first; empty without it."""
        watch = self._running().watch
        return [] if watch is None else watch.reports

    def subscribe(self, topics: Sequence[str]) -> PacketReader:
        """The packets of the stages as they are published, for a program that records or measures.

        Call it between `load` and `with`, and read it in one thread. In exact mode, packets that are not read
        make their stage wait.

        Raises:
            ConfigurationError: not a topic of the bus, or nothing is loaded.
        """
        return self._running().bus.subscriber(topics)

    def frames(self) -> VideoReader:
        """The frames that the engine takes, for a program that shows them; the newest one wins.

        Call it between `load` and `with`, and read it in one thread. Nothing ever waits for this reader.

        Raises:
            ConfigurationError: nothing is loaded.
        """
        return self._running().video.reader(loose=True)

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
        for worker in (parts.feed, *parts.sinks, parts.fusion, *watchers, *parts.stages, *parts.sources):
            worker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop every thread, close every socket and device."""
        self.close()

    async def __aenter__(self) -> Self:
        """As `with`, but the event loop is not blocked while models load."""
        import asyncio

        entering = asyncio.ensure_future(asyncio.to_thread(self.__enter__))
        try:
            return await asyncio.shield(entering)
        except asyncio.CancelledError:  # the thread continues: stop what it starts
            await asyncio.wait({entering})
            if entering.exception() is None:
                await asyncio.to_thread(self.close)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """As the end of `with`."""
        import asyncio

        await asyncio.to_thread(self.close)

    def push_frame(
        self,
        picture: Any,
        t_ns: int | None = None,
        *,
        format: PixelFormat | None = None,  # noqa: A002  # the word of PyAV and of every picture library
    ) -> None:
        """Push one picture.

        A picture that is not newer than the one before is left out and counted as `video.out_of_order`. Live,
        pictures whose stamps jump away from the clock are left out and counted as `video.stamps_refused`.

        Args:
            picture: uint8 or float in [0, 1], (height, width, 3) or (height, width); an array, a list, a PIL
                image, a torch tensor (also channels first), or an `av.VideoFrame`.
            t_ns: capture time by `time.monotonic_ns()`. None: a PyAV frame's `pts`, else now.
            format: `rgb24`, `bgr24` (OpenCV), `gray`, `rgba` or `bgra`; by default grey or RGB.

        Raises:
            ConfigurationError: the picture or stamp is not valid, or the stream has ended.
            StalledError: exact mode, and nothing downstream made room in time.
        """
        self._pushed().push_frame(picture, t_ns, format)

    def push_audio(
        self,
        pcm: Any,
        t_ns: int | None = None,
        rate_hz: int | None = None,
        *,
        layout: SoundLayout = "channels_last",
        channels: int | None = None,
    ) -> None:
        """Push one block of sound.

        Samples outside [-1, 1] are clipped and counted as `audio.clipped`; those that are not finite become
        silence, counted as `audio.not_finite`. Stamps are treated as those of pictures.

        Args:
            pcm: float in [-1, 1], int16, int32, int8 or uint8, (n,) or (n, channels); an array, a list, a
                torch tensor, or an `av.AudioFrame` of any format.
            t_ns: capture time of the first sample, by `time.monotonic_ns()`. None: a PyAV frame's `pts`,
                else it continues the block before.
            rate_hz: samples a second; by default 16,000, or the frame's own.
            layout: `channels_first` for (channels, n); `interleaved` for one row, with `channels`.
            channels: number of channels of interleaved sound.

        Raises:
            ConfigurationError: the sound or stamp is not valid, or the stream has ended.
            StalledError: exact mode, and nothing downstream made room in time.
        """
        self._pushed().push_audio(pcm, t_ns, rate_hz, layout, channels)

    def mute_audio(self, on: bool = True) -> None:
        """Ignore sound from now on, e.g. while a robot speaks; False ends it. Captured or pushed sound.

        Until then sound counts as silence: there is no gap, and nothing is recognised, even if the sound
        comes later. The audio modality is `missing`, "muted"; earlier words count until their dropout time.
        """
        self._running().intake.pauses.set("muted", on)

    def pause(self) -> None:
        """Ignore pictures and sound until `resume`; estimates continue, with all modalities "paused"."""
        self._running().intake.pauses.set("paused", True)

    def resume(self) -> None:
        """End a pause."""
        self._running().intake.pauses.set("paused", False)

    @property
    def muted(self) -> bool:
        """Whether sound is muted."""
        return self._running().intake.pauses.is_on("muted")

    @property
    def paused(self) -> bool:
        """Whether the engine is paused."""
        return self._running().intake.pauses.is_on("paused")

    def advance(self, t_ns: int) -> None:
        """Promise that no media captured before `t_ns` will follow; in exact mode no window waits for them.

        Call it while a stream pauses (a muted microphone): then estimates do not wait until the other
        stream is `source.push_lead_s` ahead.
        """
        self._pushed().advance(t_ns)

    def end_video(self) -> None:
        """Promise that no more pictures will be pushed."""
        self._pushed().end_video()

    def end_audio(self) -> None:
        """Promise that no more sound will be pushed."""
        self._pushed().end_audio()

    def end(self) -> None:
        """Promise that no more media will be pushed: `estimates()` ends after the last window."""
        self._pushed().end()

    def estimates(self) -> EstimateReader:
        """Estimates as they come, until the media or the duration end; each goes to one reader.

        Live, a reader that is more than 5 s behind skips to newer ones, counted as `estimates.skipped`; in
        exact mode the engine waits for it. The iteration ends when the sinks have written their last
        estimate: in exact mode it waits for them without limit, in live mode for a moment.

        Raises:
            EmiError: as `check`, at the end.
            ConfigurationError: all estimates of this run have been taken.
        """
        return EstimateReader(self._box_to_read(), self._same_process, self._at_end)

    def __aiter__(self) -> AsyncEstimates:
        """As `estimates`, for `async for`."""
        return AsyncEstimates(self._box_to_read(), self._same_process, self._at_end)

    def latest(self, max_age_s: float | None = None) -> Estimate | None:
        """The newest estimate, taken or not, without waiting; for the loop of a robot or a game.

        None: there is none yet, or it was made more than `max_age_s` ago. `estimate.age_s` is its age;
        `estimate.seq` shows whether it is a new one.

        Raises:
            EmiError: as `check`.
        """
        newest = self._running().box.newest()
        self.check()
        if newest is None or max_age_s is None:
            return newest
        age_ns = self._clock.now_ns() - newest.published_ns
        return newest if age_ns <= max_age_s * NS_PER_S else None

    def check(self) -> None:
        """Raise the error of a part that has failed and was not restarted.

        Raises:
            StageError: the fusion loop failed, or a stage was given up.
            SourceError: a source failed; PartialSourceError: a file could not be read to its end.
            LiveError: a sink cannot write any more, e.g. to a full disk.
        """
        parts = self._running()
        if parts.fusion.finished and parts.fusion.error is not None:
            raise StageError(f"the fusion loop failed: {parts.fusion.error}") from parts.fusion.error
        for sink in (parts.feed, *parts.sinks):
            if isinstance(sink.error, EmiError):
                raise sink.error
            if sink.error is not None:
                raise StageError(f"{sink.name} failed: {sink.error}") from sink.error
        for worker in (*parts.sources, *parts.stages):
            if isinstance(worker.broken, SourceError):
                raise worker.broken
            if worker.broken is not None:
                raise StageError(f"the {worker.name} part failed: {worker.broken}") from worker.broken

    def close(self) -> None:
        """Stop and release everything, within about a second; safe to call again, from any thread.

        In a forked child it does nothing, because the threads belong to the parent.
        """
        if os.getpid() != self._pid:
            return
        parts, self._parts = self._parts, None
        if parts is None:
            return
        self._ended = True
        _running_engines.discard(self)
        _shut_down(parts)

    def _pushed(self) -> PushSource:
        source = self._running().pushed
        if source is None:
            raise ConfigurationError(
                "this engine captures media; leave out source.camera, source.input and source.mic to push it"
            )
        return source

    def _box_to_read(self) -> EstimateBox:
        box = self._running().box
        if self._told_end:
            raise ConfigurationError(
                "all estimates of this run have been taken: leave `with`, and begin another run"
            )
        return box

    def _at_end(self) -> None:
        self._told_end = True
        if self._parts is not None:
            self._await_sinks(self._parts.sinks)
        if self._parts is not None:
            self.check()

    def _await_sinks(self, sinks: list[Worker]) -> None:
        """Wait until every sink has its last estimate; in live mode only for a limited time."""
        deadline = None if self.config.exact else time.monotonic() + LAST_WORDS_S
        for worker in sinks:
            while not worker.join(SLICE_S) and self._parts is not None:
                if deadline is not None and time.monotonic() > deadline:
                    break

    def _running(self) -> Parts:
        self._same_process()
        if self._parts is None:
            raise ConfigurationError(
                f"the engine {'has ended' if self._ended else 'is not running'}; "
                "use it inside `with LiveEngine(config) as live:`"
            )
        return self._parts

    def _same_process(self) -> None:
        if self._parts is not None and os.getpid() != self._pid:
            raise ConfigurationError(
                f"this engine runs in process {self._pid}, and its threads are not in a forked child; "
                "make a LiveEngine here, or start the child by multiprocessing's spawn"
            )


def _shut_down(parts: Parts) -> None:
    """Stop every thread in the order of the flow, and release what no thread uses any more."""
    if parts.watcher is not None:
        parts.watcher.request_stop()
    for worker in parts.producers:
        worker.request_stop()
    parts.intake.abort()
    parts.box.end(discard=True)
    if parts.fusion.join(LAST_WORDS_S):
        for worker in parts.sinks:  # these end by themselves when they have the last estimate
            worker.join(LAST_WORDS_S)
    parts.bus.stop()  # releases threads that wait for room
    deadline = time.monotonic() + JOIN_S
    left_behind: list[Worker] = []
    for worker in (*parts.producers, *parts.sinks, parts.feed):
        worker.request_stop()
        if not worker.join(max(0.0, deadline - time.monotonic())):
            left_behind.append(worker)
    if parts.watcher is not None and not parts.watcher.join(max(0.0, deadline - time.monotonic())):
        logger.debug("a whole pass over the last window's sound is under way, and ends by itself")
    parts.limits.close()
    if not left_behind:
        parts.release.close()
        return
    names = ", ".join(worker.name for worker in left_behind)
    logger.warning("%s did not stop within %.1f s: released when it has", names, JOIN_S)
    Worker("release", lambda _: _release_later(parts.release, left_behind), Health()).start()


def _release_later(release: ExitStack, users: Sequence[Worker]) -> None:
    """Release what these threads use, when all of them have ended."""
    for worker in users:
        while not worker.join(threading.TIMEOUT_MAX):
            continue
    try:
        release.close()
    except Exception as error:  # noqa: BLE001  # no caller could catch it
        logger.error("not all could be released: %s", error)


# Engines that are loaded and not closed.
_running_engines: Final[weakref.WeakSet[LiveEngine]] = weakref.WeakSet()


def _leave_to_the_parent() -> None:
    """In a forked child, never release engines: this would wait for threads that do not exist."""
    engines = [engine for engine in _running_engines if engine._parts is not None]
    for engine in engines:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(engine._parts))
    libc = ctypes.CDLL(None)
    if engines and hasattr(libc, "on_exit"):  # glibc's function, which gets the exit code
        # After Python's own end, the child exits at once: destructors of ONNX Runtime would also wait.
        libc.on_exit(libc._exit, None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_the_parent)
