"""A run of the demo that sends to peers, for tests that read what comes out by the peer's own library."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from emi_live import Estimate, LiveConfig, LiveEngine
from emi_live.bus import Bus
from emi_live.clock import NS_PER_S
from emi_live.demo import ScriptedStage, demo_stages
from emi_live.messages import Packet, TranscriptPacket, Word
from emi_live.sinks import Sink
from emi_live.sinks.peers import Peer
from emi_live.sinks.peers.sink import PeerSink
from emi_live.stages import Stage

HOP_S = 0.1
WORD_S = 0.2


def talk(start_ns: int) -> Iterator[Packet]:
    """A word every 0.2 s, `w1`, `w2`, …: partial at first, committed 0.2 s later."""
    for index in range(1, 200):
        t_ns = start_ns + round(index * WORD_S * NS_PER_S)
        words = []
        for number in range(max(1, index - 10), index + 1):
            from_ns = start_ns + round((number - 1) * WORD_S * NS_PER_S)
            to_ns = from_ns + round(WORD_S * NS_PER_S)
            words.append(Word(f"w{number}", from_ns, to_ns, number < index, number))
        yield TranscriptPacket(
            t_ns=t_ns, progress_ns=t_ns, words=tuple(words), hearing="speaking", language="en"
        )


def talkative(bus: Bus, length_s: float) -> list[Stage]:
    """The stages of the demo, but somebody talks all the time."""
    face, voice, *_ = demo_stages(bus, length_s)
    return [face, voice, ScriptedStage("speech", "transcript", talk)]


@dataclass
class Show:
    """A demo that runs in a thread; `estimates` are all that were made so far."""

    engine: LiveEngine
    estimates: list[Estimate] = field(default_factory=list)

    def wait_for(self, count: int, timeout_s: float = 20.0) -> None:
        deadline_s, pause = time.monotonic() + timeout_s, threading.Event()
        while len(self.estimates) < count:
            assert time.monotonic() < deadline_s, f"{len(self.estimates)} estimates in {timeout_s:g} s"
            pause.wait(0.02)

    def counter(self, name: str) -> int:
        return self.engine.health.snapshot().counters.get(name, 0)


@contextmanager
def show(peers: Sequence[str | Peer], *others: Sink, seconds: float | None = None) -> Iterator[Show]:
    """The demo, at 10 estimates a second, with these peers."""
    config = LiveConfig.model_validate({"window": {"hop_s": HOP_S}, "duration_s": seconds})
    stages = partial(talkative, length_s=config.window.length_s)
    running = Show(LiveEngine(config, sinks=[PeerSink(peers), *others], make_stages=stages))

    def take() -> None:
        for estimate in running.engine.estimates():
            running.estimates.append(estimate)

    with running.engine:
        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        try:
            yield running
            if seconds is not None:
                thread.join(seconds + 10)
        finally:
            running.engine.close()
            thread.join(5)
