"""The packets of the bus. Each declaration is the wire format: names, types, ranges and lengths of fields.

A receiver checks all of it in one pass (`emi_live.wire`). A new field is one new line here; a field with
a new meaning also needs a new `SCHEMA_VERSION`. Times are integer nanoseconds of the engine's clock.

`progress_ns` is a stage's promise that no later packet of the same topic has `t_ns <= progress_ns`;
`END_OF_STREAM` promises that no packet follows at all. `exact` mode waits for these promises. In a gap of the
media a stage only renews its promise: `t_ns` stays that of its last packet, and is `NOTHING_YET` before the
first media.

The array of a packet is not changed after the packet was published: on inproc a large one is not copied.
A received array is read-only.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from emi_models import EMOTIONS, MODALITIES, Modality
from emi_models.targets import MAX_TARGETS

__all__ = [
    "END_OF_STREAM",
    "JSON_SCHEMA",
    "NOTHING_YET",
    "PACKETS",
    "SCHEMA_VERSION",
    "AudioPacket",
    "Estimate",
    "Hearing",
    "Latency",
    "LearnedNeutral",
    "Mark",
    "ModalityReport",
    "ModalityState",
    "OwnNeutral",
    "Packet",
    "Range",
    "TextPacket",
    "Trace",
    "TranscriptPacket",
    "VisionPacket",
    "Word",
    "end_of_stream",
]

SCHEMA_VERSION: Final = 7  # of the packets; a receiver refuses every other one
END_OF_STREAM: Final = 2**63 - 1
JSON_SCHEMA: Final = 1  # of `Estimate.to_json`; new fields do not change it, a new meaning does
NOTHING_YET: Final = -(2**62)  # a capture time before all others

KIB: Final = 1024
LEARNED_S: Final = 5.0  # as of `emi_models.baseline`, which is not loaded without need
MAX_DIM: Final = 4096  # features per frame or embedding; the widest encoder we know gives 1027
MAX_AUDIO_FRAMES: Final = 1500  # 30 s at 50 Hz: what the audio ring holds
MAX_WORDS: Final = 1024  # in 30 s: ten times the fastest speech
MAX_TEXT: Final = 16 * KIB  # characters of a window's words
MAX_REASON: Final = 500
MAX_MARKS: Final = 32  # in one estimate
MAX_LABEL: Final = 100  # characters of a marker's label
MAX_BOXES: Final = 16
MAX_LANDMARKS: Final = 478  # of MediaPipe's face mesh

ModalityState = Literal["live", "missing", "failed", "unavailable"]
Hearing = Literal["speaking", "silent", "no data"]

Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
# No time, age or latency of ours is larger, which keeps every number printable. NaN is in no range.
Number = Annotated[float, Meta(ge=-1e12, le=1e12)]
Intensity = Annotated[float, Meta(ge=0.0, le=1.0)]
# One for each target: the six emotions, or labels of one's own. `Estimate` checks them against the ranges.
Values = Annotated[tuple[Number, ...], Meta(min_length=1, max_length=MAX_TARGETS)]
Interval = tuple[Intensity, Intensity]
# x, y of the upper left corner, width and height, in fractions of the picture; it may go beyond its edge.
FaceBox = tuple[Number, Number, Number, Number]
Intervals = Annotated[tuple[Interval | None, ...], Meta(min_length=1, max_length=MAX_TARGETS)]
Text = Annotated[str, Meta(max_length=MAX_TEXT)]
Name = Annotated[str, Meta(max_length=200)]
Language = Annotated[str, Meta(pattern=r"^[a-z]{2,3}\Z")]  # a code of Whisper's, such as "en"
# `shape` is the largest shape of an array; `least` is the smallest size of each dimension.
Vector = Annotated[NDArray[np.float32] | None, Meta(extra={"shape": (MAX_DIM,), "least": 1})]
Matrix = Annotated[NDArray[np.float32], Meta(extra={"shape": (MAX_AUDIO_FRAMES, MAX_DIM), "least": 0})]


def _tag(class_name: str) -> str:
    return f"{class_name.removesuffix('Packet').lower()}/{SCHEMA_VERSION}"


class Packet(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="packet", tag=_tag
):
    """What every message on the bus carries. `seq` and `published_ns` are stamped by the publisher."""

    topic: ClassVar[str]
    max_header: ClassVar[int] = KIB  # bytes of all fields but the array
    max_payload: ClassVar[int] = 0  # bytes of the array

    t_ns: Int64  # capture time of the newest sample this packet describes
    progress_ns: Int64
    arrived_ns: Int64 = 0  # when that sample reached the engine; 0: not known, as in a script
    seq: Count = 0
    published_ns: Int64 = 0


class VisionPacket(Packet, frozen=True, kw_only=True):
    """One analysed frame. `features` is None if no face was found, or if it only reports progress."""

    topic: ClassVar[str] = "vision"
    max_header: ClassVar[int] = 4 * KIB
    max_payload: ClassVar[int] = 4 * MAX_DIM

    faces: Annotated[int, Meta(ge=-1, le=1000)]  # faces seen in the frame; -1: no frame, only progress
    features: Vector  # (vision_dim,)
    behind: bool = False  # the encoder is so slow that its features come late
    # Why the face in it was not read, in English: too dark, rolled, another person, …
    reason: Annotated[str, Meta(max_length=100)] | None = None
    boxes: Annotated[tuple[FaceBox, ...], Meta(max_length=MAX_BOXES)] = ()  # of the faces seen
    followed: Annotated[int, Meta(ge=0, le=MAX_BOXES - 1)] | None = None  # which box is the followed face's
    changes: Count = 0  # how often another face was followed than before, since the encoder was made
    # Points of the followed face, only while somebody wants them (`LiveEngine.show_landmarks`): x and y of
    # each as unsigned 16-bit little-endian numbers, 65535 = the picture's width or height.
    landmarks: Annotated[bytes, Meta(max_length=4 * MAX_LANDMARKS)] | None = None


class AudioPacket(Packet, frozen=True, kw_only=True):
    """A run of consecutive audio frames, 20 ms apart, the last one ending at `t_ns`.

    A packet without frames reports that sound was processed up to `t_ns`, and where the voice in it ended. An
    encoder that waits for later sound sends the frames of that time later.
    """

    topic: ClassVar[str] = "audio"
    # 30 s of the widest features we know, 1500 frames of 1027 values, are 6.2 MB.
    max_payload: ClassVar[int] = 8 * KIB * KIB

    frames: Matrix  # (n, audio_dim)
    last_voice_ns: Int64 | None  # end of the newest voice so far
    replaces: bool = False  # these frames replace all earlier ones from the first one's time on
    behind: bool = False  # the encoder is slower than the sound, and far behind


class Word(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One recognised word and when it was spoken. A word that is not committed may still change.

    `number` is the same in every packet with the word (-1: not numbered, as in a script). `revises` is the
    number of the partial word that it replaced, in every packet too.
    """

    # Characters of one word, which a recogniser may make up.
    text: Annotated[str, Meta(max_length=256)]
    start_ns: Int64
    end_ns: Int64
    committed: bool
    number: Annotated[int, Meta(ge=-1, le=2**63 - 1)] = -1
    revises: Int64 | None = None


class TranscriptPacket(Packet, frozen=True, kw_only=True):
    """The words of the last 30 s as known when the audio up to `t_ns` was processed; oldest first."""

    topic: ClassVar[str] = "transcript"
    # 1024 words of English are 40 KiB; the rest is for long words and other scripts.
    max_header: ClassVar[int] = 256 * KIB

    words: Annotated[tuple[Word, ...], Meta(max_length=MAX_WORDS)]
    # Numbers of partial words that were taken back without a replacement.
    withdrawn: Annotated[tuple[Int64, ...], Meta(max_length=MAX_WORDS)] = ()
    hearing: Hearing = "silent"
    behind: bool = False  # recognition is too slow: speech is left out
    behind_s: Number = 0.0  # seconds of the utterance before `t_ns` that no hypothesis covers yet
    left_out_s: Number = 0.0  # while `behind`: seconds of speech left out since it began
    # Spoken in the newest utterance, as set or recognised; None: nothing was recognised yet.
    language: Language | None = None


class TextPacket(Packet, frozen=True, kw_only=True):
    """The sentence embedding of the words of the window that ends at `t_ns`; None without a word."""

    topic: ClassVar[str] = "text"
    # Two texts of MAX_TEXT characters, four bytes each at most, and the other fields.
    max_header: ClassVar[int] = 8 * MAX_TEXT + KIB
    max_payload: ClassVar[int] = 4 * MAX_DIM

    embedding: Vector  # (text_dim,)
    committed: Text
    partial: Text
    last_word_ns: Int64 | None  # end of the newest word
    transcribed_ns: Int64 = 0  # when the transcript that this was made from was published
    hearing: Hearing = "silent"
    behind: bool = False
    behind_s: Number = 0.0
    left_out_s: Number = 0.0
    language: Language | None = None


class ModalityReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one modality contributed to an estimate, and how old its newest evidence was."""

    state: ModalityState
    used: bool  # False: the network got its missing token
    age_ms: Number | None  # window end minus the newest usable evidence
    reason: Annotated[str, Meta(max_length=MAX_REASON)] | None = None  # why it is not live, in English
    frames: Int64 | None = None  # valid frames in the window (vision and audio)
    committed: Text | None = None  # text only
    partial: Text | None = None  # text only
    language: Language | None = None  # text only: spoken in the newest utterance
    # What it added to each intensity: the estimate minus the one without it. None: not computed.
    contribution: Values | None = None


class Latency(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the time went, in milliseconds.

    `capture_to_estimate` is from the capture of the newest video frame or the newest sound, whichever is
    older, to the publication of the estimate. The frame need not have a face: this measures freshness. None
    if neither arrives, or if capture times are a file's own (exact mode).
    """

    window: Number
    fusion: Number
    capture_to_estimate: Number | None


class Trace(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a packet passed each station, by the engine's clock; 0 where that is not known."""

    t_ns: Int64  # captured
    arrived_ns: Int64
    transcribed_ns: Int64  # only of text
    published_ns: Int64

    @classmethod
    def of(cls, packet: Packet) -> Trace:
        """The stamps of a packet that has been on the bus."""
        transcribed_ns = packet.transcribed_ns if isinstance(packet, TextPacket) else 0
        return cls(packet.t_ns, packet.arrived_ns, transcribed_ns, packet.published_ns)


class Range(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """From where to where the values of a target lie."""

    low: Number
    high: Number


class LearnedNeutral(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far a neutral of one's own is known, of one modality."""

    seconds: Annotated[float, Meta(ge=0.0, le=1e9)]  # of frames that counted
    ready: bool  # five seconds are enough


class OwnNeutral(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The baseline of this run; None for a modality of which no neutral is learned."""

    mode: Literal["running", "calibrate"]
    vision: LearnedNeutral | None = None
    audio: LearnedNeutral | None = None

    @property
    def to_rest_s(self) -> float:
        """Seconds for which a face that is being calibrated must still rest; 0: none."""
        if self.mode != "calibrate" or self.vision is None or self.vision.ready:
            return 0.0
        return max(0.0, LEARNED_S - self.vision.seconds)

    def to_json(self) -> dict[str, Any]:
        """The object of the JSON line."""
        both = {"vision": self.vision, "audio": self.audio}
        return {"mode": self.mode} | {
            name: {"seconds": round(one.seconds, 1), "ready": one.ready}
            for name, one in both.items()
            if one is not None
        }


class Mark(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A marker: something that happened outside, such as a stimulus or a key."""

    number: Int64  # from 1
    t_ns: Int64  # when it happened, as a capture time
    label: Annotated[str, Meta(max_length=MAX_LABEL)] = ""
    origin: Name = ""  # who set it: python, key, web, lsl, osc


class Estimate(Packet, frozen=True, kw_only=True):
    """One output: a value for each of `names`, and what they were made from.

    Usually the intensities of the six emotions, in [0, 1] and in the order of `EMOTIONS`. A checkpoint that
    was trained on other labels gives theirs; `ranges` is empty if all go from 0 to 1. With the task `bah` the
    one value is the probability of ambivalence or hesitancy.
    """

    topic: ClassVar[str] = "estimate"
    max_header: ClassVar[int] = 8 * MAX_TEXT + 64 * KIB

    t_s: Number  # window end, seconds of capture time since the run began
    wall: Annotated[str, Meta(max_length=40)]  # ISO 8601, UTC; 32 with microseconds and zone
    intensities: Values
    modalities: Annotated[dict[Modality, ModalityReport], Meta(min_length=3, max_length=3)]
    latency: Latency
    engine: Name
    bundle: Name
    source: Annotated[str, Meta(max_length=1000)] = ""  # what is watched, without passwords
    session: Name = ""  # identifies the run; in exact mode the same for every run of a source
    # Of each intensity, the range in which nine of ten ratings lie; None where it is not known, and None for
    # all if the checkpoint is not calibrated.
    intervals: Intervals | None = None
    # A neutral of one's own, where the features are relative to it; None with `window.baseline=off`.
    baseline: OwnNeutral | None = None
    marker: Int64 | None = None  # number of the newest of `marks`; None: no mark
    # Set since the estimate before, in the order in which they were set.
    marks: Annotated[tuple[Mark, ...], Meta(max_length=MAX_MARKS)] = ()
    names: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=MAX_TARGETS)] = EMOTIONS
    ranges: Annotated[tuple[Range, ...], Meta(max_length=MAX_TARGETS)] = ()
    task: Literal["emi", "bah"] = "emi"
    # The two below are for measurements and not in `to_json`. They are empty in exact mode, where capture
    # times are a file's own.
    started_ns: Int64 = 0  # when the window was begun, after all packets that had arrived were added
    # Of the newest packet of each modality in the window.
    traces: Annotated[Mapping[Modality, Trace], Meta(max_length=3)] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a message with one modality twice and another one missing, or with values out of range.

        Raises:
            ValueError: not exactly one report for each modality, not exactly one value for each name, or a
                value that its range does not allow.
        """
        if len(self.modalities) != len(MODALITIES):
            raise ValueError(f"an estimate has one report for each of {', '.join(MODALITIES)}")
        count = len(self.names)
        if len(set(self.names)) != count or len(self.intensities) != count:
            raise ValueError(f"{len(self.intensities)} values for {count} names, which must all differ")
        if self.intervals is not None and len(self.intervals) != count:
            raise ValueError(f"{len(self.intervals)} intervals for {count} names")
        if self.ranges and len(self.ranges) != count:
            raise ValueError(f"{len(self.ranges)} ranges for {count} names")
        for name, value, (low, high) in zip(self.names, self.intensities, self.limits, strict=True):
            if not low <= value <= high or not low < high:
                raise ValueError(f"{name} is {value}, and its range goes from {low} to {high}")
        for report in self.modalities.values():
            self._check_contribution(report)

    def _check_contribution(self, report: ModalityReport) -> None:
        if report.contribution is None:
            return
        if len(report.contribution) != len(self.names):
            raise ValueError(f"a contribution has {len(report.contribution)} values")
        for value, (low, high) in zip(report.contribution, self.limits, strict=True):
            if abs(value) > high - low:
                raise ValueError(f"a contribution of {value} is more than the whole range")

    @property
    def limits(self) -> tuple[tuple[float, float], ...]:
        """From where to where each value lies, in the order of `names`."""
        return tuple((r.low, r.high) for r in self.ranges) or ((0.0, 1.0),) * len(self.names)

    @property
    def shares(self) -> tuple[float, ...]:
        """Where in its range each value lies, in [0, 1]; for bars and curves."""
        limits = zip(self.intensities, self.limits, strict=True)
        return tuple((value - low) / (high - low) for value, (low, high) in limits)

    def __getitem__(self, name: str) -> float:
        """The value of one emotion, or of another target, by its name.

        Raises:
            KeyError: not one of `names`.
        """
        if name not in self.names:
            raise KeyError(f"{name!r} is not in this estimate; there are {', '.join(self.names)}")
        return self.intensities[self.names.index(name)]

    def __contains__(self, name: object) -> bool:
        """Whether it is one of `names`."""
        return name in self.names

    def __iter__(self) -> Iterator[str]:
        """The names of its values."""
        return iter(self.names)

    def keys(self) -> tuple[str, ...]:
        """The names of its values, so that `dict(estimate)` works."""
        return self.names

    def as_dict(self) -> dict[str, float]:
        """The values by name, not rounded."""
        return dict(zip(self.names, self.intensities, strict=True))

    @property
    def age_s(self) -> float:
        """Seconds from its publication until now."""
        return (time.monotonic_ns() - self.published_ns) / 1e9

    def to_json(self) -> dict[str, Any]:
        """The object of the JSON line (docs/messages.md): plain types, numbers finite or None, rounded."""
        line: dict[str, Any] = {
            "seq": self.seq,
            "t": round(self.t_s, 3),
            "wall": self.wall,
            "intensities": self._named(self.intensities) if self.task == "emi" else {},
            "intervals": self._named_intervals(),
            "modalities": {name: self._named_report(name) for name in MODALITIES},
            "latency_ms": {
                "window": _round(self.latency.window, 3),
                "fusion": _round(self.latency.fusion, 3),
                "capture_to_estimate": _round(self.latency.capture_to_estimate, 1),
            },
            "engine": self.engine,
            "bundle": self.bundle,
            "schema": JSON_SCHEMA,
            "source": self.source,
            "session": self.session,
        }
        if self.baseline is not None:
            line["baseline"] = self.baseline.to_json()
        if self.marker is not None:
            line["marker"] = self.marker
        if self.marks:
            line["markers"] = self._named_marks()
        if self.ranges:
            line["ranges"] = {
                name: [low, high] for name, (low, high) in zip(self.names, self.limits, strict=True)
            }
        if self.task == "bah":
            line |= self._named(self.intensities)
        return line

    def _named(self, values: tuple[float, ...]) -> dict[str, float]:
        return {name: round(value, 4) for name, value in zip(self.names, values, strict=True)}

    def _named_report(self, name: Modality) -> dict[str, Any]:
        report = self.modalities[name]
        entry: dict[str, Any] = {
            "state": report.state,
            "used": report.used,
            "age_ms": _round(report.age_ms, 1),
        }
        if report.reason is not None:
            entry["reason"] = report.reason
        if name == "text":
            entry |= {"committed": report.committed or "", "partial": report.partial or ""}
            if report.language is not None:
                entry["language"] = report.language
        else:
            entry["frames"] = report.frames or 0
        if report.contribution is not None:
            entry["contribution"] = self._named(report.contribution)
        return entry

    def _named_marks(self) -> list[dict[str, Any]]:
        return [
            {
                "number": mark.number,
                "t": round(self.t_s - (self.t_ns - mark.t_ns) / 1e9, 3),
                "label": mark.label,
                "from": mark.origin,
            }
            for mark in self.marks
        ]

    def _named_intervals(self) -> dict[str, list[float] | None] | None:
        if self.intervals is None:
            return None
        return {
            name: None if each is None else [round(each[0], 4), round(each[1], 4)]
            for name, each in zip(self.names, self.intervals, strict=True)
        }


def _round(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def end_of_stream(topic: str, t_ns: int = 0) -> Packet:
    """The last packet of a stage's topic: no content, and the promise that no packet will follow.

    Args:
        topic: vision, audio, transcript or text.
        t_ns: the end of the media that the stage has seen.
    """
    common: dict[str, Any] = {"t_ns": t_ns, "progress_ns": END_OF_STREAM}
    match topic:
        case "vision":
            return VisionPacket(**common, faces=-1, features=None)
        case "audio":
            return AudioPacket(**common, frames=np.zeros((0, 0), np.float32), last_voice_ns=None)
        case "transcript":
            return TranscriptPacket(**common, words=())
        case "text":
            return TextPacket(**common, embedding=None, committed="", partial="", last_word_ns=None)
    raise ValueError(f"no stage publishes the topic {topic!r}")


PACKETS: Final[tuple[type[Packet], ...]] = (
    VisionPacket,
    AudioPacket,
    TranscriptPacket,
    TextPacket,
    Estimate,
)
