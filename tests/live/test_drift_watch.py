from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from emi_live.drift import DriftWatch
from emi_live.health import Health
from emi_live.rings import AudioRing
from emi_models.encoders.wav2vec import FRAME_SAMPLES, HOP_SAMPLES, frames_for
from emi_models.inputs import FrameRun, StreamWindow
from emi_models.targets import EMI_TARGETS

RATE_HZ = 16_000
NS = 1_000_000_000
DIM = 4

Encode = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def encode(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """What a frame's own sound alone decides: the same live and in a whole pass."""
    frames = [samples[k * HOP_SAMPLES :][:FRAME_SAMPLES] for k in range(frames_for(samples.size))]
    return np.array([[f.mean(), f.std(), f[0], f[-1]] for f in frames], np.float32)


class MeanEngine:
    """Answers with the mean of the first column of sound."""

    def __init__(self) -> None:
        self.closed = False
        self.header = SimpleNamespace(targets=EMI_TARGETS, task="emi")

    def session(self) -> MeanEngine:
        return self

    def infer(self, window: StreamWindow) -> NDArray[np.float32]:
        return np.full((1, 6), window.audio.values[:, 0].mean(), np.float32)

    def close(self) -> None:
        self.closed = True


class Bench:
    """Three seconds of sound, and windows of it as a fusion loop shows them."""

    def __init__(self, whole: Encode = encode, every_s: float = 1.0) -> None:
        self.sound = np.random.default_rng(0).uniform(0.2, 0.6, 3 * RATE_HZ).astype(np.float32)
        self.ring = AudioRing()
        self.health = Health()
        self.engine = MeanEngine()
        engine: Any = self.engine
        self.watch = DriftWatch(self.ring.reader(), whole, engine, every_s, self.health)
        self.ring.write(self.sound, 0)

    def window(self, end_s: float, *, heard: bool = True, hole: bool = False) -> Any:
        values = encode(self.sound[: round(end_s * RATE_HZ)])
        ends = (np.arange(len(values)) * HOP_SAMPLES + FRAME_SAMPLES) * NS // RATE_HZ
        kept = np.ones(len(values), np.bool_)
        kept[len(values) // 2] = not hole
        stream = StreamWindow(
            vision=FrameRun(0, np.zeros((0, 2), np.float32)),
            vision_present=False,
            audio=FrameRun(7, values[kept]),
            audio_present=heard,
            text=np.zeros(3, np.float32),
            text_present=False,
        )
        return SimpleNamespace(end_ns=round(end_s * NS), audio_ends_ns=ends[kept], stream=stream)

    def run(self) -> None:
        self.ring.close()
        self.watch(threading.Event())

    def count(self, name: str) -> int:
        return self.health.snapshot().counters.get(f"drift.{name}", 0)


def test_what_is_heard_alike_does_not_drift() -> None:
    bench = Bench()
    bench.watch.offer(bench.window(2.5))
    bench.run()
    (report,) = bench.watch.reports
    assert report.frames == frames_for(40_000)
    assert report.cosine == pytest.approx(1.0, abs=1e-6)
    assert report.cosine_low == pytest.approx(1.0, abs=1e-6)
    assert report.change == pytest.approx((0.0,) * 6, abs=1e-6)


def test_a_difference_is_told_in_features_and_in_intensities() -> None:
    bench = Bench(lambda samples: encode(samples) * np.array([[1.5, 1, 1, -1]], np.float32))
    bench.watch.offer(bench.window(2.5))
    bench.run()
    (report,) = bench.watch.reports
    assert report.cosine < 0.9
    mean = float(encode(bench.sound[:40_000])[:, 0].mean())
    assert report.change == pytest.approx((-0.5 * mean,) * 6, rel=1e-4)
    status = bench.health.status("drift")
    assert status.state == "ended"
    assert "1 checks: feature cosine" in status.detail


def test_a_window_is_taken_every_so_often_and_only_with_sound_that_was_used() -> None:
    bench = Bench(every_s=1.0)
    bench.watch.offer(bench.window(1.2, heard=False))
    taken = []
    for end_s in (1.2, 1.4, 2.3, 2.4):
        bench.watch.offer(bench.window(end_s))
        if bench.watch._window is not None:
            taken.append(end_s)
            bench.watch.check(*bench.watch._window)
            bench.watch._window = None
    assert taken == [1.2, 2.3]


@pytest.mark.parametrize("why", ["a hole in it", "not all of it is there", "too short"])
def test_a_window_without_unbroken_sound_is_skipped(why: str) -> None:
    bench = Bench()
    window = bench.window(0.5 if why == "too short" else 2.0, hole=why == "a hole in it")
    if why == "not all of it is there":
        window.audio_ends_ns = window.audio_ends_ns + 2 * NS
    bench.watch.offer(window)
    bench.run()
    assert bench.watch.reports == []
    assert (bench.count("checks"), bench.count("skipped")) == (0, 1)


def test_what_was_offered_is_a_copy() -> None:
    bench = Bench()
    window = bench.window(2.0)
    bench.watch.offer(window)
    window.stream.audio.values[:] = 9.0
    window.audio_ends_ns[:] = 0
    bench.run()
    assert bench.watch.reports[0].cosine == pytest.approx(1.0, abs=1e-6)


def test_it_goes_on_with_the_checkpoint_that_answers() -> None:
    bench = Bench()
    second: Any = MeanEngine()
    bench.watch.swap(second)
    bench.watch.offer(bench.window(2.0))
    bench.run()
    assert bench.engine.closed
    assert not second.closed
    bench.watch.close()
    bench.watch.close()
    assert second.closed


def test_one_that_never_ran_is_closed_by_whoever_made_it() -> None:
    bench = Bench()
    bench.watch.close_if_idle()
    assert bench.engine.closed
