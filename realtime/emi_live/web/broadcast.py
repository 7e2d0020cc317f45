"""One engine's messages for any number of connections; a slow one delays nobody.

Each connection has an `Outbox`, in which a newer estimate replaces one that was not sent. All of this runs in
one event loop; packets of the bus are read in a thread.
"""

from __future__ import annotations

import asyncio
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import numpy as np
from msgspec import structs

from emi_live.clock import NS_PER_S
from emi_live.errors import ConfigurationError
from emi_live.messages import TranscriptPacket, VisionPacket
from emi_live.web.protocol import (
    Bye,
    Command,
    EstimateEvent,
    Event,
    FacesEvent,
    Hello,
    Media,
    ProtocolError,
    Role,
    SpokenWord,
    StateEvent,
    WarningEvent,
    WordsEvent,
    encode,
)
from emi_models import EMOTIONS

if TYPE_CHECKING:
    from emi_live.bus import PacketReader
    from emi_live.live import LiveEngine
    from emi_live.messages import Estimate

__all__ = ["NOTICE", "TOPICS", "Broadcast", "FullError", "Outbox", "read_packets"]

NOTICE: Final = (
    "Your face, voice and words are being analysed by a program. "
    "It estimates how strongly six emotions show; it does not know what you feel."
)
OUTBOX: Final = 64  # messages that wait for one slow reader, besides the newest estimate
POLL_S: Final = 0.2
TOPICS: Final = ("transcript", "vision")  # what `read_packets` passes on
WARN_EVERY_S: Final = 1.0  # the same warning is told to a client at most this often


class FullError(ConfigurationError):
    """The server has as many sessions as it may."""


class Outbox:
    """Messages for one connection. A newer estimate, picture or place of faces replaces one that waits."""

    def __init__(self, role: Role, *, pictures: bool = False, faces: bool = False) -> None:
        self.role = role
        self.pictures = pictures  # whether the connection wants them
        self.faces = faces  # whether it wants to know where faces are
        self.landmarks = False  # and the points of the followed one
        self.skipped = 0  # estimates that were replaced, and other messages that did not fit
        self._waiting: deque[str] = deque()
        self._estimate: str | None = None
        self._faces: str | None = None
        self._picture: bytes | None = None
        self._cut = False
        self._woken = asyncio.Event()

    def put(self, message: Event, text: str) -> None:
        """Add one message, as JSON too."""
        if isinstance(message, EstimateEvent):
            self.skipped += self._estimate is not None
            self._estimate = text
        elif isinstance(message, FacesEvent):
            self._faces = text
        elif len(self._waiting) < OUTBOX or isinstance(message, Bye):
            self._waiting.append(text)
        else:
            self.skipped += 1
        self._woken.set()

    def put_picture(self, message: bytes) -> None:
        """Add one picture, in place of one that was not sent."""
        self._picture = message
        self._woken.set()

    def cut(self) -> None:
        """End the connection without a last message: its client connects again, elsewhere."""
        self._cut = True
        self._woken.set()

    @property
    def waiting(self) -> bool:
        """Whether there is a message."""
        return bool(self._waiting or self._estimate or self._faces or self._picture)

    async def take(self) -> str | bytes | None:
        """The next message, waiting for it; pictures come last. None: the connection is to be cut."""
        while True:
            if self._cut:
                return None
            if self._waiting:
                return self._waiting.popleft()
            if self._estimate is not None:
                text, self._estimate = self._estimate, None
                return text
            if self._faces is not None:
                text, self._faces = self._faces, None
                return text
            if self._picture is not None:
                picture, self._picture = self._picture, None
                return picture
            self._woken.clear()
            await self._woken.wait()


class Broadcast(ABC):
    """What all connections of one engine get, and what a new one gets first."""

    def __init__(self, name: str, engine: LiveEngine, *, version: str, notice: str | None) -> None:
        """Nobody is connected yet.

        Args:
            name: identifies the session.
            engine: takes commands.
            version: of emi-live.
            notice: for the person who is analysed; None = operators inform people themselves.
        """
        self.id = name
        self.latest: Estimate | None = None
        self.counters: Counter[str] = Counter()
        self.ended: str | None = None  # why
        self.outboxes: set[Outbox] = set()
        self.running = False
        self.behind = False  # it gets too few of the estimates that are due
        self.source: Outbox | None = None  # of the connection that sends media
        self._engine = engine
        self._version = version
        self._notice = notice
        self._words: dict[int, SpokenWord] = {}
        self._began_ns: int | None = None  # t = 0 of estimates, on the engine's clock
        self._warned_s: dict[str, float] = {}

    def state(self) -> StateEvent:
        """What the session does now."""
        if not self.running:
            return StateEvent(state="loading")
        return StateEvent(state="paused" if self._engine.paused else "running", muted=self._engine.muted)

    def join(
        self, wanted: Role, *, pictures: bool = False, faces: bool = False, key: str | None = None
    ) -> Outbox:
        """Add a connection; its first messages wait in the outbox. Sources are told apart by their `key`."""
        config, role = self._engine.config, self.role_of(wanted)
        outbox = Outbox(role, pictures=pictures, faces=faces)
        self.outboxes.add(outbox)
        hello = Hello(
            session=self.id,
            role=role,
            emotions=list(EMOTIONS),
            hop_s=config.window.hop_s,
            window_s=config.window.length_s,
            bundle=config.bundle,
            version=self._version,
            notice=self._notice,
        )
        first: list[Event] = [hello, self.state()]
        if self._words:
            first.append(WordsEvent(words=list(self._words.values())))
        for message in first:
            outbox.put(message, encode(message))
        return outbox

    @abstractmethod
    def role_of(self, wanted: Role) -> Role:
        """The role that a new connection gets."""

    def push(self, media: Media) -> None:
        """Take one block of sound or one picture of the source.

        Raises:
            ProtocolError: this session takes no media.
        """
        raise ProtocolError("this session has a camera of its own, and takes no media")

    def obey(self, command: Command, outbox: Outbox) -> None:
        """Carry out a command; before the engine runs, only `end` and `clock` have an effect."""
        if command.type == "end":
            self.ended = "ended by the client"
            return
        if command.type == "clock":
            self.set_clock(command.ms or 0.0)
            return
        if not self.running:
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
            case "follow":
                self._engine.follow(command.at or "largest")
                return
            case "show_landmarks" | "hide_landmarks":
                outbox.landmarks = command.type == "show_landmarks"
                self._show_landmarks()
                return
        self.tell_state()

    def _show_landmarks(self) -> None:
        """Have the engine give landmarks while a connection wants them."""
        if self.running:
            with suppress(ConfigurationError):  # nothing reads faces: there are none to show
                self._engine.show_landmarks(any(outbox.landmarks for outbox in self.outboxes))

    def leave(self, outbox: Outbox) -> None:
        """Remove a connection; a second call does nothing."""
        if outbox not in self.outboxes:
            return
        self.outboxes.discard(outbox)
        if outbox.landmarks:
            self._show_landmarks()
        self.counters["skipped"] += outbox.skipped

    def tell(self, message: Event) -> None:
        """Pass a message to every connection."""
        text = encode(message)
        for outbox in self.outboxes:
            outbox.put(message, text)

    def tell_state(self) -> None:
        """Pass on what the session does now."""
        self.tell(self.state())

    def tell_estimate(self, estimate: Estimate, end_ms: float | None) -> None:
        """Pass on an estimate."""
        self.latest = estimate
        self._began_ns = estimate.t_ns - round(estimate.t_s * NS_PER_S)
        self.tell(EstimateEvent(estimate=estimate.to_json(), end_ms=end_ms))

    def tell_packet(self, packet: TranscriptPacket | VisionPacket) -> None:
        """Pass on what a stage has published."""
        if isinstance(packet, VisionPacket):
            self.tell_faces(packet)
        else:
            self.tell_words(packet)

    def tell_faces(self, packet: VisionPacket) -> None:
        """Pass on where the faces of a picture are, to the connections that want to know."""
        readers = [outbox for outbox in self.outboxes if outbox.faces]
        if not readers or packet.faces < 0:
            return
        plain = FacesEvent(
            boxes=[(round(x, 4), round(y, 4), round(w, 4), round(h, 4)) for x, y, w, h in packet.boxes],
            followed=packet.followed,
            at_ms=self.client_ms(packet.t_ns),
        )
        full, points = plain, packet.landmarks
        if points is not None:
            thousandths = np.rint(np.frombuffer(points, "<u2") * (1000 / 65535)).astype(int).tolist()
            full = structs.replace(plain, landmarks=thousandths)
        text, full_text = encode(plain), None
        for outbox in readers:
            if outbox.landmarks and full is not plain:
                full_text = full_text or encode(full)
                outbox.put(full, full_text)
            else:
                outbox.put(plain, text)

    @abstractmethod
    def set_clock(self, now_ms: float) -> None:
        """Take what the source's clock shows."""

    @abstractmethod
    def client_ms(self, t_ns: int) -> float | None:
        """A capture time on the clock of who watches, in milliseconds; None if that is not known."""

    def tell_words(self, packet: TranscriptPacket) -> None:
        """Pass on the words that are new or have changed since the last packet."""
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
            self.tell(WordsEvent(words=changed, withdrawn=withdrawn, language=packet.language))

    def warn(self, text: str, counter: str) -> None:
        """Count something that was refused or lost, and tell it, not too often."""
        self.counters[counter] += 1
        now_s = time.monotonic()
        if now_s - self._warned_s.get(counter, -WARN_EVERY_S) >= WARN_EVERY_S:
            self._warned_s[counter] = now_s
            self.tell(WarningEvent(text=text, counter=counter, count=self.counters[counter]))


def read_packets(
    packets: PacketReader,
    loop: asyncio.AbstractEventLoop,
    tell: Callable[[TranscriptPacket | VisionPacket], None],
    stop: threading.Event,
) -> None:
    """Pass every packet to `tell` in the loop; runs in the thread that the socket belongs to."""
    try:
        while not stop.is_set() and not packets.ended:
            packet = packets.read()
            if isinstance(packet, TranscriptPacket | VisionPacket):
                with suppress(RuntimeError):  # the loop has been closed
                    loop.call_soon_threadsafe(tell, packet)
            elif packet is None:
                packets.wait(POLL_S)
    finally:
        packets.close()
