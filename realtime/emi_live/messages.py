"""The packets of the bus: what each stage says, with capture time on every one.

Times are integer nanoseconds of the engine's clock. `progress_ns` is a stage's promise that no packet of the
same topic with `t_ns <= progress_ns` is still to come; `END_OF_STREAM` promises that none will come at all.
It is what `exact` mode waits for. In a gap of the media a stage gives a new promise and says nothing else
that is new: `t_ns` stays that of its last packet, and is `NOTHING_YET` before the first media. Arrays belong
to whoever receives the packet.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal

import numpy as np
from numpy.typing import NDArray

from emi_models import EMOTIONS, MODALITIES, Modality

__all__ = [
    "END_OF_STREAM",
    "JSON_SCHEMA",
    "NOTHING_YET",
    "AudioPacket",
    "Estimate",
    "Hearing",
    "Latency",
    "ModalityReport",
    "ModalityState",
    "Packet",
    "TextPacket",
    "Trace",
    "TranscriptPacket",
    "VisionPacket",
    "Word",
    "end_of_stream",
]

END_OF_STREAM: Final = 2**63 - 1
JSON_SCHEMA: Final = 1  # of `Estimate.to_json`; new fields do not change it, a new meaning does
NOTHING_YET: Final = -(2**62)  # a capture time before all others

ModalityState = Literal["live", "missing", "failed", "unavailable"]
Hearing = Literal["speaking", "silent", "no data"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """What every message on the bus carries. `seq` and `published_ns` are stamped by the publisher."""

    topic: ClassVar[str]

    t_ns: int  # capture time of the newest sample this packet describes
    progress_ns: int
    arrived_ns: int = 0  # when that sample reached the engine; 0: not known, as in a script
    seq: int = 0
    published_ns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionPacket(Packet):
    """One analysed frame. `features` is None when no face was found, or when it only reports progress."""

    topic: ClassVar[str] = "vision"

    faces: int  # faces seen in the frame; -1: no frame, only progress
    features: NDArray[np.float32] | None  # (vision_dim,)
    behind: bool = False  # the encoder is so slow that its features come late


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioPacket(Packet):
    """A run of consecutive frames, the last one ending at `t_ns`, 20 ms apart.

    Without a frame it says that sound was heard up to `t_ns`, and where the voice in it ended: frames of an
    encoder that waits for what comes next follow later, and are older than that.
    """

    topic: ClassVar[str] = "audio"

    frames: NDArray[np.float32]  # (n, audio_dim)
    last_voice_ns: int | None  # end of the newest voice heard so far
    replaces: bool = False  # what was said before from the time of the first frame on is replaced by these
    behind: bool = False  # the encoder is slower than the sound, and far behind


@dataclass(frozen=True, slots=True)
class Word:
    """One recognised word and when it was spoken. A word that is not committed may still change.

    `number` stays with the word from the first packet that shows it to the last (-1: not numbered, as in a
    script). `revises` is the number of the partial word in whose place it came, said as long as the word is.
    """

    text: str
    start_ns: int
    end_ns: int
    committed: bool
    number: int = -1
    revises: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscriptPacket(Packet):
    """The recent words as known when the audio up to `t_ns` had been heard; oldest first, all within 30 s."""

    topic: ClassVar[str] = "transcript"

    words: tuple[Word, ...]
    withdrawn: tuple[int, ...] = ()  # numbers of partial words taken back with none in their place
    hearing: Hearing = "silent"
    behind: bool = False  # recognition cannot keep up: what is said is left out
    behind_s: float = 0.0  # of the utterance before `t_ns`, that no hypothesis covers yet
    left_out_s: float = 0.0  # of speech that was left out since recognition was given up, while `behind`


@dataclass(frozen=True, slots=True, kw_only=True)
class TextPacket(Packet):
    """The sentence embedding of the words of the window that ends at `t_ns`; None without a word."""

    topic: ClassVar[str] = "text"

    embedding: NDArray[np.float32] | None  # (text_dim,)
    committed: str
    partial: str
    last_word_ns: int | None  # end of the newest word
    transcribed_ns: int = 0  # when the transcript was published that this was made from
    hearing: Hearing = "silent"
    behind: bool = False
    behind_s: float = 0.0
    left_out_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ModalityReport:
    """What one modality contributed to an estimate, and how old its newest evidence was."""

    state: ModalityState
    used: bool  # False: its missing token stood in for it
    age_ms: float | None  # window end minus the newest usable evidence
    reason: str | None = None  # why it is not live, in words
    frames: int | None = None  # valid frames in the window (vision and audio)
    committed: str | None = None  # text only
    partial: str | None = None  # text only
    # What it added to each intensity, in [-1, 1]: the estimate minus the one without it. None: nobody asked.
    contribution: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Latency:
    """Where the time went, in milliseconds.

    `capture_to_estimate` runs from the capture of the newest picture analysed or sound heard, the older of
    the two, to the publication of the estimate: with a face in it or not, since it is about freshness. None
    when neither arrives, or when capture times are a file's own (exact mode).
    """

    window: float
    fusion: float
    capture_to_estimate: float | None


@dataclass(frozen=True, slots=True)
class Trace:
    """When a packet passed each station, by the engine's clock; 0 where that is not known."""

    t_ns: int  # captured
    arrived_ns: int
    transcribed_ns: int  # of text alone
    published_ns: int

    @classmethod
    def of(cls, packet: Packet) -> Trace:
        """The stamps of a packet that has been on the bus."""
        transcribed_ns = packet.transcribed_ns if isinstance(packet, TextPacket) else 0
        return cls(packet.t_ns, packet.arrived_ns, transcribed_ns, packet.published_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate(Packet):
    """One output: six intensities in [0, 1], in the order of `EMOTIONS`, and what they were made from."""

    topic: ClassVar[str] = "estimate"

    t_s: float  # window end, seconds of capture time since the run began
    wall: str  # ISO 8601, UTC
    intensities: tuple[float, ...]
    modalities: dict[Modality, ModalityReport] = field(hash=False)
    latency: Latency
    engine: str
    bundle: str
    source: str = ""  # what is watched, without passwords
    session: str = ""  # tells runs apart; in exact mode the same for every run of a source
    marker: int | None = None  # the number of the mark that was set just before; None: none was
    # For whoever measures, not in `to_json`; empty in exact mode, whose capture times are a file's own.
    started_ns: int = 0  # when the window was begun, all that had arrived being taken
    # Of the newest packet that each modality had in the window.
    traces: Mapping[Modality, Trace] = field(default_factory=dict, hash=False)

    def __getitem__(self, emotion: str) -> float:
        """The intensity of one emotion by its name, in [0, 1].

        Raises:
            KeyError: not one of the six.
        """
        if emotion not in EMOTIONS:
            raise KeyError(f"{emotion!r} is not an emotion of an estimate; there are {', '.join(EMOTIONS)}")
        return self.intensities[EMOTIONS.index(emotion)]

    def __contains__(self, emotion: object) -> bool:
        """Whether it is the name of one of the six."""
        return emotion in EMOTIONS

    def __iter__(self) -> Iterator[str]:
        """The names of the six."""
        return iter(EMOTIONS)

    def keys(self) -> tuple[str, ...]:
        """The names of the six, so that `dict(estimate)` works."""
        return EMOTIONS

    def as_dict(self) -> dict[str, float]:
        """The six intensities by name, not rounded."""
        return dict(zip(EMOTIONS, self.intensities, strict=True))

    @property
    def age_s(self) -> float:
        """Seconds since it was made, at the moment of asking."""
        return (time.monotonic_ns() - self.published_ns) / 1e9

    def to_json(self) -> dict[str, Any]:
        """The estimate as the JSON contract has it: plain types, finite numbers or None."""
        reports: dict[str, dict[str, Any]] = {}
        for name in MODALITIES:
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
            else:
                entry["frames"] = report.frames or 0
            if report.contribution is not None:
                entry["contribution"] = _named(report.contribution)
            reports[name] = entry
        line: dict[str, Any] = {
            "seq": self.seq,
            "t": round(self.t_s, 3),
            "wall": self.wall,
            "intensities": _named(self.intensities),
            "modalities": reports,
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
        if self.marker is not None:
            line["marker"] = self.marker
        return line


def _named(values: tuple[float, ...]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in zip(EMOTIONS, values, strict=True)}


def _round(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def end_of_stream(topic: str, t_ns: int = 0) -> Packet:
    """The last packet of a stage's topic: no content, and the promise that nothing else will come.

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
