"""The text stage: recognised words in, the sentence embedding of the last window's words out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from emi_live.bus import PacketReader
from emi_live.clock import seconds_to_ns
from emi_live.messages import END_OF_STREAM, Packet, TextPacket, TranscriptPacket, Word, end_of_stream
from emi_models.marked import MARK, MarkedEncoder

__all__ = ["MarkedTextStage", "TextStage", "window_text"]


class Encoder(Protocol):
    """The part of a sentence encoder that the stage uses."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embeddings, shape (len(texts), dim)."""
        ...


class TextStage:
    """Embeds the words of the last window, again only when they change.

    Without an encoder the words still flow, and the embedding stays None.
    """

    name = "text"
    topic = "text"

    def __init__(self, reader: PacketReader, encoder: Encoder | None, window_s: float) -> None:
        self._reader = reader
        self._encoder = encoder
        self._window_s = window_s
        self._embedded = ""
        self._embedding: NDArray[np.float32] | None = None
        self._last_ns = 0
        self.ended = False

    def wait(self, timeout_s: float) -> bool:
        """Wait for words."""
        return self._reader.wait(timeout_s)

    def step(self, now_ns: int) -> Sequence[Packet]:
        """The packet of the next transcript, if there is one."""
        packet = self._reader.read()
        if not isinstance(packet, TranscriptPacket):
            return ()
        if packet.progress_ns == END_OF_STREAM:
            self.ended = True
            return (end_of_stream(self.topic, packet.t_ns or self._last_ns),)
        self._last_ns = packet.t_ns
        words = _recent(packet, self._window_s)
        text = self._line([word.text for word in words])
        if text != self._embedded:
            self._embedded = text
            self._embedding = self._encoded(text) if text else None
        return (
            TextPacket(
                t_ns=packet.t_ns,
                progress_ns=packet.progress_ns,
                arrived_ns=packet.arrived_ns,
                embedding=self._embedding,
                committed=" ".join(word.text for word in words if word.committed),
                partial=" ".join(word.text for word in words if not word.committed),
                last_word_ns=words[-1].end_ns if words else None,
                transcribed_ns=packet.published_ns,
                hearing=packet.hearing,
                behind=packet.behind,
                behind_s=packet.behind_s,
                left_out_s=packet.left_out_s,
                language=packet.language,
            ),
        )

    def _line(self, words: list[str]) -> str:
        """The words as they are embedded, "" without any."""
        return " ".join(words)

    def _encoded(self, text: str) -> NDArray[np.float32] | None:
        return None if self._encoder is None else self._encoder.encode([text])[0]

    def reset(self) -> None:
        """Forget the last embedding."""
        self._embedded, self._embedding = "", None

    def close(self) -> None:
        """Leave the input."""
        self._reader.close()


class MarkedTextStage(TextStage):
    """The same for checkpoints of ambivalence and hesitancy: the newest word is marked as the present one.

    The embedding is the encoder's state at the mark (`emi_models.marked`).
    """

    def __init__(self, reader: PacketReader, encoder: MarkedEncoder | None, window_s: float) -> None:
        super().__init__(reader, None, window_s)
        self._marked = encoder

    def _line(self, words: list[str]) -> str:
        return " ".join([*words[:-1], MARK, words[-1]]) if words else ""

    def _encoded(self, text: str) -> NDArray[np.float32] | None:
        return None if self._marked is None else self._marked.encode_marked([text])[0]


def window_text(packet: TranscriptPacket, window_s: float) -> str:
    """The words of the window that ends with the packet, joined by spaces, as they are embedded."""
    return " ".join(word.text for word in _recent(packet, window_s))


def _recent(packet: TranscriptPacket, window_s: float) -> list[Word]:
    after_ns = packet.t_ns - seconds_to_ns(window_s)
    return [word for word in packet.words if word.end_ns > after_ns]
