"""The audio stage of `taemi`: sound in, a speech model's frames and the time of the newest voice out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from emi_live.clock import NS_PER_S
from emi_live.config import AudioConfig
from emi_live.health import Health
from emi_live.messages import NOTHING_YET, AudioPacket, Packet, end_of_stream
from emi_live.rings import SAMPLE_RATE_HZ, AudioReader
from emi_live.stages.audio import Chunk, ChunkReader
from emi_models.encoders.wav2vec import FRAME_SAMPLES, HOP_SAMPLES

if TYPE_CHECKING:
    from emi_models.encoders.voice_activity import VoiceGate
    from emi_models.encoders.wav2vec_stream import WindowFrames

__all__ = ["VoiceStage"]

BEHIND_S: Final = 1.0  # of sound that waits: a voice that is told so late is missing by default
AGAIN_S: Final = 0.3
SKIP_S: Final = 3.0  # of sound that waits: frames that come later than this are of little use


class SpeechModel(Protocol):
    """A speech model of one stream: frame k since the last reset is about samples [320k, 320k + 400).

    It says each frame once, (n, dim), or at each hop those of the last seconds again.
    """

    @property
    def dim(self) -> int:
        """Values in a frame."""
        ...

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32] | WindowFrames | None:
        """What there is to say after these samples."""
        ...

    def flush(self) -> NDArray[np.float32] | WindowFrames | None:
        """What is left to say; the stream ends here."""
        ...

    def reset(self) -> None:
        """Forget what was heard."""
        ...


class VoiceStage:
    """Turns sound into a speech model's frames at 50 Hz, and listens for voice in it.

    A packet follows each chunk of 512 samples: with the frames that have become known, or without any, saying
    only how far sound was heard and where voice ended in it. What the model holds back is said at a gap and
    at the end. Packets are the same however the sound was cut into blocks. In a gap of a lossless stream,
    packets without a frame say how far it has been read.

    Live, the model may be slower than the sound. When more than a second waits, that is said, in packets
    (`behind`) and as the part's status, and counted as `audio.fell_behind`. A model that says all of the last
    seconds again is then not asked about hops that more sound has followed already, counted as
    `audio.coalesced`. Another one is not given the sound that waits, once it is three seconds, but only
    listened to for voice (`audio.skipped_samples`), and starts afresh with what comes.
    Sound overwritten before it was read is counted as `audio.lost_samples`, gaps as `audio.gaps`.
    """

    name = "audio"
    topic = "audio"

    def __init__(
        self,
        reader: AudioReader,
        model: SpeechModel,
        gate: VoiceGate,
        config: AudioConfig,
        health: Health,
        *,
        exact: bool,
    ) -> None:
        self._chunks = ChunkReader(reader, self.name, health)
        self._model = model
        self._gate = gate
        self._threshold = config.voice_threshold
        self._context = config.context
        self._hop = round(config.hop_s * SAMPLE_RATE_HZ)
        self._health = health
        self._exact = exact
        self._nothing = np.zeros((0, model.dim), np.float32)
        self._last_voice_ns: int | None = None
        self._last_ns = 0
        self._progress_ns: int | None = None
        self._told_ns = NOTHING_YET  # the newest `t_ns` of all packets
        self._behind = False
        self._skipping = False
        self._forget()
        self.ended = False

    def wait(self, timeout_s: float) -> bool:
        """Wait for sound."""
        return self._chunks.wait(timeout_s)

    def step(self, now_ns: int) -> Sequence[Packet]:
        """The packets of the chunks that have been completed."""
        self._look_whether_behind()
        packets: list[Packet] = [packet for chunk in self._chunks.read() for packet in self._take(chunk)]
        if self._chunks.ended and not self.ended:
            packets += [*self._finish(), end_of_stream(self.topic, self._last_ns)]
            self.ended = True  # not before: what fails is tried again
        elif (progress_ns := self._chunks.promise()) is not None:
            packets.append(
                AudioPacket(
                    t_ns=self._told_ns,
                    progress_ns=progress_ns,
                    frames=self._nothing,
                    last_voice_ns=self._last_voice_ns,
                )
            )
        return packets

    def reset(self) -> None:
        """Forget what was heard, as at a gap."""
        self._model.reset()
        self._forget()

    def close(self) -> None:
        """Leave the input."""
        self._chunks.close()

    def _forget(self) -> None:
        self._gate.reset()
        self._heard = 0  # samples since the start or the last gap
        self._frames = 0  # frames said since then
        self._pending: list[NDArray[np.float32]] = []  # samples that the model has not been given
        # Of each chunk: samples heard by then, and when the last of them came.
        self._arrivals: deque[tuple[int, int]] = deque()

    def _take(self, chunk: Chunk) -> Iterator[Packet]:
        self._last_ns = chunk.end_ns
        if not self._heard:  # all frames to come are of sound that starts here
            self._arrivals.clear()
            start_ns = chunk.end_ns - chunk.samples.size * NS_PER_S // SAMPLE_RATE_HZ
            self._progress_ns = max(start_ns, self._progress_ns or start_ns)
        self._heard += chunk.samples.size
        self._arrivals.append((self._heard, chunk.arrived_ns))
        if (self._gate.push(chunk.samples) >= self._threshold).any():
            self._last_voice_ns = chunk.end_ns
        if chunk.samples.size:
            asked = None if self._skips(chunk) else self._ask_in_time(chunk)
            yield asked or self._packet(chunk.end_ns, self._nothing)
        if chunk.gap_after:
            yield from self._finish()
            self._forget()

    def _skips(self, chunk: Chunk) -> bool:
        """Whether this chunk is one of those that the model is not given."""
        if not self._skipping:
            return False
        self._health.count("audio.skipped_samples", chunk.samples.size)
        self._heard = 0  # the next one may be the first of a stream of its own
        self._skipping = self._chunks.backlog >= self._hop
        return True

    def _ask_in_time(self, chunk: Chunk) -> AudioPacket | None:
        """What the model says of all that it has not been given, unless it will soon be asked about more."""
        self._pending.append(chunk.samples)
        if self._context == "full" and not self._exact and self._chunks.backlog >= self._hop:
            return None
        return self._ask()

    def _ask(self) -> AudioPacket | None:
        """Give the model what it has not heard yet; what it says, if anything."""
        samples = np.concatenate(self._pending)
        self._pending = []
        packet = self._said(self._model.push(samples))
        if self._context == "full":
            hops = samples.size // self._hop
            self._health.count("audio.coalesced", max(0, hops - 1))
        return packet

    def _finish(self) -> Iterator[AudioPacket]:
        """What the model has left to say."""
        asked = self._ask() if self._pending else None
        yield from (packet for packet in (asked, self._said(self._model.flush())) if packet is not None)

    def _said(self, found: NDArray[np.float32] | WindowFrames | None) -> AudioPacket | None:
        replaces = not (found is None or isinstance(found, np.ndarray))
        if found is None:
            return None
        if isinstance(found, np.ndarray):
            values = found
            self._frames += len(values)
        else:
            values = found.values
            self._frames = found.first + len(values)
        if not len(values):
            return None
        end = (self._frames - 1) * HOP_SAMPLES + FRAME_SAMPLES
        while len(self._arrivals) > 1 and self._arrivals[0][0] < end:
            self._arrivals.popleft()
        end_ns = self._last_ns - (self._heard - end) * NS_PER_S // SAMPLE_RATE_HZ
        # Later than what was promised to be over, even where the stamps of the sound went back.
        self._progress_ns = max(end_ns, (self._progress_ns or 0) + (not replaces))
        return self._packet(self._progress_ns, values, replaces=replaces, arrived_ns=self._arrivals[0][1])

    def _packet(
        self,
        t_ns: int,
        frames: NDArray[np.float32],
        *,
        replaces: bool = False,
        arrived_ns: int | None = None,
    ) -> AudioPacket:
        assert self._progress_ns is not None  # noqa: S101  # since the first chunk
        self._told_ns = max(self._told_ns, t_ns)
        return AudioPacket(
            t_ns=t_ns,
            progress_ns=self._progress_ns,
            arrived_ns=self._arrivals[-1][1] if arrived_ns is None else arrived_ns,
            frames=frames,
            last_voice_ns=self._last_voice_ns,
            replaces=replaces,
            behind=self._behind,
        )

    def _look_whether_behind(self) -> None:
        if self._exact:
            return
        waiting_s = self._chunks.backlog / SAMPLE_RATE_HZ
        if self._context != "full" and waiting_s >= SKIP_S and not self._skipping:
            self._skipping = True
            self._model.reset()
            self._heard = self._frames = 0
            self._pending.clear()
        if not self._behind and waiting_s > BEHIND_S:
            self._behind = True
            self._health.count("audio.fell_behind")
            remedy = "audio.context=cached" if self._context == "full" else "a larger audio.hop_s"
            self._health.report(
                self.name,
                "running",
                f"{waiting_s:.1f} s behind: the speech model is slower than the sound; try {remedy}, "
                "more fusion.threads, or a smaller model as audio.model",
            )
        elif self._behind and waiting_s < AGAIN_S:
            self._behind = False
            self._health.report(self.name, "running", "keeps up again")
