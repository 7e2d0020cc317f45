"""pipecat: a processor that tells the rest of a pipeline how the user seems.

::

    from emi_live.agents.pipecat import EmotionFrame, EmotionProcessor

    Pipeline([transport.input(), EmotionProcessor(), stt, …])

It passes on every frame. `examples/pipecat_bot.py` shows how a language model gets to know. Import `emi_live`
before pipecat: pipecat loads ONNX Runtime, which contacts its maker unless emi_live has switched that off.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from emi_live.clock import NS_PER_S
from emi_live.errors import ConfigurationError
from emi_live.live import LiveEngine
from emi_live.messages import Estimate, TranscriptPacket, Word
from emi_models import MODALITIES, Modality
from emi_models.errors import EmiError
from emi_models.libraries import require

require("pipecat", extra="pipecat", what="emi_live.agents.pipecat")

from pipecat.frames.frames import (  # noqa: E402  # its absence is said in our words first
    CancelFrame,
    DataFrame,
    EndFrame,
    Frame,
    InputAudioRawFrame,
    InputImageRawFrame,
    StartFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.processors.frame_processor import (  # noqa: E402
    FrameDirection,
    FrameProcessor,
    FrameProcessorSetup,
)

if TYPE_CHECKING:
    from emi_live.bus import PacketReader
    from emi_live.media import PixelFormat

__all__ = ["EmotionFrame", "EmotionProcessor"]

FORMATS: Final[dict[str, PixelFormat]] = {
    "RGB": "rgb24", "BGR": "bgr24", "RGBA": "rgba", "BGRA": "bgra", "L": "gray", "GRAY": "gray",
}  # fmt: skip
CHANNELS: Final = {"rgb24": 3, "bgr24": 3, "rgba": 4, "bgra": 4, "gray": 1}
END_S: Final = 5.0  # live: for the last words and estimate, when the pipeline ends
SHOWN: Final = 0.1  # a share of a value's range; below it, `describe` says nothing
EVIDENCE: Final[dict[Modality, str]] = {"vision": "face", "audio": "voice", "text": "words"}

logger = logging.getLogger(__name__)


@dataclass
class EmotionFrame(DataFrame):
    """How the user seems, from what was captured up to `t_ns`. An interruption does not drop it.

    Attributes:
        estimate: everything that is known: docs/messages.md.
        intensities: by name; the six emotions in [0, 1], or what the checkpoint was trained on.
        peaks: the highest of each since the frame before, or since the user began to speak.
        states: of vision, audio and text: `live`, `missing`, `stale`, `failed` or `unavailable`.
        words: those that were committed since the frame before, with times on the clock of `t_ns`. Each word
            comes once.
        partial: words that may still change.
        t_ns: end of the window, by `time.monotonic_ns()`; in exact mode by the clock of the frames' `pts`.
    """

    estimate: Estimate
    intensities: dict[str, float]
    peaks: dict[str, float]
    states: dict[Modality, str]
    words: tuple[Word, ...]
    partial: str
    t_ns: int
    interruptible: bool = field(default=False, init=False)

    @property
    def text(self) -> str:
        """The new words and the partial ones."""
        return " ".join([*(word.text for word in self.words), self.partial]).strip()

    def describe(self) -> str:
        """One line for a language model, such as `joy 0.62, excitement 0.31 (from face, voice)`."""
        used = [name for modality, name in EVIDENCE.items() if self.estimate.modalities[modality].used]
        if not used:
            return "nothing was seen or heard"
        shares = sorted(zip(self.estimate.shares, self.intensities.items(), strict=True), reverse=True)
        shown = [f"{name.replace('_', ' ')} {value:.2f}" for share, (name, value) in shares if share >= SHOWN]
        return f"{', '.join(shown) or 'no strong emotion'} (from {', '.join(used)})"


class EmotionProcessor(FrameProcessor):
    """Takes a user's sound and pictures, passes on every frame, and adds an `EmotionFrame` now and then.

    Put it behind the transport's input. It takes `InputAudioRawFrame` and `InputImageRawFrame` (also
    `UserImageRawFrame`). No sound is lost; of pictures that come faster than they are analysed, the newest
    counts. Nothing here makes the event loop wait: models load in a thread while the pipeline is set up, and
    the engine has threads of its own.

    Live, sound and pictures count as captured when they arrive, because transports disagree about `pts`. With
    a `LiveConfig(mode="exact")`, for tests and recordings, `pts` are capture times in nanoseconds.
    """

    def __init__(
        self,
        live: LiveEngine | None = None,
        *,
        emit: Literal["utterance", "estimate"] = "utterance",
        accept: Callable[[Frame], bool] | None = None,
        name: str | None = None,
    ) -> None:
        """Nothing is loaded before the pipeline is set up.

        Args:
            live: an engine that takes pushed media; it is loaded, run and closed here. Default:
                `LiveEngine()`.
            emit: a frame for each `utterance`: when the pipeline's voice activity detection, before or behind
                this processor, says that the user stopped speaking, with the next estimate. Or a frame for
                each `estimate`, five a second. At the end, words that no frame had yet come with one more.
            accept: which sound and pictures to take, by their frame, e.g. those of one `user_id`, or no
                screen that is shared. Default: all.
            name: of the processor.

        Raises:
            ConfigurationError: the engine captures media itself.
        """
        super().__init__(name=name)
        self._live = live or LiveEngine()
        if not self._live.config.source.is_pushed:
            raise ConfigurationError(
                "a pipeline brings its own sound and pictures: leave out source.camera, source.input and "
                "source.mic"
            )
        self._each = emit == "estimate"
        self._accept = accept
        self._packets: PacketReader | None = None
        self._emotions: asyncio.Task[None] | None = None
        self._refused: set[str] = set()  # what was said of frames that cannot be used
        self._speaking = False
        self._due_ns: int | None = None  # an utterance has ended: the next estimate of this time is for it
        self._pushed_ns = 0  # exact mode: end of the newest media
        self._heard = _Heard()

    @property
    def live(self) -> LiveEngine:
        """The engine, e.g. for `mute_audio` and `health`."""
        return self._live

    async def setup(self, setup: FrameProcessorSetup) -> None:
        """Load the models, in a thread.

        Raises:
            EmiError: as `LiveEngine.load`. pipecat reports it, and runs the pipeline without emotions.
        """
        await super().setup(setup)
        await asyncio.to_thread(self._live.load)
        self._packets = self._live.subscribe(["transcript"])
        for line in self._live.announcements:  # what runs; and if a library may have sent something
            logger.log(logging.WARNING if line.startswith("privacy:") else logging.INFO, "%s", line)

    async def cleanup(self) -> None:
        """Stop, if no frame has said so."""
        await self._stop()
        await super().cleanup()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Take what is of use in a frame, and pass it on."""
        await super().process_frame(frame, direction)
        if isinstance(frame, StartFrame):
            await self._start()
        elif isinstance(frame, EndFrame):
            await self._finish()
        elif isinstance(frame, CancelFrame):
            await self._stop()
        elif isinstance(frame, UserStartedSpeakingFrame | VADUserStartedSpeakingFrame):
            if not self._speaking:
                self._heard.peaks.clear()
            self._speaking = True
        elif isinstance(frame, UserStoppedSpeakingFrame | VADUserStoppedSpeakingFrame) and self._speaking:
            self._speaking = False
            exact = self._live.config.exact
            silent_ns = round(getattr(frame, "stop_secs", 0.0) * NS_PER_S)
            self._due_ns = (self._pushed_ns if exact else time.monotonic_ns()) - silent_ns
        await self.push_frame(frame, direction)
        if self._emotions is not None and isinstance(frame, InputAudioRawFrame | InputImageRawFrame):
            await self._take(frame)

    async def _start(self) -> None:
        if self._packets is None:  # nothing is loaded
            return
        try:
            await self._live.__aenter__()
        except EmiError as error:
            await self.push_error(str(error), exception=error, force_treat_as_permanent=True)
            return
        self._emotions = self.create_task(self._pass_on(self._packets), "emotions")

    async def _take(self, frame: InputAudioRawFrame | InputImageRawFrame) -> None:
        if self._accept is not None and not self._accept(frame):
            return
        try:
            push = self._sound(frame) if isinstance(frame, InputAudioRawFrame) else self._picture(frame)
            if self._live.config.exact:  # it waits for room
                await asyncio.to_thread(push)
            else:
                push()
        except EmiError as error:  # one frame of many: said once
            if str(error) not in self._refused:
                self._refused.add(str(error))
                await self.push_error(str(error), exception=error)

    def _sound(self, frame: InputAudioRawFrame) -> Callable[[], None]:
        samples = np.frombuffer(frame.audio, "<i2", count=frame.num_frames * frame.num_channels)
        t_ns = self._stamp(frame, frame.num_frames * NS_PER_S // frame.sample_rate)
        push = partial(self._live.push_audio, samples, t_ns, frame.sample_rate)
        return partial(push, layout="interleaved", channels=frame.num_channels)

    def _picture(self, frame: InputImageRawFrame) -> Callable[[], None]:
        format_ = FORMATS.get((frame.format or "RGB").upper())
        width, height = frame.size
        if format_ is None or len(frame.image) != width * height * CHANNELS[format_]:
            raise ConfigurationError(
                f"pictures of {frame.format}, {width} x {height}, in {len(frame.image)} bytes are not used; "
                f"there are {', '.join(FORMATS)}, uncompressed"
            )
        shape = (height, width) if CHANNELS[format_] == 1 else (height, width, CHANNELS[format_])
        picture = np.frombuffer(frame.image, np.uint8).reshape(shape)
        return partial(self._live.push_frame, picture, self._stamp(frame, 0), format=format_)

    def _stamp(self, frame: Frame, length_ns: int) -> int | None:
        if not self._live.config.exact:
            return None
        t_ns: int | None = frame.pts
        if t_ns is not None:
            self._pushed_ns = max(self._pushed_ns, t_ns + length_ns)
        return t_ns

    async def _pass_on(self, packets: PacketReader) -> None:
        """Read estimates and words until the end, and push frames."""
        newest = None
        try:
            async for newest in self._live:
                self._heard.read(packets, newest.t_ns)
                self._heard.add(newest)
                if self._each or (self._due_ns is not None and newest.t_ns >= self._due_ns):
                    self._due_ns = None
                    await self.push_frame(self._heard.frame(newest))
            self._heard.read(packets, None)
            if newest is not None and (self._heard.words or self._due_ns is not None):
                await self.push_frame(self._heard.frame(newest))
        except EmiError as error:
            await self.push_error(str(error), exception=error, force_treat_as_permanent=True)
        finally:
            packets.close()

    async def _finish(self) -> None:
        """Let the engine answer what it has, then stop it."""
        if self._emotions is None:
            return
        with suppress(EmiError):  # it has stopped by itself, and `_pass_on` has said why
            self._live.end()
        limit_s = None if self._live.config.exact else END_S
        if not (await asyncio.wait({self._emotions}, timeout=limit_s))[0]:
            logger.warning("the last estimate did not come within %g s of the pipeline's end", END_S)
        await self._stop()

    async def _stop(self) -> None:
        task, self._emotions = self._emotions, None
        if task is not None:
            await self.cancel_task(task)
        await asyncio.to_thread(self._live.close)


class _Heard:
    """Words and peaks since the last frame."""

    def __init__(self) -> None:
        self.words: list[Word] = []
        self.peaks: dict[str, float] = {}
        self._partial = ""
        self._newest = (-(2**63), -1)  # start and number of the newest committed word
        self._later: TranscriptPacket | None = None  # of sound that is not in an estimate yet

    def read(self, packets: PacketReader, until_ns: int | None) -> None:
        """Take in the packets that are there, of sound up to that time; None: all."""
        while True:
            packet, self._later = self._later or packets.read(), None
            if packet is None:
                return
            if not isinstance(packet, TranscriptPacket):
                continue
            if until_ns is not None and packet.t_ns > until_ns:
                self._later = packet
                return
            for word in packet.words:
                if word.committed and (word.start_ns, word.number) > self._newest:
                    self._newest = (word.start_ns, word.number)
                    self.words.append(word)
            self._partial = " ".join(word.text for word in packet.words if not word.committed)

    def add(self, estimate: Estimate) -> None:
        """Take in an estimate."""
        for name, value in estimate.as_dict().items():
            self.peaks[name] = max(value, self.peaks.get(name, value))

    def frame(self, estimate: Estimate) -> EmotionFrame:
        """The frame for this estimate; what it has is forgotten."""
        words, self.words = tuple(self.words), []
        peaks, self.peaks = self.peaks, {}
        return EmotionFrame(
            estimate=estimate,
            intensities=estimate.as_dict(),
            peaks=peaks or estimate.as_dict(),
            states={name: estimate.modalities[name].state for name in MODALITIES},
            words=words,
            partial=self._partial,
            t_ns=estimate.t_ns,
        )
