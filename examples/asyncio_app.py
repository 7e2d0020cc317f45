"""An app with asyncio: one task pushes media, another one takes estimates; the event loop never waits.

python examples/asyncio_app.py talk.mp4
python examples/asyncio_app.py talk.mp4 speech.backend=none         # any settings
"""

from __future__ import annotations

import asyncio
import sys

import av

from emi_live import LiveEngine, load_config


async def feed(live: LiveEngine, path: str) -> None:
    """Push a file as your media would come, at its own pace; a PyAV frame brings its time with it."""
    start_s = asyncio.get_running_loop().time()
    with av.open(path) as container:
        for frame in container.decode():
            late_s = asyncio.get_running_loop().time() - start_s
            await asyncio.sleep(max(0.0, (frame.time or 0.0) - late_s))
            if isinstance(frame, av.VideoFrame):
                live.push_frame(frame)  # copies the picture and returns
            else:
                live.push_audio(frame)
    live.end()  # the estimates end too


async def show(live: LiveEngine) -> None:
    """Print each estimate."""
    async for estimate in live:
        used = [name for name, report in estimate.modalities.items() if report.used]
        print(f"{estimate.t_s:.1f} s: joy {estimate['joy']:.2f} from {', '.join(used) or 'nothing'}")


async def main(path: str, settings: list[str]) -> None:
    """Run both tasks; the models load in a thread."""
    async with LiveEngine(load_config(settings=settings)) as live, asyncio.TaskGroup() as tasks:
        tasks.create_task(feed(live, path))
        tasks.create_task(show(live))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
