"""One clip through the live stages, in exact mode, with a recorder where the window would be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from emi_live.clock import NS_PER_MS, MonotonicClock
from emi_live.config import LiveConfig, SourceConfig
from emi_live.errors import SourceError, StageError
from emi_live.extract.recorder import FOREVER, Recorder, Recording
from emi_live.flow import Flow, open_flow
from emi_live.health import Health
from emi_live.stages import Stage
from emi_models.vocabulary import Modality

__all__ = ["ClipRecord", "MakeStages", "record_clip"]

WAIT_S: Final = 0.1
FRAME_NS: Final = 100 * NS_PER_MS  # a stage that stops at the limit may be a picture or a sample short of it
STOP_S: Final = 30.0  # for the stages to finish the call under way: a slow recogniser's may take seconds

MakeStages = Callable[[Flow], Sequence[Stage]]


@dataclass(frozen=True, slots=True)
class ClipRecord:
    """One clip's recording, and what was odd about its file."""

    recording: Recording
    damaged: int  # packets of the file that could not be decoded and were left out


def record_clip(
    path: Path,
    config: LiveConfig,
    make_stages: MakeStages,
    dims: Mapping[Modality, int],
    until_ns: int = FOREVER,
) -> ClipRecord:
    """What the stages say of a media file, up to `until_ns` from its start.

    The windows of a live run in exact mode hold the same numbers at every instant up to there, whether the
    file goes on or not: reading stops only once all is known.

    Args:
        path: the file.
        config: all settings; what names another source is not used.
        make_stages: makes the stages of a flow, with encoders that know nothing of another clip.
        dims: values in one frame, by modality.
        until_ns: what is newer is left out.

    Raises:
        ConfigurationError: there is no such file.
        SourceError: it cannot be read, is cut off, or holds nothing that the stages could use.
        StageError: a stage failed on it.
    """
    source = SourceConfig(input=path)
    config = config.model_copy(update={"source": source, "mode": "exact", "duration_s": None})
    health = Health()
    with ExitStack() as opened:
        flow = open_flow(config, health, MonotonicClock(), opened)
        stages = make_stages(flow)
        topics = [stage.topic for stage in stages]
        tap = flow.bus.subscriber(topics)
        flow.add_stages(stages)
        recorder = Recorder(dims, topics, until_ns)
        opened.callback(_stop, flow)
        for worker in (*flow.stages, *flow.sources):
            worker.start()
        while not (tap.ended or recorder.done or _failed(flow)):
            packet = tap.read()
            if packet is not None:
                recorder.add(packet)
            else:
                tap.wait(WAIT_S)
        recording = recorder.finish()
        if whole := recording.duration_ns < until_ns - FRAME_NS:
            for worker in flow.sources:  # has the last word on its file
                worker.join(STOP_S)
    if failure := _failed(flow):
        raise StageError(f"{path}: {failure}")
    if whole and (shortfall := health.status("file").detail):
        raise SourceError(f"{path}: {shortfall}")
    return ClipRecord(recording, health.snapshot().counters.get("file.damaged", 0))


def _failed(flow: Flow) -> str:
    """In words, which part failed and why; empty while none has."""
    for worker in (*flow.sources, *flow.stages):
        if worker.error is not None:
            return f"the {worker.name} part failed: {type(worker.error).__name__}: {worker.error}"
    return ""


def _stop(flow: Flow) -> None:
    """End every thread of the flow; those that are done have ended by themselves."""
    for worker in (*flow.sources, *flow.stages):
        worker.request_stop()
    flow.intake.abort()
    flow.bus.stop()
    for worker in (*flow.sources, *flow.stages):
        if not worker.join(STOP_S):
            raise StageError(f"the {worker.name} part did not stop within {STOP_S:g} s; start again")
