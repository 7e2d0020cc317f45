"""Sources: each fills the engine's rings from one kind of media. One module for each.

Here are the protocol `Source`; `DeviceLoop`, which keeps one device open: it notices silence and opens the
device again; and `open_sources`, which opens what the configuration names.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import datetime
from typing import Final, Generic, Protocol, TypeVar

from emi_live.addresses import is_ros2
from emi_live.clock import Clock, seconds_to_ns
from emi_live.config import LiveConfig
from emi_live.errors import ConfigurationError, LiveError, SourceError
from emi_live.health import Health
from emi_live.intake import Intake
from emi_live.rings import AudioBlock, Frame
from emi_live.worker import Backoff

__all__ = ["DeviceLoop", "DeviceLostError", "Feed", "FeedEndedError", "Source", "open_sources"]

logger = logging.getLogger(__name__)

POLL_S: Final = 0.1  # longest wait for a device before looking at `stop` and at the clock

# The durations at which a loss is reported again, in seconds and in words.
STEPS: Final = (
    *((seconds, f"{seconds} s") for seconds in (10, 30)),
    *((60 * minutes, f"{minutes} min") for minutes in (1, 2, 5, 10, 30)),
    *((3_600 * hours, f"{hours} h") for hours in (1, 2, 6, 12, 24)),
)

NO_MICROPHONE: Final = "none"
DEFAULT_MICROPHONE: Final = "default"

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Source(Protocol):
    """Media from one device or file. `run` is called once, by one thread that the source does not own."""

    @property
    def name(self) -> str:
        """The part's name in health reports: `camera`, `microphone` or `file`."""
        ...

    @property
    def has_video(self) -> bool:
        """Whether it can give frames."""
        ...

    @property
    def has_audio(self) -> bool:
        """Whether it can give sound."""
        ...

    @property
    def announcements(self) -> Sequence[str]:
        """Lines to show at the start, such as the tracks that are used."""
        ...

    def run(self, intake: Intake, stop: threading.Event) -> None:
        """Push media until they end or `stop` is set; then release the device and end the streams.

        Raises:
            SourceError: the media cannot be opened or read at all. A device that is lost later is reopened
            instead.
        """
        ...

    def close(self) -> None:
        """Release the device or file of a source that was never run; `run` does it by itself."""
        ...


class DeviceLostError(LiveError):
    """A device gives no usable media any more; the message says why in a few words."""


class FeedEndedError(DeviceLostError):
    """A recording was played to its end; nothing is wrong."""


class Feed(Protocol[T_co]):
    """One opened device, read by one thread."""

    @property
    def recorded(self) -> bool:
        """Whether it is a recording: it may pause for long, and can be played from its start."""
        ...

    def next(self, timeout_s: float) -> T_co | None:
        """The next item; None if none arrived within `timeout_s`.

        Raises:
            DeviceLostError: nothing more will come.
        """
        ...

    def close(self) -> None:
        """Release the device; never waits longer than half a second."""
        ...


class DeviceLoop(Generic[T]):
    """Keeps one device open; when it is lost, opens it again after growing waits.

    A loss is counted as `PART.lost` and reported as `failed`, with its time and reason; the part is `running`
    again with the next item that is accepted.
    """

    def __init__(
        self,
        part: str,
        connect: Callable[[], Feed[T]],
        clock: Clock,
        health: Health,
        *,
        nothing: str,
        first_s: float,
        silent_s: float,
        backoff: Backoff,
    ) -> None:
        """Prepare the loop; nothing is opened.

        Args:
            part: name in health reports.
            connect: opens the device; raises `DeviceLostError` if it cannot.
            clock: measures silence.
            health: where losses are reported.
            nothing: the message for a silent device, e.g. `no audio arriving`.
            first_s: longest time from opening to the first item.
            silent_s: longest time between two items.
            backoff: waits between attempts.
        """
        self._part = part
        self._connect = connect
        self._clock = clock
        self._health = health
        self._nothing = nothing
        self._first_s = first_s
        self._silent_s = silent_s
        self._backoff = backoff
        self._feed: Feed[T] | None = None
        self._failures = 0
        self._running = False
        self.recorded = False  # whether what was opened is a recording
        self._lost: tuple[int, str] | None = None  # since when, by the clock and in words

    def open(self) -> None:
        """Open the device and wait for its first item; a recording is closed again until `run`.

        Raises:
            DeviceLostError: it cannot be opened, or gives nothing.
        """
        try:
            feed = self._open_feed()
            self._await_item(feed, self._first_s, threading.Event())
            self.recorded = feed.recorded
            if self.recorded:  # `run` plays it from its start
                self._release()
        except BaseException:
            self._release()
            raise
        self._health.report(self._part, "starting", "open")

    def run(self, accept: Callable[[T], bool], stop: threading.Event) -> None:
        """Pass every item to `accept` until `stop` is set or a recording ends, then release the device.

        `accept` says whether the item was a sign of life; it may raise `DeviceLostError` itself.
        """
        self._running = True
        try:
            self._skip_backlog()
            while not stop.is_set():
                try:
                    self._follow(accept, stop)
                except FeedEndedError:
                    return
                except DeviceLostError as loss:
                    self._release()
                    self._failures += 1
                    if self._lost is None:  # not each time that it could not be opened again
                        self._health.count(f"{self._part}.lost")
                    self._report_loss(loss)
                    stop.wait(self._backoff.delay_s(self._failures))
        finally:
            self._running = False
            self._release()

    def close(self) -> None:
        """Release the device, if it is open; while `run` runs, `run` releases it."""
        if not self._running:
            self._release()

    def _release(self) -> None:
        if self._feed is not None:
            self._feed.close()
            self._feed = None

    def _skip_backlog(self) -> None:
        """Skip what arrived between `open` and `run`, before the engine ran."""
        try:
            while self._feed is not None and self._feed.next(0.0) is not None:
                pass
        except DeviceLostError:
            self._release()  # and _follow opens it again

    def _follow(self, accept: Callable[[T], bool], stop: threading.Event) -> None:
        patience_s = self._silent_s
        if (feed := self._feed) is None:
            feed, patience_s = self._open_feed(), self._first_s
        while (item := self._await_item(feed, patience_s, stop)) is not None:
            patience_s = self._silent_s
            self.recorded = feed.recorded
            if accept(item):
                self._failures = 0
                self._lost = None
                self._health.report(self._part, "running")

    def _report_loss(self, loss: DeviceLostError) -> None:
        """Report since when it is lost, and again when that is much longer; each report is one log line."""
        now_ns = self._clock.now_ns()
        if self._lost is None:
            self._lost = now_ns, f"{datetime.now():%H:%M:%S}"
        since_ns, since = self._lost
        steps = [step for step, _ in STEPS if now_ns - since_ns >= seconds_to_ns(step)]
        when = f"lost for {dict(STEPS)[steps[-1]]}, since {since}" if steps else f"lost at {since}"
        self._health.report(self._part, "failed", f"{when}, trying again: {loss}")

    def _open_feed(self) -> Feed[T]:
        self._feed = self._connect()
        return self._feed

    def _await_item(self, feed: Feed[T], patience_s: float, stop: threading.Event) -> T | None:
        """The next item; None when `stop` was set first."""
        deadline_ns = self._clock.now_ns() + seconds_to_ns(patience_s)
        while not stop.is_set():
            if (item := feed.next(POLL_S)) is not None:
                return item
            if self._clock.now_ns() >= deadline_ns and not feed.recorded:
                raise DeviceLostError(f"{self._nothing} for {patience_s:.1f} s")
        return None


def open_sources(config: LiveConfig, clock: Clock, health: Health) -> list[Source]:
    """The sources that the configuration asks for, opened; without any, a source for pushed media.

    A microphone that was not named may be absent: then `microphone` is reported as failed, and the camera is
    used alone.

    Raises:
        ConfigurationError: the settings contradict each other.
        SourceError: a source that was asked for cannot be opened.
    """
    wanted = config.source
    named_mic = wanted.mic is not None and wanted.mic != NO_MICROPHONE
    if wanted.camera is not None and wanted.input is not None:
        raise ConfigurationError("a camera and a file exclude each other; choose one")
    if wanted.input is None and (wanted.audio_track, wanted.video_track) != (None, None):
        raise ConfigurationError("a track is chosen of a file; give the file with --input")
    if named_mic and config.exact:
        raise ConfigurationError("a microphone cannot be replayed; add --mode live, or leave out --mic")
    sources: list[Source] = []
    with ExitStack() as opened:  # a camera is released again when the microphone with it cannot be had
        for source in _open(config, clock, health, named_mic=named_mic):
            opened.callback(source.close)
            sources.append(source)
        opened.pop_all()
    return sources


def _open(config: LiveConfig, clock: Clock, health: Health, *, named_mic: bool) -> Iterator[Source]:
    wanted = config.source
    listens = False  # to the default microphone, with a camera
    if wanted.is_pushed:
        from emi_live.sources.push import PushSource

        lead_s = wanted.push_lead_s if config.exact else None
        yield PushSource(audio=wanted.mic is None, lead_s=lead_s, clock=clock, health=health)
    if wanted.input is not None:
        from emi_live.sources.file import FileSource

        pace = None if config.exact else clock
        yield FileSource(
            wanted.input,
            health,
            pace=pace,
            audio=wanted.mic is None,
            audio_track=wanted.audio_track,
            video_track=wanted.video_track,
            max_gap_s=wanted.max_gap_s,
        )
    if wanted.camera is not None:
        from emi_live.sources.camera import CameraSource

        images = _images(config, clock, health)
        camera = CameraSource(wanted.camera, config.camera, clock, health, connect=images)
        listens = wanted.mic is None and not camera.recorded
        if camera.recorded and wanted.mic is None:  # the room's sound does not belong to it, and never ends
            logger.warning(
                "the camera is a recording: it is played once, at its own pace, without sound; to hear it, "
                "save it and use --input FILE"
            )
        yield camera
    if named_mic or listens:
        from emi_live.sources.microphone import MicrophoneSource

        try:
            device = None if wanted.mic in (None, DEFAULT_MICROPHONE) else wanted.mic
            sound = _sound(config, clock, health)
            yield MicrophoneSource(device, config.microphone, clock, health, connect=sound)
        except SourceError as error:
            if named_mic:
                raise
            health.report("microphone", "failed", str(error))


def _images(config: LiveConfig, clock: Clock, health: Health) -> Callable[[], Feed[Frame]] | None:
    """What opens a camera of ROS 2; None for any other."""
    where = config.source.camera
    if not is_ros2(where):
        return None
    from emi_live.sources.ros2 import ImageFeed, Topic

    topic, lan = Topic.of("--camera", str(where)), config.output.lan
    return lambda: ImageFeed(topic, clock, health, lan=lan)


def _sound(config: LiveConfig, clock: Clock, health: Health) -> Callable[[], Feed[AudioBlock]] | None:
    """What opens a microphone of ROS 2; None for any other."""
    where = config.source.mic
    if not is_ros2(where):
        return None
    from emi_live.sources.ros2 import SoundFeed, Topic

    topic, lan = Topic.of("--mic", str(where)), config.output.lan
    return lambda: SoundFeed(topic, clock, health, lan=lan)
