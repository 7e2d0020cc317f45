"""Packets in shorthand: `"a b | c"` shows two committed words and a partial one."""

from __future__ import annotations

from emi_bench.speech.playback import EmittedPacket
from emi_live.messages import TranscriptPacket, Word

S = 1_000_000_000


def shown(text: str, t_s: float, emitted_s: float | None = None, first: int = 0) -> EmittedPacket:
    """Words of 0.5 s each, from the `first`-th on; by default shown as soon as they are heard."""
    committed, _, partial = text.partition("|")
    texts = [(word, True) for word in committed.split()] + [(word, False) for word in partial.split()]
    words = tuple(
        Word(word, index * S // 2, (index + 1) * S // 2, committed)
        for index, (word, committed) in enumerate(texts, start=first)
    )
    t_ns = round(t_s * S)
    packet = TranscriptPacket(t_ns=t_ns, progress_ns=t_ns, words=words)
    return EmittedPacket(packet, t_ns if emitted_s is None else round(emitted_s * S))
