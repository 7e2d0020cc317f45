"""`PeerSink`: gives every peer the estimates and words, each in a thread of its own behind a short queue.

A peer that is slow, absent or gone delays neither the engine nor another peer: what does not fit in its queue
is dropped and counted as `to-KIND.dropped`. A peer that is lost is counted once as `to-KIND.lost`, said once,
and opened again after pauses that grow.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from emi_live.errors import ConfigurationError
from emi_live.health import Health
from emi_live.messages import Estimate, TranscriptPacket
from emi_live.sinks.peers import LAN, Clocks, Peer, PeerLostError, Run, Spoken, open_peer
from emi_live.worker import Backoff, Worker

if TYPE_CHECKING:
    from emi_live.bus import PacketReader
    from emi_live.live import LiveEngine

__all__ = ["PeerSink"]

SLICE_S: Final = 0.1
LAST_WORDS_S: Final = 0.25  # for all peers together, to send what waits at the end
AGAIN: Final = Backoff(first_s=0.25, last_s=3.0)


class PeerSink:
    """A sink of the engine for any number of peers.

    ::

        with LiveEngine(config, sinks=[PeerSink(["lsl:", "osc:127.0.0.1:9000"])]) as live:
            …

    The engine calls `attach` when it is loaded. In exact mode, times of a file are shown as if it had begun
    when the engine was loaded, and a file that is read faster than a peer takes estimates loses some.
    """

    name = "peers"
    finished = False

    def __init__(self, peers: Sequence[str | Peer], *, lan: bool = False) -> None:
        """Check all addresses, and bind those of this machine.

        Args:
            peers: `KIND:ADDRESS`, as with `--to`, or peers of your own.
            lan: whether other machines may be reached.

        Raises:
            ConfigurationError: an address that is not valid, in use, or not on this machine without `lan`.
            MissingPackageError: an extra is not installed.
        """
        made = [open_peer(peer, lan=lan) if isinstance(peer, str) else peer for peer in peers]
        self._lines: list[_Line] = []
        self._words: Worker | None = None
        kinds: dict[str, int] = {}
        for peer in made:
            kinds[peer.kind] = kinds.get(peer.kind, 0) + 1
            number = "" if kinds[peer.kind] == 1 else f"-{kinds[peer.kind]}"
            try:
                peer.bind()
            except BaseException:
                self.close()
                raise
            self._lines.append(_Line(peer, f"to-{peer.kind}{number}"))
        self._started = False

    @property
    def addresses(self) -> list[str]:
        """Where peers find us, or we find them; one line each."""
        return [f"{line.peer.kind}: {line.peer.where}{LAN if line.peer.lan else ''}" for line in self._lines]

    def attach(self, engine: LiveEngine) -> None:
        """Prepare for an engine that is loaded and does not run yet."""
        origin_ns = time.monotonic_ns() if engine.config.exact else None
        for line in self._lines:
            line.prepare(engine.health, Clocks(origin_ns, engine.health.note), engine.config.window.hop_s)
        reader = engine.subscribe(["transcript"])
        self._words = Worker("to-words", lambda stop: self._read_words(reader, stop), engine.health)

    def open(self) -> None:
        """Start the threads; a second call does nothing.

        Raises:
            ConfigurationError: no engine was attached.
        """
        if self._words is None:
            raise ConfigurationError("PeerSink belongs to an engine: give it as LiveEngine(sinks=[…])")
        if not self._started:
            self._started = True
            for line in self._lines:
                line.start()
            self._words.start()

    def write(self, estimate: Estimate) -> None:
        """Put one estimate into every queue; never waits."""
        for line in self._lines:
            line.put(estimate)

    def idle(self) -> None:
        """Nothing is due: each peer has its own thread."""

    def close(self) -> None:
        """Send what waits, for up to 250 ms, and let go of every peer; a second call does nothing.

        What is not sent by then is dropped, and counted.
        """
        if self._words is not None:
            self._words.request_stop()
        for line in self._lines:
            line.end()
        deadline_s = time.monotonic() + LAST_WORDS_S
        for line in self._lines:
            line.join(max(0.0, deadline_s - time.monotonic()))
        if self._words is not None:
            self._words.join(SLICE_S)
        self._lines = []

    def _read_words(self, reader: PacketReader, stop: threading.Event) -> None:
        newest = (-(2**63), -1)  # start and number of the newest committed word that was passed on
        shown = ""
        try:
            while not stop.is_set() and not reader.ended:
                if not reader.wait(SLICE_S):
                    continue
                packet = reader.read()
                if not isinstance(packet, TranscriptPacket):
                    continue
                committed = [word for word in packet.words if word.committed]
                new = tuple(word for word in committed if (word.start_ns, word.number) > newest)
                partial = " ".join(word.text for word in packet.words if not word.committed)
                if not new and partial == shown:
                    continue
                newest = max([newest, *((word.start_ns, word.number) for word in new)])
                shown = partial
                for line in self._lines:
                    line.put(Spoken(packet.t_ns, new, partial, packet.language))
        finally:
            reader.close()


class _Line:
    """One peer with its queue and its thread."""

    def __init__(self, peer: Peer, name: str) -> None:
        self.peer = peer
        self._name = name
        self._changed = threading.Condition()
        self._waiting: deque[Estimate | Spoken] = deque()
        self._over = False
        self._health = Health()
        self._clocks = Clocks()
        self._hop_s = 0.0
        self._worker: Worker | None = None

    def prepare(self, health: Health, clocks: Clocks, hop_s: float) -> None:
        self._health, self._clocks, self._hop_s = health, clocks, hop_s
        # What no peer should raise is counted as `….failures`, and the peer is opened again.
        self._worker = Worker(self._name, self, health, restart=AGAIN, on_exit=self.peer.unbind)

    def start(self) -> None:
        if self._worker is not None:
            self._worker.start()

    def put(self, event: Estimate | Spoken) -> None:
        with self._changed:
            self._waiting.append(event)
            if len(self._waiting) > self.peer.queue:
                self._waiting.popleft()
                self._health.count(f"{self._name}.dropped")
            self._changed.notify_all()

    def end(self) -> None:
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def join(self, timeout_s: float) -> None:
        if self._worker is None or not (self._worker.alive or self._worker.finished):
            self.peer.unbind()
            return
        if not self._worker.join(timeout_s):
            self._worker.request_stop()  # it may wait for the peer, or for the next try

    def __call__(self, stop: threading.Event) -> None:
        """Until the end or `stop`: open the peer, pass events on, and begin again after a loss."""
        run = self._await_run(stop)
        failures = 0
        while run is not None and not self._done(stop):
            try:
                self.peer.open(run)
                self._skip_to_newest(failures)
                if self._health.status(self._name).state == "failed":
                    self._health.report(self._name, "running", "it is back")
                while not self._done(stop):
                    event = self._take()
                    if event is None:
                        self.peer.idle()
                    else:
                        self.peer.send(event)
                    failures = 0
            except (PeerLostError, OSError) as error:
                failures += 1
                if self._health.status(self._name).state != "failed":  # once for each loss
                    self._health.count(f"{self._name}.lost")
                    self._health.report(self._name, "failed", f"{error}; tried again")
            finally:
                self.peer.close()
            if failures:
                self._pause(AGAIN.delay_s(failures), stop)
        with self._changed:  # the end came first
            self._drop()
        status = self._health.status(self._name)
        if status.state == "failed":  # the reason can be read after the run
            self._health.report(self._name, "ended", status.detail)

    def _await_run(self, stop: threading.Event) -> Run | None:
        """What the first estimate says of the run; None if the run ends without one."""
        with self._changed:
            while not stop.is_set():
                for event in self._waiting:
                    if isinstance(event, Estimate):
                        return Run(
                            names=event.names,
                            limits=event.limits,
                            source=event.source,
                            session=event.session,
                            bundle=event.bundle,
                            hop_s=self._hop_s,
                            clocks=self._clocks,
                        )
                if self._over:
                    return None
                self._changed.wait(SLICE_S)
        return None

    def _skip_to_newest(self, failures: int) -> None:
        """After a loss, send only the newest estimate, and all words that wait."""
        with self._changed:
            if not failures:
                return
            old = [event for event in self._waiting if isinstance(event, Estimate)][:-1]
            self._waiting = deque(event for event in self._waiting if event not in old)
            self._health.count(f"{self._name}.dropped", len(old))

    def _take(self) -> Estimate | Spoken | None:
        with self._changed:
            if not self._waiting and not self._over:
                self._changed.wait(SLICE_S)
            return self._waiting.popleft() if self._waiting else None

    def _done(self, stop: threading.Event) -> bool:
        with self._changed:
            return stop.is_set() or (self._over and not self._waiting)

    def _pause(self, seconds: float, stop: threading.Event) -> None:
        """Wait; end early at the end of the run."""
        with self._changed:
            if not self._over:
                self._changed.wait_for(lambda: self._over or stop.is_set(), seconds)
            if self._over:  # nothing can be sent any more
                self._drop()

    def _drop(self) -> None:
        if self._waiting:
            self._health.count(f"{self._name}.dropped", len(self._waiting))
            self._waiting.clear()
