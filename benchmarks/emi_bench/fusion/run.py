"""One run of the benchmark: each network, each batch, its engines in turns; then streams, hop by hop.

A case is one engine at one task: a batch of windows, or the next hop of a stream. To measure another way to
run a network, add a function that returns a `TimedCase`, and call it in `_Measurement`.
"""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch

from emi_bench.fusion.networks import BenchNetwork, SyntheticStream, open_networks
from emi_bench.fusion.report import (
    CaseKey,
    DeviceRates,
    EngineResult,
    FusionReport,
    NetworkFacts,
    Parity,
    PeopleResult,
    Unavailable,
)
from emi_bench.fusion.settings import EAGER, SettingsError, choose_engines
from emi_bench.fusion.timing import device_clock, measure_rates, time_in_turns, wall_clock
from emi_bench.measurement import Distribution, Machine
from emi_bench.report import Interrupted
from emi_engine.onnxruntime_engine import worst_difference
from emi_engine.parity import probe_window
from emi_engine.protocol import TOLERANCES, EngineError
from emi_models.networks.config import TaemiConfig, taemi_work

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from emi_bench.fusion.networks import BenchNetwork
    from emi_bench.fusion.report import CaseTask
    from emi_bench.fusion.settings import EngineChoice, FusionSettings, Where
    from emi_engine.protocol import FusionEngine
    from emi_models.inputs import FusionInputs

    Say = Callable[[str], None]
    # Network, name and engine, which it closes; people, hop and duration in seconds.
    Share = Callable[[str, str, FusionEngine, int, float, float], PeopleResult]

__all__ = [
    "Enqueues",
    "TimedCase",
    "measure_fusion",
    "stream_case",
    "stream_parity",
    "window_case",
    "window_parity",
]

PEOPLE = (1, 4, 16, 64, 256)
PEOPLE_S = 4.0  # for each number of people
HOP_S = 0.2
PRECISION_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}


@runtime_checkable
class Enqueues(Protocol):
    """An engine on a GPU that can start a run over the inputs it already has there, without waiting."""

    @property
    def stream(self) -> int:
        """The handle of the CUDA stream of the run."""

    def enqueue(self) -> None:
        """Start it."""


@dataclass(frozen=True, slots=True, eq=False)
class TimedCase:
    """One engine at one task: `call` does it once, from window to answer on the host."""

    name: str
    call: Callable[[], object]
    on_gpu: Enqueues | None = None  # after a `call`: the same work without the copies to the GPU and back


def window_case(name: str, engine: FusionEngine, windows: FusionInputs, *, on_gpu: bool) -> TimedCase:
    """A case that repeats the same windows."""
    resident = engine if on_gpu and isinstance(engine, Enqueues) else None
    return TimedCase(name, lambda: engine.infer(windows), resident)


def stream_case(
    name: str, engine: FusionEngine, source: SyntheticStream, *, contributions: bool = False
) -> TimedCase:
    """A case that goes through an endless stream hop by hop; with `contributions`, with counterfactuals."""
    session, hops = engine.session(), iter(source)
    return TimedCase(name, lambda: session.infer(next(hops), counterfactuals=contributions))


def window_parity(
    subject: BenchNetwork, batch: int, windows: int, seed: int
) -> Callable[[FusionEngine], float]:
    """A function: the `worst_difference` between an engine and PyTorch in fp32 on so many random windows.

    At least `windows` are compared. Masks have holes and modalities are missing, at random; every engine gets
    the same windows.
    """
    network = subject.loaded.network
    asked = []
    for index in range(-(-windows // batch)):
        window = probe_window(network.config.shapes, batch, seed + index)
        with torch.inference_mode():
            asked.append((seed + index, network(window).numpy()))

    def worst(engine: FusionEngine) -> float:
        answers = (  # windows are made again, because 200 large ones take a gigabyte
            (engine.infer(probe_window(network.config.shapes, batch, at)), expected) for at, expected in asked
        )
        return max(worst_difference(*answer) for answer in answers)

    return worst


def stream_parity(
    subject: BenchNetwork, source: SyntheticStream, hops: int
) -> Callable[[FusionEngine], float]:
    """The same over the first hops of a stream, in a new session."""
    network = subject.loaded.network
    asked = []
    for hop in range(hops):
        window = source.window(hop)
        with torch.inference_mode():
            asked.append((window, network(window.inputs(network.config.shapes)).numpy()))

    def worst(engine: FusionEngine) -> float:
        session = engine.session()
        return max(worst_difference(session.infer(window), expected) for window, expected in asked)

    return worst


def measure_fusion(settings: FusionSettings, say: Say, share: Share | None = None) -> FusionReport:
    """Measure what the settings ask for; takes from one minute to some tens of minutes.

    Args:
        settings: what is asked for.
        say: is told each step.
        share: measures one engine for many people (`emi_bench.fusion_people`), which needs emi-live; None:
            that is left out, as on a bare machine.

    Raises:
        SettingsError: a setting is impossible, or its GPU is not here.
        CheckpointError: the checkpoint cannot be read.
        EngineError: none of the engines that were asked for can run here.
    """
    settings = settings.checked()
    devices = _devices(settings)
    engines = choose_engines(settings, devices)
    load_before = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    if settings.torch_threads is not None:
        torch.set_num_threads(settings.torch_threads)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="emi-bench-") as folder, _numpy_on_one_thread() as numpy_threads:
        studied = open_networks(settings, Path(folder))
        run = _Measurement(settings, say, Path(folder), _rates(engines, devices, say))
        interrupted = False
        steps = [partial(run.windows, each, engines, batch) for each in studied for batch in settings.batches]
        steps += [partial(run.stream, each, engines) for each in studied if settings.streams]
        if share is not None and settings.streams:
            steps += [partial(run.share, each, engines, share) for each in studied]
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
        machine=Machine.here(),
        load_before=load_before,
        torch_threads=torch.get_num_threads(),
        numpy_threads=numpy_threads,
        settings=_plain(settings),
        seconds=round(time.monotonic() - start, 1),
        networks=[_facts(subject) for subject in studied],
        rates=list(run.rates.values()),
        unavailable=run.unavailable,
        parity=list(run.parity.values()),
        results=run.results,
        people=run.people,
    )
    if interrupted:
        raise Interrupted(report)
    return report


@dataclass(slots=True)
class _Measurement:
    """Measures, and keeps the results so far."""

    settings: FusionSettings
    say: Say
    cache: Path
    rates: Mapping[tuple[str, str], DeviceRates]
    unavailable: list[Unavailable] = field(default_factory=list)
    parity: dict[tuple[str, str, str], Parity] = field(default_factory=dict)
    results: list[EngineResult] = field(default_factory=list)
    people: list[PeopleResult] = field(default_factory=list)

    def windows(self, subject: BenchNetwork, engines: Sequence[EngineChoice], batch: int) -> None:
        """All engines on batches of windows; a batch of one also with gaps, as in live use."""
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
                except EngineError as error:  # for example a precision that overflows; the others go on
                    self._gone(subject, engine, batch, error)
                    continue
                self._keep_parity(subject, engine, "windows", -(-each // batch) * batch, worst)
                on_gpu = engine.device == "cuda"
                cases.append((engine, window_case(engine.name, opened, windows, on_gpu=on_gpu)))
            self._measure(CaseKey(subject.name, "windows", batch, 0.0), subject, cases)
            if batch == 1 and settings.gap_s:
                self._measure(CaseKey(subject.name, "windows", batch, settings.gap_s), subject, cases)

    def stream(self, subject: BenchNetwork, engines: Sequence[EngineChoice]) -> None:
        """All engines on one stream each, hop by hop, back to back and with gaps."""
        settings = self.settings
        source = SyntheticStream(subject)
        parity = stream_parity(subject, source, settings.parity_windows)
        with ExitStack() as stack:
            opened = []
            for engine, running in self._opened(subject, engines, 1, stack):
                try:
                    worst = parity(running)
                except EngineError as error:
                    self._gone(subject, engine, 1, error)
                    continue
                self._keep_parity(subject, engine, "stream", settings.parity_windows, worst)
                opened.append((engine, running))
            for gap_s in dict.fromkeys((0.0, settings.gap_s)):
                cases = [(engine, stream_case(engine.name, running, source)) for engine, running in opened]
                self._measure(CaseKey(subject.name, "stream", 1, gap_s), subject, cases)
            cases = [
                (engine, stream_case(engine.name, running, source, contributions=True))
                for engine, running in opened
            ]
            self._measure(CaseKey(subject.name, "contributions", 1, 0.0), subject, cases)

    def share(self, subject: BenchNetwork, engines: Sequence[EngineChoice], measure: Share) -> None:
        """The fastest engine of each device that computes batches, for many people at real pace."""
        quick = self.settings.quick
        for device in dict.fromkeys(engine.device for engine in engines):
            rates = {
                row.engine: row.windows_per_s
                for row in self.results
                if (row.case.network, row.case.task, row.device) == (subject.name, "windows", device)
                and row.case.batch == max(self.settings.batches)
            }
            whole = [one for one in engines if one.name in rates]
            if not whole:
                continue
            best = max(whole, key=lambda one: rates[one.name])
            for people in PEOPLE[:2] if quick else PEOPLE:
                self.say(f"{subject.name}: {people} people share {best.name}")
                engine = best.open(subject, max(self.settings.batches), self.cache)
                seconds = 1.0 if quick else PEOPLE_S
                self.people.append(measure(subject.name, best.name, engine, people, HOP_S, seconds))

    def _opened(
        self, subject: BenchNetwork, engines: Sequence[EngineChoice], batch: int, stack: ExitStack
    ) -> Iterator[tuple[EngineChoice, FusionEngine]]:
        """Open the engines that can run, one after the other; `stack` closes them."""
        for engine in engines:
            self.say(f"{subject.name}, batch {batch}: opening {engine.name}")
            try:
                opened = stack.enter_context(engine.open(subject, batch, self.cache))
            except EngineError as error:
                self._gone(subject, engine, batch, error)
                continue
            yield engine, opened

    def _gone(self, subject: BenchNetwork, engine: EngineChoice, batch: int, error: EngineError) -> None:
        """Keep why an engine is not measured."""
        gone = Unavailable(subject.name, engine.name, batch, str(error))
        if gone not in self.unavailable:
            self.unavailable.append(gone)

    def _keep_parity(
        self, subject: BenchNetwork, engine: EngineChoice, task: CaseTask, windows: int, worst: float
    ) -> None:
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

    def _measure(
        self, key: CaseKey, subject: BenchNetwork, cases: Sequence[tuple[EngineChoice, TimedCase]]
    ) -> None:
        if not cases:
            return
        settings = self.settings
        self.say(f"{key}: {len(cases)} engines in turns")
        meters = {case.name: wall_clock(case.call) for _, case in cases}
        turns = partial(time_in_turns, n=settings.n, gap_s=key.gap_s, budget_s=settings.budget_s)
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
                EngineResult(
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

    def _floor_ms(self, subject: BenchNetwork, engine: EngineChoice, key: CaseKey) -> float | None:
        """The floor of a pass over whole windows; None for streams, which need not compute whole windows."""
        config = subject.loaded.network.config
        if key.task != "windows" or not isinstance(config, TaemiConfig):
            return None
        work = taemi_work(config, key.batch, PRECISION_BYTES[engine.precision])
        return self.rates[engine.device, engine.precision].floor_ms(work)


@contextmanager
def _numpy_on_one_thread() -> Iterator[int | None]:
    """Limit numpy to one thread, as live use does; gives 1, or None if threadpoolctl is not installed."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:  # a bare machine, where `incremental` is not measured
        yield None
        return
    with threadpool_limits(limits=1, user_api="blas"):
        yield 1


def _devices(settings: FusionSettings) -> tuple[Where, ...]:
    """The devices to measure on.

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
    engines: Sequence[EngineChoice], devices: Sequence[Where], say: Say
) -> dict[tuple[str, str], DeviceRates]:
    wanted = dict.fromkeys((engine.device, engine.precision) for engine in engines)
    rates: dict[tuple[str, str], DeviceRates] = {}
    for device, precision in wanted:
        if device == "cpu" or torch.cuda.is_available():
            say(f"rates of {device}: products in {precision}, and copies")
            rates[device, precision] = measure_rates(device, precision)
    return rates


def _facts(subject: BenchNetwork) -> NetworkFacts:
    network = subject.loaded.network
    config = network.config
    work = taemi_work(config) if isinstance(config, TaemiConfig) else None
    parameters = sum(weight.numel() for weight in network.parameters())
    return NetworkFacts(
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
    assert found is not None  # noqa: S101  # there is at least one turn
    return found


def _ratio(ms: Mapping[str, Distribution], name: str, eager: str) -> float | None:
    return ms[name].median / ms[eager].median if name in ms and eager in ms else None


def _plain(settings: FusionSettings) -> dict[str, Any]:
    plain = asdict(settings)
    plain["checkpoint"] = None if settings.checkpoint is None else settings.checkpoint.name
    return plain
