"""How each packet type becomes plain fields and an array, and comes back checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final, TypedDict, get_args

import numpy as np
from numpy.typing import NDArray

from emi_live.bus.fields import Fields
from emi_live.errors import WireError
from emi_live.messages import (
    AudioPacket,
    Estimate,
    Hearing,
    Latency,
    ModalityReport,
    ModalityState,
    Packet,
    TextPacket,
    Trace,
    TranscriptPacket,
    VisionPacket,
    Word,
)
from emi_models import EMOTIONS, MODALITIES

__all__ = ["CODECS", "MAX_TEXT", "MAX_WORDS", "Codec"]

KIB: Final = 1024
MAX_DIM: Final = 4096  # features per frame or embedding; the widest encoder we know gives 1027
MAX_AUDIO_FRAMES: Final = 1500  # 30 s at 50 Hz: what the audio ring holds
MAX_FACES: Final = 1000
MAX_WORDS: Final = 1024  # in 30 s: ten times the fastest speech
MAX_WORD: Final = 256  # characters of one word, which a recogniser may make up
MAX_TEXT: Final = 16 * KIB  # characters of a window's words
MAX_NAME: Final = 200  # characters of an engine's or a bundle's name
MAX_SOURCE: Final = 1000  # of what is watched: a path or an address
MAX_REASON: Final = 500
MAX_WALL: Final = 40  # ISO 8601 with microseconds and zone is 32
STATES: Final[tuple[ModalityState, ...]] = get_args(ModalityState)
HEARINGS: Final[tuple[Hearing, ...]] = get_args(Hearing)
WORD_FIELDS: Final = ("text", "start_ns", "end_ns", "committed", "number", "revises")

Array = NDArray[np.float32] | None


class Stamps(TypedDict):
    """The fields that every packet has."""

    t_ns: int
    progress_ns: int
    arrived_ns: int
    seq: int
    published_ns: int


@dataclass(frozen=True, slots=True)
class Codec:
    """One packet type's way on and off the wire, and the largest header and payload it may have, in bytes."""

    packet: type[Packet]
    write: Callable[[Any], tuple[dict[str, object], Array]]
    read: Callable[[Fields, Stamps, Array], Packet]
    max_header: int
    max_payload: int


def _write_vision(packet: VisionPacket) -> tuple[dict[str, object], Array]:
    return {"faces": packet.faces, "behind": packet.behind}, packet.features


def _read_vision(fields: Fields, stamps: Stamps, array: Array) -> VisionPacket:
    return VisionPacket(
        faces=fields.integer("faces", -1, MAX_FACES),
        features=_vector(array),
        behind=fields.boolean("behind"),
        **stamps,
    )


def _write_audio(packet: AudioPacket) -> tuple[dict[str, object], Array]:
    return {
        "last_voice_ns": packet.last_voice_ns,
        "replaces": packet.replaces,
        "behind": packet.behind,
    }, packet.frames


def _read_audio(fields: Fields, stamps: Stamps, array: Array) -> AudioPacket:
    if array is None or array.ndim != 2 or array.shape[0] > MAX_AUDIO_FRAMES or array.shape[1] > MAX_DIM:
        shape = None if array is None else array.shape
        raise WireError(f"audio frames must be (n ≤ {MAX_AUDIO_FRAMES}, dim ≤ {MAX_DIM}), got {shape}")
    return AudioPacket(
        frames=array,
        last_voice_ns=fields.optional_integer("last_voice_ns"),
        replaces=fields.boolean("replaces"),
        behind=fields.boolean("behind"),
        **stamps,
    )


def _write_transcript(packet: TranscriptPacket) -> tuple[dict[str, object], Array]:
    words = [[getattr(word, name) for name in WORD_FIELDS] for word in packet.words]
    return {
        "words": words,
        "withdrawn": list(packet.withdrawn),
        "hearing": packet.hearing,
        "behind": packet.behind,
        "behind_s": packet.behind_s,
        "left_out_s": packet.left_out_s,
    }, None


def _read_transcript(fields: Fields, stamps: Stamps, array: Array) -> TranscriptPacket:
    _no_array(array)
    words = tuple(_word(item, index) for index, item in enumerate(fields.items("words", MAX_WORDS)))
    return TranscriptPacket(
        words=words,
        withdrawn=fields.integers("withdrawn", MAX_WORDS),
        hearing=fields.choice("hearing", HEARINGS),
        behind=fields.boolean("behind"),
        behind_s=fields.number("behind_s"),
        left_out_s=fields.number("left_out_s"),
        **stamps,
    )


def _word(item: object, index: int) -> Word:
    if not isinstance(item, (list, tuple)) or len(item) != len(WORD_FIELDS):
        raise WireError(f"words[{index}] is not [{', '.join(WORD_FIELDS)}]")
    fields = Fields(dict(zip(WORD_FIELDS, item, strict=True)), f"words[{index}]")
    return Word(
        text=fields.text("text", MAX_WORD),
        start_ns=fields.integer("start_ns"),
        end_ns=fields.integer("end_ns"),
        committed=fields.boolean("committed"),
        number=fields.integer("number", -1),
        revises=fields.optional_integer("revises"),
    )


def _write_text(packet: TextPacket) -> tuple[dict[str, object], Array]:
    return {
        "committed": packet.committed,
        "partial": packet.partial,
        "last_word_ns": packet.last_word_ns,
        "transcribed_ns": packet.transcribed_ns,
        "hearing": packet.hearing,
        "behind": packet.behind,
        "behind_s": packet.behind_s,
        "left_out_s": packet.left_out_s,
    }, packet.embedding


def _read_text(fields: Fields, stamps: Stamps, array: Array) -> TextPacket:
    return TextPacket(
        embedding=_vector(array),
        committed=fields.text("committed", MAX_TEXT),
        partial=fields.text("partial", MAX_TEXT),
        last_word_ns=fields.optional_integer("last_word_ns"),
        transcribed_ns=fields.integer("transcribed_ns"),
        hearing=fields.choice("hearing", HEARINGS),
        behind=fields.boolean("behind"),
        behind_s=fields.number("behind_s"),
        left_out_s=fields.number("left_out_s"),
        **stamps,
    )


def _write_estimate(packet: Estimate) -> tuple[dict[str, object], Array]:
    reports = {
        name: {
            "state": report.state,
            "used": report.used,
            "age_ms": report.age_ms,
            "reason": report.reason,
            "frames": report.frames,
            "committed": report.committed,
            "partial": report.partial,
            "contribution": None if report.contribution is None else list(report.contribution),
        }
        for name, report in packet.modalities.items()
    }
    latency = packet.latency
    return {
        "t_s": packet.t_s,
        "wall": packet.wall,
        "intensities": list(packet.intensities),
        "modalities": reports,
        "latency_ms": {
            "window": latency.window,
            "fusion": latency.fusion,
            "capture_to_estimate": latency.capture_to_estimate,
        },
        "engine": packet.engine,
        "bundle": packet.bundle,
        "source": packet.source,
        "session": packet.session,
        "marker": packet.marker,
        "started_ns": packet.started_ns,
        "traces": {
            name: None if (trace := packet.traces.get(name)) is None else asdict(trace) for name in MODALITIES
        },
    }, None


def _read_estimate(fields: Fields, stamps: Stamps, array: Array) -> Estimate:
    _no_array(array)
    modalities = fields.record("modalities")
    reports = {name: _report(modalities.record(name)) for name in MODALITIES}
    modalities.end()
    times = fields.record("latency_ms")
    latency = Latency(
        window=times.number("window"),
        fusion=times.number("fusion"),
        capture_to_estimate=times.optional_number("capture_to_estimate"),
    )
    times.end()
    traced = fields.record("traces")
    traces = {name: _trace(one) for name in MODALITIES if (one := traced.optional_record(name)) is not None}
    traced.end()
    return Estimate(
        t_s=fields.number("t_s"),
        wall=fields.text("wall", MAX_WALL),
        intensities=fields.numbers("intensities", len(EMOTIONS), 0.0, 1.0),
        modalities=reports,
        latency=latency,
        engine=fields.text("engine", MAX_NAME),
        bundle=fields.text("bundle", MAX_NAME),
        source=fields.text("source", MAX_SOURCE),
        session=fields.text("session", MAX_NAME),
        marker=fields.optional_integer("marker"),
        started_ns=fields.integer("started_ns"),
        traces=traces,
        **stamps,
    )


def _report(fields: Fields) -> ModalityReport:
    report = ModalityReport(
        state=fields.choice("state", STATES),
        used=fields.boolean("used"),
        age_ms=fields.optional_number("age_ms"),
        reason=fields.optional_text("reason", MAX_REASON),
        frames=fields.optional_integer("frames"),
        committed=fields.optional_text("committed", MAX_TEXT),
        partial=fields.optional_text("partial", MAX_TEXT),
        contribution=fields.optional_numbers("contribution", len(EMOTIONS), -1.0, 1.0),
    )
    fields.end()
    return report


def _trace(fields: Fields) -> Trace:
    trace = Trace(
        t_ns=fields.integer("t_ns"),
        arrived_ns=fields.integer("arrived_ns"),
        transcribed_ns=fields.integer("transcribed_ns"),
        published_ns=fields.integer("published_ns"),
    )
    fields.end()
    return trace


def _vector(array: Array) -> Array:
    if array is not None and (array.ndim != 1 or not 1 <= array.size <= MAX_DIM):
        raise WireError(
            f"a feature vector must have 1 to {MAX_DIM} values in one row, got shape {array.shape}"
        )
    return array


def _no_array(array: Array) -> None:
    if array is not None:
        raise WireError(f"this topic carries no array, got one of shape {array.shape}")


CODECS: Final[dict[str, Codec]] = {
    codec.packet.topic: codec
    for codec in (
        Codec(VisionPacket, _write_vision, _read_vision, 1 * KIB, 4 * MAX_DIM),
        # 30 s of the widest features we know, 1500 frames of 1027 values, are 6.2 MB
        Codec(AudioPacket, _write_audio, _read_audio, 1 * KIB, 8 * KIB * KIB),
        # 1024 words of English are 40 KiB; the rest is for long words and other scripts
        Codec(TranscriptPacket, _write_transcript, _read_transcript, 256 * KIB, 0),
        # two texts of MAX_TEXT characters, four bytes each at most, and the other fields
        Codec(TextPacket, _write_text, _read_text, 8 * MAX_TEXT + KIB, 4 * MAX_DIM),
        Codec(Estimate, _write_estimate, _read_estimate, 8 * MAX_TEXT + 16 * KIB, 0),
    )
}
