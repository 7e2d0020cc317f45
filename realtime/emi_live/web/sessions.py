"""One person at a time is one `Session`; `Sessions` makes them, counts them and ends those that are left.

A session has a live engine of its own. Its media come from one connection, its messages go to any number:
each connection has an `Outbox`, in which a newer estimate replaces one that was not sent, so that a slow
reader delays nobody. All of this runs in one event loop; models load, pictures are decoded and packets are
read in threads.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np

from emi_live.clock import NS_PER_MS, NS_PER_S
from emi_live.errors import ConfigurationError
from emi_live.live import LiveEngine
from emi_live.messages import TranscriptPacket
from emi_live.web.protocol import (
    PICTURE,
    Bye,
    Command,
    EstimateEvent,
    Event,
    Hello,
    Media,
    SpokenWord,
    StateEvent,
    WarningEvent,
    WordsEvent,
    encode,
)
from emi_live.worker import Worker
from emi_models import EMOTIONS
from emi_models.errors import EmiError

if TYPE_CHECKING:
    from emi_live.bus import PacketReader
    from emi_live.config import LiveConfig
    from emi_live.messages import Estimate

__all__ = ["ClientClock", "FullError", "Outbox", "Session", "Sessions"]

logger = logging.getLogger(__name__)

OUTBOX: Final = 64  # messages that wait for one slow reader, besides the newest estimate
POLL_S: Final = 0.2
WARN_EVERY_S: Final = 1.0  # the same warning is told to a client at most this often
DRIFT: Final = 1000  # a client's clock may be slower than ours by 1 part in this


class FullError(ConfigurationError):
    """The server has as many sessions as it may."""


class ClientClock:
    """Maps the clock of a client to ours: by the message that came with the smallest delay so far.

    The delay that all messages have in common cannot be seen, as with any stream without a common clock.
    """

    def __init__(self) -> None:
        self._lead_ns: int | None = None
        self._at_ns = 0

    def to_ours(self, t_ms: float, length_ns: int, arrived_ns: int) -> int:
        """The capture time on our clock, in nanoseconds.

        Args:
            t_ms: capture time on the client's clock.
            length_ns: of the block; 0 for a picture.
            arrived_ns: when it arrived, on our clock.
        """
        t_ns = round(t_ms * NS_PER_MS)
        lead_ns = arrived_ns - length_ns - t_ns
        if self._lead_ns is not None:
            drifted_ns = self._lead_ns + max(0, arrived_ns - self._at_ns) // DRIFT
            lead_ns = min(lead_ns, drifted_ns)
        self._lead_ns, self._at_ns = lead_ns, max(self._at_ns, arrived_ns)
        return t_ns + lead_ns

    def to_theirs_ms(self, t_ns: int) -> float | None:
        """A time of ours on the client's clock, in milliseconds; None before the first message."""
        return None if self._lead_ns is None else (t_ns - self._lead_ns) / NS_PER_MS


class Outbox:
    """Messages for one connection. A newer estimate replaces the one that waits; others queue to a limit."""

    def __init__(self) -> None:
        self._waiting: deque[str] = deque()
        self._estimate: str | None = None
        self._woken = asyncio.Event()
        self.skipped = 0  # estimates that were replaced, and other messages that did not fit

    def put(self, message: Event, text: str) -> None:
        """Add one message, as JSON too."""
        if isinstance(message, EstimateEvent):
            self.skipped += self._estimate is not None
            self._estimate = text
        elif len(self._waiting) < OUTBOX or isinstance(message, Bye):
            self._waiting.append(text)
        else:
            self.skipped += 1
        self._woken.set()

    async def take(self) -> str:
        """The next message, waiting for it."""
        while True:
            if self._waiting:
                return self._waiting.popleft()
            if self._estimate is not None:
                text, self._estimate = self._estimate, None
                return text
            self._woken.clear()
            await self._woken.wait()


class Session:
    """One person who is analysed: an engine, one source of media, any number of readers."""

    def __init__(self, engine: LiveEngine, *, version: str, notice: str | None) -> None:
        """`engine` is loaded, or will be by `start`."""
        self.id = secrets.token_urlsafe(16)
        self.began_s = time.monotonic()
        self.source: Outbox | None = None  # of the connection that sends media
        self.lost_s: float | None = time.monotonic()  # since when there is no source
        self.heard_s = time.monotonic()  # when the last media came
        self.latest: Estimate | None = None
        self.counters: Counter[str] = Counter()
        self.ended: str | None = None  # why
        self._engine = engine
        self._version = version
        self._notice = notice
        self._clock = ClientClock()
        self._outboxes: set[Outbox] = set()
        self._picture: tuple[Media, int] | None = None  # the newest one, and when it arrived
        self._seen = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._reader: Worker | None = None
        self._running = False
        self._words: dict[int, SpokenWord] = {}
        self._began_ns: int | None = None  # t = 0 of estimates on our clock
        self._warned_s: dict[str, float] = {}

    @property
    def readers(self) -> int:
        """Connections that are open."""
        return len(self._outboxes)

    async def start(self) -> None:
        """Load what is not loaded yet, and run.

        Raises:
            EmiError: the engine cannot start.
        """
        await asyncio.to_thread(self._engine.load)
        read = partial(_read_packets, self._engine.subscribe(["transcript"]), self._on_packet())
        await self._engine.__aenter__()
        self._running = True
        self._reader = Worker("words", read, self._engine.health)
        self._reader.start()
        for work in (self._pass_on_estimates(), self._decode_pictures()):
            task = asyncio.create_task(work)
            self._tasks.add(task)
            task.add_done_callback(self._task_ended)
        self._tell_state()

    def join(self, *, source: bool) -> Outbox:
        """Add a connection; its first messages wait in the outbox."""
        config, outbox = self._engine.config, Outbox()
        source = source and self.source is None
        self._outboxes.add(outbox)
        hello = Hello(
            session=self.id,
            role="source" if source else "viewer",
            emotions=list(EMOTIONS),
            hop_s=config.window.hop_s,
            window_s=config.window.length_s,
            bundle=config.bundle,
            version=self._version,
            notice=self._notice,
        )
        outbox.put(hello, encode(hello))
        if source:
            self.source, self.lost_s = outbox, None
        state = self._state()
        outbox.put(state, encode(state))
        if self._words:
            words = WordsEvent(words=list(self._words.values()))
            outbox.put(words, encode(words))
        return outbox

    def leave(self, outbox: Outbox) -> None:
        """Remove a connection."""
        self._outboxes.discard(outbox)
        self.counters["skipped"] += outbox.skipped
        if outbox is self.source:
            self.source, self.lost_s = None, time.monotonic()
            self._clock = ClientClock()  # a page that is loaded again has a new clock
            self._tell_state()

    def push(self, media: Media) -> None:
        """Take one block of sound or one picture; a picture replaces one that is not decoded yet."""
        arrived_ns = time.monotonic_ns()
        self.heard_s = time.monotonic()
        if not self._running:
            self.counters["early"] += 1
            return
        if media.kind == PICTURE:
            self.counters["pictures"] += 1
            self.counters["pictures_replaced"] += self._picture is not None
            self._picture = media, arrived_ns
            self._seen.set()
            return
        samples = np.frombuffer(media.payload, "<i2")
        length_ns = len(samples) * NS_PER_S // media.rate_hz
        t_ns = self._clock.to_ours(media.t_ms, length_ns, arrived_ns)
        self.counters["sound_ms"] += length_ns // NS_PER_MS
        self._try(partial(self._engine.push_audio, samples, t_ns, media.rate_hz))

    def obey(self, command: Command) -> None:
        """Carry out a command of the source; before the engine runs, only `end` has an effect."""
        if command.type == "end":
            self.ended = "ended by the client"
            return
        if not self._running:
            self.warn("not running yet: the command was ignored", "commands_ignored")
            return
        match command.type:
            case "mark":
                self._engine.mark()
            case "pause":
                self._engine.pause()
            case "resume":
                self._engine.resume()
            case "mute" | "unmute":
                self._engine.mute_audio(command.type == "mute")
        self._tell_state()

    def warn(self, text: str, counter: str) -> None:
        """Count something that was refused or lost, and tell the readers, not too often."""
        self.counters[counter] += 1
        now_s = time.monotonic()
        if now_s - self._warned_s.get(counter, -WARN_EVERY_S) >= WARN_EVERY_S:
            self._warned_s[counter] = now_s
            self._tell(WarningEvent(text=text, counter=counter, count=self.counters[counter]))

    async def close(self) -> None:
        """End the engine; readers get the reason first."""
        self._running = False
        self._tell(Bye(reason=self.ended or "the server stops"))
        for task in self._tasks:
            task.cancel()
        if self._reader is not None:
            self._reader.request_stop()
            await asyncio.to_thread(self._reader.join, 2 * POLL_S)
        await asyncio.to_thread(self._engine.close)
        for task in list(self._tasks):
            with suppress(asyncio.CancelledError, EmiError):
                await task

    def _state(self) -> StateEvent:
        if not self._running:
            return StateEvent(state="loading")
        if self.lost_s is not None:
            return StateEvent(state="lost", seconds=time.monotonic() - self.lost_s)
        return StateEvent(state="paused" if self._engine.paused else "running", muted=self._engine.muted)

    def _tell_state(self) -> None:
        self._tell(self._state())

    def _tell(self, message: Event) -> None:
        text = encode(message)
        for outbox in self._outboxes:
            outbox.put(message, text)

    def _try(self, push: Callable[[], None]) -> None:
        try:
            push()
        except ConfigurationError as error:
            self.warn(str(error), "media_refused")
        except EmiError as error:
            self.ended = self.ended or str(error)

    async def _pass_on_estimates(self) -> None:
        async for estimate in self._engine:
            self.latest = estimate
            self._began_ns = estimate.t_ns - round(estimate.t_s * NS_PER_S)
            end_ms = self._clock.to_theirs_ms(estimate.t_ns)
            self._tell(EstimateEvent(estimate=estimate.to_json(), end_ms=end_ms))

    def _on_packet(self) -> Callable[[TranscriptPacket], None]:
        """What the thread that reads packets calls: it goes on in the event loop."""
        loop = asyncio.get_running_loop()

        def tell(packet: TranscriptPacket) -> None:
            with suppress(RuntimeError):  # the loop has been closed
                loop.call_soon_threadsafe(self._tell_words, packet)

        return tell

    def _tell_words(self, packet: TranscriptPacket) -> None:
        """Tell the words that are new or have changed since the last packet."""
        began_ns = self._began_ns
        if began_ns is None:
            return
        now = {
            word.number: SpokenWord(
                number=word.number,
                text=word.text,
                start=round((word.start_ns - began_ns) / NS_PER_S, 2),
                end=round((word.end_ns - began_ns) / NS_PER_S, 2),
                committed=word.committed,
            )
            for word in packet.words
            if word.number >= 0
        }
        changed = [word for number, word in now.items() if self._words.get(number) != word]
        withdrawn = [
            number for number, word in self._words.items() if number not in now and not word.committed
        ]
        self._words = now
        if changed or withdrawn:
            self._tell(WordsEvent(words=changed, withdrawn=withdrawn, language=packet.language))

    async def _decode_pictures(self) -> None:
        """Decode the newest picture in a thread and push it, again and again."""
        while True:
            await self._seen.wait()
            self._seen.clear()
            taken, self._picture = self._picture, None
            if taken is None:
                continue
            media, arrived_ns = taken
            t_ns = self._clock.to_ours(media.t_ms, 0, arrived_ns)
            picture = await asyncio.to_thread(_decode, media.payload)
            if picture is None:
                self.warn("a picture could not be decoded", "pictures_refused")
                continue
            self._try(partial(self._engine.push_frame, picture, t_ns, format="bgr24"))

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and self._running:
            logger.error("session %s…: %s", self.id[:6], error, exc_info=not isinstance(error, EmiError))
            self.ended = self.ended or str(error)


class Sessions:
    """All sessions of a server. One engine is always loaded in advance, so that a session starts at once."""

    def __init__(
        self,
        config: LiveConfig,
        *,
        most: int = 4,
        idle_s: float = 60.0,
        comeback_s: float = 15.0,
        version: str = "",
        notice: str | None = None,
        make_engine: Callable[[LiveConfig], LiveEngine] = LiveEngine,
    ) -> None:
        """Nothing is loaded before `prepare`.

        Args:
            config: of every session; its media are pushed.
            most: sessions at one time.
            idle_s: a session without media for so long is ended.
            comeback_s: how long a session waits for a source that has gone.
            version: of emi-live, for `hello`.
            notice: for the person who is analysed; None = operators inform people themselves.
            make_engine: makes an engine that is not loaded.
        """
        if not config.source.is_pushed:
            raise ConfigurationError(
                "a server takes media from browsers; leave out source.camera and source.input"
            )
        self.most = most
        self.counters: Counter[str] = Counter()
        self.running: dict[str, Session] = {}
        self._config = config
        self._idle_s = idle_s
        self._comeback_s = comeback_s
        self._version = version
        self._notice = notice
        self._make_engine = make_engine
        self._spare: LiveEngine | None = None
        self._loading: asyncio.Task[None] | None = None
        self._starting = 0

    def prepare(self, engine: LiveEngine | None = None) -> list[str]:
        """Load the first engine, in the calling thread; returns what runs, one line each.

        Args:
            engine: for the configuration of the sessions; None: one is made.

        Raises:
            EmiError: it cannot be loaded.
        """
        engine = engine or self._make_engine(self._config)
        engine.load()
        self._spare = engine
        return engine.announcements

    async def open(self) -> Session:
        """A new session; it loads in the background.

        Raises:
            FullError: there are as many as allowed.
        """
        if len(self.running) >= self.most:
            self.counters["refused_full"] += 1
            raise FullError(f"all {self.most} sessions are taken; try again later, or raise --sessions")
        engine, self._spare = self._spare or self._make_engine(self._config), None
        session = Session(engine, version=self._version, notice=self._notice)
        self.running[session.id] = session
        self.counters["opened"] += 1
        task = asyncio.create_task(self._start(session))
        task.add_done_callback(lambda _: None)
        session._tasks.add(task)
        task.add_done_callback(session._tasks.discard)
        return session

    async def _start(self, session: Session) -> None:
        try:
            await session.start()
        except EmiError as error:
            session.ended = str(error)
            logger.error("a session cannot start: %s", error)
            return
        if self._spare is None and len(self.running) < self.most and self._loading is None:
            self._loading = asyncio.create_task(self._load_spare())

    async def _load_spare(self) -> None:
        engine = self._make_engine(self._config)
        try:
            await asyncio.to_thread(engine.load)
        except EmiError as error:
            logger.warning("no engine is ready for the next session: %s", error)
        else:
            self._spare = engine
        self._loading = None

    async def watch(self) -> None:
        """End sessions that are over, again and again, until cancelled."""
        while True:
            await asyncio.sleep(POLL_S)
            now_s = time.monotonic()
            for session in list(self.running.values()):
                if session.ended is None and session.lost_s is not None:
                    if now_s - session.lost_s > self._comeback_s:
                        session.ended = f"the source was gone for {self._comeback_s:g} s"
                elif session.ended is None and now_s - session.heard_s > self._idle_s:
                    session.ended = f"no media for {self._idle_s:g} s"
                if session.ended is not None:
                    await self.end(session)

    async def end(self, session: Session) -> None:
        """End one session."""
        if self.running.pop(session.id, None) is not None:
            logger.info("session %s… has ended: %s", session.id[:6], session.ended)
            self.counters["ended"] += 1
            self.counters.update(session.counters)
            await session.close()

    async def close(self) -> None:
        """End all sessions and release the engine that waits."""
        for session in list(self.running.values()):
            await self.end(session)
        if self._loading is not None:
            await self._loading
        if self._spare is not None:
            await asyncio.to_thread(self._spare.close)


def _read_packets(
    packets: PacketReader, tell: Callable[[TranscriptPacket], None], stop: threading.Event
) -> None:
    """Pass on every packet, in the thread that the socket belongs to, until the last one or `stop`."""
    try:
        while not stop.is_set() and not packets.ended:
            packet = packets.read()
            if isinstance(packet, TranscriptPacket):
                tell(packet)
            elif packet is None:
                packets.wait(POLL_S)
    finally:
        packets.close()


def _decode(payload: memoryview) -> np.ndarray | None:
    try:
        return cv2.imdecode(np.frombuffer(payload, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        return None
