"""Peers: programs of others that read us by a protocol of their own; `--to KIND:ADDRESS` names one.

One module for each kind. Here are what all share: the base class `Peer`, the addresses, the clocks that
capture times are mapped to, and `open_peer`, which finds a kind by its name. Kinds are entry points of the
group `emi.peers`, so other packages add theirs without a change here (docs/extending.md). How estimates get
to a peer: `emi_live.sinks.peers.sink`.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final
from urllib.parse import parse_qsl

from emi_live.clock import NS_PER_S, offset_ns
from emi_live.errors import ConfigurationError, LiveError

if TYPE_CHECKING:
    from emi_live.messages import Estimate, Word

__all__ = [
    "GROUP",
    "Clocks",
    "Peer",
    "PeerLostError",
    "Run",
    "Spoken",
    "host_and_port",
    "is_local",
    "known_kinds",
    "open_peer",
    "options_of",
]

GROUP: Final = "emi.peers"
AGAIN_NS: Final = 60 * NS_PER_S  # wall time may be set, and clocks drift: measured again after so long
LAN: Final = "; other machines can read it, in clear text (--lan)"


class PeerLostError(LiveError):
    """A peer does not take what is sent; the message says why in a few words."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """What was said, as far as it is known.

    Attributes:
        t_ns: capture time up to which the sound was heard.
        words: those that were committed since the last one; they will not change.
        partial: what may still change, as one text.
        language: code of the language, if it is known.
    """

    t_ns: int
    words: tuple[Word, ...]
    partial: str
    language: str | None


class Clocks:
    """Capture times by the clocks of peers. One peer and its thread use each."""

    def __init__(
        self, origin_ns: int | None = None, note: Callable[[str, float], None] = lambda name, value: None
    ) -> None:
        """Map from the engine's clock.

        Args:
            origin_ns: by `time.monotonic_ns`, where a file's time 0 is in exact mode; None: capture times are
                those of the clock already.
            note: records the offset of a clock in seconds, by its name.
        """
        self._origin_ns = origin_ns or 0
        self._note = note
        self._measured: dict[str, tuple[int, int]] = {}  # by clock: when, and its offset

    def monotonic_ns(self, t_ns: int) -> int:
        """A capture time by `time.monotonic_ns`."""
        return t_ns + self._origin_ns

    def unix_ns(self, t_ns: int) -> int:
        """A capture time in nanoseconds since 1970, by the system's wall clock, which ROS uses too."""
        return self.by("wall", time.time_ns, t_ns)

    def by(self, name: str, now_ns: Callable[[], int], t_ns: int) -> int:
        """A capture time by another clock, whose offset is measured at first and every minute."""
        at_ns = time.monotonic_ns()
        measured = self._measured.get(name)
        if measured is None or at_ns - measured[0] > AGAIN_NS:
            measured = self._measured[name] = at_ns, offset_ns(now_ns)
            self._note(f"clock.{name}.offset_s", measured[1] / NS_PER_S)
        return self.monotonic_ns(t_ns) + measured[1]

    def offset_s(self, name: str) -> float | None:
        """The offset of a clock as it was last measured, in seconds; None before."""
        measured = self._measured.get(name)
        return None if measured is None else measured[1] / NS_PER_S


@dataclass(frozen=True, slots=True)
class Run:
    """What a peer is told of the run when it is opened."""

    names: tuple[str, ...]  # of the values in each estimate
    limits: tuple[tuple[float, float], ...]  # of each value
    source: str  # what is watched, without passwords
    session: str
    bundle: str
    hop_s: float
    clocks: Clocks = field(default_factory=Clocks)


class Peer:
    """One peer. The constructor and `bind` run at the start; all else in one thread of the peer's own.

    A subclass needs `send` and `where`. A method that raises PeerLostError or OSError is not called again:
    `close` and, after a pause, `open` are. While a call waits, up to `queue` events wait for it, and then the
    oldest are dropped; nothing else waits.
    """

    kind: ClassVar[str] = ""
    queue: ClassVar[int] = 32  # events that may wait; with 1, only the newest estimate is sent
    sends: ClassVar[str] = "each estimate: time, intensities, states, and the words of the last seconds"
    file: Path | None = None  # what it writes, if that is a file and nobody is sent anything

    def __init__(self, address: str, *, lan: bool = False) -> None:
        """Check the address.

        Args:
            address: what follows `KIND:`.
            lan: whether other machines may be reached.

        Raises:
            ConfigurationError: it is not valid, or leaves this machine and `lan` is not set.
            MissingPackageError: the extra is not installed.
        """
        self.address = address
        self.lan = lan

    @property
    def where(self) -> str:
        """Where the peer finds us or we find it, for the start and for `emi privacy`."""
        raise NotImplementedError

    def bind(self) -> None:
        """Take an address of this machine, so that one in use is an error before models load.

        Raises:
            ConfigurationError: it is in use.
        """

    def open(self, run: Run) -> None:
        """Connect or announce; called before the first event, and again after a loss."""

    def send(self, event: Estimate | Spoken) -> None:
        """Pass one event on."""
        raise NotImplementedError

    def idle(self) -> None:
        """Do what is due without an event; called about every 100 ms while none comes."""

    def close(self) -> None:
        """Release everything but what `bind` took; a second call does nothing."""

    def unbind(self) -> None:
        """Release what `bind` took."""


def known_kinds(points: Iterable[EntryPoint] | None = None) -> list[str]:
    """The kinds that are registered, sorted."""
    return sorted({point.name for point in (entry_points(group=GROUP) if points is None else points)})


def open_peer(text: str, *, lan: bool = False, points: Iterable[EntryPoint] | None = None) -> Peer:
    """The peer of `KIND:ADDRESS`; nothing is connected, bound or announced yet.

    Args:
        text: as given with `--to`.
        lan: whether other machines may be reached.
        points: registered kinds; None = those of all installed packages.

    Raises:
        ConfigurationError: no such kind, or the address is not valid or leaves this machine without `lan`.
        MissingPackageError: the kind's extra is not installed.
    """
    kind, colon, address = text.partition(":")
    found = {point.name: point for point in (entry_points(group=GROUP) if points is None else points)}
    if not colon or kind not in found:
        kinds = ", ".join(f"{name}:" for name in sorted(found))
        raise ConfigurationError(f"--to {text} names no kind of peer; use one of {kinds}")
    try:
        make = found[kind].load()
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(
            f"--to {kind}: cannot be loaded from {found[kind].value}: {error}; reinstall the package"
        ) from error
    peer: Peer = make(address, lan=lan)
    return peer


def options_of(text: str, address: str, **defaults: str) -> tuple[str, dict[str, str]]:
    """An address without its query, and the options in the query.

    Raises:
        ConfigurationError: an option that is not one of `defaults`.
    """
    plain, _, query = address.partition("?")
    given = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := sorted(given.keys() - defaults.keys()):
        raise ConfigurationError(
            f"--to {text}: no option {unknown[0]}; there are {', '.join(sorted(defaults)) or 'none'}"
        )
    return plain, {**defaults, **given}


def host_and_port(text: str, address: str, *, default_port: int | None, lan: bool) -> tuple[str, int]:
    """Host and port of `HOST:PORT`, `HOST` or nothing; the host is this machine by default.

    `text` is the option as it was typed, for errors.

    Raises:
        ConfigurationError: not valid, or another machine without `lan`.
    """
    host, _, port = (
        address.rpartition(":") if ":" in address and not address.endswith("]") else (address, "", "")
    )
    host = host.strip("[]") or "127.0.0.1"
    number = int(port) if port.isdecimal() else default_port if not port else None
    if number is None or not 0 < number < 65536:
        raise ConfigurationError(f"{text} needs a port, such as 127.0.0.1:{default_port or 9000}")
    if not lan and not is_local(host):
        raise ConfigurationError(
            f"{text} reaches other machines, in clear text: add --lan if this is what you want"
        )
    return host, number


def is_local(host: str) -> bool:
    """Whether a host is this machine, judged by its text only: no name is looked up."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
