"""Do faces wait for words? The whole engine at real pace, with recognition and without, by turns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from emi_bench.live.run import WARM_UP_S, Tap, Witness
from emi_bench.live.stations import TOTAL, passages, settled
from emi_bench.stats import Distribution
from emi_bench.usage import UsageSampler
from emi_bench.work import working
from emi_live import LiveEngine
from emi_live.clock import NS_PER_MS, NS_PER_S
from emi_live.errors import ConfigurationError, SourceError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from emi_live import LiveConfig

__all__ = ["FaceIndependence", "Side", "measure_face"]


@dataclass(slots=True)
class Samples:
    """What is gathered of one side, over all its turns."""

    in_all_ms: list[float] = field(default_factory=list)
    stage_ms: list[float] = field(default_factory=list)
    newest_ms: list[float] = field(default_factory=list)
    pictures: int = 0  # but for the first of each turn
    seconds: float = 0.0  # from the first to the last
    cores: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Side:
    """Faces with recognition on, or off."""

    capture_to_estimate_ms: Distribution | None  # of each estimate's newest picture, to its publication
    picture_in_all_ms: (
        Distribution | None
    )  # each picture, from its capture until a sink has an estimate with it
    picture_stage_ms: Distribution | None  # of which in the face stage
    pictures_per_s: float
    cpu_cores: float  # mean cores busy, the recogniser's process included


@dataclass(frozen=True, slots=True)
class FaceIndependence:
    """Both sides of the comparison, and how much later faces are when words are recognised: 1 is ideal."""

    clip: str
    turns: int  # of each side
    on: Side
    off: Side
    ratio_p50: float | None  # of `capture_to_estimate_ms`
    ratio_p95: float | None


def measure_face(
    config: LiveConfig,
    clip: Path,
    turns: int = 2,
    progress: Callable[[str, float, float], None] = lambda _what, _done_s, _of_s: None,
) -> FaceIndependence:
    """Play a clip `turns` times with recognition and as often without, one after the other.

    Args:
        config: of the engine with recognition.
        clip: picture and sound.
        turns: of each side.
        progress: told what is running, how far it is and how far it will go, in seconds.

    Raises:
        EmiError: as `LiveEngine` raises.
        ConfigurationError: there is no face encoder or no recogniser on this machine.
        SourceError: the clip gives no estimate in which there is a picture.
    """
    source = config.source.model_copy(update={"input": clip})
    on = config.model_copy(update={"mode": "live", "source": source})
    off = on.model_copy(update={"speech": config.speech.model_copy(update={"backend": "none"})})
    torch.set_num_threads(config.fusion.threads)  # as `emi-live` does
    with_words, without = Samples(), Samples()
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
    config: LiveConfig, samples: Samples, what: str, progress: Callable[[str, float, float], None]
) -> None:
    witness, usage = Witness(), UsageSampler()
    live = LiveEngine(config, sinks=[witness])
    live.load()
    for modality in ("vision",) if config.speech.backend == "none" else ("vision", "text"):
        why = [line for line in live.announcements if line.startswith(f"{modality}: unavailable: ")]
        if why:
            live.close()
            raise ConfigurationError(f"faces cannot be measured beside words: {why[0]}")
    tap, length_s = Tap(live), _length_s(config)
    with live, working("tap", tap), working("usage", usage):
        for estimate in live.estimates():
            progress(what, estimate.t_s, length_s)
    if not witness.seen or len(tap.packets["vision"]) < 2:
        return
    for one, times in passages(witness.seen, "vision", tap.packets["vision"]):
        if one.estimate.t_s > WARM_UP_S:
            samples.in_all_ms.append(times[TOTAL])
            samples.stage_ms.append(times["face"])
    samples.newest_ms += [
        (one.estimate.published_ns - one.estimate.traces["vision"].t_ns) / NS_PER_MS
        for one in settled(witness.seen, WARM_UP_S)
        if "vision" in one.estimate.traces
    ]
    pictures = tap.packets["vision"]
    samples.pictures += len(pictures) - 1
    samples.seconds += (pictures[-1].t_ns - pictures[0].t_ns) / NS_PER_S
    samples.cores += [sample.cores for sample in usage.samples]


def _length_s(config: LiveConfig) -> float:
    """Of the clip, as it states it; 0 where it does not."""
    from emi_live.sources.container import open_container

    assert config.source.input is not None  # noqa: S101  # set above
    with open_container(config.source.input) as container:
        return (container.duration or 0) / 1e6


def _side(samples: Samples) -> Side:
    return Side(
        capture_to_estimate_ms=Distribution.of(samples.newest_ms),
        picture_in_all_ms=Distribution.of(samples.in_all_ms),
        picture_stage_ms=Distribution.of(samples.stage_ms),
        pictures_per_s=samples.pictures / samples.seconds,
        cpu_cores=sum(samples.cores) / len(samples.cores) if samples.cores else 0.0,
    )


def _ratio(on: Side, off: Side, name: str) -> float | None:
    a, b = on.capture_to_estimate_ms, off.capture_to_estimate_ms
    return None if a is None or b is None or not getattr(b, name) else getattr(a, name) / getattr(b, name)
