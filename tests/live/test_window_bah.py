"""Live windows for BAH are the causal chunks that its networks are trained on."""

from __future__ import annotations

import numpy as np
import pytest

from emi_live.config import WindowConfig
from emi_live.messages import AudioPacket, TextPacket, VisionPacket
from emi_live.window import WindowAssembler
from emi_models import MODALITIES
from emi_models.data.bah_chunks import ChunkSpans, chunk
from emi_models.data.clip import Clip, FeatureTrack
from emi_models.inputs import FusionShapes

S = 1_000_000_000
SHAPES = FusionShapes(vision_frames=60, vision_dim=2, audio_frames=599, audio_dim=3, text_dim=4)
SPANS = ChunkSpans(window="causal")


def video(seconds: float) -> Clip:
    """Faces at 10 Hz and voice at 50 Hz in which each value is the frame's number."""
    tracks = []
    for hz, dim in ((10, 2), (50, 3)):
        count = int(seconds * hz)
        values = np.repeat(np.arange(count, dtype=np.float32)[:, None], dim, axis=1)
        tracks.append(FeatureTrack(((np.arange(count) + 1) * (S // hz)).astype(np.int64), values))
    return Clip("x", tracks[0], tracks[1], FeatureTrack.empty(4), round(seconds * S))


@pytest.mark.parametrize("at_s", [0.5, 5.0, 13.0, 20.0, 29.9])
def test_a_live_window_holds_the_frames_of_the_causal_chunk(at_s: float) -> None:
    clip, at_ns = video(30), round(at_s * S)
    made = WindowAssembler(WindowConfig(), SHAPES, frozenset(MODALITIES), SPANS.seconds, spread=True)
    for t_ns, values in zip(clip.vision.t_ns, clip.vision.values, strict=True):
        made.add(VisionPacket(t_ns=int(t_ns), progress_ns=int(t_ns), faces=1, features=values))
    for start in range(0, len(clip.audio.t_ns), 5):
        t_ns = int(clip.audio.t_ns[start + 4])
        frames = clip.audio.values[start : start + 5]
        made.add(AudioPacket(t_ns=t_ns, progress_ns=t_ns, frames=frames, last_voice_ns=t_ns))
    embedding = np.ones(4, np.float32)
    made.add(
        TextPacket(
            t_ns=0, progress_ns=at_ns, embedding=embedding, committed="so", partial="", last_word_ns=at_ns
        )
    )
    window = made.assemble(at_ns).stream
    expected = chunk(clip, at_ns, SHAPES, embedding, SPANS)
    assert np.array_equal(window.vision.values, expected.vision.values)
    assert np.array_equal(window.audio.values, expected.audio.values)
    assert np.array_equal(window.text, expected.text.values[0])
    assert len(window.vision.values) == min(60, int(at_s * 10))


def test_a_checkpoint_of_emotions_has_windows_as_before() -> None:
    made = WindowAssembler(WindowConfig(), SHAPES, frozenset(MODALITIES), {"text": 4.0})
    for number in range(1, 200):
        t_ns = number * S // 10
        made.add(VisionPacket(t_ns=t_ns, progress_ns=t_ns, faces=1, features=np.full(2, number, np.float32)))
    shown = made.assemble(19 * S).stream.vision.values[:, 0]
    assert shown.tolist() == list(range(131, 191))
