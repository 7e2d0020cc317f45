"""`--marks`: markers that other programs set: LSL marker streams, and messages of OSC.

Each has the time at which it happened: an LSL stamp, corrected by `time_correction`, or the time tag of an
OSC bundle; a plain OSC message counts when it arrives.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final, Protocol, Self

from emi_live.clock import NS_PER_S
from emi_live.errors import ConfigurationError
from emi_live.health import Health
from emi_live.messages import MAX_LABEL
from emi_live.sinks.peers import Clocks, PeerLostError, host_and_port
from emi_live.worker import Backoff, Worker
from emi_models.libraries import require

__all__ = ["MarkListener"]

SLICE_S: Final = 0.2
RESOLVE_S: Final = 1.5  # LSL's queries go out in waves, about a second in all
CORRECTION_S: Final = 2.0
AGAIN_S: Final = 10.0  # how often the offset to a stream's clock is asked for again
WITHIN_NS: Final = 30 * NS_PER_S  # a time that is further away is not one of this run
OSC_ADDRESS: Final = "/marker"


class SetMark(Protocol):
    """`LiveEngine.mark`."""

    def __call__(self, label: str = "", t_ns: int | None = None, *, origin: str = "python") -> int:
        """Set a marker; returns its number."""
        ...


class MarkListener:
    """Listens while it is entered; live mode only.

    ::

        with LiveEngine(config) as live, MarkListener(["lsl:Stimuli", "osc:9001"], live.mark, live.health):
            …

    A marker that the engine does not take, because over 32 wait, is counted as `marks.refused`.
    """

    def __init__(self, addresses: Sequence[str], mark: SetMark, health: Health, *, lan: bool = False) -> None:
        """Check the addresses, and bind those of OSC.

        Args:
            addresses: `lsl:NAME`, the name of a marker stream, or `lsl:` for the first of type Markers that
                is not ours; `osc:PORT` or `osc:HOST:PORT`, for messages `/marker LABEL`.
            mark: sets a marker.
            health: counts and states; `to-marks-…` are the parts.
            lan: whether other machines may send.

        Raises:
            ConfigurationError: an address that is not valid, in use, or reaches others without `lan`.
            MissingPackageError: an extra is not installed.
        """
        self._mark, self._health, self._lan = mark, health, lan
        self._sockets: list[socket.socket] = []
        self._workers: list[Worker] = []
        try:
            for number, address in enumerate(addresses):
                body = self._body(address)
                name = f"marks-{address.partition(':')[0]}" + (f"-{number + 1}" if number else "")
                self._workers.append(Worker(name, body, health, restart=Backoff()))
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def __enter__(self) -> Self:
        for worker in self._workers:
            worker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening."""
        for worker in self._workers:
            worker.request_stop()
        for worker in self._workers:
            worker.join(2 * RESOLVE_S)
        for opened in self._sockets:
            opened.close()

    def _body(self, address: str) -> Callable[[threading.Event], None]:
        kind, colon, rest = address.partition(":")
        if kind == "lsl" and colon:
            require("pylsl", extra="lsl", what="--marks lsl:")
            return lambda stop: self._listen_lsl(rest, stop)
        if kind != "osc" or not colon:
            raise ConfigurationError(f"--marks {address} is no source of markers; use lsl:NAME or osc:PORT")
        require("pythonosc", extra="osc", what="--marks osc:")
        where = f":{rest}" if rest.isdecimal() else rest
        host, port = host_and_port(f"--marks {address}", where, default_port=None, lan=self._lan)
        opened = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self._sockets.append(opened)
        try:
            opened.bind((host, port))
        except OSError as error:
            raise ConfigurationError(
                f"--marks {address} cannot be bound: {error.strerror}; choose another port"
            ) from error
        opened.settimeout(SLICE_S)
        return lambda stop: self._listen_osc(opened, stop)

    def _set(self, label: str, t_ns: int, origin: str) -> None:
        if abs(t_ns - time.monotonic_ns()) > WITHIN_NS:
            t_ns = time.monotonic_ns()
        try:
            self._mark(label[:MAX_LABEL], t_ns, origin=origin)
        except ConfigurationError:  # too many, or the engine has ended
            self._health.count("marks.refused")

    def _listen_osc(self, opened: socket.socket, stop: threading.Event) -> None:
        from pythonosc.osc_bundle import OscBundle
        from pythonosc.osc_packet import OscPacket, ParseError

        clocks = Clocks()
        while not stop.is_set():
            try:
                data = opened.recv(65536)
                now_ns = time.monotonic_ns()
                packet = OscPacket(data)
                tag = OscBundle(data).timestamp if OscBundle.dgram_is_bundle(data) else 0.0
            except TimeoutError:
                continue
            except ParseError:
                self._health.count("marks.refused")
                continue
            offset_ns = clocks.unix_ns(0)
            t_ns = round(tag * NS_PER_S) - offset_ns if tag > 1 else now_ns
            for timed in packet.messages:
                if timed.message.address == OSC_ADDRESS:
                    self._set(" ".join(str(value) for value in timed.message.params), t_ns, "osc")

    def _listen_lsl(self, name: str, stop: threading.Event) -> None:
        from emi_live.sinks.peers.lsl import configure

        configure(lan=self._lan)
        import pylsl

        clocks = Clocks()
        while not stop.is_set():
            wanted = (
                f"name='{name}'" if name else "type='Markers' and not(starts-with(source_id,'emi-live-'))"
            )
            found = pylsl.resolve_bypred(wanted, 1, RESOLVE_S)
            if found:
                self._read_lsl(pylsl.StreamInlet(found[0], recover=False), clocks, stop)

    def _read_lsl(self, inlet: Any, clocks: Clocks, stop: threading.Event) -> None:
        """Read one stream until it is lost."""
        import pylsl

        correction, asked_s = 0.0, 0.0
        try:
            while not stop.is_set():
                if time.monotonic() - asked_s > AGAIN_S:
                    correction, asked_s = inlet.time_correction(CORRECTION_S), time.monotonic()
                sample, stamp = inlet.pull_sample(SLICE_S)
                if sample is None:
                    continue
                offset_ns = clocks.by("lsl", lambda: round(pylsl.local_clock() * NS_PER_S), 0)
                t_ns = round((stamp + correction) * NS_PER_S) - offset_ns
                self._set(" ".join(str(value) for value in sample), t_ns, "lsl")
        except (pylsl.util.LostError, pylsl.util.TimeoutError) as error:
            raise PeerLostError(f"the marker stream is gone: {error}") from error
        finally:
            inlet.close_stream()
