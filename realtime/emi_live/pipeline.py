"""The diagram in code: every part of one live engine, built in the order in which the data flow.

::

    source ─ intake ─┬─ VideoRing ─ face stage ─────────────────┐
                     └─ AudioRing ─┬─ audio stage ──────────────┤
                                   └─ speech stage ─ text stage ┴─ bus ─ window ─ fusion ─ bus ─┬─ sinks
                                                                                                └─ estimates()
"""

from __future__ import annotations

import hashlib
import logging
import math
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from emi_engine.load import Step, no_step
from emi_live.bundle import Encoders, bundle_of
from emi_live.bus import Bus
from emi_live.clock import Clock, seconds_to_ns
from emi_live.config import LiveConfig
from emi_live.errors import ConfigurationError
from emi_live.flow import Flow, StageMaker, open_flow
from emi_live.fusion_loop import FusionLoop, LoopOptions
from emi_live.health import Health
from emi_live.intake import Intake
from emi_live.sinks import CallbackRunner, EstimateBox, EstimateFeed, FeedRunner, SinkRunner
from emi_live.window import Condition, WindowAssembler
from emi_live.worker import Backoff, Worker, blas_threads
from emi_models import MODALITIES, Modality
from emi_models.errors import EmiError
from emi_models.libraries import require, telemetry_warnings

if TYPE_CHECKING:
    from emi_engine import FusionEngine
    from emi_live.bundle import FaceReader
    from emi_live.drift import DriftWatch
    from emi_live.messages import Estimate
    from emi_live.recording import Recording, SessionRecorder
    from emi_live.rings import VideoRing
    from emi_live.sharing import SharedModels
    from emi_live.sinks import Sink
    from emi_live.sources.push import PushSource
    from emi_live.stages import Stage
    from emi_models.baseline import Baseline
    from emi_models.store import Progress

__all__ = ["Builder", "Parts", "source_of"]

logger = logging.getLogger(__name__)

# The parts that each modality depends on, in the order in which they are checked for failures.
PARTS: Final[Mapping[Modality, tuple[str, ...]]] = {
    "vision": ("vision model", "camera", "file", "face"),
    "audio": ("audio model", "microphone", "file", "audio"),
    "text": ("text model", "microphone", "file", "speech", "text"),
}

BACKLOG_S: Final = 5.0  # live: how far behind somebody who reads estimates one by one may be
WORDS_BUDGET_S: Final = 1.0  # for a hypothesis and its embedding; later than that, recognition is behind
# Live: if no engine is left, the last one is tried again for this long; its failure may pass.
LAST_ENGINE_NS: Final = seconds_to_ns(3.0)
SAME_FAILURE_NS: Final = seconds_to_ns(5.0)  # two failures further apart are not of one series
FUSION_ATTEMPTS: Final = 10  # in a row, of live mode: 20 s, longer than what a bad frame can spoil


@dataclass(slots=True)
class Parts:
    """Everything that runs. `release` releases models and sockets, in the reverse order of their creation."""

    intake: Intake
    pushed: PushSource | None  # None: media are captured
    bus: Bus
    video: VideoRing
    box: EstimateBox  # of `LiveEngine.estimates`
    feed: Worker  # fills it
    loop: FusionLoop
    fusion: Worker
    limits: ExitStack  # what is held of the whole process, to be let go of in any case
    face: FaceReader | None = None  # reads the face that is followed
    landmarks: threading.Event | None = None  # set while somebody wants them in packets of `vision`
    watch: DriftWatch | None = None
    watcher: Worker | None = None  # runs `watch`, and closes it; of what others use it only reads the weights
    sources: list[Worker] = field(default_factory=list)
    stages: list[Worker] = field(default_factory=list)
    sinks: list[Worker] = field(default_factory=list)
    release: ExitStack = field(default_factory=ExitStack)

    @property
    def producers(self) -> list[Worker]:
        """Sources, stages and the fusion loop, in the order of the flow."""
        return [*self.sources, *self.stages, self.fusion]


class Builder:
    """Builds the parts of one live engine; if one cannot be built, those before it are released."""

    def __init__(
        self,
        config: LiveConfig,
        health: Health,
        clock: Clock,
        announce: Callable[[str], None],
        start_ns: Callable[[], int | None],
        step: Step = no_step,
    ) -> None:
        """`announce` gets a line for each part that runs; `step` is entered around each slow part.

        `start_ns` gives the moment at which a live run started.
        """
        self._step = step
        self._config = config
        self._health = health
        self._clock = clock
        self._announce = announce
        self._start_ns = start_ns
        self._encoders = Encoders()  # those that run, once there is one
        self._loaded: WeakKeyDictionary[FusionEngine, Path] = WeakKeyDictionary()  # checkpoints of engines
        self._first_failure_ns = self._last_failure_ns = -SAME_FAILURE_NS  # of an engine without successor
        self._spent: set[str] = set()  # engines that failed at it
        self._session = ""  # the name of the run

    def build(
        self,
        make_stages: StageMaker | None,
        sinks: Sequence[Sink],
        progress: Progress | None,
        engine: FusionEngine | None = None,
        encoders: Encoders | None = None,
        on_estimate: Callable[[Estimate], object] | None = None,
        shared: SharedModels | None = None,
    ) -> Parts:
        """All parts, nothing started yet; raises as `LiveEngine.__enter__` does."""
        config, health = self._config, self._health
        for line in telemetry_warnings():
            self._announce(line)
        if config.output.record is not None:
            require("mcap", extra="record", what="a recording")
        if engine is None:
            self._checkpoint()  # a missing file is an error before seconds are spent on encoders
        recording = self._recording()
        with ExitStack() as opened:
            without_sources = make_stages is not None or recording is not None
            flow = self._open_media(opened, without_sources=without_sources)
            if recording is not None:
                about = recording.about
                encoders = Encoders(ids=dict(about.encoders), dims=dict(about.dims))  # type: ignore[arg-type]
            elif encoders is None:
                encoders = Encoders() if make_stages else self._load_encoders(flow.streams, progress, shared)
            opened.callback(encoders.close)
            self._encoders = encoders
            stages = self._stages(flow, make_stages, recording)
            limits = opened.enter_context(ExitStack())
            limits.enter_context(blas_threads(config.fusion.threads))
            engine = engine or self._network(shared)
            opened.callback(engine.close)
            loop = self._fusion_loop(
                engine,
                flow,
                {stage.topic for stage in stages},
                len(sinks) + 1,
                demo=make_stages is not None,
                recording=recording,
            )
            opened.callback(loop.close)
            flow.intake.waits_for = lambda: loop.waits_for
            attempts = 1 if config.exact or recording is not None else FUSION_ATTEMPTS
            recorder = self._recorder(engine, loop, opened, demo=make_stages is not None)
            end = None if recorder is None else recorder.end
            fusion = Worker("fusion", loop, health, restart=Backoff(attempts=attempts), on_exit=end)

            def total() -> int | None:
                return loop.published if fusion.finished else None

            box, *others = boxes = self._boxes(calls=on_estimate is not None)
            feed = FeedRunner(EstimateFeed(flow.bus.subscriber("estimate"), total), boxes)
            feeder = Worker("estimates", feed, health)
            parts = Parts(
                *(flow.intake, flow.pushed, flow.bus, flow.video, box, feeder),
                *(loop, fusion, limits, encoders.face, flow.landmarks),
            )
            parts.sinks += [] if recorder is None else self._record_workers(recorder, flow)
            if on_estimate is not None:
                caller = CallbackRunner(on_estimate, others[0], health)
                end = partial(others[0].end, discard=True)
                parts.sinks.append(Worker("on_estimate", caller, health, on_stop=end))
            for sink in sinks:
                opened.callback(sink.close)
                runner = SinkRunner(sink, EstimateFeed(flow.bus.subscriber("estimate"), total))
                parts.sinks.append(Worker(f"sink-{sink.name}", runner, health))
            interrupts = {"speech": encoders.recognizer.close} if encoders.recognizer is not None else {}
            flow.add_stages(stages, interrupts)
            parts.stages, parts.sources = flow.stages, flow.sources
            if config.audio.drift_every_s is not None:
                self._add_watch(parts, flow, engine, config.audio.drift_every_s, opened)
            parts.release = opened.pop_all()
        return parts

    def _stages(self, flow: Flow, make_stages: StageMaker | None, recording: Recording | None) -> list[Stage]:
        """The bundle's stages, or those that are given; a recording needs none."""
        if recording is not None:
            return []
        if make_stages is not None:
            return list(make_stages(flow.bus))
        return bundle_of(self._config).stages(self._encoders, flow)

    def _open_media(self, opened: ExitStack, *, without_sources: bool) -> Flow:
        """The sources, rings and bus; the tracks of a file are announced."""
        with self._step("opening the media"):
            flow = open_flow(self._config, self._health, self._clock, opened, without_sources=without_sources)
        for source in flow.opened_sources:
            for line in source.announcements:
                self._announce(line)
        return flow

    def _add_watch(
        self, parts: Parts, flow: Flow, engine: FusionEngine, every_s: float, opened: ExitStack
    ) -> None:
        """Let windows be compared with a whole pass over their sound."""
        voice = self._encoders.voice
        if voice is None or "audio" not in engine.modalities:
            why = "no speech model runs" if voice is None else "the checkpoint does not use sound"
            self._announce(f"drift: not watched: {why}")
            return
        from emi_live.drift import DriftWatch

        # In exact mode too nothing waits for it: it skips windows whose sound it has missed.
        reader, second = flow.audio.reader(loose=True), self.drift_engine(self._checkpoint())
        watch = DriftWatch(reader, voice.encode, second, every_s, self._health)
        parts.loop.observe(watch.offer)
        parts.watch = watch
        parts.watcher = Worker(watch.name, watch, self._health, on_exit=watch.close)
        opened.callback(watch.close_if_idle)
        self._announce(f"drift: every {every_s:g} s, the last window's sound is also encoded all at once")

    def drift_engine(self, checkpoint: Path) -> FusionEngine:
        """The fusion engine that drift is measured with: the plainest, since it runs rarely."""
        from emi_engine import load_engine

        return load_engine(checkpoint, "torch", expect_encoders=self._expected())

    def _load_encoders(
        self, streams: Mapping[str, bool], progress: Progress | None, shared: SharedModels | None
    ) -> Encoders:
        from emi_models.store import ModelStore

        config = self._config
        store = ModelStore(config.models.directory, offline=config.models.offline)
        bundle = bundle_of(config)
        load = bundle.load if shared is None else partial(shared.load, bundle)
        encoders = load(
            config,
            store,
            vision=streams["video"],
            audio=streams["audio"],
            progress=progress,
            step=self._step,
        )
        for line in encoders.announcements:
            self._announce(line)
        for modality, reason in encoders.unavailable.items():
            short = reason.partition(";")[0]  # the remedy is announced, not repeated in every estimate
            self._health.report(f"{modality} model", "unavailable", short)
            self._announce(f"{modality}: unavailable: {reason}")
        return encoders

    def _network(self, shared: SharedModels | None) -> FusionEngine:
        if shared is None:
            return self.load_engine()
        engine = shared.network(self.load_engine)
        self._loaded[engine] = self._checkpoint()  # so that another engine can take over from a handle, too
        return engine

    def load_engine(self, checkpoint: Path | None = None) -> FusionEngine:
        """The engine of the settings, for this checkpoint or theirs; announces what runs."""
        from emi_engine import EngineError, load_engine

        fusion = self._config.fusion
        path = checkpoint or self._checkpoint()
        load = partial(
            load_engine, path, threads=fusion.threads, expect_encoders=self._expected(), step=self._step
        )
        try:
            plan = fusion.plan if checkpoint is None else None  # a plan is of one checkpoint
            with self._step("starting the network"):
                engine = load(fusion.engine, device=fusion.device, precision=fusion.precision, plan=plan)
        except EngineError as error:
            # A run under way keeps its engine, and `strict` allows no other.
            if fusion.engine == "auto" or fusion.strict or checkpoint is not None:
                raise
            self._announce(f"fusion: {fusion.engine}: unavailable: {error}")
            with self._step("starting another engine"):
                engine = load("auto")
            self._announce(f"fusion: {engine.name} runs in its place")
        self._check_widths(engine, path)
        if engine.header.task == "bah" and engine.header.notes.get("window") != "causal":
            self._announce(
                f"fusion: {path.name} was trained on chunks that reach into the future, and live has only "
                "the past: expect worse; train with --window causal for live use"
            )
        learned_with, mode = engine.header.notes.get("baseline", "off"), self._config.window.baseline
        if learned_with not in ("off", mode):
            self._announce(
                f"baseline: {mode}, and {path.name} was trained with {learned_with}: use --baseline "
                f"{learned_with}"
            )
        self._loaded[engine] = path
        uses = ", ".join(engine.modalities)
        self._announce(
            f"fusion: {engine.name} ({engine.detail}), {engine.header.system} checkpoint {path.name}, "
            f"which uses: {uses}"
            + ("" if engine.header.intervals is not None else "; no intervals: it is not calibrated")
        )
        return engine

    def _checkpoint(self) -> Path:
        """The settings' checkpoint, or the bundle's own."""
        return self._config.fusion.checkpoint or bundle_of(self._config).packaged_checkpoint()

    def _expected(self) -> Mapping[str, str]:
        """The encoder ids that a checkpoint must have been trained on, by modality."""
        ids = {str(modality): name for modality, name in self._encoders.ids.items()}
        # A program's own stages and encoders have no ids.
        return ids or bundle_of(self._config).encoder_ids

    def _check_widths(self, engine: FusionEngine, path: Path) -> None:
        """Refuse a checkpoint that names the right encoders but takes features of another size."""
        from emi_models.errors import CheckpointError

        for modality in engine.modalities:
            takes = getattr(engine.shapes, f"{modality}_dim")
            given = self._encoders.dims.get(modality, takes)
            if takes != given:
                engine.close()
                raise CheckpointError(
                    f"{path} takes {takes} values in a frame of {modality}, and "
                    f"{self._encoders.ids[modality]} gives {given}; train one on features of this encoder"
                )

    def _fusion_loop(
        self,
        engine: FusionEngine,
        flow: Flow,
        topics: set[str],
        consumers: int,
        *,
        demo: bool,
        recording: Recording | None,
    ) -> FusionLoop:
        config, bus, intake = self._config, flow.bus, flow.intake
        about = None if recording is None else recording.about
        source = self._source(demo=demo) if about is None else about.source
        self._session = _session(config, source)
        options = LoopOptions(
            hop_ns=seconds_to_ns(config.window.hop_s),
            exact=config.exact,
            origin_ns=self._origin(intake),
            duration_ns=None if config.duration_s is None else seconds_to_ns(config.duration_s),
            bundle=config.bundle,
            contributions=config.fusion.contributions,
            source=source,
            session=self._session if about is None else about.session,
            smooth_s=self._smooth_s(recording),
            baseline=config.window.baseline,
        )
        window, bah = config.window, engine.header.task == "bah"
        if bah:  # its words count as long as they are in what it is shown
            words_s = max(window.text_dropout_s, float(engine.header.spans_s.get("text", 0.0)))
            window = window.model_copy(update={"text_dropout_s": words_s})
        loop = self._loop_class(recording)(
            options,
            {modality: bus.subscriber(modality) for modality in MODALITIES if modality in topics},
            WindowAssembler(
                window,
                engine.shapes,
                frozenset(engine.modalities),
                engine.header.spans_s,
                words_due_s=self._words_due_s if about is None else about.words_due_s,
                breaks=intake.pauses.at,
                spread=bah,
                baselines=self._baselines(),
            ),
            engine,
            bus.publisher("estimate", subscribers=consumers),
            lambda: self._conditions(flow.streams, flow.pushed),
            self._clock,
            self._health,
            self._fall_back,
        )
        return loop

    def _baselines(self) -> dict[Modality, Baseline]:
        """What learns a neutral of one's own, by modality; says what is done."""
        mode = self._config.window.baseline
        if mode == "off":
            return {}
        from emi_models.baseline import baselines_for
        from emi_models.errors import DataError

        try:
            found = baselines_for(self._expected(), mode)
        except DataError as error:
            raise ConfigurationError(f"--baseline {mode}: {error}") from error
        self._announce(
            "baseline: learned all the time, from a face to the front and a voice"
            if mode == "running"
            else "baseline: CALIBRATION: look at the camera and rest your face for five seconds, then speak "
            "calmly for five seconds"
        )
        return found

    def _loop_class(self, recording: Recording | None) -> Callable[..., FusionLoop]:
        if recording is None:
            return FusionLoop
        from emi_live.recording import ReplayLoop

        return partial(ReplayLoop, recording)

    def _recording(self) -> Recording | None:
        """The recorded session that is the input, if it is one."""
        path = self._config.source.input
        if path is None or not self._config.source.is_recording:
            return None
        from emi_live.recording import Recording

        recording = Recording(path)
        about = recording.about
        self._announce(
            f"replay: {about.source}, recorded by emi-live {about.version} with {about.checkpoint}"
        )
        return recording

    def _recorder(
        self, engine: FusionEngine, loop: FusionLoop, opened: ExitStack, *, demo: bool
    ) -> SessionRecorder | None:
        """What writes the session to a file, if that is wanted."""
        config = self._config
        path = config.output.record
        if path is None:
            return None
        from emi_live.recording import About, SessionRecorder

        media = config.output.record_media
        if media and (demo or config.exact):
            raise ConfigurationError(
                "--record-media is for a camera or a microphone: a file has its picture and sound, and the "
                "demo has none; leave it out"
            )
        if media:
            from emi_live.recording_media import media_schemas
        checkpoint = self._loaded.get(engine)
        source = self._source(demo=demo)
        ids, dims = self._encoders.ids, self._encoders.dims
        about = About(
            bundle=config.bundle,
            encoders={str(name): one for name, one in ids.items()} or dict(bundle_of(config).encoder_ids),
            dims={str(name): size for name, size in dims.items()},
            checkpoint="a program's own engine" if checkpoint is None else checkpoint.name,
            window=config.window.model_dump(mode="json"),
            words_due_s=self._words_due_s,
            smooth_s=self._smooth_s(None),
            source=source,
            session=self._session,
            version=version("emi-live"),
            clock_offset_ns=0 if config.exact else time.time_ns() - self._clock.now_ns(),
        )
        recorder = SessionRecorder(
            *(path, about, self._health),
            lossless=config.exact,
            replace=config.output.force,
            media=media_schemas() if media else None,
        )
        opened.callback(recorder.close)
        loop.record(recorder.put)
        kept = "PICTURE AND SOUND" if media else "no picture, no sound"
        self._announce(f"record: features, words, states and estimates go to {path}; {kept}")
        return recorder

    def _record_workers(self, recorder: SessionRecorder, flow: Flow) -> list[Worker]:
        """What writes the recording, and what adds picture and sound to it if they are wanted."""
        workers = [Worker("sink-record", recorder, self._health)]
        if not self._config.output.record_media:
            return workers
        from emi_live.recording_media import MediaRecorder

        body = MediaRecorder(
            flow.video.reader(loose=True),
            flow.audio.reader(loose=True),
            recorder.put_media,
            recorder.clock_offset_ns,
            self._health,
        )
        return [*workers, Worker("record-media", body, self._health)]

    @property
    def _words_due_s(self) -> float:
        return self._config.speech.partial_every_s + WORDS_BUDGET_S

    def _smooth_s(self, recording: Recording | None) -> float:
        """Seconds over which intensities are smoothed."""
        config = self._config
        if config.fusion.contributions:  # what a modality added is of the estimate as the network gave it
            return 0.0
        if recording is not None:
            return recording.about.smooth_s
        return 0.0 if config.exact else config.fusion.smooth_s

    def _source(self, *, demo: bool) -> str:
        """What is watched; a file name may be no text."""
        return "demo" if demo else source_of(self._config).encode("utf-8", "replace").decode()

    def _fall_back(self, failed: FusionEngine, error: Exception) -> FusionEngine | None:
        """The next engine for the checkpoint of one that fails at every window; None: there is no other.

        An engine that a program brought itself has no checkpoint that is known here, and no other engine.
        """
        from emi_engine import FALLBACKS, load_engine

        fusion = self._config.fusion
        path = self._loaded.get(failed)
        if path is None or fusion.strict:
            self._no_engine_left(error)
            return None
        self._spent.add(failed.name)
        cause = f"{failed.name} failed: {' '.join(str(error).split())}"
        for kind in FALLBACKS:
            try:
                engine = load_engine(path, kind, threads=fusion.threads, expect_encoders=self._expected())
            except EmiError as reason:
                logger.info("fusion: %s cannot take over: %s", kind, reason)
                continue
            if engine.name not in self._spent and engine.shapes == failed.shapes:
                line = f"{cause}; {engine.name} runs in its place"
                self._loaded[engine] = path
                self._announce(f"fusion: {line}")
                self._health.report("fusion", "running", line)
                logger.warning("fusion: %s", line)
                return engine
            engine.close()
        self._no_engine_left(error)
        return None

    def _no_engine_left(self, error: Exception) -> None:
        """End a live run soon if no engine can run: a loop that has reported its end is not restarted."""
        now_ns = self._clock.now_ns()
        if now_ns - self._last_failure_ns > SAME_FAILURE_NS:
            self._first_failure_ns = now_ns
        self._last_failure_ns = now_ns
        if now_ns - self._first_failure_ns >= LAST_ENGINE_NS:
            self._health.report("fusion", "ended", f"no engine is left: {error}")

    def _origin(self, intake: Intake) -> Callable[[], int | None]:
        """Where t = 0 is: the start of a live run, of a file, or the first media pushed in exact mode."""
        if not self._config.exact:
            return self._start_ns
        return (lambda: 0) if self._config.source.input is not None else (lambda: intake.first_ns)

    def _boxes(self, *, calls: bool) -> list[EstimateBox]:
        """Where estimates wait for `estimates()`, and for `on_estimate` if there is one."""
        config = self._config
        waiting = math.ceil(BACKLOG_S / config.window.hop_s)
        capacity = config.bus.high_water_mark if config.exact else max(2, waiting)
        box = EstimateBox(capacity, self._health, lossless=config.exact, optional=calls)
        return [box, EstimateBox(capacity, self._health, lossless=config.exact)] if calls else [box]

    def _conditions(
        self, streams: Mapping[str, bool], pushed: PushSource | None
    ) -> dict[Modality, Condition]:
        """What is known of each modality from the parts that it depends on, and from pushed stamps."""
        conditions: dict[Modality, Condition] = {}
        late = {} if pushed is None else pushed.why_late()
        for modality, parts in PARTS.items():
            stream = "video" if modality == "vision" else "audio"
            if not streams[stream]:
                conditions[modality] = Condition("absent")
            elif stream in late:
                conditions[modality] = Condition("ok", late[stream])
            for status in map(self._health.status, parts):
                if status.state == "failed" or status.state == "unavailable":
                    conditions[modality] = Condition(status.state, status.detail)
                    break
        return conditions


def source_of(config: LiveConfig) -> str:
    """A description of the source, safe to show and store."""
    from emi_live.addresses import safe_address

    source = config.source
    named = [] if source.mic in (None, "none") else [f"microphone {safe_address(source.mic or '')}"]
    if source.is_pushed:
        return "pushed media"
    if source.input is not None:
        return ", ".join((safe_address(source.input), *named))
    if source.camera is None:
        return ", ".join(named)
    if source.mic is None:
        named = ["default microphone"]
    return ", ".join((f"camera {safe_address(source.camera)}", *named))


def _session(config: LiveConfig, source: str) -> str:
    """A name for this run; in exact mode it depends only on the source, as all numbers do."""
    if config.exact:
        return hashlib.sha256(f"{config.bundle} {source}".encode("utf-8", "replace")).hexdigest()[:8]
    return secrets.token_hex(4)
