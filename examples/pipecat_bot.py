"""A voice bot of pipecat whose language model knows how the user seemed.

pip install 'emi-live[pipecat]'
python examples/pipecat_bot.py talk.mp4                             # a file in place of a caller
python examples/pipecat_bot.py talk.mp4 speech.backend=none         # and any settings

In your bot, put both processors behind the transport's input:
`Pipeline([transport.input(), EmotionProcessor(), TellTheModel(), stt, user, llm, tts, …])`.
"""

from __future__ import annotations

import asyncio
import sys

# Before pipecat: ONNX Runtime, which it loads, would contact its maker. `emi_live` switches that off.
from emi_live import LiveEngine, load_config  # isort: skip

import av
from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.frames.frames import EndFrame, Frame, InputAudioRawFrame, LLMMessagesAppendFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import (
    LLMContextAggregatorPair,
    LLMUserAggregatorParams,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.workers.runner import WorkerRunner

from emi_live.agents.pipecat import EmotionFrame, EmotionProcessor


class TellTheModel(FrameProcessor):
    """Writes into the context how the user seemed, at the end of each utterance, before the model answers."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Pass every frame on; put a message before an emotion."""
        await super().process_frame(frame, direction)
        if isinstance(frame, EmotionFrame):
            note = {"role": "developer", "content": f"The user seems: {frame.describe()}"}
            await self.push_frame(LLMMessagesAppendFrame([note], run_llm=False))
        await self.push_frame(frame, direction)


async def call(worker: PipelineWorker, path: str) -> None:
    """A caller: the sound of a file at its own pace, then silence."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=16_000, frame_size=320)
    with av.open(path) as container:
        blocks = [block for frame in container.decode(audio=0) for block in resampler.resample(frame)]
    for sound in [*(block.to_ndarray().tobytes() for block in blocks), *[bytes(640)] * 60]:
        await worker.queue_frame(InputAudioRawFrame(sound, 16_000, 1))
        await asyncio.sleep(0.02)
    await worker.queue_frame(EndFrame())


async def main(path: str, settings: list[str]) -> None:
    """Play the file to the bot, then show what the model would know."""
    context = LLMContext([{"role": "system", "content": "Be kind. Answer to how the user seems."}])
    params = LLMUserAggregatorParams(vad_analyzer=SileroVADAnalyzer())
    user = LLMContextAggregatorPair(context, user_params=params).user()
    emotions = EmotionProcessor(LiveEngine(load_config(settings=settings)))
    worker = PipelineWorker(Pipeline([emotions, TellTheModel(), user]))
    runner = WorkerRunner()
    await runner.add_workers(worker)

    async def started(*_: object) -> None:  # the models are loaded
        await call(worker, path)

    worker.add_event_handler("on_pipeline_started", started)
    await runner.run()
    for message in context.get_messages():
        print(message)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
