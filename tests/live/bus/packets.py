"""Hypothesis strategies of every packet type, within the limits of the wire."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from emi_live.bus.fields import INT64_MAX, INT64_MIN
from emi_live.messages import (
    AudioPacket,
    Estimate,
    Latency,
    ModalityReport,
    Packet,
    TextPacket,
    Trace,
    TranscriptPacket,
    VisionPacket,
    Word,
)
from emi_models import MODALITIES

int64 = st.integers(INT64_MIN, INT64_MAX)
counts = st.integers(0, INT64_MAX)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
numbers = st.floats(-1e9, 1e9)
unit = st.floats(0, 1)
float32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
stamps = {"t_ns": int64, "progress_ns": int64, "arrived_ns": int64, "seq": counts, "published_ns": int64}


def matrix(rows: int, columns: int, seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)


vectors = st.lists(float32, min_size=1, max_size=80).map(lambda values: np.array(values, np.float32))
matrices = st.builds(matrix, st.integers(0, 30), st.integers(0, 70), st.integers(0, 2**32))

visions = st.builds(
    VisionPacket,
    faces=st.integers(-1, 9),
    features=st.none() | vectors,
    behind=st.booleans(),
    **stamps,
)
audios = st.builds(
    AudioPacket,
    frames=matrices,
    last_voice_ns=st.none() | int64,
    replaces=st.booleans(),
    behind=st.booleans(),
    **stamps,
)
words = st.builds(
    Word,
    text=texts,
    start_ns=int64,
    end_ns=int64,
    committed=st.booleans(),
    number=st.integers(-1, INT64_MAX),
    revises=st.none() | int64,
)
hearing = {
    "hearing": st.sampled_from(["speaking", "silent", "no data"]),
    "behind": st.booleans(),
    "behind_s": numbers,
    "left_out_s": numbers,
}
transcripts = st.builds(
    TranscriptPacket,
    words=st.lists(words, max_size=8).map(tuple),
    withdrawn=st.lists(int64, max_size=4).map(tuple),
    **hearing,
    **stamps,
)
text_packets = st.builds(
    TextPacket,
    embedding=st.none() | vectors,
    committed=texts,
    partial=texts,
    last_word_ns=st.none() | int64,
    transcribed_ns=int64,
    **hearing,
    **stamps,
)
reports = st.builds(
    ModalityReport,
    state=st.sampled_from(["live", "missing", "failed", "unavailable"]),
    used=st.booleans(),
    age_ms=st.none() | numbers,
    reason=st.none() | texts,
    frames=st.none() | counts,
    committed=st.none() | texts,
    partial=st.none() | texts,
    contribution=st.none() | st.tuples(*[st.floats(-1, 1)] * 6),
)
traces = st.builds(Trace, t_ns=int64, arrived_ns=int64, transcribed_ns=int64, published_ns=int64)
latencies = st.builds(Latency, window=numbers, fusion=numbers, capture_to_estimate=st.none() | numbers)
estimates = st.builds(
    Estimate,
    t_s=numbers,
    wall=st.just("2026-01-01T12:00:00.123Z"),
    intensities=st.tuples(*[unit] * 6),
    modalities=st.fixed_dictionaries(dict.fromkeys(MODALITIES, reports)),
    latency=latencies,
    engine=texts,
    bundle=texts,
    marker=st.none() | counts,
    started_ns=int64,
    traces=st.dictionaries(st.sampled_from(MODALITIES), traces),
    **stamps,
)
packets: st.SearchStrategy[Packet] = st.one_of(visions, audios, transcripts, text_packets, estimates)


def same(a: object, b: object) -> bool:
    """Whether two packets are equal in type and in every field, arrays bit for bit."""
    if type(a) is not type(b):
        return False
    for name in {slot for base in type(a).__mro__ for slot in getattr(base, "__slots__", ())}:
        left, right = getattr(a, name), getattr(b, name)
        if isinstance(left, np.ndarray):
            if left.dtype != right.dtype or left.shape != right.shape or left.tobytes() != right.tobytes():
                return False
        elif left != right:
            return False
    return True


def vision(
    t_ns: int = 0, *, features: NDArray[np.float32] | None = None, progress_ns: int = 0
) -> VisionPacket:
    return VisionPacket(t_ns=t_ns, progress_ns=progress_ns, faces=1, features=features)


def estimate(t_s: float = 8.2, joy: float = 0.31) -> Estimate:
    return Estimate(
        t_ns=round(t_s * 1e9),
        progress_ns=round(t_s * 1e9),
        t_s=t_s,
        wall="2026-01-01T12:00:00.123Z",
        intensities=(0.12, 0.03, 0.0, 0.0, 0.2, joy),
        modalities={
            "vision": ModalityReport("live", True, 41.0, frames=246),
            "audio": ModalityReport("missing", False, 2300.0, reason="no voice", frames=410),
            "text": ModalityReport("live", False, 900.0, committed="what a day", partial="it was"),
        },
        latency=Latency(0.4, 3.1, 57.0),
        engine="onnxruntime-cpu",
        bundle="compact",
    )
