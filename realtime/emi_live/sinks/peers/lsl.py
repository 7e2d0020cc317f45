"""`--to lsl:` Lab Streaming Layer: values with states, words, and markers, as three streams.

Stamps are capture times by `pylsl.local_clock`. Values: one sample an estimate, irregular rate. The layout of
the description is https://github.com/sccn/xdf/wiki/Meta-Data; `source_id` lets an inlet come back after we
were restarted.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any, ClassVar, Final

from emi_live.clock import NS_PER_S
from emi_live.errors import ConfigurationError
from emi_live.messages import Estimate
from emi_live.sinks.peers import Peer, PeerLostError, Run, Spoken, options_of
from emi_models import MODALITIES
from emi_models.libraries import require

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["LslPeer", "configure"]

NAME: Final = "emi-live"
# liblsl takes its settings once, before its first call. Without --lan it announces itself on loopback only.
LOCAL: Final = """[ports]
IPv6 = disable
[multicast]
ResolveScope = machine
ListenAddress = 127.0.0.1
AddressesOverride = {127.0.0.1}
[log]
level = -3
"""
LAN_TOO: Final = "[log]\nlevel = -3\n"
_configured: list[str] = []


def configure(*, lan: bool) -> None:
    """Limit liblsl to this machine, or not; once in a process, before anything else uses it.

    Raises:
        PeerLostError: it was configured with another reach.
    """
    import pylsl

    wanted = LAN_TOO if lan else LOCAL
    if not _configured:
        pylsl.set_config_content(wanted)
        _configured.append(wanted)
    elif _configured[0] != wanted:
        raise PeerLostError("this process already uses LSL with another reach; start a new one")


class LslPeer(Peer):
    """Three outlets: `NAME` of type Emotion, `NAME-words` and `NAME-markers` of type Markers.

    `lsl:` or `lsl:NAME`. The channels of the first are the values, then `valid`: 1 if any modality was used
    for the estimate, else 0, then of each modality 1 if it was used. An intensity without any evidence is
    thus told from one that was seen.
    """

    kind: ClassVar[str] = "lsl"

    def __init__(self, address: str, *, lan: bool = False) -> None:
        super().__init__(address, lan=lan)
        plain, _ = options_of(f"lsl:{address}", address)
        self.name = plain or NAME
        if not re.fullmatch(r"[\w .-]{1,60}", self.name):
            raise ConfigurationError(
                f"--to lsl:{address}: a stream's name has letters, digits, spaces, . - and _"
            )
        require("pylsl", extra="lsl", what="--to lsl:")
        self._outlets: tuple[Any, Any, Any] | None = None
        self._run: Run | None = None

    @property
    def where(self) -> str:
        """The names of the streams, and who can find them."""
        # liblsl binds its data ports to every interface and has no setting for that; only who is told of
        # them can be limited (docs/decisions/0039).
        note = (
            "" if self.lan else "; announced on this machine only, but ports 16572-16604 are open to others"
        )
        return f"LSL streams {self.name}, {self.name}-words, {self.name}-markers{note}"

    def open(self, run: Run) -> None:
        """Make the three outlets, whose source id is the same for every run of this source."""
        import pylsl

        configure(lan=self.lan)
        self._run = run
        lasting = hashlib.sha256(f"{self.name} {run.source} {run.bundle}".encode("utf-8", "replace"))
        source_id = f"emi-live-{lasting.hexdigest()[:12]}"
        try:
            values = self._info("", "Emotion", len(run.names) + 1 + len(MODALITIES), "float32", source_id)
            ranges = dict(zip(run.names, run.limits, strict=True))
            units = {name: "intensity" if ranges[name] == (0.0, 1.0) else "rating" for name in run.names}
            self._describe(values, [(name, units[name], "Intensity") for name in run.names], ranges)
            states = [
                ("valid", "boolean", "Validity"),
                *((f"{m}_used", "boolean", "Validity") for m in MODALITIES),
            ]
            self._describe(values, states, {})
            words = self._info("-words", "Markers", 2, "string", f"{source_id}-words")
            self._describe(words, [("word", "text", "Word"), ("duration", "s", "Duration")], {})
            marks = self._info("-markers", "Markers", 1, "string", f"{source_id}-markers")
            self._describe(marks, [("marker", "json", "Marker")], {})
            self._outlets = (pylsl.StreamOutlet(values), pylsl.StreamOutlet(words), pylsl.StreamOutlet(marks))
        except RuntimeError as error:  # pylsl's, if no port is free
            raise PeerLostError(f"liblsl cannot make a stream: {error}") from error

    def send(self, event: Estimate | Spoken) -> None:
        """Push one sample of values, and one for each word or marker, at its capture time."""
        outlets = self._outlets
        if outlets is None:
            return
        values, words, marks = outlets
        if isinstance(event, Spoken):
            for word in event.words:
                length_s = (word.end_ns - word.start_ns) / NS_PER_S
                words.push_sample([word.text, f"{length_s:.3f}"], self._stamp_s(word.start_ns))
            return
        used = [float(event.modalities[name].used) for name in MODALITIES]
        values.push_sample([*event.intensities, max(used), *used], self._stamp_s(event.t_ns))
        for mark in event.marks:
            text = json.dumps({"number": mark.number, "label": mark.label, "from": mark.origin})
            marks.push_sample([text], self._stamp_s(mark.t_ns))

    def close(self) -> None:
        """Withdraw the streams."""
        self._outlets = None  # pylsl destroys an outlet with its last reference

    def _stamp_s(self, t_ns: int) -> float:
        import pylsl

        assert self._run is not None  # noqa: S101  # `open` was called
        return self._run.clocks.by("lsl", lambda: round(pylsl.local_clock() * NS_PER_S), t_ns) / NS_PER_S

    def _info(self, suffix: str, type_: str, channels: int, format_: str, source_id: str) -> Any:
        import pylsl

        return pylsl.StreamInfo(self.name + suffix, type_, channels, pylsl.IRREGULAR_RATE, format_, source_id)

    def _describe(
        self, info: Any, rows: Sequence[tuple[str, str, str]], ranges: dict[str, tuple[float, float]]
    ) -> None:
        """Add the channels, and at first the run and the offset between the clocks."""
        run, desc = self._run, info.desc()
        assert run is not None  # noqa: S101  # `open` was called
        channels = desc.child("channels")
        if channels.empty():
            desc.append_child_value("manufacturer", "emi-live")
            for name, text in (("session", run.session), ("source", run.source), ("bundle", run.bundle)):
                desc.append_child_value(name, text)
            self._stamp_s(0)
            run.clocks.unix_ns(0)
            offsets = desc.append_child("clock_offsets")
            for clock in ("lsl", "wall"):
                offsets.append_child_value(f"{clock}_minus_monotonic_s", f"{run.clocks.offset_s(clock):.9f}")
            channels = desc.append_child("channels")
        for label, unit, type_ in rows:
            channel = channels.append_child("channel")
            for name, text in (("label", label), ("unit", unit), ("type", type_)):
                channel.append_child_value(name, text)
            if label in ranges:
                low, high = ranges[label]
                channel.append_child_value("range", f"{low:g} {high:g}")
