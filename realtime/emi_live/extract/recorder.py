"""One clip through the live stages in exact mode, recorded as the tracks that windows are cut from.

`WholeSoundStage` computes the audio features of a clip in one piece, as the papers do. `Recorder` is pure: no
thread, clock or socket.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from emi_live.clock import NS_PER_MS, NS_PER_S, MonotonicClock
from emi_live.config import LiveConfig, SourceConfig
from emi_live.errors import SourceError, StageError
from emi_live.flow import Flow, open_flow
from emi_live.health import Health
from emi_live.messages import (
    END_OF_STREAM,
    AudioPacket,
    Packet,
    TextPacket,
    TranscriptPacket,
    VisionPacket,
    Word,
    end_of_stream,
)
from emi_live.rings import SAMPLE_RATE_HZ, AudioBlock, AudioReader, AudioRing
from emi_live.stages import Stage
from emi_live.window import AUDIO_FRAME_NS
from emi_models import MODALITIES, Modality
from emi_models.data.clip import FeatureTrack
from emi_models.encoders.wav2vec import frame_ends_ns

__all__ = ["ClipRecord", "EarlyEnd", "Recorder", "Recording", "WholeSoundStage", "record_clip"]

FOREVER: Final = END_OF_STREAM
NEVER: Final = -(2**62)


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """The features and words of one clip, stamped from its start. A missing modality has no frame.

    `voice_ns` (n,) are the moments, increasing, at which a voice counted in live use (`ProsodyStage`).
    """

    tracks: Mapping[Modality, FeatureTrack]
    duration_ns: int  # the newest moment that any stage spoke of
    transcript: str
    pictures: int  # analysed, with a face or without
    voice_ns: NDArray[np.int64]


class Recorder:
    """Collects the packets of one clip; those of each topic in order, the topics in any."""

    def __init__(self, dims: Mapping[Modality, int], topics: Iterable[str], until_ns: int = FOREVER) -> None:
        """Record features of the given widths.

        Args:
            dims: values in one frame, by modality.
            topics: those that will come; `done` waits for all of them.
            until_ns: what is newer is left out.
        """
        self._until_ns = until_ns
        self._frames: dict[Modality, list[NDArray[np.float32]]] = {
            modality: [np.zeros((0, dims[modality]), np.float32)] for modality in MODALITIES
        }
        self._times: dict[Modality, list[NDArray[np.int64]]] = {
            modality: [np.zeros(0, np.int64)] for modality in MODALITIES
        }
        self._newest_ns: dict[Modality, int] = dict.fromkeys(MODALITIES, NEVER)
        self._progress_ns = dict.fromkeys(topics, -1)
        self._end_ns = 0
        self._pictures = 0
        self._voice_ns: list[int] = []
        self._no_words = np.zeros(dims["text"], np.float32)
        self._embedding = self._no_words
        self._committed: list[Word] = []
        self._partial: list[Word] = []

    @property
    def done(self) -> bool:
        """Whether nothing more that belongs to the recording can come."""
        return all(progress >= self._until_ns for progress in self._progress_ns.values())

    def add(self, packet: Packet) -> None:
        """Take in one packet of the topics vision, audio, text or transcript."""
        self._progress_ns[packet.topic] = max(self._progress_ns[packet.topic], packet.progress_ns)
        self._end_ns = max(self._end_ns, min(packet.t_ns, self._until_ns))
        if isinstance(packet, AudioPacket):
            count = len(packet.frames)
            times = packet.t_ns - AUDIO_FRAME_NS * np.arange(count - 1, -1, -1, dtype=np.int64)
            self._append("audio", times, packet.frames)
            self._add_voice(packet.last_voice_ns)
        elif packet.t_ns > self._until_ns or packet.progress_ns == END_OF_STREAM:
            return
        elif isinstance(packet, VisionPacket):
            self._add_picture(packet)
        elif isinstance(packet, TextPacket):
            self._add_text(packet)
        elif isinstance(packet, TranscriptPacket):
            self._add_words(packet.words)

    def finish(self) -> Recording:
        """What was recorded; the arrays are the caller's."""
        return Recording(
            {
                modality: FeatureTrack(
                    np.concatenate(self._times[modality]), np.concatenate(self._frames[modality])
                )
                for modality in MODALITIES
            },
            self._end_ns,
            " ".join(word.text for word in (*self._committed, *self._partial)),
            self._pictures,
            np.array(self._voice_ns, np.int64),
        )

    def _append(self, modality: Modality, times: NDArray[np.int64], frames: NDArray[np.float32]) -> None:
        """As the window does: a frame that is not newer than the one before is left out."""
        fresh = times > self._newest_ns[modality]
        if fresh.any():
            self._newest_ns[modality] = int(times[fresh][-1])
            kept = fresh & (times <= self._until_ns)
            self._times[modality].append(times[kept])
            self._frames[modality].append(frames[kept])

    def _add_voice(self, voice_ns: int | None) -> None:
        newest_ns = self._voice_ns[-1] if self._voice_ns else NEVER
        if voice_ns is not None and newest_ns < voice_ns <= self._until_ns:
            self._voice_ns.append(voice_ns)

    def _add_picture(self, packet: VisionPacket) -> None:
        if packet.faces < 0 or packet.t_ns <= self._newest_ns["vision"]:
            return
        self._pictures += 1
        if packet.features is not None:
            self._append("vision", np.array([packet.t_ns]), packet.features[None])
        self._newest_ns["vision"] = packet.t_ns

    def _add_text(self, packet: TextPacket) -> None:
        """A row for each change; zeros say that from then on no words are known."""
        embedding = self._no_words if packet.embedding is None else packet.embedding
        if not np.array_equal(embedding, self._embedding):
            self._embedding = embedding
            self._append("text", np.array([packet.t_ns]), embedding[None])

    def _add_words(self, words: Iterable[Word]) -> None:
        """A packet holds the words of half a minute: those known before are its first ones."""
        committed = [word for word in words if word.committed]
        if self._committed and self._committed[-1] in committed:
            committed = committed[committed.index(self._committed[-1]) + 1 :]
        self._committed += committed
        self._partial = [word for word in words if not word.committed]


WAIT_S: Final = 0.1
FRAME_NS: Final = 100 * NS_PER_MS  # a stage that stops at the limit may be one frame or sample short of it
STOP_S: Final = 30.0  # for the stages to finish the call under way: a slow recogniser's may take seconds


@dataclass(frozen=True, slots=True)
class ClipRecord:
    """One clip's recording, and what was wrong with its file."""

    recording: Recording
    damaged: int  # packets of the file that could not be decoded and were left out


def record_clip(
    path: Path,
    config: LiveConfig,
    make_stages: Callable[[Flow], Sequence[Stage]],
    dims: Mapping[Modality, int],
    until_ns: int = FOREVER,
    give_up: Callable[[], None] = lambda: None,
) -> ClipRecord:
    """What the stages publish for a media file, up to `until_ns` from its start.

    The windows of a live run in exact mode hold the same numbers at every instant up to there, whether the
    file goes on or not: reading stops only once all is known.

    Args:
        path: the file.
        config: all settings; of its source, only the sound track is used.
        make_stages: makes the stages of a flow, with encoders that know nothing of another clip.
        dims: values in one frame, by modality.
        until_ns: what is newer is left out.
        give_up: ends a call of the recogniser that waits for its turn, when the clip ends.

    Raises:
        ConfigurationError: there is no such file.
        SourceError: it cannot be read, is cut off, or holds nothing that the stages could use.
        StageError: a stage failed on it.
    """
    source = SourceConfig(input=path, audio_track=config.source.audio_track)
    config = config.model_copy(update={"source": source, "mode": "exact", "duration_s": None})
    health = Health()
    with ExitStack() as opened:
        flow = open_flow(config, health, MonotonicClock(), opened)
        stages = make_stages(flow)
        topics = [stage.topic for stage in stages]
        tap = flow.bus.subscriber(topics)
        flow.add_stages(stages, {"speech": give_up})
        recorder = Recorder(dims, topics, until_ns)
        opened.callback(_stop, flow)
        for worker in (*flow.stages, *flow.sources):
            worker.start()
        while not (tap.ended or recorder.done or _failed(flow)):
            packet = tap.read()
            if packet is not None:
                recorder.add(packet)
            else:
                tap.wait(WAIT_S)
        recording = recorder.finish()
        if whole := recording.duration_ns < until_ns - FRAME_NS:
            for worker in flow.sources:  # they report at the end whether the file is whole
                worker.join(STOP_S)
    if failure := _failed(flow):
        raise StageError(f"{path}: {failure}")
    if whole and (shortfall := health.status("file").detail):
        raise SourceError(f"{path}: {shortfall}")
    return ClipRecord(recording, health.snapshot().counters.get("file.damaged", 0))


def _failed(flow: Flow) -> str:
    """Which part failed and why; empty while none has."""
    for worker in (*flow.sources, *flow.stages):
        if worker.error is not None:
            return f"the {worker.name} part failed: {type(worker.error).__name__}: {worker.error}"
    return ""


def _stop(flow: Flow) -> None:
    """End every thread of the flow; those that are done have ended by themselves."""
    for worker in (*flow.sources, *flow.stages):
        worker.request_stop()
    flow.intake.abort()
    flow.bus.stop()
    for worker in (*flow.sources, *flow.stages):
        if not worker.join(STOP_S):
            raise StageError(f"the {worker.name} part did not stop within {STOP_S:g} s; start again")


READ_SAMPLES: Final = 16_000
PACKET_FRAMES: Final = 500  # of at most 1500 that the bus takes


class SoundEncoder(Protocol):
    """What is needed of a speech model."""

    def encode(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features (frames, D) of samples (n,), 50 frames a second."""


class EarlyEnd(AudioReader):
    """A reader of a ring whose sound is over at `until_ns`, to the sample, even if the ring's goes on."""

    def __init__(self, ring: AudioRing, until_ns: int) -> None:
        """Join the ring."""
        super().__init__(ring)
        self._until_ns = until_ns
        self._over = False

    @property
    def ended(self) -> bool:
        """Whether all the sound has been read."""
        return self._over or super().ended

    @property
    def progress_ns(self) -> int | None:
        """As `Reader.progress_ns`, but just behind the end at most, however far a gap reaches."""
        known = self._until_ns + 1 if self._over else super().progress_ns
        return None if known is None else min(known, self._until_ns + 1)

    def read(self, max_samples: int) -> AudioBlock | None:
        """As `AudioReader.read`; None once it is over."""
        block = None if self._over else super().read(max_samples)
        if block is None or block.end_ns <= self._until_ns:
            return block
        self._over = True
        left = max(0, _samples(self._until_ns - block.t_ns))
        return replace(block, samples=block.samples[:left]) if left else None

    def wait(self, timeout_s: float) -> bool:
        """As `AudioReader.wait`; does not wait for what will not be read."""
        return self._over or super().wait(timeout_s)


class WholeSoundStage:
    """Gathers the sound of a clip and encodes it at its end: every frame also depends on what follows.

    Gaps in the sound are filled with silence.
    """

    name = "audio"
    topic = "audio"

    def __init__(self, reader: AudioReader, encoder: SoundEncoder) -> None:
        self._reader = reader
        self._encoder = encoder
        self._parts: list[NDArray[np.float32]] = []
        self._first_ns = 0
        self._heard = 0  # samples in `_parts`
        self.ended = False

    def wait(self, timeout_s: float) -> bool:
        """Wait for sound."""
        return self._reader.wait(timeout_s)

    def step(self, now_ns: int) -> Sequence[Packet]:
        """No packet until the sound is over; then all of them."""
        if self.ended:
            return ()
        block = self._reader.read(READ_SAMPLES)
        if block is not None:
            self._take(block)
            return ()
        if not self._reader.ended:
            return ()
        end_ns = self._first_ns + self._heard * NS_PER_S // SAMPLE_RATE_HZ
        packets = [*self._encode(), end_of_stream(self.topic, end_ns)]
        self.ended = True  # not before: what fails is tried again
        return packets

    def reset(self) -> None:
        """Forget the sound so far."""
        self._parts, self._heard = [], 0

    def close(self) -> None:
        """Leave the input."""
        self._reader.close()

    def _take(self, block: AudioBlock) -> None:
        if not self._parts:
            self._first_ns = block.t_ns
        if block.gap_before and (missing := _samples(block.t_ns - self._first_ns) - self._heard) > 0:
            self._parts.append(np.zeros(missing, np.float32))
            self._heard += missing
        self._parts.append(block.samples)
        self._heard += block.samples.size

    def _encode(self) -> Iterator[Packet]:
        if not self._parts:
            return
        frames = self._encoder.encode(np.concatenate(self._parts))
        stamps = (self._first_ns + frame_ends_ns(len(frames))).tolist()
        for start in range(0, len(frames), PACKET_FRAMES):
            part = frames[start : start + PACKET_FRAMES]
            t_ns = stamps[start + len(part) - 1]
            yield AudioPacket(t_ns=t_ns, progress_ns=t_ns, frames=part, last_voice_ns=None)


def _samples(ns: int) -> int:
    """How many whole samples that is."""
    return ns * SAMPLE_RATE_HZ // NS_PER_S
