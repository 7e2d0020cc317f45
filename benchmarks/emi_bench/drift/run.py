"""The measurement: each clip streamed in each way, beside one pass over all of it."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from emi_bench.drift.report import Cell, Clip, DriftReport, WholePass
from emi_bench.drift.work import WorkCounter
from emi_bench.machine import Machine
from emi_bench.partial import Interrupted
from emi_bench.stats import Distribution
from emi_bench.usage import load_average
from emi_models.encoders.drift import (
    compare_features,
    compare_intensities,
    frame_cosines,
    with_voice,
)
from emi_models.encoders.wav2vec import HOP_SAMPLES, PIECE_SAMPLES, RATE_HZ
from emi_models.encoders.wav2vec_stream import StreamingWav2vec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from emi_bench.drift.models import Judge, Listener
    from emi_bench.drift.report import Setting
    from emi_models.inputs import FusionInputs

__all__ = ["Progress", "measure_drift"]

WHOLE_PASSES: Final = 3  # timed, after one that is not
FRAMES_A_SECOND: Final = RATE_HZ // HOP_SAMPLES  # the network is asked once a second of sound


class Progress(Protocol):
    """Is told how far the measurement is."""

    def __call__(self, what: str, done: int, of: int) -> None:
        """`done` of `of` pieces are done, and this one is next."""


def measure_drift(
    listener: Listener,
    judge: Judge,
    clips: Sequence[tuple[str, NDArray[np.float32]]],
    settings: Sequence[Setting],
    progress: Progress,
) -> DriftReport:
    """Stream every clip in every way and compare with `Wav2vecEncoder.encode` of the whole clip.

    The network is shown the voice alone, once a second and at the end, and of it what is final by then; once
    as streamed and once as in the whole pass, so what differs is the features alone.

    Args:
        listener: the speech model.
        judge: the network.
        clips: names, and samples (n,) at 16 kHz, of 25 ms or more; at least one.
        settings: the ways.
        progress: told of each clip.
    """
    import torch

    load_before = load_average()
    total = 1 + len(clips) * (1 + len(settings))
    progress("one pass over 12 s", 0, total)
    work = WorkCounter(listener.encoder.model)
    whole = WholePass(gflop=work.whole(), ms=_time_whole(listener))
    wholes = []
    for done, (name, samples) in enumerate(clips, 1):
        progress(f"{name}, in one pass", done, total)
        wholes.append(listener.encoder.encode(samples))
    cells: list[Cell] = []
    interrupted = False
    try:
        for setting in settings:
            run = _Run(listener, judge, setting)
            for (name, samples), reference in zip(clips, wholes, strict=True):
                done = 1 + len(clips) * (1 + len(cells)) + run.clips
                progress(f"{name}, hop {setting.hop_s:g} s, left {setting.left_s:g} s", done, total)
                run.hear(samples, reference)
            cells.append(run.cell(work.step(setting) / setting.hop_s))
    except KeyboardInterrupt:
        interrupted = True
    report = DriftReport(
        machine=Machine(),
        load_before=load_before,
        torch_threads=torch.get_num_threads(),
        model=listener.what,
        random_model=listener.random,
        normalises=listener.encoder.normalises,
        network=judge.what,
        random_network=judge.random,
        clips=[Clip(name, samples.size / RATE_HZ) for name, samples in clips],
        whole=whole,
        cells=cells,
    )
    if interrupted:
        raise Interrupted(report)
    return report


class _Run:
    """One way to stream, over the clips."""

    def __init__(self, listener: Listener, judge: Judge, setting: Setting) -> None:
        self._stream = StreamingWav2vec(
            listener.encoder,
            hop_s=setting.hop_s,
            left_context_s=setting.left_s,
            hold_back_s=setting.hold_s,
            strategy=setting.strategy,
        )
        self._judge = judge
        self._setting = setting
        self._cosines: list[NDArray[np.float64]] = []
        self._found: list[NDArray[np.float32]] = []  # intensities of each window, (6,)
        self._expected: list[NDArray[np.float32]] = []
        self._steps_ms: list[float] = []
        self._busy_s = self._audio_s = 0.0
        self.clips = 0
        hop = round(setting.hop_s * RATE_HZ)
        self._stream.push(np.random.default_rng(0).normal(0, 0.1, 3 * hop).astype(np.float32))  # warm-up

    def hear(self, samples: NDArray[np.float32], reference: NDArray[np.float32]) -> None:
        """Stream one clip, and compare with its features in one pass."""
        self._stream.reset()
        hop = round(self._setting.hop_s * RATE_HZ)
        found = reference[:0]
        asked = 0
        for start in range(0, samples.size, hop):
            before = perf_counter()
            fresh = self._stream.push(samples[start : start + hop])
            took = perf_counter() - before
            self._busy_s += took
            if start >= hop:  # the grid is 5 ms late, so the first hop alone makes no step
                self._steps_ms.append(1e3 * took)
            found = np.concatenate((found, fresh))
            if len(found) - asked >= FRAMES_A_SECOND:
                asked = len(found)
                self._ask(found, reference)
        before = perf_counter()
        rest = self._stream.flush()
        self._busy_s += perf_counter() - before
        found = np.concatenate((found, rest))
        self._ask(found, reference)
        self._cosines.append(frame_cosines(found, reference))
        self._audio_s += samples.size / RATE_HZ
        self.clips += 1

    def cell(self, gflop_per_s: float) -> Cell:
        """What came out."""
        return Cell(
            setting=self._setting,
            latency_s=self._setting.latency_s,
            features=compare_features(np.concatenate(self._cosines)),
            intensities=compare_intensities(np.stack(self._found), np.stack(self._expected)),
            gflop_per_s=gflop_per_s,
            steps_ms=Distribution.of(self._steps_ms),
            real_time_factor=self._busy_s / self._audio_s,
        )

    def _ask(self, found: NDArray[np.float32], reference: NDArray[np.float32]) -> None:
        """The network about all frames so far, as streamed and as in the whole pass."""
        self._found.append(self._intensities(found))
        self._expected.append(self._intensities(reference[: len(found)]))

    def _intensities(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        import torch

        from emi_models.inputs import FusionInputs

        network: Any = self._judge.network
        window: FusionInputs = FusionInputs.empty(network.config.shapes)
        shown = frames[-max(1, round(self._judge.span_s * FRAMES_A_SECOND)) :]
        with torch.inference_mode():
            answer: NDArray[np.float32] = network(with_voice(window, shown))[0].numpy()
        return answer


def _time_whole(listener: Listener) -> Distribution | None:
    noise = np.random.default_rng(0).normal(0, 0.1, PIECE_SAMPLES).astype(np.float32)
    times = []
    for _ in range(1 + WHOLE_PASSES):
        before = perf_counter()
        listener.encoder.encode(noise)
        times.append(1e3 * (perf_counter() - before))
    return Distribution.of(times[1:])
