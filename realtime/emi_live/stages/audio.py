"""The audio stages: `ProsodyStage` of `compact` and `Wav2vecStage` of `taemi`; sound in, audio features out.

Both also publish when a voice ended last. `ChunkReader` reads the ring in chunks of one size, however the
sound was cut into blocks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from emi_live.clock import NS_PER_S
from emi_live.config import AudioConfig
from emi_live.health import Health
from emi_live.messages import NOTHING_YET, AudioPacket, Packet, end_of_stream
from emi_live.rings import GAP_NS, SAMPLE_RATE_HZ, AudioReader
from emi_live.stages import Promise
from emi_models.encoders.prosody import FRAME_SAMPLES, HOP_SAMPLES  # wav2vec 2.0 has the same
from emi_models.encoders.voice_activity import CHUNK_SAMPLES

if TYPE_CHECKING:
    from emi_models.encoders.prosody import ProsodyEncoder
    from emi_models.encoders.voice_activity import VoiceGate
    from emi_models.encoders.wav2vec_stream import WindowFrames

__all__ = ["Chunk", "ChunkReader", "ProsodyStage", "Wav2vecStage"]

# A gap known to be this long ends the run of chunks at once; a shorter one when the next sound arrives.
KNOWN_GAP_NS: Final = 2 * GAP_NS
STEP_SAMPLES: Final = 8 * CHUNK_SAMPLES  # a quarter of a second: a backlog must not delay a stop
NO_FRAMES: Final = np.zeros((0, 0), np.float32)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive samples: as many as the reader was told, or fewer before a gap and at the end.

    No `AudioBlock`: a chunk may span several blocks, so its end is not its start plus its length, and it
    says whether a gap follows, not whether one came before.
    """

    samples: NDArray[np.float32]  # shape (n,)
    start_ns: int  # capture time of the first sample
    end_ns: int  # capture time at which the last sample ends; never goes back, even if the stamps do
    arrived_ns: int  # when the last sample reached the engine
    gap_after: bool  # what comes next does not continue this

    @property
    def whole(self) -> bool:
        """Whether it has the 512 samples that the voice gate needs."""
        return self.samples.size == CHUNK_SAMPLES


class ChunkReader:
    """Reads one ring for one stage. Chunks are counted from the start of the sound or from its last gap.

    If a gap is known before its end (in lossless rings only), the chunk before it is returned at once, and
    not with the sound after the gap. The chunk is the same either way.
    """

    def __init__(
        self,
        reader: AudioReader,
        part: str,
        health: Health,
        *,
        size: int = CHUNK_SAMPLES,
        first: int | None = None,
    ) -> None:
        """Read for the stage `part`; `PART.lost_samples` counts overwritten samples, `PART.gaps` gaps.

        Args:
            reader: of the ring.
            part: the stage's name.
            health: counters.
            size: samples in a chunk; by default as many as the voice gate takes.
            first: samples in the first chunk after the start and after each gap; by default `size`.
        """
        self._reader = reader
        self._size = size
        self._first = size if first is None else first
        self._wanted = self._first  # samples in the chunk that is being filled
        self._promise = Promise(reader)
        self._part = part
        self._health = health
        self._lost = 0
        self._pending = np.empty(max(self._size, self._first), np.float32)
        self._filled = 0
        self._start_ns = 0
        self._end_ns = 0
        self._arrived_ns = 0
        self._started = False  # a block has been read
        self._in_gap = False  # the chunk before the gap has been returned
        self.ended = False  # the last chunk has been returned

    @property
    def backlog(self) -> int:
        """Samples that wait in the ring."""
        return self._reader.backlog

    @property
    def hole_until_ns(self) -> int | None:
        """No sound comes before then; None if there is no gap, or nothing is known of it."""
        if self._started and not self._in_gap:
            return None
        return self._reader.progress_ns

    def wait(self, timeout_s: float) -> bool:
        """Wait for sound, for progress, or for its end."""
        return self._promise.wait(timeout_s)

    def promise(self) -> int | None:
        """In a gap: the `progress_ns` to publish now, if any. Packets of all chunks must be out before."""
        return None if self._started and not self._in_gap else self._promise.due()

    def restart(self) -> None:
        """Let the next chunk be a first one; no sample is lost."""
        self._wanted = self._first

    def close(self) -> None:
        """Leave the ring."""
        self._reader.close()

    def read(self) -> list[Chunk]:
        """The chunks that the next quarter of a second completes; never waits."""
        block = self._reader.read(STEP_SAMPLES)
        self._health.count(f"{self._part}.lost_samples", self._reader.lost - self._lost)
        self._lost = self._reader.lost
        if block is None:
            if self.ended:
                return []
            if not self._reader.ended:
                return self._begin_gap()
            self.ended = True
            return self._begin_gap() or ([self._take(gap_after=False)] if self._filled else [])
        chunks = []
        if block.gap_before:
            self._health.count(f"{self._part}.gaps")
            if not self._in_gap:
                chunks.append(self._take(gap_after=True))
        self._started, self._in_gap = True, False
        offset = 0
        while offset < block.samples.size:
            part = block.samples[offset : offset + self._wanted - self._filled]
            if not self._filled:
                self._start_ns = block.t_ns + offset * NS_PER_S // SAMPLE_RATE_HZ
            self._pending[self._filled : self._filled + part.size] = part
            self._filled += part.size
            offset += part.size
            self._end_ns = max(self._end_ns, block.t_ns + offset * NS_PER_S // SAMPLE_RATE_HZ)
            self._arrived_ns = self._reader.arrived_ns(block.start + offset - 1)
            if self._filled == self._wanted:
                chunks.append(self._take(gap_after=False))
        return chunks

    def _begin_gap(self) -> list[Chunk]:
        """The chunk before a gap, once it is known that there is one."""
        until_ns = self._reader.progress_ns
        if not self._started or self._in_gap or until_ns is None or until_ns - self._end_ns < KNOWN_GAP_NS:
            return []
        self._in_gap = True
        return [self._take(gap_after=True)]

    def _take(self, *, gap_after: bool) -> Chunk:
        samples = self._pending[: self._filled].copy()
        start_ns = self._start_ns if self._filled else self._end_ns
        self._filled = 0
        self._wanted = self._first if gap_after else self._size
        return Chunk(samples, start_ns, self._end_ns, self._arrived_ns, gap_after)


VOICE_CHUNKS: Final = 28  # 0.9 s; docs/decisions/0033: a summary of less speech says little
VOICE_SPAN_S: Final = 3.0  # the packaged checkpoint's span of voice


class ProsodyStage:
    """Turns sound into prosody at 50 Hz and detects voice; a packet for each frame as soon as it is there.

    A voice counts if the gate found `VOICE_CHUNKS` chunks of it in the last `VOICE_SPAN_S`, the same across a
    gap: less is not yet a way of speaking.

    Packets do not depend on how the sound was cut into blocks. Each says where voice ended in the whole
    chunks of the voice gate (512 samples) up to its frame's end. What the gate finds after the last frame
    before a gap, or before the end, follows in a packet without a frame. In a gap of a lossless stream, such
    packets say how far it has been read.
    Sound overwritten before it was read is counted as `audio.lost_samples`, gaps as `audio.gaps`.
    """

    name = "audio"
    topic = "audio"

    def __init__(
        self,
        reader: AudioReader,
        prosody: ProsodyEncoder,
        gate: VoiceGate,
        config: AudioConfig,
        health: Health,
    ) -> None:
        # Each chunk completes a frame. In chunks of the gate's size, frames would wait for up to 32 ms.
        self._chunks = ChunkReader(reader, self.name, health, size=HOP_SAMPLES, first=FRAME_SAMPLES)
        self._prosody = prosody
        self._gate = gate
        self._threshold = config.voice_threshold
        self._read_samples = 0  # since the start or the last gap
        self._frames = 0  # prosody frames since then
        self._voiced_ns: deque[int] = deque()  # ends of the last chunks with a voice
        self._last_voice_ns: int | None = None
        self._told_voice_ns: int | None = None  # in the newest packet
        self._last_ns = 0
        self._told_ns = NOTHING_YET  # `t_ns` of the newest packet
        self.ended = False

    def wait(self, timeout_s: float) -> bool:
        """Wait for sound."""
        return self._chunks.wait(timeout_s)

    def step(self, now_ns: int) -> Sequence[Packet]:
        """The packets of the frames that have been completed."""
        packets = [packet for chunk in self._chunks.read() for packet in self._take(chunk)]
        if self._chunks.ended and not self.ended:
            self.ended = True
            packets += [*self._last_voice(), end_of_stream(self.topic, self._last_ns)]
        elif (progress_ns := self._chunks.promise()) is not None:
            packets.append(self._packet(self._told_ns, progress_ns))
        return packets

    def reset(self) -> None:
        """Forget all sound, as at a gap."""
        self._forget()
        self._chunks.restart()

    def close(self) -> None:
        """Leave the input."""
        self._chunks.close()

    def _forget(self) -> None:
        self._prosody.reset()
        self._gate.reset()
        self._read_samples = self._frames = 0

    def _take(self, chunk: Chunk) -> Iterator[Packet]:
        self._last_ns = chunk.end_ns
        self._listen(chunk)
        frames = self._prosody.push(chunk.samples)
        self._frames += len(frames)
        if len(frames):
            t_ns = self._time_of((self._frames - 1) * HOP_SAMPLES + FRAME_SAMPLES)
            yield self._packet(t_ns, t_ns, frames, chunk.arrived_ns)
        if chunk.gap_after:
            yield from self._last_voice()
            self._forget()

    def _listen(self, chunk: Chunk) -> None:
        """Note where voice ends in the gate's chunks that this one completes."""
        whole = self._read_samples // CHUNK_SAMPLES
        self._read_samples += chunk.samples.size
        is_voice = self._gate.push(chunk.samples) >= self._threshold
        for chunk_index in np.flatnonzero(is_voice):
            ended_ns = self._time_of((whole + int(chunk_index) + 1) * CHUNK_SAMPLES)
            self._voiced_ns.append(ended_ns)
            while self._voiced_ns[0] <= ended_ns - round(VOICE_SPAN_S * NS_PER_S):
                self._voiced_ns.popleft()
            if len(self._voiced_ns) >= VOICE_CHUNKS:
                self._last_voice_ns = ended_ns

    def _last_voice(self) -> Iterator[Packet]:
        """A packet with the end of the newest voice, if no packet has told it."""
        if self._last_voice_ns != self._told_voice_ns:
            yield self._packet(self._last_ns, self._last_ns)

    def _time_of(self, sample: int) -> int:
        """When a sample that has been read was captured; counted from the start or the last gap."""
        return self._last_ns - (self._read_samples - sample) * NS_PER_S // SAMPLE_RATE_HZ

    def _packet(
        self,
        t_ns: int,
        progress_ns: int,
        frames: NDArray[np.float32] = NO_FRAMES,
        arrived_ns: int = 0,
    ) -> AudioPacket:
        self._told_ns, self._told_voice_ns = t_ns, self._last_voice_ns
        return AudioPacket(
            t_ns=t_ns,
            progress_ns=progress_ns,
            arrived_ns=arrived_ns,
            frames=frames,
            last_voice_ns=self._last_voice_ns,
        )


BEHIND_S: Final = 1.0  # of queued sound: by default, a voice published later than this counts as missing
AGAIN_S: Final = 0.3
SKIP_S: Final = 3.0  # of queued sound: frames later than this are of little use


class SpeechModel(Protocol):
    """A speech model of one stream: frame k since the last reset describes samples [320k, 320k + 400).

    It returns each frame once, shape (n, dim), or at each hop all frames of the last seconds again.
    """

    @property
    def dim(self) -> int:
        """Values in a frame."""
        ...

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32] | WindowFrames | None:
        """The frames that these samples complete; None if there are none."""
        ...

    def flush(self) -> NDArray[np.float32] | WindowFrames | None:
        """The last frames; the stream ends here."""
        ...

    def reset(self) -> None:
        """Forget all sound."""
        ...


class Wav2vecStage:
    """Turns sound into a speech model's frames at 50 Hz, and detects voice in it.

    Each chunk of 512 samples gives a packet: with the frames that it completed, or without frames, only with
    how far the sound was read and where voice ended. Frames that the model holds back follow at a gap and at
    the end. Packets do not depend on how the sound was cut into blocks. In a gap of a lossless stream,
    packets without a frame say how far it has been read.

    Live, the model may be slower than the sound. If more than 1 s is queued, packets say so (`behind`), the
    part's status too, and `audio.fell_behind` counts it. With `context = "full"`, hops that more sound has
    followed already are then left out (`audio.coalesced`). Otherwise, once 3 s are queued, the model skips
    the backlog (`audio.skipped_samples`), in which voice is still detected, and starts afresh with new sound.
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
        self._check_backlog()
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
        """Forget all sound, as at a gap."""
        self._model.reset()
        self._forget()

    def close(self) -> None:
        """Leave the input."""
        self._chunks.close()

    def _forget(self) -> None:
        self._gate.reset()
        self._read_samples = 0  # since the start or the last gap
        self._frames = 0  # published since then
        self._pending: list[NDArray[np.float32]] = []  # samples that the model has not been given
        # Of each chunk: samples read by then, and when the last of them arrived.
        self._arrivals: deque[tuple[int, int]] = deque()

    def _take(self, chunk: Chunk) -> Iterator[Packet]:
        self._last_ns = chunk.end_ns
        if not self._read_samples:  # all frames to come describe sound that starts here
            self._arrivals.clear()
            start_ns = chunk.end_ns - chunk.samples.size * NS_PER_S // SAMPLE_RATE_HZ
            self._progress_ns = max(start_ns, self._progress_ns or start_ns)
        self._read_samples += chunk.samples.size
        self._arrivals.append((self._read_samples, chunk.arrived_ns))
        if (self._gate.push(chunk.samples) >= self._threshold).any():
            self._last_voice_ns = chunk.end_ns
        if chunk.samples.size:
            pushed = None if self._skips(chunk) else self._push_if_due(chunk)
            yield pushed or self._packet(chunk.end_ns, self._nothing)
        if chunk.gap_after:
            yield from self._finish()
            self._forget()

    def _skips(self, chunk: Chunk) -> bool:
        """Whether the model skips this chunk, because the backlog is too long."""
        if not self._skipping:
            return False
        self._health.count("audio.skipped_samples", chunk.samples.size)
        self._read_samples = 0  # the next one may start a new run
        self._skipping = self._chunks.backlog >= self._hop
        return True

    def _push_if_due(self, chunk: Chunk) -> AudioPacket | None:
        """The frames of all pending samples; None if more sound is queued, which will be included then."""
        self._pending.append(chunk.samples)
        if self._context == "full" and not self._exact and self._chunks.backlog >= self._hop:
            return None
        return self._push_pending()

    def _push_pending(self) -> AudioPacket | None:
        """Give the model the pending samples; the packet with the frames that it returned, if any."""
        samples = np.concatenate(self._pending)
        self._pending = []
        packet = self._packet_of(self._model.push(samples))
        if self._context == "full":
            hops = samples.size // self._hop
            self._health.count("audio.coalesced", max(0, hops - 1))
        return packet

    def _finish(self) -> Iterator[AudioPacket]:
        """The packets of what the model has held back."""
        pushed = self._push_pending() if self._pending else None
        yield from (packet for packet in (pushed, self._packet_of(self._model.flush())) if packet is not None)

    def _packet_of(self, found: NDArray[np.float32] | WindowFrames | None) -> AudioPacket | None:
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
        end_ns = self._last_ns - (self._read_samples - end) * NS_PER_S // SAMPLE_RATE_HZ
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

    def _check_backlog(self) -> None:
        if self._exact:
            return
        waiting_s = self._chunks.backlog / SAMPLE_RATE_HZ
        if self._context != "full" and waiting_s >= SKIP_S and not self._skipping:
            self._skipping = True
            self._model.reset()
            self._read_samples = self._frames = 0
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
