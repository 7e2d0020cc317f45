from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from emi_live.messages import TextPacket, TranscriptPacket, Word, end_of_stream
from emi_live.stages.text import MarkedTextStage, TextStage
from emi_models.encoders.sentence import SentenceEncoder
from tests.live.stages.fakes import LengthEncoder, run_stage
from tests.support.fakes import ListReader

NS = 1_000_000_000


def transcript(t_s: float, *words: Word) -> TranscriptPacket:
    t_ns = round(t_s * NS)
    return TranscriptPacket(t_ns=t_ns, progress_ns=t_ns, words=words)


def word(text: str, end_s: float, *, committed: bool = True) -> Word:
    return Word(text, round((end_s - 0.3) * NS), round(end_s * NS), committed)


def run(*packets: TranscriptPacket, encoder: LengthEncoder | None = None) -> list[TextPacket]:
    stage = TextStage(ListReader([*packets, end_of_stream("transcript", 9 * NS)]), encoder, 12.0)
    return [packet for packet in run_stage(stage) if isinstance(packet, TextPacket)]


def test_committed_and_partial_words_are_told_apart() -> None:
    first, last = run(
        transcript(2, word("ask", 1), word("not", 1.5), word("what", 1.9, committed=False)),
        encoder=LengthEncoder(),
    )
    assert (first.committed, first.partial, first.last_word_ns) == ("ask not", "what", round(1.9 * NS))
    np.testing.assert_array_equal(first.embedding, [len("ask not what")])
    assert last.t_ns == 9 * NS


def test_the_language_of_the_words_is_passed_on() -> None:
    first, last = run(transcript(1), replace(transcript(2), language="de"))[:2]
    assert (first.language, last.language) == (None, "de")


def test_the_embedding_is_computed_only_when_the_words_change() -> None:
    encoder = LengthEncoder()
    packets = run(
        transcript(1),
        transcript(2, word("ask", 1.9, committed=False)),
        transcript(3, word("ask", 1.9, committed=False)),
        transcript(4, word("ask", 1.8)),  # now committed, and its time is known better: the same words
        transcript(5, word("ask", 1.8), word("not", 4.5)),
        transcript(6, word("ask", 1.8), word("not", 4.5)),
        encoder=encoder,
    )
    assert encoder.asked == ["ask", "ask not"]
    assert packets[0].embedding is None
    assert all(packet.embedding is not None for packet in packets[1:-1])


def test_words_leave_with_the_window() -> None:
    old, new = word("ask", 1.0), word("not", 8.0)
    packets = run(
        transcript(10, old, new),
        transcript(13, old, new),
        transcript(20.1, old, new),
        encoder=LengthEncoder(),
    )
    assert [packet.committed for packet in packets[:-1]] == ["ask not", "not", ""]
    assert [packet.last_word_ns for packet in packets[:-1]] == [8 * NS, 8 * NS, None]
    assert packets[2].embedding is None


def test_without_an_encoder_the_words_still_flow() -> None:
    packet, _ = run(transcript(2, word("ask", 1.9)))
    assert packet.committed == "ask"
    assert packet.embedding is None


def test_a_reset_forgets_the_embedding() -> None:
    encoder = LengthEncoder()
    reader = ListReader([transcript(2, word("ask", 1.9))] * 2)
    stage = TextStage(reader, encoder, 12.0)
    stage.step(0)
    stage.reset()
    stage.step(0)
    assert encoder.asked == ["ask", "ask"]


def test_the_real_encoder_fits(minilm: Path) -> None:
    encoder = SentenceEncoder(minilm)
    reader = ListReader([transcript(2, word("wonderful", 1.9)), end_of_stream("transcript")])
    packet = run_stage(TextStage(reader, encoder, 12.0))[0]
    assert isinstance(packet, TextPacket)
    assert packet.embedding is not None
    assert packet.embedding.tobytes() == encoder.encode(["wonderful"])[0].tobytes()


class Marked:
    """Keeps the texts it was asked for; a text's vector is its length."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode_marked(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.asked += texts
        return np.array([[len(text)] for text in texts], np.float32)


def test_the_newest_word_is_marked_as_the_present_one() -> None:
    encoder = Marked()
    packets = [
        transcript(1),
        transcript(2, word("well", 1.0), word("ask", 1.9)),
        transcript(25, word("well", 1.0), word("ask", 21.0), word("not", 24.0, committed=False)),
        end_of_stream("transcript", 30 * NS),
    ]
    shown = run_stage(MarkedTextStage(ListReader(packets), encoder, 20.0))
    assert encoder.asked == ["well [ATTENTION] ask", "ask [ATTENTION] not"]
    assert [p.embedding is None for p in shown if isinstance(p, TextPacket)][:3] == [True, False, False]
    assert isinstance(shown[1], TextPacket)
    assert shown[1].committed == "well ask"
