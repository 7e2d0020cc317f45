"""From media to packets: the sources, rings, stages and bus of one run, connected in the order of the flow.

Live use adds the window and the fusion engine, extraction a recorder.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from emi_live.bundle import bundle_of
from emi_live.bus import Bus
from emi_live.clock import Clock
from emi_live.config import LiveConfig
from emi_live.errors import ConfigurationError
from emi_live.health import Health
from emi_live.intake import Intake, Pauses
from emi_live.messages import end_of_stream
from emi_live.rings import AudioRing, VideoRing
from emi_live.sources import Source, open_sources
from emi_live.stages import Stage, StageRunner
from emi_live.stages.vision import EARLY
from emi_live.worker import Backoff, Worker

if TYPE_CHECKING:
    from emi_live.sources.push import PushSource

__all__ = ["Flow", "StageMaker", "open_flow"]

PUSH_TIMEOUT_S: Final = 10.0  # exact mode: a push that waits longer for room fails: nothing reads
EXACT_ATTEMPTS: Final = 3  # a stage that fails so often in a row in a file is given up; the others go on

FRAME_S: Final = 0.02  # the least sound that a packet stands for

StageMaker = Callable[[Bus], Sequence[Stage]]  # makes stages that replace sources and encoders


@dataclass(slots=True)
class Flow:
    """The parts that bring packets onto the bus; nothing runs until the workers are started.

    Subscribe to `bus` before anything is started, and start the stages before the sources.
    """

    config: LiveConfig
    health: Health
    clock: Clock
    opened_sources: list[Source]
    video: VideoRing
    audio: AudioRing
    intake: Intake
    bus: Bus
    streams: Mapping[str, bool]  # "video", "audio": whether a source has such media
    sources: list[Worker] = field(default_factory=list)
    stages: list[Worker] = field(default_factory=list)
    landmarks: threading.Event = field(default_factory=threading.Event)  # set while somebody wants them

    @property
    def pushed(self) -> PushSource | None:
        """Where the program pushes media; None if they are captured."""
        if not self.config.source.is_pushed:
            return None
        from emi_live.sources.push import PushSource

        return next((source for source in self.opened_sources if isinstance(source, PushSource)), None)

    def add_stages(
        self, stages: Iterable[Stage], interrupts: Mapping[str, Callable[[], None]] | None = None
    ) -> None:
        """Make a worker for each stage and each source.

        Args:
            stages: their topics must differ.
            interrupts: by name of the stage, what ends a call of it that blocks when it has to stop.
        """
        self.stages += [self._stage_worker(stage, (interrupts or {}).get(stage.name)) for stage in stages]
        self.sources += [self._source_worker(source) for source in self.opened_sources]

    def _stage_worker(self, stage: Stage, on_stop: Callable[[], None] | None) -> Worker:
        publisher = self.bus.publisher(stage.topic)

        def end_topic() -> None:
            stage.close()
            if not stage.ended:
                publisher.publish(end_of_stream(stage.topic))

        return Worker(
            stage.name,
            StageRunner(stage, publisher, self.clock),
            self.health,
            restart=Backoff(attempts=EXACT_ATTEMPTS if self.config.exact else None),
            on_exit=end_topic,
            on_stop=on_stop,
        )

    def _source_worker(self, source: Source) -> Worker:
        return Worker(source.name, lambda stop: source.run(self.intake, stop), self.health)


def open_flow(
    config: LiveConfig, health: Health, clock: Clock, opened: ExitStack, *, without_sources: bool = False
) -> Flow:
    """The opened sources, rings and bus that the configuration asks for, without a stage yet.

    Args:
        config: all settings.
        health: counters and states.
        clock: of capture times.
        opened: gets all that must be closed at the end.
        without_sources: open none; the stages make their packets themselves.

    Raises:
        ConfigurationError: the settings contradict each other.
        SourceError: a source that was asked for cannot be opened.
    """
    exact = config.exact
    sources = [] if without_sources else open_sources(config, clock, health)
    for source in sources:
        opened.callback(source.close)
    streams = {
        "video": without_sources or any(source.has_video for source in sources),
        "audio": without_sources or any(source.has_audio for source in sources),
    }
    pushed = config.source.is_pushed and not without_sources
    if exact:
        _check_room(config, config.source.push_lead_s if pushed and all(streams.values()) else 0.0)
    video = VideoRing(config.rings.video_frames, lossless=exact)
    audio = AudioRing(config.rings.audio_s, lossless=exact)
    patience_s = PUSH_TIMEOUT_S if pushed and exact else None
    pauses = Pauses(clock, exact=exact)
    intake = Intake(video, audio, health, push_timeout_s=patience_s, clock=clock, pauses=pauses)
    bus = Bus(config.bus, health, lossless=exact, clock=clock)
    opened.callback(bus.close)
    return Flow(config, health, clock, sources, video, audio, intake, bus, streams)


def _check_room(config: LiveConfig, lead_s: float) -> None:
    """Refuse queues that are too small for the time that one stream may have to wait for the other.

    That is what a stage of the bundle holds back, and the lead of pushed media.
    """
    needed_s = {media: lead_s + held_s for media, held_s in bundle_of(config).held_back_s(config).items()}
    packets = 2 * config.bus.high_water_mark  # at either end of an edge
    packet_s = {"pictures": EARLY / config.face.max_fps, "sound": FRAME_S}
    ring_s = {"pictures": 0.0, "sound": config.rings.audio_s}
    for media, needs_s in needed_s.items():
        holds_s = packets * packet_s[media] + ring_s[media]
        if holds_s < needs_s:
            enough = math.ceil((needs_s - ring_s[media]) / packet_s[media] / 2)
            smaller = f", or source.push_lead_s (now {lead_s:g}) smaller" if lead_s else ""
            raise ConfigurationError(
                f"in exact mode {needs_s:.1f} s of {media} may have to wait for the other stream, and the "
                f"queues hold {holds_s:.1f} s: set bus.high_water_mark to at least {enough}{smaller}"
            )
