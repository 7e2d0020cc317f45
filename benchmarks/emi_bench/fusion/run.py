"""One run: each network, each batch, its engines in turns; then streams, hop by hop."""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from emi_bench.fusion.cases import Case, stream_case, stream_parity, window_case, window_parity
from emi_bench.fusion.device_time import device_clock
from emi_bench.fusion.engines import EAGER, choose
from emi_bench.fusion.rates import Rates, measure_rates
from emi_bench.fusion.report import CaseKey, FusionReport, Parity, Result, Studied, Unavailable
from emi_bench.fusion.settings import SettingsError
from emi_bench.fusion.stream import StreamSource
from emi_bench.fusion.subjects import Subject, subjects
from emi_bench.fusion.turns import take_turns, wall_clock
from emi_bench.machine import Machine
from emi_bench.partial import Interrupted
from emi_bench.stats import Distribution
from emi_engine.errors import EngineError
from emi_engine.precision import TOLERANCES
from emi_engine.work import taemi_work
from emi_models.networks.taemi import TaemiConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from emi_bench.fusion.engines import Engine
    from emi_bench.fusion.report import Task
    from emi_bench.fusion.settings import FusionSettings, Where
    from emi_engine.protocol import FusionEngine

    # Told what is being done, one line at a time.
    Progress = Callable[[str], None]

__all__ = ["measure_fusion"]

PRECISION_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}


def measure_fusion(settings: FusionSettings, say: Progress) -> FusionReport:
    """Measure what the settings ask for, which takes from one to some tens of minutes.

    Raises:
        SettingsError: a setting is impossible, or its GPU is not here.
        CheckpointError: the checkpoint cannot be read.
        EngineError: none of the engines that were asked for can run here.
    """
    settings = settings.checked()
    devices = _devices(settings)
    engines = choose(settings, devices)
    load_before = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    if settings.torch_threads is not None:
        torch.set_num_threads(settings.torch_threads)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="emi-bench-") as folder, _numpy_on_one_thread() as numpy_threads:
        studied = subjects(settings, Path(folder))
        run = _Run(settings, say, Path(folder), _rates(engines, devices, say))
        interrupted = False
        steps = [partial(run.windows, each, engines, batch) for each in studied for batch in settings.batches]
        steps += [partial(run.stream, each, engines) for each in studied if settings.streams]
        began = time.monotonic()
        try:
            for done, step in enumerate(steps):
                left_s = (time.monotonic() - began) / done * (len(steps) - done) if done else None
                to_go = "" if left_s is None else f", about {left_s:.0f} s to go"
                say(f"part {done + 1} of {len(steps)}{to_go}")
                step()
        except KeyboardInterrupt:
            interrupted = True
    if not run.results:
        if interrupted:
            raise KeyboardInterrupt
        reasons = "; ".join(dict.fromkeys(f"{gone.engine}: {gone.reason}" for gone in run.unavailable))
        raise EngineError(f"no engine can run here: {reasons}")
    report = FusionReport(
        machine=Machine(),
        load_before=load_before,
        torch_threads=torch.get_num_threads(),
        numpy_threads=numpy_threads,
        settings=_plain(settings),
        seconds=round(time.monotonic() - start, 1),
        networks=[_studied(subject) for subject in studied],
        rates=list(run.rates.values()),
        unavailable=run.unavailable,
        parity=list(run.parity.values()),
        results=run.results,
    )
    if interrupted:
        raise Interrupted(report)
    return report


@dataclass(slots=True)
class _Run:
    """What has been found so far."""

    settings: FusionSettings
    say: Progress
    cache: Path
    rates: Mapping[tuple[str, str], Rates]
    unavailable: list[Unavailable] = field(default_factory=list)
    parity: dict[tuple[str, str, str], Parity] = field(default_factory=dict)
    results: list[Result] = field(default_factory=list)

    def windows(self, subject: Subject, engines: Sequence[Engine], batch: int) -> None:
        """All engines on batches of windows; sparse too where the batch is one, as in live use."""
        settings = self.settings
        each = -(-settings.parity_windows // len(settings.batches))
        parity = window_parity(subject, batch, each, seed=1000 * batch)
        windows = subject.windows(batch)
        with ExitStack() as stack:
            cases = []
            whole = [engine for engine in engines if engine.takes_windows]
            for engine, opened in self._opened(subject, whole, batch, stack):
                try:
                    worst = parity(opened)
                except EngineError as error:  # a precision that overflows, say: the others go on
                    self._gone(subject, engine, batch, error)
                    continue
                self._prove(subject, engine, "windows", -(-each // batch) * batch, worst)
                on_gpu = engine.device == "cuda"
                cases.append((engine, window_case(engine.name, opened, windows, on_gpu=on_gpu)))
            self._measure(CaseKey(subject.name, "windows", batch, 0.0), subject, cases)
            if batch == 1 and settings.gap_s:
                self._measure(CaseKey(subject.name, "windows", batch, settings.gap_s), subject, cases)

    def stream(self, subject: Subject, engines: Sequence[Engine]) -> None:
        """All engines on one stream each, hop by hop, back to back and sparse."""
        settings = self.settings
        source = StreamSource(subject)
        parity = stream_parity(subject, source, settings.parity_windows)
        with ExitStack() as stack:
            opened = []
            for engine, running in self._opened(subject, engines, 1, stack):
                try:
                    worst = parity(running)
                except EngineError as error:
                    self._gone(subject, engine, 1, error)
                    continue
                self._prove(subject, engine, "stream", settings.parity_windows, worst)
                opened.append((engine, running))
            for gap_s in dict.fromkeys((0.0, settings.gap_s)):
                cases = [(engine, stream_case(engine.name, running, source)) for engine, running in opened]
                self._measure(CaseKey(subject.name, "stream", 1, gap_s), subject, cases)
            cases = [
                (engine, stream_case(engine.name, running, source, contributions=True))
                for engine, running in opened
            ]
            self._measure(CaseKey(subject.name, "contributions", 1, 0.0), subject, cases)

    def _opened(
        self, subject: Subject, engines: Sequence[Engine], batch: int, stack: ExitStack
    ) -> Iterator[tuple[Engine, FusionEngine]]:
        """The engines that can run, made one after the other; `stack` closes them."""
        for engine in engines:
            self.say(f"{subject.name}, batch {batch}: making {engine.name}")
            try:
                opened = stack.enter_context(engine.open(subject, batch, self.cache))
            except EngineError as error:
                self._gone(subject, engine, batch, error)
                continue
            yield engine, opened

    def _gone(self, subject: Subject, engine: Engine, batch: int, error: EngineError) -> None:
        """Keep why an engine is not measured."""
        gone = Unavailable(subject.name, engine.name, batch, str(error))
        if gone not in self.unavailable:
            self.unavailable.append(gone)

    def _prove(self, subject: Subject, engine: Engine, task: Task, windows: int, worst: float) -> None:
        key = (subject.name, engine.name, task)
        before = self.parity.get(key)
        self.parity[key] = Parity(
            subject.name,
            engine.name,
            task,
            windows + (before.windows if before else 0),
            max(worst, before.worst if before else 0.0),
            TOLERANCES[engine.precision],
        )

    def _measure(self, key: CaseKey, subject: Subject, cases: Sequence[tuple[Engine, Case]]) -> None:
        if not cases:
            return
        settings = self.settings
        self.say(f"{key}: {len(cases)} engines in turns")
        meters = {case.name: wall_clock(case.call) for _, case in cases}
        turns = partial(take_turns, n=settings.n, gap_s=key.gap_s, budget_s=settings.budget_s)
        wall = turns(meters)
        resident = {case.name: device_clock(case.on_gpu) for _, case in cases if case.on_gpu is not None}
        own = turns(resident).ms if resident else {}
        wall_ms = {name: _distribution(ms) for name, ms in wall.ms.items()}
        own_ms = {name: _distribution(ms) for name, ms in own.items()}
        for engine, case in cases:
            floor_ms = self._floor_ms(subject, engine, key)
            taken = own_ms.get(case.name, wall_ms[case.name]).median
            eager = EAGER[engine.device]
            self.results.append(
                Result(
                    case=key,
                    engine=engine.name,
                    device=engine.device,
                    precision=engine.precision,
                    n_asked=wall.asked,
                    wall_ms=wall_ms[case.name],
                    device_ms=own_ms.get(case.name),
                    windows_per_s=1e3 * key.batch / wall_ms[case.name].mean,
                    x_eager=_ratio(wall_ms, case.name, eager),
                    x_eager_device=_ratio(own_ms, case.name, eager),
                    floor_ms=floor_ms,
                    x_floor=None if floor_ms is None else taken / floor_ms,
                )
            )

    def _floor_ms(self, subject: Subject, engine: Engine, key: CaseKey) -> float | None:
        """Of a pass over whole windows: a stream's windows need not be computed whole."""
        config = subject.loaded.network.config
        if key.task != "windows" or not isinstance(config, TaemiConfig):
            return None
        work = taemi_work(config, key.batch, PRECISION_BYTES[engine.precision])
        return self.rates[engine.device, engine.precision].floor_ms(work)


@contextmanager
def _numpy_on_one_thread() -> Iterator[int | None]:
    """Hold numpy's products to one thread, as live use does: 1, or None where nothing here can hold it."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:  # a bare machine, where `incremental` is not what is measured
        yield None
        return
    with threadpool_limits(limits=1, user_api="blas"):
        yield 1


def _devices(settings: FusionSettings) -> tuple[Where, ...]:
    """Where there is something to measure on.

    Raises:
        SettingsError: a GPU is asked for, and PyTorch has none.
    """
    have_gpu = torch.cuda.is_available()
    if settings.device == "cuda" and not have_gpu:
        raise SettingsError(
            "there is no GPU that PyTorch can use here; see what `nvidia-smi` says, or choose --device cpu"
        )
    if settings.device is not None:
        return (settings.device,)
    return ("cpu", "cuda") if have_gpu else ("cpu",)


def _rates(
    engines: Sequence[Engine], devices: Sequence[Where], say: Progress
) -> dict[tuple[str, str], Rates]:
    wanted = dict.fromkeys((engine.device, engine.precision) for engine in engines)
    rates: dict[tuple[str, str], Rates] = {}
    for device, precision in wanted:
        if device == "cpu" or torch.cuda.is_available():
            say(f"how fast {device} multiplies in {precision}, and copies")
            rates[device, precision] = measure_rates(device, precision)
    return rates


def _studied(subject: Subject) -> Studied:
    network = subject.loaded.network
    config = network.config
    work = taemi_work(config) if isinstance(config, TaemiConfig) else None
    parameters = sum(weight.numel() for weight in network.parameters())
    return Studied(
        name=subject.name,
        what=subject.what,
        sha256=subject.loaded.content_hash,
        shapes=asdict(config.shapes),
        vision_frames=subject.vision_frames,
        audio_frames=subject.audio_frames,
        parameters=parameters,
        flops=work.flops if work else None,
        bytes=work.bytes if work else None,
    )


def _distribution(ms: Sequence[float]) -> Distribution:
    found = Distribution.of(ms)
    assert found is not None  # noqa: S101  # turns are never none
    return found


def _ratio(ms: Mapping[str, Distribution], name: str, eager: str) -> float | None:
    return ms[name].median / ms[eager].median if name in ms and eager in ms else None


def _plain(settings: FusionSettings) -> dict[str, Any]:
    plain = asdict(settings)
    plain["checkpoint"] = None if settings.checkpoint is None else settings.checkpoint.name
    return plain
