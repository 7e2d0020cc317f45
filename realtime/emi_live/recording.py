"""Sessions as MCAP files: what the fusion loop was given and what it made of it, for an exact replay.

A recording has no picture and no sound, unless `emi_live.recording_media` adds them. In the order in which
the loop took them it holds the packets of the bus (topics `/emi/vision`, `/emi/audio`, `/emi/text`: the bytes
of `emi_live.wire`), each hop with the states of devices (`/emi/hop`), and each estimate as its JSON line
(`/emi/estimate`). Any MCAP viewer can plot the last: its schema is a JSON Schema.

Format: https://mcap.dev/spec. Chunks are small and flushed, so that a process that is killed loses seconds.
"""

from __future__ import annotations

import json
import struct
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import msgspec

from emi_live.clock import NS_PER_S
from emi_live.errors import ConfigurationError, LiveError, SourceError, WireError
from emi_live.fusion_loop import Event, FusionLoop, Hop
from emi_live.messages import JSON_SCHEMA, Mark
from emi_live.window import Condition
from emi_live.wire import decode, encode
from emi_models import MODALITIES

if TYPE_CHECKING:
    from mcap.writer import Writer

    from emi_live.config import LiveConfig
    from emi_live.health import Health

__all__ = ["About", "Recording", "ReplayLoop", "SessionRecorder", "with_recorded"]

FORMAT: Final = 1
METADATA: Final = "emi-live"
CLOCKS: Final = "emi-live clocks"  # other clocks minus that of capture times, in seconds
PROFILE: Final = ""
CHUNK_BYTES: Final = 64 * 1024  # about 3 s of a face and a voice
FLUSH_S: Final = 1.0
MOST_WAITING: Final = 8_192  # events for the writing thread; over a minute of a face and a voice
MOST_MEDIA: Final = 64  # pictures and pieces of sound; they are large
WAIT_S: Final = 0.1
MAX_RECORD_BYTES: Final = 64 * 1024 * 1024  # a larger record is damage
LENGTH: Final = struct.Struct("<I")  # of a packet's header, in front of it

ESTIMATE_SCHEMA: Final = {
    "type": "object",
    "title": "emi-live estimate",
    "description": f"docs/messages.md, schema {JSON_SCHEMA}",
    "properties": {
        "seq": {"type": "integer"},
        "t": {"type": "number"},
        "wall": {"type": "string"},
        "intensities": {"type": "object", "additionalProperties": {"type": "number"}},
        "modalities": {"type": "object"},
    },
}
HOP_SCHEMA: Final = {
    "type": "object",
    "title": "emi-live hop",
    "properties": {
        "end_ns": {"type": "integer"},
        "origin_ns": {"type": "integer"},
        "wall": {"type": "string"},
        "conditions": {"type": "object"},
        "marks": {"type": "array"},
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a replay must know of a run."""

    bundle: str
    encoders: dict[str, str]  # ids, by modality
    dims: dict[str, int]  # values in a frame, by modality
    checkpoint: str  # the file's name
    window: dict[str, Any]  # the settings of the section
    words_due_s: float
    smooth_s: float
    source: str
    session: str
    version: str  # of emi-live
    clock_offset_ns: int = 0  # wall time minus the clock of capture times
    format: int = FORMAT

    def to_metadata(self) -> dict[str, str]:
        """For MCAP's metadata record, whose values are strings."""
        return {name: json.dumps(value) for name, value in asdict(self).items()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> About:
        """Read it back.

        Raises:
            ValueError: it is of another format.
        """
        values = {name: json.loads(value) for name, value in metadata.items()}
        if values.get("format") != FORMAT:
            raise ValueError(f"its format is {values.get('format')}, and this emi-live reads {FORMAT}")
        return msgspec.convert(values, cls)


@dataclass(frozen=True, slots=True)
class Media:
    """A picture or a piece of sound, as a message of its topic."""

    topic: str
    t_ns: int
    message: bytes


class SessionRecorder:
    """Writes events to a file in its own thread; `put` is for the loop's thread and costs microseconds.

    Live, an event that finds 8,192 waiting is left out and counted as `record.lost`; a replay is not exact
    from there on. Lossless, `put` waits for room.
    """

    name = "record"

    def __init__(
        self,
        path: Path,
        about: About,
        health: Health,
        *,
        lossless: bool,
        replace: bool,
        media: Mapping[str, Any] | None = None,
    ) -> None:
        """Open the file; `media` has the schemas of topics that `put_media` fills.

        Raises:
            ConfigurationError: it is there and `replace` is false, or it cannot be written.
        """
        from mcap.writer import Writer

        self._path = path
        self._about = about
        self._health = health
        self._lossless = lossless
        self._changed = threading.Condition()
        self._waiting: deque[Event | Media] = deque()
        self._media = dict(media or {})
        self._media_waiting = 0
        self._over = False
        self._failed = False
        try:
            self._file: IO[bytes] = path.open("wb" if replace else "xb")
        except FileExistsError as error:
            raise ConfigurationError(
                f"--record {path} is there; give --force to replace it, or another name"
            ) from error
        except OSError as error:
            raise ConfigurationError(
                f"--record {path} cannot be written: {error.strerror}; name a file in a folder that exists"
            ) from error
        self._writer: Writer = Writer(self._file, chunk_size=CHUNK_BYTES)
        self._channels: dict[str, int] = {}
        self._counts: dict[str, int] = {}
        self._clocks: dict[str, str] = {}
        self._flushed_s = time.monotonic()

    @property
    def clock_offset_ns(self) -> int:
        """Wall time minus the clock of capture times."""
        return self._about.clock_offset_ns

    def put(self, event: Event) -> None:
        """Hand over one event; nothing of it may change afterwards."""
        with self._changed:
            while self._lossless and len(self._waiting) >= MOST_WAITING and not self._over:
                self._changed.wait(WAIT_S)
            if self._failed or (not self._over and len(self._waiting) >= MOST_WAITING):
                self._health.count("record.lost")
            elif not self._over:
                self._waiting.append(event)
                self._changed.notify_all()

    def put_media(self, topic: str, t_ns: int, message: bytes) -> None:
        """Hand over a picture or sound; what finds 64 waiting is counted as `record.media_lost`."""
        with self._changed:
            if self._failed or (not self._over and self._media_waiting >= MOST_MEDIA):
                self._health.count("record.media_lost")
            elif not self._over:
                self._media_waiting += 1
                self._waiting.append(Media(topic, t_ns, message))
                self._changed.notify_all()

    def end(self) -> None:
        """Nothing more will be put."""
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def __call__(self, stop: threading.Event) -> None:
        """Write until `end`, or `stop`; the body of a worker.

        Raises:
            LiveError: the disk is full, or the file is gone.
        """
        try:
            self._writer.start(PROFILE, f"emi-live {self._about.version}")
            self._writer.add_metadata(METADATA, self._about.to_metadata())
            self._open_channels()
            while (event := self._next(stop)) is not None:
                self._write(event)
            self._note_clocks()
            self._writer.finish()
            self._file.close()
        except OSError as error:
            with self._changed:  # what waits, and what follows, is lost
                self._failed = True
                self._health.count("record.lost", 1 + len(self._waiting))
                self._waiting.clear()
            raise LiveError(
                f"--record {self._path} cannot be written: {error.strerror or error}; what was recorded "
                "before can be replayed"
            ) from error
        finally:
            self.end()

    def close(self) -> None:
        """Close the file, whole or not; the worker must have ended."""
        self.end()
        with suppress(OSError):  # a full disk was said before
            self._file.close()

    def _next(self, stop: threading.Event) -> Event | Media | None:
        with self._changed:
            while not self._waiting:
                if self._over or stop.is_set():
                    return None
                self._changed.wait(WAIT_S)
            event = self._waiting.popleft()
            self._media_waiting -= isinstance(event, Media)
            self._changed.notify_all()
            return event

    def _open_channels(self) -> None:
        for kind in MODALITIES:
            schema = self._writer.register_schema(f"emi-live/{kind}", "", b"")
            self._channels[kind] = self._writer.register_channel(f"/emi/{kind}", "x-emi-live", schema)
        for name, described in (("hop", HOP_SCHEMA), ("estimate", ESTIMATE_SCHEMA)):
            schema = self._writer.register_schema(
                str(described["title"]), "jsonschema", json.dumps(described).encode()
            )
            self._channels[name] = self._writer.register_channel(f"/emi/{name}", "json", schema)

        for name, known in self._media.items():
            schema = self._writer.register_schema(known.name, known.encoding, known.data)
            self._channels[name] = self._writer.register_channel(f"/emi/{name}", known.encoding, schema)

    def _write(self, event: Event | Media) -> None:
        if isinstance(event, Media):
            self._add(event.topic, event.t_ns, event.message)
            return
        if isinstance(event, Hop):
            self._add("hop", event.end_ns, _hop_line(event))
            if event.estimate is not None:
                line = json.dumps(event.estimate.to_json(), allow_nan=False, separators=(",", ":"))
                self._add("estimate", event.end_ns, line.encode())
            return
        topic, header, payload = encode(event)
        self._add(topic.decode(), event.t_ns, LENGTH.pack(len(header)) + header + bytes(payload))

    def _add(self, kind: str, t_ns: int, data: bytes) -> None:
        at_ns = max(0, t_ns + self._about.clock_offset_ns)
        count = self._counts.get(kind, 0)
        self._counts[kind] = count + 1
        self._writer.add_message(self._channels[kind], at_ns, data, at_ns, sequence=count)
        if time.monotonic() - self._flushed_s > FLUSH_S:
            self._flushed_s = time.monotonic()
            self._note_clocks()
            self._file.flush()

    def _note_clocks(self) -> None:
        """Record the offsets of other clocks, as peers and sources measure them, whenever one is new."""
        facts = self._health.snapshot().facts
        clocks = {name: f"{value:.9f}" for name, value in facts.items() if name.startswith("clock.")}
        if clocks.keys() != self._clocks.keys():
            self._clocks = clocks
            self._writer.add_metadata(CLOCKS, clocks)


def _hop_line(hop: Hop) -> bytes:
    return json.dumps(
        {
            "end_ns": hop.end_ns,
            "origin_ns": hop.origin_ns,
            "wall": hop.wall,
            "conditions": {name: [one.state, one.detail] for name, one in hop.conditions.items()},
            "marks": msgspec.to_builtins(hop.marks),
        },
        separators=(",", ":"),
    ).encode()


class Recording:
    """A recorded session, read from its beginning; a file that was cut off is read as far as it goes."""

    def __init__(self, path: Path) -> None:
        """Read what is known of the run.

        Raises:
            ConfigurationError: there is no such file.
            SourceError: it is no MCAP file, or not one of emi-live.
        """
        self._path = path
        self.shortfall = ""  # why reading ended early, once it has
        try:
            self.about = self._about()
        except FileNotFoundError as error:
            raise ConfigurationError(f"there is no file {path}") from error
        except (OSError, ValueError, TypeError) as error:
            raise SourceError(
                f"{path} cannot be replayed: {error}; give a file of `emi-live --record`"
            ) from error

    def _about(self) -> About:
        from mcap.records import Metadata

        for record in self._records():
            if isinstance(record, Metadata) and record.name == METADATA:
                return About.from_metadata(record.metadata)
        raise ValueError(self.shortfall or "it is not a recording of emi-live")

    def __iter__(self) -> Iterator[Event]:
        """Every event, in the order in which the loop had them.

        Raises:
            SourceError: a packet is of another version of emi-live, or damaged.
        """
        from mcap.records import Channel, Message

        topics: dict[int, str] = {}
        last_ns = 0
        for record in self._records():
            if isinstance(record, Channel):
                topics[record.id] = record.topic.removeprefix("/emi/")
            elif isinstance(record, Message):
                event = self._event(topics.get(record.channel_id, ""), record.data)
                if event is not None:
                    last_ns = (
                        max(last_ns, event.end_ns - event.origin_ns) if isinstance(event, Hop) else last_ns
                    )
                    yield event
        if self.shortfall:
            self.shortfall = f"the recording was cut off after {last_ns / NS_PER_S:.1f} s ({self.shortfall})"

    def _event(self, topic: str, data: bytes) -> Event | None:
        try:
            if topic == "hop":
                return _read_hop(data)
            if topic in MODALITIES:
                (length,) = LENGTH.unpack_from(data)
                view = memoryview(data)[LENGTH.size :]
                return decode((topic.encode(), bytes(view[:length]), view[length:]))
        except (WireError, ValueError, KeyError, TypeError, struct.error) as error:
            raise SourceError(
                f"{self._path} was recorded by emi-live {self.about.version}, or is damaged: {error}; replay "
                "it with that version"
            ) from error
        return None

    def _records(self) -> Iterator[Any]:
        from mcap.exceptions import McapError
        from mcap.stream_reader import StreamReader
        from zstandard import ZstdError

        self.shortfall = ""
        with self._path.open("rb") as file:
            reader = StreamReader(file, validate_crcs=True, record_size_limit=MAX_RECORD_BYTES)
            try:
                yield from reader.records
            except (McapError, ZstdError, ValueError, RuntimeError, OSError, struct.error) as error:
                self.shortfall = _in_words(error)


def _in_words(error: Exception) -> str:
    return str(error).strip() or {"EndOfFile": "the file ends early"}.get(
        type(error).__name__, type(error).__name__
    )


def _read_hop(data: bytes) -> Hop:
    line = json.loads(data)
    conditions = {
        name: Condition(state, detail)
        for name, (state, detail) in line["conditions"].items()
        if name in MODALITIES
    }
    return Hop(
        end_ns=int(line["end_ns"]),
        origin_ns=int(line["origin_ns"]),
        wall=str(line["wall"]),
        conditions=conditions,
        marks=msgspec.convert(line["marks"], tuple[Mark, ...]),
    )


class ReplayLoop(FusionLoop):
    """Makes the estimates of a recording again: in `exact` mode as fast as it can, else at their own pace."""

    def __init__(self, recording: Recording, *loop: Any, **more: Any) -> None:
        """Take the events of this recording; the rest as of `FusionLoop`, without a reader."""
        super().__init__(*loop, **more)
        self._recording = recording

    def __call__(self, stop: threading.Event) -> None:
        """Run in the calling thread until the recording or the duration is over, or `stop` is set."""
        begun_ns = self._clock.now_ns()
        for event in self._recording:
            if stop.is_set():
                return
            if not isinstance(event, Hop):
                self._assembler.add(event)
                continue
            due_ns = begun_ns + event.end_ns - event.origin_ns
            if not self._options.exact and not self._clock.wait_until(due_ns, stop):
                return
            self._emit(event.end_ns, event.origin_ns, event)
            if self._duration_over(event.end_ns, event.origin_ns):
                return
        if self._recording.shortfall:
            self._health.report("file", "ended", self._recording.shortfall)
        if not self.published:
            raise SourceError("the recording has no estimate")


def with_recorded(config: LiveConfig) -> LiveConfig:
    """The settings with what the recording that is their input says of its run: bundle, window, smoothing.

    Raises:
        ConfigurationError: there is no such file.
        SourceError: it cannot be replayed.
    """
    path = config.source.input
    if path is None:
        return config
    about = Recording(path).about
    return config.model_copy(
        update={
            "bundle": about.bundle,
            "window": config.window.model_copy(update=about.window),
            "fusion": config.fusion.model_copy(update={"smooth_s": about.smooth_s}),
        }
    )
