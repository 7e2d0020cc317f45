"""A stage that dies is said, restarted, and never takes the estimates with it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from emi_live import Estimate, LiveConfig, LiveEngine
from emi_live.bus import Bus
from emi_live.clock import NS_PER_S
from emi_live.config import FaceConfig
from emi_live.demo import demo_stages
from emi_live.errors import StageError
from emi_live.health import Health
from emi_live.messages import Packet
from emi_live.rings import VideoRing
from emi_live.stages import Stage
from emi_live.stages.text import TextStage
from emi_live.stages.vision import FaceStage

if TYPE_CHECKING:
    from emi_models.encoders.face import FaceEncoder, FaceResult


class Dying:
    """A stage that works, then raises for a while, then works again."""

    def __init__(self, inner: Stage, from_s: float, until_s: float) -> None:
        self._inner = inner
        self._from_ns, self._until_ns = round(from_s * NS_PER_S), round(until_s * NS_PER_S)
        self._start_ns: int | None = None
        self.resets = 0
        self.name, self.topic = inner.name, inner.topic

    @property
    def ended(self) -> bool:
        return self._inner.ended

    def wait(self, timeout_s: float) -> bool:
        return self._inner.wait(timeout_s)

    def step(self, now_ns: int) -> Sequence[Packet]:
        self._start_ns = now_ns if self._start_ns is None else self._start_ns
        if self._from_ns <= now_ns - self._start_ns < self._until_ns:
            raise RuntimeError("the camera driver is gone")
        return self._inner.step(now_ns)

    def reset(self) -> None:
        self.resets += 1
        self._inner.reset()

    def close(self) -> None:
        self._inner.close()


@pytest.mark.slow
def test_a_dead_stage_is_failed_then_live_again_and_estimates_go_on() -> None:
    dying: list[Dying] = []

    def script(bus: Bus) -> list[Stage]:
        face, *others = demo_stages(bus, 12.0)
        dying.append(Dying(face, from_s=1.0, until_s=3.0))
        return [dying[0], *others]

    estimates: list[Estimate] = []
    with LiveEngine(LiveConfig(duration_s=7.0), make_stages=script) as live:
        estimates.extend(live.estimates())
        counters = live.health.snapshot().counters

    reports = [(estimate.t_s, estimate.modalities["vision"]) for estimate in estimates]
    failed = [(t_s, report) for t_s, report in reports if report.state == "failed"]
    assert failed
    assert all(report.reason == "RuntimeError: the camera driver is gone" for _, report in failed)
    # An estimate may come before the first face does, and before the first after a restart.
    course = [state for state, _ in groupby(r.state for _, r in reports if r.state != "missing")]
    assert course == ["live", "failed", "live"]
    assert all(after - before == pytest.approx(0.2) for (before, _), (after, _) in pairwise(reports))
    assert counters["face.failures"] == dying[0].resets > 1


@pytest.mark.slow
def test_words_without_a_sentence_encoder_are_shown_and_the_modality_is_unavailable() -> None:
    def script(bus: Bus) -> list[Stage]:
        *others, _ = demo_stages(bus, 12.0)
        return [*others, TextStage(bus.subscriber("transcript"), None, 12.0)]

    health = Health()
    health.report("text model", "unavailable", "all-minilm-l6-v2 is not here")
    with LiveEngine(LiveConfig(duration_s=5.0), make_stages=script, health=health) as live:
        last = list(live.estimates())[-1].modalities["text"]
    assert (last.state, last.used, last.reason) == ("unavailable", False, "all-minilm-l6-v2 is not here")
    assert str(last.partial).split()[:2] == ["oh", "stop"]


def test_a_fusion_engine_that_cannot_be_loaded_is_refused_before_anything_starts() -> None:
    from pathlib import Path

    from emi_models.errors import CheckpointError

    config = LiveConfig.model_validate({"fusion": {"checkpoint": Path(__file__)}})
    with pytest.raises(CheckpointError), LiveEngine(config, make_stages=lambda bus: demo_stages(bus, 12.0)):
        pass


class BrokenFace:
    """A face encoder that fails on every picture."""

    def follow(self, wish: object) -> None:
        pass

    def analyse(self, rgb: NDArray[np.uint8], t_ns: int) -> FaceResult:
        raise RuntimeError("the model is broken")

    def reset(self) -> None: ...


def test_in_exact_mode_a_stage_that_is_given_up_does_not_hold_up_its_source() -> None:
    health, ring = Health(), VideoRing(4, lossless=True)
    encoder = cast("FaceEncoder", BrokenFace())
    stage = FaceStage(ring.reader(), encoder, FaceConfig(), health)
    with LiveEngine(LiveConfig(mode="exact"), make_stages=lambda bus: [stage], health=health) as live:
        for index in range(60):
            ring.write(np.zeros((8, 8, 3), np.uint8), index * NS_PER_S // 30, timeout_s=10.0)
        ring.close()
        estimates: list[Estimate] = []
        with pytest.raises(StageError, match="model is broken"):
            estimates.extend(live.estimates())
        # `extend` keeps what came before the error.
    assert estimates
    assert estimates[-1].modalities["vision"].state == "failed"
    assert health.snapshot().counters["face.failures"] == 3
