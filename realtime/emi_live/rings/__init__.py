"""Fixed-size, preallocated buffers of time-stamped samples: one writer, many readers."""

from emi_live.rings.audio import AudioBlock, AudioReader, AudioRing
from emi_live.rings.video import Frame, VideoReader, VideoRing

__all__ = ["AudioBlock", "AudioReader", "AudioRing", "Frame", "VideoReader", "VideoRing"]
