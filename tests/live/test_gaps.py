"""No gap in a stream hangs exact mode, and how media are cut or threads are scheduled changes no estimate."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from emi_live import LiveEngine, load_config
from emi_live.bundle import Encoders
from emi_live.bus import Bus
from emi_live.clock import NS_PER_S, MonotonicClock
from emi_live.config import AudioConfig, BusConfig, FaceConfig, SpeechConfig, WindowConfig
from emi_live.fusion_loop import FusionLoop, LoopOptions
from emi_live.health import Health
from emi_live.intake import Intake
from emi_live.messages import Estimate
from emi_live.rings import AudioRing, VideoRing
from emi_live.stages import Stage, StageRunner
from emi_live.stages.audio import ProsodyStage, Wav2vecStage
from emi_live.stages.speech import SpeechStage
from emi_live.stages.text import TextStage
from emi_live.stages.vision import CropStage, FaceStage
from emi_live.window import WindowAssembler
from emi_live.worker import Worker
from emi_models import MODALITIES, Modality
from emi_models.encoders.wav2vec import HOP_SAMPLES, frames_for
from emi_models.inputs import FusionShapes
from tests.live.stages.fakes import (
    BatchEncoder,
    BrightnessFace,
    LengthEncoder,
    LoudnessGate,
    MeshFace,
    ScriptedRecognizer,
    StepModel,
    WindowModel,
)
from tests.support.fakes import FakeEngine

RATE_HZ = 16_000
HOP_NS = NS_PER_S // 2
GUARD_S = 60.0  # only a hang takes so long


class Prosody:
    """Frames as the real encoder times them, all zeros; of long sound it keeps no more than it needs."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._left = 0  # samples heard of the next frame

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        heard = self._left + samples.size
        count = frames_for(heard)
        self._left = heard - count * HOP_SAMPLES
        return np.zeros((count, 2), np.float32)


Kind: TypeAlias = Literal["compact", "cached", "full"]


@dataclass(frozen=True)
class Item:
    """A frame, or a block of sound."""

    t_ns: int
    data: NDArray[np.uint8] | NDArray[np.float32]

    @property
    def ready_ns(self) -> int:
        return self.t_ns + (self.data.size * NS_PER_S // RATE_HZ if self.data.ndim == 1 else 0)


class ListSource:
    """Two streams on one timeline, as `FileSource` has them; `pause_s` lets the stages catch up each time."""

    def __init__(self, video: Sequence[Item], audio: Sequence[Item], pause_s: float) -> None:
        self._video, self._audio, self._pause_s = video, audio, pause_s

    def __call__(self, intake: Intake, stop: threading.Event) -> None:
        video = self._announced(self._video, intake.advance_video, intake.end_video)
        audio = self._announced(self._audio, intake.advance_audio, intake.end_audio)
        for item in heapq.merge(video, audio, key=lambda item: item.ready_ns):
            if self._pause_s:
                stop.wait(self._pause_s)
            if stop.is_set():
                return
            if item.data.ndim == 1:
                intake.push_audio(item.data.astype(np.float32), item.t_ns)
            else:
                intake.push_frame(item.data.astype(np.uint8), item.t_ns)

    def _announced(
        self, items: Sequence[Item], advance: Callable[[int], None], end: Callable[[], None]
    ) -> Iterator[Item]:
        for item in items:
            advance(item.t_ns)
            yield item
        end()


def stages(kind: Kind, video: VideoRing, audio: AudioRing, bus: Bus, health: Health) -> list[Stage]:
    """The stages of a bundle, with encoders that need no model."""
    face, voice = FaceConfig(), AudioConfig(context="full" if kind == "full" else "cached")
    seen: Stage
    heard: Stage
    if kind == "compact":
        seen = FaceStage(video.reader(), BrightnessFace(), face, health)
        prosody = StepModel(hop_frames=1, held_back=0)
        heard = ProsodyStage(audio.reader(), prosody, LoudnessGate(), voice, health)  # type: ignore[arg-type]
    else:
        seen = CropStage(video.reader(), MeshFace(), BatchEncoder(), face, health, exact=True)
        model = StepModel() if kind == "cached" else WindowModel()
        heard = Wav2vecStage(audio.reader(), model, LoudnessGate(), voice, health, exact=True)  # type: ignore[arg-type]
    speech = SpeechStage(
        audio.reader(),
        LoudnessGate(),  # type: ignore[arg-type]
        ScriptedRecognizer(),
        SpeechConfig(),
        exact=True,
        health=health,
    )
    return [seen, heard, speech, TextStage(bus.subscriber("transcript"), LengthEncoder(), 4.0)]


def run(
    kind: Kind,
    video: Sequence[Item],
    audio: Sequence[Item],
    *,
    pause_s: float = 0.0,
    backwards: bool = False,
) -> tuple[list[Estimate], dict[str, int]]:
    """All estimates, through rings and queues that hold a few seconds at most, and the counters."""
    health, clock = Health(), MonotonicClock()
    shapes = FusionShapes(
        vision_frames=20, vision_dim=58 if kind == "compact" else 2, audio_frames=200, audio_dim=2, text_dim=1
    )
    with ExitStack() as opened:
        bus = opened.enter_context(Bus(BusConfig(high_water_mark=4), health, lossless=True))
        frames, sound = VideoRing(2, lossless=True), AudioRing(2.0, lossless=True)
        intake = Intake(frames, sound, health)
        made = stages(kind, frames, sound, bus, health)
        loop = FusionLoop(
            LoopOptions(hop_ns=HOP_NS, exact=True, origin_ns=lambda: 0, duration_ns=None, bundle="compact"),
            {modality: bus.subscriber(modality) for modality in MODALITIES},
            WindowAssembler(WindowConfig(length_s=4.0), shapes, frozenset(MODALITIES)),
            FakeEngine(shapes),
            bus.publisher("estimate", subscribers=1),
            dict,
            clock,
            health,
        )
        tap = bus.subscriber("estimate")
        source = ListSource(video, audio, pause_s)
        workers = [
            Worker("fusion", loop, health),
            Worker("source", lambda stop: source(intake, stop), health),
        ]
        workers += [
            Worker(stage.name, StageRunner(stage, bus.publisher(stage.topic), clock), health)
            for stage in made
        ]

        def stop() -> None:
            intake.abort()
            bus.stop()
            for worker in workers:
                worker.request_stop()
            for worker in workers:
                worker.join(GUARD_S)

        opened.callback(stop)
        for worker in reversed(workers) if backwards else workers:
            worker.start()
        estimates: list[Estimate] = []
        deadline_ns = clock.now_ns() + round(GUARD_S * NS_PER_S)
        while not workers[0].finished or len(estimates) < loop.published:
            if isinstance(packet := tap.read(), Estimate):
                estimates.append(packet)
            else:
                assert clock.now_ns() < deadline_ns, f"hangs after {len(estimates)} estimates"
                tap.wait(0.05)
        assert [worker.error for worker in workers if worker.error] == []
    return estimates, health.snapshot().counters


def answers(estimates: Sequence[Estimate]) -> list[object]:
    """What must not depend on the machine."""
    lines = [estimate.to_json() for estimate in estimates]
    return [{k: v for k, v in line.items() if k not in ("wall", "latency_ms")} for line in lines]


def pictures(spans: Sequence[tuple[float, int]]) -> list[Item]:
    """Gaps in seconds, each followed by so many frames, two a second; every fifth without a face."""
    items: list[Item] = []
    t_ns = 0
    for gap_s, count in spans:
        t_ns += round(gap_s * NS_PER_S)
        for _ in range(count):
            value = 0 if len(items) % 5 == 4 else 1 + len(items) % 250
            items.append(Item(t_ns, np.full((4, 4, 3), value, np.uint8)))
            t_ns += NS_PER_S // 2
    return items


def blocks(spans: Sequence[tuple[float, int]], size: int) -> list[Item]:
    """Gaps in seconds, each followed by so many tenths of a second of sound, in blocks of `size` samples."""
    rng, t_ns = np.random.default_rng(1), 0
    items: list[Item] = []
    for gap_s, tenths in spans:
        t_ns += round(gap_s * NS_PER_S)
        samples = rng.uniform(-0.2, 0.2, tenths * RATE_HZ // 10).astype(np.float32)
        samples[samples.size // 2 :] *= 0.01  # somebody speaks, then is quiet
        for start in range(0, samples.size, size):
            items.append(Item(t_ns + start * NS_PER_S // RATE_HZ, samples[start : start + size]))
        t_ns += samples.size * NS_PER_S // RATE_HZ
    return items


def spans(most: int) -> st.SearchStrategy[list[tuple[float, int]]]:
    gaps = st.sampled_from([0.0, 0.05, 0.09, 0.125, 0.2, 0.7, 1.0, 3.0, 11.0, 40.0])
    return st.lists(st.tuples(gaps, st.integers(1, most)), max_size=3)


@settings(max_examples=6, deadline=None)
@given(
    kind=st.sampled_from(["compact", "cached", "full"]),
    seen=spans(30),
    heard=spans(50),
    sizes=st.lists(st.sampled_from([160, 512, 1024, 4000]), min_size=2, max_size=2),
)
@example("compact", [(0.0, 60)], [(20.0, 5)], [512, 160])
@example("cached", [(0.0, 4), (40.0, 1)], [(0.0, 200)], [512, 160])
@example("full", [(12.0, 30)], [(0.0, 40), (20.0, 40)], [512, 160])
# A crop that waits for its batch, with the sound as far ahead as its ring allows.
@pytest.mark.slow
@example("full", [(0.7, 30), (0.7, 7)], [(11.0, 19), (0.0, 38), (0.0, 6)], [160, 160])
def test_any_gaps_give_every_hop_and_the_same_answers(
    kind: Kind, seen: list[tuple[float, int]], heard: list[tuple[float, int]], sizes: list[int]
) -> None:
    video = pictures(seen)
    estimates, counters = run(kind, video, blocks(heard, sizes[0]))
    times = [estimate.t_ns for estimate in estimates]
    assert times == [HOP_NS * (index + 1) for index in range(len(times))]
    assert times[-1] >= max([item.ready_ns for item in (*video, *blocks(heard, 512))], default=0) - HOP_NS
    assert counters.get("window.discarded", 0) == 0
    again, _ = run(kind, video, blocks(heard, sizes[1]), pause_s=0.001, backwards=True)
    assert answers(again) == answers(estimates)


def test_what_is_missing_is_said_while_it_is() -> None:
    estimates, counters = run("compact", pictures([(0.0, 4), (20.0, 2)]), blocks([(9.0, 20), (9.0, 5)], 512))
    reports = {estimate.t_s: estimate.modalities for estimate in estimates}
    assert reports[5.0]["vision"].reason == "no frames"
    assert reports[5.0]["audio"].reason == reports[5.0]["text"].reason == "no audio"
    assert reports[10.5]["audio"].state == "live"
    assert reports[11.5]["text"].committed
    assert reports[15.0]["audio"].reason == "no audio"
    assert not reports[18.0]["text"].committed  # its words have left the window meanwhile
    assert reports[22.5]["vision"].state == "live"
    assert counters["speech.no_data"] == 1


@pytest.mark.slow
@pytest.mark.assets
@pytest.mark.parametrize(
    ("name", "modality", "missing", "there", "until_s"),
    [
        ("late_audio_70s.mkv", "audio", 69.8, 70.4, 75.0),
        ("muted_80s.webm", "audio", 83.8, 84.4, 95.0),
        ("slideshow_100s.mp4", "vision", 99.8, 100.0, 200.0),
    ],
)
def test_files_with_long_gaps_are_answered_to_their_end(
    assets: Path, name: str, modality: Modality, missing: float, there: float, until_s: float
) -> None:
    encoders = Encoders(
        face=BrightnessFace(),
        prosody=Prosody(),  # type: ignore[arg-type]
        voice_gate=LoudnessGate,  # type: ignore[arg-type]
    )
    shapes = FusionShapes(vision_frames=20, vision_dim=58, audio_frames=200, audio_dim=2, text_dim=4)
    config = load_config(settings=[f'source.input="{assets / "faults" / name}"', "bus.high_water_mark=20"])
    with LiveEngine(config, engine=FakeEngine(shapes), encoders=encoders) as live:
        reports = {round(estimate.t_s, 1): estimate.modalities for estimate in live.estimates()}
    assert list(reports) == [round(0.2 * index, 1) for index in range(1, len(reports) + 1)]
    assert max(reports) >= until_s
    assert reports[missing][modality].reason == ("no audio" if modality == "audio" else "no frames")
    assert reports[there][modality].reason not in ("no audio", "no frames")
