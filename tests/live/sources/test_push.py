"""Pushed media in exact mode: within the lead each stream waits for the other, beyond it none does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from emi_live import LiveEngine, load_config
from emi_live.bundle import Encoders
from emi_live.clock import NS_PER_S
from emi_live.errors import ConfigurationError
from emi_live.messages import Estimate
from emi_models.inputs import FusionShapes
from tests.live.stages.fakes import BrightnessFace, LoudnessGate, StepModel
from tests.support.fakes import FakeEngine

FRAME = np.full((4, 4, 3), 9, np.uint8)
SHAPES = FusionShapes(vision_frames=20, vision_dim=58, audio_frames=200, audio_dim=2, text_dim=4)


@contextmanager
def engine(lead_s: float, *more: str) -> Iterator[tuple[LiveEngine, list[Estimate]]]:
    """A running engine without models; its estimates are taken in a thread, all when the block is over."""
    taken: list[Estimate] = []
    settings = ["mode=exact", "bus.high_water_mark=500", f"source.push_lead_s={lead_s}", *more]
    encoders = Encoders(
        face=BrightnessFace(),
        prosody=StepModel(hop_frames=1, held_back=0),  # type: ignore[arg-type]
        voice_gate=LoudnessGate,  # type: ignore[arg-type]
    )
    with LiveEngine(load_config(settings=settings), engine=FakeEngine(SHAPES), encoders=encoders) as live:
        taker = threading.Thread(target=lambda: taken.extend(live.estimates()))
        taker.start()
        try:
            yield live, taken
            live.end()
            taker.join(60.0)
            assert not taker.is_alive(), f"hangs after {len(taken)} estimates"
        finally:
            live.close()
            taker.join(10.0)


def frames(live: LiveEngine, start_s: float, stop_s: float) -> None:
    for tenth in range(round(start_s * 10), round(stop_s * 10)):
        live.push_frame(FRAME, tenth * NS_PER_S // 10)


def test_a_stream_that_is_forgotten_does_not_hang_the_other() -> None:
    with engine(5.0) as (live, taken):
        frames(live, 0.0, 90.0)
    assert [estimate.t_s for estimate in taken] == pytest.approx([0.2 * k for k in range(1, len(taken) + 1)])
    assert len(taken) == 450
    assert {estimate.modalities["audio"].reason for estimate in taken} == {"no audio"}


def test_what_is_older_than_the_lead_is_refused_with_the_remedy() -> None:
    with engine(2.0) as (live, taken):
        frames(live, 0.0, 4.0)
        live.push_audio(np.zeros(1600, np.float32), 5 * NS_PER_S // 2)
        with pytest.raises(ConfigurationError, match=r"0\.40 s.*push_lead_s"):
            live.push_audio(np.zeros(1600, np.float32), 3 * NS_PER_S // 2)
    assert next(e for e in taken if e.t_s == 3.0).modalities["audio"].reason == "silence"


def test_a_pause_that_is_said_needs_no_lead() -> None:
    with engine(30.0, "bus.high_water_mark=700") as (live, taken):
        live.push_audio(np.zeros(1600, np.float32), 0)
        for second in range(1, 70):
            frames(live, second - 1, second)
            live.advance(second * NS_PER_S)
        with pytest.raises(ConfigurationError, match=r"69\.00 s"):
            live.push_frame(FRAME, 1)
    assert len(taken) >= 345
    assert taken[50].modalities["audio"].reason == "no audio"


def test_two_threads_may_push_while_each_promises_for_the_other() -> None:
    def sound(live: LiveEngine) -> None:
        for tenth in range(300):
            live.push_audio(np.zeros(4410, np.float32), tenth * NS_PER_S // 10, 44_100)

    with engine(20.0) as (live, taken):
        other = threading.Thread(target=sound, args=(live,))
        other.start()
        frames(live, 0.0, 15.0)
        live.end_video()
        other.join(60.0)
        assert not other.is_alive()
    assert len(taken) == 150
    assert {estimate.modalities["audio"].reason for estimate in taken} == {"silence"}


def test_a_lead_that_the_queues_cannot_hold_is_refused_at_the_start() -> None:
    with pytest.raises(ConfigurationError, match="at least 550"), engine(30.0, "bus.high_water_mark=10"):
        pass
