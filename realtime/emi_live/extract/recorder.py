"""Packets in, the tracks of one clip out: what a window would be cut from at any instant of it.

Pure: no thread, clock or socket.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from emi_live.messages import (
    END_OF_STREAM,
    AudioPacket,
    Packet,
    TextPacket,
    TranscriptPacket,
    VisionPacket,
    Word,
)
from emi_live.window.sound import AUDIO_FRAME_NS
from emi_models.data.clip import Track
from emi_models.vocabulary import MODALITIES, Modality

__all__ = ["Recorder", "Recording"]

FOREVER: Final = END_OF_STREAM
NEVER: Final = -(2**62)


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """What was seen, heard and said in one clip, stamped from its start. A missing modality has no frame."""

    tracks: Mapping[Modality, Track]
    duration_ns: int  # the newest moment that any stage spoke of
    transcript: str
    pictures: int  # analysed, with a face or without


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
                modality: Track(np.concatenate(self._times[modality]), np.concatenate(self._frames[modality]))
                for modality in MODALITIES
            },
            self._end_ns,
            " ".join(word.text for word in (*self._committed, *self._partial)),
            self._pictures,
        )

    def _append(self, modality: Modality, times: NDArray[np.int64], frames: NDArray[np.float32]) -> None:
        """As the window does: a frame that is not newer than the one before is left out."""
        fresh = times > self._newest_ns[modality]
        if fresh.any():
            self._newest_ns[modality] = int(times[fresh][-1])
            kept = fresh & (times <= self._until_ns)
            self._times[modality].append(times[kept])
            self._frames[modality].append(frames[kept])

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
