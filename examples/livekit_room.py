"""A room of LiveKit: watch one participant, and publish how he or she seems as data messages.

pip install 'emi-live[livekit]'
LIVEKIT_URL=wss://… LIVEKIT_TOKEN=… python examples/livekit_room.py guest     # the participant's identity

In an agent of livekit-agents, call `await watch(ctx.room, "guest")` after `await ctx.connect()`. Others in
the room get messages of the topic `emotions`: the JSON of docs/messages.md.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

import numpy as np
from livekit import rtc

from emi_live import LiveConfig, LiveEngine


async def listen(live: LiveEngine, stream: rtc.AudioStream) -> None:
    """Push every block of sound."""
    async for event in stream:
        live.push_audio(np.frombuffer(event.frame.data, np.int16), rate_hz=event.frame.sample_rate)


async def look(live: LiveEngine, stream: rtc.VideoStream) -> None:
    """Push pictures, turned upright; phones send them lying."""
    async for event in stream:
        frame = event.frame
        picture = np.frombuffer(frame.data, np.uint8).reshape(frame.height, frame.width, 4)
        live.push_frame(np.rot90(picture, -event.rotation), format="rgba")


async def watch(room: rtc.Room, who: str, config: LiveConfig | None = None) -> None:
    """Watch a participant who is in the room, or will be, until the task is cancelled."""
    tasks: set[asyncio.Task[None]] = set()
    async with LiveEngine(config) as live:

        def subscribed(track: rtc.Track, _: object, participant: rtc.Participant) -> None:
            if participant.identity != who:
                return
            if track.kind == rtc.TrackKind.KIND_AUDIO:
                task = asyncio.create_task(listen(live, rtc.AudioStream(track, sample_rate=16_000)))
            else:  # capacity 1: the newest picture replaces one that waits
                stream = rtc.VideoStream(track, format=rtc.VideoBufferType.RGBA, capacity=1)
                task = asyncio.create_task(look(live, stream))
            tasks.add(task)

        room.on("track_subscribed", subscribed)
        for participant in room.remote_participants.values():
            for publication in participant.track_publications.values():
                if publication.track is not None:
                    subscribed(publication.track, publication, participant)
        try:
            async for estimate in live:
                line = json.dumps(estimate.to_json())
                await room.local_participant.publish_data(line, reliable=False, topic="emotions")
        finally:
            for task in tasks:
                task.cancel()


async def main(who: str) -> None:
    """Join and watch."""
    room = rtc.Room()
    await room.connect(os.environ["LIVEKIT_URL"], os.environ["LIVEKIT_TOKEN"])
    await watch(room, who)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    asyncio.run(main(sys.argv[1]))
