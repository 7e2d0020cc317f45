"""The example for LiveKit without a server; `python livekit_room.py CLIP` writes eight messages.

The room is a stand-in. Sources, tracks, streams and frames are LiveKit's own: what is captured comes out of
the streams that the example opens. Pictures are sent lying, as phones do.
"""

from __future__ import annotations

import asyncio
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
from livekit import rtc

from emi_live import load_config

EXAMPLE = Path(__file__).parents[2] / "examples/livekit_room.py"
MESSAGES = 8


class Room:
    """What the example uses of `rtc.Room`; it is its own local participant."""

    def __init__(self) -> None:
        self.remote_participants: dict[str, Any] = {}
        self.local_participant = self
        self.joined: asyncio.Future[Callable[..., None]] = asyncio.get_running_loop().create_future()
        self.messages: asyncio.Queue[str] = asyncio.Queue()

    def on(self, event: str, handler: Callable[..., None]) -> None:
        assert event == "track_subscribed"
        self.joined.set_result(handler)

    async def publish_data(self, payload: str, *, reliable: bool, topic: str) -> None:
        assert (reliable, topic) == (False, "emotions")
        await self.messages.put(payload)


async def send(path: str, picture: rtc.VideoSource, sound: rtc.AudioSource) -> None:
    """The pictures of a clip, turned by a quarter to the left, and silence, at their own pace."""
    with av.open(path) as container:
        for frame in container.decode(video=0):
            lying = np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgba")))
            height, width = lying.shape[:2]
            taken = rtc.VideoFrame(width, height, rtc.VideoBufferType.RGBA, lying.tobytes())
            picture.capture_frame(taken, rotation=rtc.VideoRotation.VIDEO_ROTATION_90)
            await sound.capture_frame(rtc.AudioFrame(bytes(2 * 1_920), 48_000, 1, 1_920))
            await asyncio.sleep(0.04)


async def main(path: str) -> None:
    """Run the example, send the clip, print what it publishes."""
    room, guest = Room(), SimpleNamespace(identity="guest")
    picture, sound = rtc.VideoSource(640, 360), rtc.AudioSource(48_000, 1)
    watch = runpy.run_path(str(EXAMPLE))["watch"]
    watching = asyncio.create_task(watch(room, "guest", load_config(settings=["speech.backend=none"])))
    subscribed = await room.joined
    subscribed(rtc.LocalVideoTrack.create_video_track("camera", picture), None, guest)
    subscribed(rtc.LocalAudioTrack.create_audio_track("microphone", sound), None, guest)
    subscribed(None, None, SimpleNamespace(identity="somebody else"))
    sending = asyncio.create_task(send(path, picture, sound))
    for _ in range(MESSAGES):
        sys.stdout.write(await room.messages.get() + "\n")
    for task in (sending, watching):
        task.cancel()
    await asyncio.gather(sending, watching, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
