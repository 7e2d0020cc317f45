"""Do faces wait for words? The whole engine at real pace, in turns with recognition and without."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from emi_bench.harness import UsageSampler, in_background
from emi_bench.live import WARM_UP_S, EstimateRecorder, PacketRecorder, after_warm_up, passages
from emi_bench.live_report import TOTAL
from emi_bench.measurement import Distribution
from emi_bench.speech.report import FaceIndependence, FaceTimes
from emi_live import LiveEngine
from emi_live.clock import NS_PER_MS, NS_PER_S
from emi_live.errors import ConfigurationError, SourceError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from emi_live import LiveConfig

__all__ = ["measure_face"]


@dataclass(slots=True)
class VisionSamples:
    """The times of one side, over all its turns."""

    in_all_ms: list[float] = field(default_factory=list)
    stage_ms: list[float] = field(default_factory=list)
    newest_ms: list[float] = field(default_factory=list)
    pictures: int = 0  # without the first of each turn
    seconds: float = 0.0  # from the first to the last
    cores: list[float] = field(default_factory=list)


def measure_face(
    config: LiveConfig,
    clip: Path,
    turns: int = 2,
    progress: Callable[[str, float, float], None] = lambda _what, _done_s, _of_s: None,
) -> FaceIndependence:
    """Play a clip `turns` times with recognition and as often without, in turns.

    Args:
        config: of the engine with recognition.
        clip: a file with picture and sound.
        turns: of each side.
        progress: called with what runs, the seconds done and the seconds of the clip.

    Raises:
        EmiError: as `LiveEngine` raises.
        ConfigurationError: there is no face encoder or no recogniser on this machine.
        SourceError: no estimate of the clip contains a picture.
    """
    source = config.source.model_copy(update={"input": clip})
    on = config.model_copy(update={"mode": "live", "source": source})
    off = on.model_copy(update={"speech": config.speech.model_copy(update={"backend": "none"})})
    torch.set_num_threads(config.fusion.threads)  # as `emi-live` does
    with_words, without = VisionSamples(), VisionSamples()
    for turn in range(turns):
        _play(on, with_words, f"{clip.name} with words, turn {turn + 1}", progress)
        _play(off, without, f"{clip.name} without words, turn {turn + 1}", progress)
    for samples in (with_words, without):
        if not samples.in_all_ms:
            raise SourceError(
                f"no picture of {clip} came into an estimate; give a clip of 5 s or more with a face"
            )
    sides = _side(with_words), _side(without)
    return FaceIndependence(clip.name, turns, *sides, _ratio(*sides, "median"), _ratio(*sides, "p95"))


def _play(
    config: LiveConfig, samples: VisionSamples, what: str, progress: Callable[[str, float, float], None]
) -> None:
    recorder, usage = EstimateRecorder(), UsageSampler()
    live = LiveEngine(config, sinks=[recorder])
    live.load()
    for modality in ("vision",) if config.speech.backend == "none" else ("vision", "text"):
        why = [line for line in live.announcements if line.startswith(f"{modality}: unavailable: ")]
        if why:
            live.close()
            raise ConfigurationError(f"faces cannot be compared with and without words: {why[0]}")
    packets, length_s = PacketRecorder(live), _length_s(config)
    with live, in_background("packets", packets), in_background("usage", usage):
        for estimate in live.estimates():
            progress(what, estimate.t_s, length_s)
    if not recorder.seen or len(packets.traces["vision"]) < 2:
        return
    for one, times in passages(recorder.seen, "vision", packets.traces["vision"]):
        if one.estimate.t_s > WARM_UP_S:
            samples.in_all_ms.append(times[TOTAL])
            samples.stage_ms.append(times["face"])
    samples.newest_ms += [
        (one.estimate.published_ns - one.estimate.traces["vision"].t_ns) / NS_PER_MS
        for one in after_warm_up(recorder.seen, WARM_UP_S)
        if "vision" in one.estimate.traces
    ]
    pictures = packets.traces["vision"]
    samples.pictures += len(pictures) - 1
    samples.seconds += (pictures[-1].t_ns - pictures[0].t_ns) / NS_PER_S
    samples.cores += [sample.cores for sample in usage.samples]


def _length_s(config: LiveConfig) -> float:
    """Length of the clip as its container states it; 0 if unknown."""
    from emi_live.sources.container import open_container

    assert config.source.input is not None  # noqa: S101  # set above
    with open_container(config.source.input) as container:
        return (container.duration or 0) / 1e6


def _side(samples: VisionSamples) -> FaceTimes:
    return FaceTimes(
        capture_to_estimate_ms=Distribution.of(samples.newest_ms),
        picture_in_all_ms=Distribution.of(samples.in_all_ms),
        picture_stage_ms=Distribution.of(samples.stage_ms),
        pictures_per_s=samples.pictures / samples.seconds,
        cpu_cores=sum(samples.cores) / len(samples.cores) if samples.cores else 0.0,
    )


def _ratio(on: FaceTimes, off: FaceTimes, name: str) -> float | None:
    a, b = on.capture_to_estimate_ms, off.capture_to_estimate_ms
    return None if a is None or b is None or not getattr(b, name) else getattr(a, name) / getattr(b, name)
