"""The people of `emi serve`: one `Session` each; `Sessions` makes, counts and ends them.

A session has a live engine of its own. Its media come from one connection, its messages go to any number
(`Broadcast`). All of this runs in one event loop; models load, pictures are decoded and packets are read in
threads.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np

from emi_live.clock import NS_PER_MS, NS_PER_S
from emi_live.errors import ConfigurationError
from emi_live.live import LiveEngine
from emi_live.web.broadcast import POLL_S, TOPICS, Broadcast, FullError, Outbox, read_packets
from emi_live.web.overload import FULL, SPAN_S, Pace, share_of
from emi_live.web.protocol import PICTURE, Bye, Media, ProtocolError, Role, StateEvent
from emi_live.worker import Worker
from emi_models.errors import EmiError
from emi_models.processes import give_memory_back

if TYPE_CHECKING:
    from emi_live.config import LiveConfig

__all__ = ["ClientClock", "Session", "Sessions", "Tickets"]

logger = logging.getLogger(__name__)

OFFERS: Final = 10  # of WebRTC that a session may get in `OFFERS_S`
OFFERS_S: Final = 60.0
DRIFT: Final = 1000  # a client's clock may be slower than ours by 1 part in this
REPLAYED_NS: Final = NS_PER_S  # a picture older than this, in a session that was taken over, is replayed
REPLAYED: Final = 64  # of them wait at most
PACE_S: Final = 0.015  # between two of them, so that the face stage sees each
COLLECT_S: Final = 0.5  # after a session has ended, when nobody holds it any more
TAKEN_OVER: Final = 2  # so many times as many sessions as usual a server takes when it replaces another


class Tickets:
    """Ids of sessions that say which of several servers has the session, and that one of them issued it."""

    def __init__(self, server: str, secret: bytes) -> None:
        """`server` is this server's name, of letters and digits; all servers know the secret."""
        self.server = server
        self._secret = secret

    def issue(self) -> str:
        """A new id: `SERVER.RANDOM.PROOF`."""
        body = f"{self.server}.{secrets.token_urlsafe(16)}"
        return f"{body}.{self._proof(body)}"

    def foreign(self, ticket: str) -> bool:
        """Whether another of the servers issued it."""
        body, _, proof = ticket.rpartition(".")
        issued = hmac.compare_digest(proof.encode(), self._proof(body).encode())
        return issued and body.partition(".")[0] != self.server

    def _proof(self, body: str) -> str:
        return hmac.new(self._secret, body.encode(), "sha256").hexdigest()[:32]


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


class Session(Broadcast):
    """One person who is analysed: an engine, one source of media, any number of readers."""

    def __init__(
        self, engine: LiveEngine, *, version: str, notice: str | None, name: str | None = None
    ) -> None:
        """`engine` is loaded, or will be by `start`; `name` is the id, a random one by default."""
        super().__init__(name or secrets.token_urlsafe(16), engine, version=version, notice=notice)
        self.taken_over = False  # from another server, which is gone
        self.last_ms: float | None = None  # end of the last estimate there, by the client's clock
        self.lost_s: float | None = time.monotonic()  # since when there is no source
        self.heard_s = time.monotonic()  # when the last media came
        self.pace = Pace()
        self._told_behind_s = -SPAN_S
        self._clock = ClientClock()
        self._key: str | None = None  # of the source
        # What gives the newest picture, and its capture time; None of it once it is decoded.
        self._picture: tuple[Callable[[], np.ndarray | None], int] | None = None
        self._replayed: deque[tuple[Callable[[], np.ndarray | None], int]] = deque(maxlen=REPLAYED)
        self.at_end: set[Callable[[], Coroutine[Any, Any, None]]] = set()  # what else ends with the session
        self._seen = asyncio.Event()
        self._offers: list[float] = []  # when the last ones came
        self._tasks: set[asyncio.Task[None]] = set()
        self._reader: Worker | None = None
        self.starting: asyncio.Task[None] | None = None  # waited for: models load in a thread

    async def start(self) -> None:
        """Load what is not loaded yet, and run.

        Raises:
            EmiError: the engine cannot start.
        """
        await asyncio.to_thread(self._engine.load)
        packets, loop = self._engine.subscribe(TOPICS), asyncio.get_running_loop()
        read = partial(read_packets, packets, loop, self.tell_packet)
        await self._engine.__aenter__()
        self.running = True
        self._reader = Worker("packets", read, self._engine.health)
        self._reader.start()
        for work in (self._pass_on_estimates(), self._decode_pictures()):
            task = asyncio.create_task(work)
            self._tasks.add(task)
            task.add_done_callback(self._task_ended)
        self.tell_state()

    def watch_pace(self, now_s: float) -> None:
        """Count the estimates that were made and left out; warn while too many are left out."""
        if not self.running or not self.pace.is_due(now_s):
            return
        engine = self._engine.health.snapshot().counters
        made = engine.get("fusion.estimates", 0)
        missed = engine.get("fusion.missed_hops", 0) + engine.get("fusion.late_windows", 0)
        self.counters["estimates"], self.counters["estimates_missed"] = made, missed
        self.pace.take(now_s, made, missed)
        self.behind = self.pace.behind
        if self.behind and now_s - self._told_behind_s >= SPAN_S and (counted := self.pace.counted):
            self._told_behind_s = now_s
            said = f"{counted[0]} of {counted[1]} estimates in the last {SPAN_S:g} s"
            self.warn(f"this machine is full: this session got {said}", "behind")

    def state(self) -> StateEvent:
        """What the session does now."""
        if self.running and self.lost_s is not None:
            return StateEvent(state="lost", seconds=time.monotonic() - self.lost_s)
        return super().state()

    def role_of(self, wanted: Role) -> Role:
        """The first connection that wants to be the source is it."""
        return "source" if wanted == "source" and self.source is None else "viewer"

    def client_ms(self, t_ns: int) -> float | None:
        """As in the messages of the source."""
        return self._clock.to_theirs_ms(t_ns)

    def allow_offer(self, key: str | None = None) -> None:
        """Count an offer of WebRTC; the source itself, which has the key, may make another one.

        Raises:
            ProtocolError: the session has a source, or has had too many offers.
        """
        if self.source is not None and not self._is_source(key):
            raise ProtocolError("this session has a source already")
        now_s = time.monotonic()
        self._offers = [then_s for then_s in self._offers if now_s - then_s < OFFERS_S]
        if len(self._offers) >= OFFERS:
            raise ProtocolError(f"more than {OFFERS} offers in {OFFERS_S:g} s")
        self._offers.append(now_s)

    def join(
        self, wanted: Role, *, pictures: bool = False, faces: bool = False, key: str | None = None
    ) -> Outbox:
        """Add a connection; its first messages wait in the outbox.

        One with the key of the source takes its place: a connection that a network has lost without a word
        stays open for half a minute.
        """
        if wanted == "source" and self.source is not None and self._is_source(key):
            self.source.cut()
            super().leave(self.source)
            self.source = None
        was_lost, self.lost_s = self.lost_s, None if self.role_of(wanted) == "source" else self.lost_s
        outbox = super().join(wanted, faces=faces)
        if outbox.role == "source":
            self.source, self._key = outbox, key
            if was_lost is not None:
                self.tell_state()
        return outbox

    def _is_source(self, key: str | None) -> bool:
        return bool(key and self._key and hmac.compare_digest(key.encode(), self._key.encode()))

    def leave(self, outbox: Outbox) -> None:
        """Remove a connection."""
        super().leave(outbox)
        if outbox is self.source:
            self.source, self.lost_s = None, time.monotonic()
            self._clock = ClientClock()  # a page that is loaded again has a new clock
            self.tell_state()

    def push(self, media: Media) -> None:
        """Take one block of sound or one picture; a picture replaces one that is not decoded yet."""
        arrived_ns = time.monotonic_ns()
        if media.kind == PICTURE:
            t_ns = self._clock.to_ours(media.t_ms, 0, arrived_ns)
            self.push_picture(partial(_decode, media.payload), t_ns)
            return
        samples = np.frombuffer(media.payload, "<i2")
        length_ns = len(samples) * NS_PER_S // media.rate_hz
        t_ns = self._clock.to_ours(media.t_ms, length_ns, arrived_ns)
        self.push_sound(samples, t_ns, media.rate_hz, length_ns)

    def push_picture(self, decode: Callable[[], np.ndarray | None], t_ns: int) -> None:
        """Take one picture, captured at `t_ns` of our clock; it replaces one that is not decoded yet.

        `decode` gives it as uint8 BGR, or None if it is damaged; it is called in a thread.
        """
        self.heard_s = time.monotonic()
        if not self.running:
            self.counters["early"] += 1
            return
        self.counters["pictures"] += 1
        if self.taken_over and time.monotonic_ns() - t_ns > REPLAYED_NS:
            self._replayed.append((decode, t_ns))
            self._seen.set()
            return
        self.counters["pictures_replaced"] += self._picture is not None
        self._picture = decode, t_ns
        self._seen.set()

    def push_sound(self, samples: Any, t_ns: int, rate_hz: int, length_ns: int) -> None:
        """Take one block of sound, as `LiveEngine.push_audio` does."""
        self.heard_s = time.monotonic()
        if not self.running:
            self.counters["early"] += 1
            return
        self.counters["sound_ms"] += length_ns // NS_PER_MS
        self._try(partial(self._engine.push_audio, samples, t_ns, rate_hz))

    def set_clock(self, now_ms: float) -> None:
        """Take what the source's clock shows."""
        self._clock.to_ours(now_ms, 0, time.monotonic_ns())

    async def close(self) -> None:
        """End the engine; readers get the reason first."""
        if self.starting is not None:
            await self.starting
        self.running = False
        self.tell(Bye(reason=self.ended or "the server stops"))
        for end in list(self.at_end):
            await end()
        for task in self._tasks:
            task.cancel()
        if self._reader is not None:
            self._reader.request_stop()
            await asyncio.to_thread(self._reader.join, 2 * POLL_S)
        await asyncio.to_thread(self._engine.close)
        for task in list(self._tasks):
            with suppress(asyncio.CancelledError, EmiError):
                await task

    def _try(self, push: Callable[[], None]) -> None:
        try:
            push()
        except ConfigurationError as error:
            self.warn(str(error), "media_refused")
        except EmiError as error:
            self.ended = self.ended or str(error)

    async def _pass_on_estimates(self) -> None:
        async for estimate in self._engine:
            end_ms = self.client_ms(estimate.t_ns)
            if self.last_ms is not None and end_ms is not None:
                gap_s = max(0.0, end_ms - self.last_ms) / 1000
                self.last_ms = None
                said = f"the session has moved to another server: {gap_s:.1f} s without estimates"
                self.warn(said, "moved")
            self.tell_estimate(estimate, end_ms)

    async def _decode_pictures(self) -> None:
        """Decode the newest picture in a thread and push it, again and again; those replayed go first."""
        while True:
            await self._seen.wait()
            if self._replayed:
                taken = self._replayed.popleft()
                await asyncio.sleep(PACE_S)
            else:
                self._seen.clear()
                newest, self._picture = self._picture, None
                if newest is None:
                    continue
                taken = newest
            decode, t_ns = taken
            picture = await asyncio.to_thread(decode)
            if picture is None:
                self.warn("a picture could not be decoded", "pictures_refused")
                continue
            self._try(partial(self._engine.push_frame, picture, t_ns, format="bgr24"))

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and self.running:
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
        tickets: Tickets | None = None,
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
            tickets: makes ids; only with other servers, whose sessions are taken over when they are gone.
        """
        if not config.source.is_pushed:
            raise ConfigurationError(
                "a server takes media from browsers; leave out source.camera and source.input"
            )
        self.most = most
        self.local: str | None = None
        self.counters: Counter[str] = Counter()
        self.running: dict[str, Session] = {}
        self._config = config
        self._idle_s = idle_s
        self._comeback_s = comeback_s
        self._version = version
        self._notice = notice
        self._make_engine = make_engine
        self._tickets = tickets
        self._moved: dict[str, str] = {}  # ids of sessions that were taken over, with their new ones
        self._spare: LiveEngine | None = None
        self._loading: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._leaving = False  # clients are to go to another server

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
            FullError: there are as many as allowed, or those that are there get too few estimates.
        """
        share = share_of(session.pace for session in self.running.values())
        if share is not None and share < FULL:
            self.counters["refused_full"] += 1
            raise FullError(
                f"this machine is full: its {len(self.running)} sessions get {100 * share:.0f} % of their "
                "estimates; try again later, or elsewhere"
            )
        return self._begin(self.most)

    def find(self, name: str) -> Session | None:
        """The session of that id, or that was taken over from it; None: there is none here, or no more."""
        return None if self._leaving else self.running.get(self._moved.get(name, name))

    def elsewhere(self, name: str) -> bool:
        """Whether another server began the session or gets it, so that who asks may try again in a moment."""
        foreign = self._tickets is not None and self._tickets.foreign(name)
        return self._leaving or (foreign and self.find(name) is None)

    def take_over(self, name: str, last_ms: float | None = None) -> Session | None:
        """The session of that id; if another server began it, which is gone, a new one in its place.

        Args:
            name: the id.
            last_ms: the end of the last estimate, by the client's clock; the gap since is told.

        Raises:
            FullError: there is no room for it.
        """
        session = self.find(name)
        if session is not None or self._leaving or not self.elsewhere(name):
            return session
        session = self._begin(TAKEN_OVER * self.most)
        session.taken_over, session.last_ms = True, last_ms
        self._moved = {old: new for old, new in self._moved.items() if new in self.running}
        self._moved[name] = session.id
        self.counters["taken_over"] += 1
        logger.info("session %s… is taken over as %s…", name[:16], session.id[:16])
        return session

    def _begin(self, most: int) -> Session:
        if self._leaving:
            raise FullError("this server ends; try again")
        if len(self.running) >= most:
            self.counters["refused_full"] += 1
            raise FullError(f"all {self.most} sessions are taken; try again later, or raise --sessions")
        engine, self._spare = self._spare or self._make_engine(self._config), None
        name = None if self._tickets is None else self._tickets.issue()
        session = Session(engine, version=self._version, notice=self._notice, name=name)
        self.running[session.id] = session
        self.counters["opened"] += 1
        session.starting = asyncio.create_task(self._start(session))
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
                session.watch_pace(now_s)
                if session.ended is None and session.lost_s is not None:
                    if now_s - session.lost_s > self._comeback_s:
                        session.ended = f"the source was gone for {self._comeback_s:g} s"
                elif session.ended is None and now_s - session.heard_s > self._idle_s:
                    session.ended = f"no media for {self._idle_s:g} s"
                if session.ended is not None:
                    await self.end(session)

    async def drain(self) -> None:
        """Cut every connection, for a client to go on at another server, and let nobody in any more."""
        self._leaving = True
        for session in self.running.values():
            for outbox in session.outboxes:
                outbox.cut()
        await asyncio.gather(*(end() for session in self.running.values() for end in session.at_end))

    async def end(self, which: Broadcast) -> None:
        """End one session; also if who asks for it is cancelled meanwhile, as the watch is at the end."""
        session = self.running.pop(which.id, None)
        if session is not None:
            logger.info("session %s… has ended: %s", session.id[:6], session.ended)
            self.counters["ended"] += 1
            self.counters.update(session.counters)
            closing = asyncio.create_task(session.close())
            self._ending.add(closing)
            closing.add_done_callback(self._forget)
            await asyncio.shield(closing)

    def _forget(self, closing: asyncio.Task[None]) -> None:
        """Free what a session has left.

        Its rings, stages and workers refer to each other, so that only Python's collector frees them: some
        35 MB a session, and it comes by after many of them.
        """
        self._ending.discard(closing)
        loop = asyncio.get_running_loop()
        loop.call_later(COLLECT_S, lambda: loop.run_in_executor(None, give_memory_back))

    async def close(self) -> None:
        """End all sessions and release the engine that waits."""
        self.most = 0  # nobody begins one now
        for session in list(self.running.values()):
            await self.end(session)
        await asyncio.gather(*self._ending, return_exceptions=True)  # those that others have ended
        if self._loading is not None:
            await self._loading
        if self._spare is not None:
            await asyncio.to_thread(self._spare.close)


def _decode(payload: memoryview) -> np.ndarray | None:
    try:
        return cv2.imdecode(np.frombuffer(payload, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        return None
