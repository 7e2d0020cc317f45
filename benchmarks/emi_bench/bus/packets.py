"""Packets as the stages of both bundles publish them, and an estimate; values are random, sizes are real."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from emi_live.messages import (
    AudioPacket,
    Estimate,
    Latency,
    ModalityReport,
    TextPacket,
    Trace,
    VisionPacket,
)
from emi_models.inputs import COMPACT_SHAPES, TAEMI_SHAPES
from emi_models.vocabulary import EMOTIONS, MODALITIES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emi_live.messages import Packet
    from emi_models.inputs import FusionShapes

__all__ = ["make_packets"]

T_NS = 1_000_000_000_000  # a capture time like any other
AUDIO_FRAMES = 10  # 0.2 s


def make_packets() -> dict[str, Packet]:
    """One packet of each kind, by name; the first is the smallest and commonest."""
    return {
        "vision 58": _vision(COMPACT_SHAPES),
        f"audio {AUDIO_FRAMES} x 68": _audio(COMPACT_SHAPES),
        "text 384": _text(COMPACT_SHAPES),
        "estimate": _estimate(),
        "vision 768": _vision(TAEMI_SHAPES),
        f"audio {AUDIO_FRAMES} x 1027": _audio(TAEMI_SHAPES),
    }


def _random(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(1).random(shape, np.float32)


def _vision(shapes: FusionShapes) -> VisionPacket:
    return VisionPacket(t_ns=T_NS, progress_ns=T_NS, faces=1, features=_random(shapes.vision_dim))


def _audio(shapes: FusionShapes) -> AudioPacket:
    frames = _random(AUDIO_FRAMES, shapes.audio_dim)
    return AudioPacket(t_ns=T_NS, progress_ns=T_NS, frames=frames, last_voice_ns=T_NS)


def _text(shapes: FusionShapes) -> TextPacket:
    words = "you did an amazing job i really admire how you handled that"
    return TextPacket(
        t_ns=T_NS,
        progress_ns=T_NS,
        embedding=_random(shapes.text_dim),
        committed=words,
        partial="thank you",
        last_word_ns=T_NS,
    )


def _estimate() -> Estimate:
    words = _text(COMPACT_SHAPES)
    return Estimate(
        t_ns=T_NS,
        progress_ns=T_NS,
        t_s=8.2,
        wall="2026-01-01T12:00:00.123Z",
        intensities=tuple(float(value) for value in _random(len(EMOTIONS))),
        modalities={
            "vision": ModalityReport("live", True, 41.0, frames=30),
            "audio": ModalityReport("live", True, 20.0, frames=150),
            "text": ModalityReport("live", True, 900.0, committed=words.committed, partial=words.partial),
        },
        latency=Latency(0.4, 3.1, 57.0),
        engine="onnxruntime-cpu",
        bundle="compact",
        started_ns=T_NS,
        traces={modality: Trace(T_NS, T_NS, T_NS, T_NS) for modality in MODALITIES},
    )
