"""Real devices for every live test: a microphone on a sound server of our own, and cameras on loopback."""

from __future__ import annotations

from tests.support.pulse import pulse
from tests.support.stream import face_stream, still_stream

__all__ = ["face_stream", "pulse", "still_stream"]
