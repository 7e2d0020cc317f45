"""One run of the engine from the command line, from its first line to the summary."""

from __future__ import annotations

import logging
import math
import os
import signal
import sys
import time
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from emi_live.addresses import SafeFormatter, safe_address
from emi_live.cli.options import download_bar
from emi_live.clock import NS_PER_S, Clock, MonotonicClock
from emi_live.errors import PartialSourceError
from emi_live.health import Health
from emi_live.live import LiveEngine
from emi_live.sinks.jsonl import JsonLinesSink
from emi_live.sinks.viewstate import AMBER, NOTICE, ProgressLine, colour_of, losses
from emi_models import EMOTIONS
from emi_models.console import printable
from emi_models.files import library_caches
from emi_models.libraries import require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.status import Status

    from emi_live.config import LiveConfig
    from emi_live.flow import StageMaker
    from emi_live.health import HealthSnapshot
    from emi_live.messages import Estimate
    from emi_live.sinks import Sink
    from emi_live.sinks.metrics import MetricsSink
    from emi_live.sinks.peers.sink import PeerSink
    from emi_live.sinks.publish import PublishSink
    from emi_live.sinks.terminal import Controls, TerminalSink
    from emi_live.web.local import WebSink

__all__ = ["LoadingSteps", "Summary", "announce", "run_session", "set_up_logging"]

LOG_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
logger = logging.getLogger(__name__)

CHATTY: Final = ("faster_whisper", "httpcore", "httpx", "urllib3", "matplotlib")


class _PrintableFormatter(SafeFormatter):
    """Formats log records; text from files and libraries in them cannot control the terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        return printable(super().formatMessage(record))


def set_up_logging(debug: bool, view: bool) -> None:
    """Log everything with `debug`, else warnings; with a view only errors; the view shows the rest."""
    level = logging.DEBUG if debug else logging.ERROR if view else logging.WARNING
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_PrintableFormatter(LOG_FORMAT))
    logging.basicConfig(level=level, handlers=[handler])
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)


def run_session(
    config: LiveConfig, console: Console, *, demo: bool, picture: Path | None, timings: bool = False
) -> None:
    """Run one engine until its media end, then print a summary; raises as `LiveEngine` does.

    Args:
        config: all settings.
        console: for progress, what runs, and the summary.
        demo: run the scripted demo in place of media.
        picture: where to save the view at the end; None = nowhere.
        timings: print how long each step of the start took.
    """
    start = StartTimes() if timings else None
    os.environ.update(library_caches(os.environ))
    health = Health()
    outputs = _open_outputs(
        config, health, _in_words(config, demo), picture, console, lambda: engine.mark(origin="key")
    )
    sinks, view = outputs.sinks, outputs.view
    with console.status("starting …") as status, download_bar(console) as progress:
        engine = LiveEngine(
            config,
            sinks=sinks,
            make_stages=_demo_stages(config, demo),
            health=health,
            progress=progress,
            step=LoadingSteps(status, config.fusion.threads, start),
        )
        engine.load()
    announce(console, [*engine.announcements, *outputs.addresses])
    summary = Summary()
    line = None if view is not None else _progress_line(config, health, console)
    gone: PartialSourceError | None = None
    try:
        with _keyboard(outputs, health), engine as live, _marks(config, live):
            try:
                _follow(live, summary, sinks, line, start)
            finally:
                gone = _gone(health)
        if gone is not None:
            raise gone
    except KeyboardInterrupt:
        with suppress(OSError):
            announce(console, _lost(health))  # `check` does not run after an error
        if not outputs.quitting or config.source.input is not None:  # a file was not read to its end
            raise
        if gone is not None:
            raise gone from None
    finally:
        if view is not None:
            view.close()  # its thread may still run
        if line is not None:
            line.close()
        if summary.count:
            figures = [summary.render(health.snapshot()), *([] if start is None else [start.render()])]
            with suppress(OSError):  # the terminal was closed (SIGHUP)
                console.print(Group(*figures))
    shortfall = health.status("file").detail if health.status("file").state == "ended" else ""
    if shortfall and not logger.isEnabledFor(logging.WARNING):  # otherwise the log has it
        told = printable(f"file: {shortfall}")
        console.print(told, style="yellow", highlight=False, markup=False, soft_wrap=True)


def _follow(
    live: LiveEngine,
    summary: Summary,
    sinks: Sequence[Sink],
    line: ProgressLine | None,
    start: StartTimes | None,
) -> None:
    """Take every estimate, until the last one or until every sink has finished."""
    for estimate in live.estimates():
        summary.add(estimate)
        if start is not None:
            start.add(estimate)
        if line is not None:
            line.show(estimate)
        if sinks and all(sink.finished for sink in sinks):
            break
    live.check()


def _gone(health: Health) -> PartialSourceError | None:
    """A device that was lost and has not come back; None if there is none."""
    snapshot = health.snapshot()
    for name in ("camera", "microphone"):
        status = health.status(name)
        if status.state == "failed" and snapshot.counters.get(f"{name}.lost"):
            return PartialSourceError(f"the {name} was gone at the end: {status.detail}")
    return None


def _keyboard(outputs: _Outputs, health: Health) -> AbstractContextManager[object]:
    """The keys of the view, where there is one."""
    controls, view = outputs.controls, outputs.view
    if controls is None or view is None:
        return nullcontext()
    from emi_live.sinks.terminal import Keyboard

    return Keyboard(controls, health, suspend=view.close, resume=view.open)


def _marks(config: LiveConfig, engine: LiveEngine) -> AbstractContextManager[object]:
    """Markers of other programs, where they are asked for."""
    if not config.output.marks:
        return nullcontext()
    from emi_live.sinks.peers.marks import MarkListener

    return MarkListener(config.output.marks, engine.mark, engine.health, lan=config.output.lan)


def _progress_line(config: LiveConfig, health: Health, console: Console) -> ProgressLine | None:
    """Progress of a file, if no view shows it and `--json -` does not write to the same terminal."""
    shared = config.output.json_path == "-" and sys.stdout is not None and sys.stdout.isatty()
    if not config.exact or shared or (config.output.ui and config.output.json_path != "-"):
        return None
    return ProgressLine(console, health, until_s=config.duration_s)


class StartTimes:
    """How long each step of the start took, and when each modality was first live in an estimate.

    Times are from the start of the process. CPU time is that of all its threads and of its child processes.
    """

    def __init__(self) -> None:
        import psutil  # here, since a run without --timings does not need it

        self._process, self._gone = psutil.Process(), psutil.NoSuchProcess
        self._rows: list[tuple[str, float, float]] = []  # what, seconds, CPU seconds
        self._reached: dict[str, tuple[float, float]] = {}  # milestone: seconds and CPU seconds since then
        self._depth = 0
        self._rows.append(("importing the program", *self._now()))

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Time one step; a step inside another one is indented."""
        place, (began_s, cpu_s) = len(self._rows), self._now()
        self._rows.append((what, 0.0, 0.0))
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            end_s, end_cpu_s = self._now()
            self._rows[place] = ("  " * self._depth + what, end_s - began_s, end_cpu_s - cpu_s)

    def add(self, estimate: Estimate) -> None:
        """Note what this estimate is the first to have."""
        live = {name for name, report in estimate.modalities.items() if report.state == "live"}
        reached = {"first estimate", *(f"{name} live" for name in live)}
        if live >= {"vision", "audio"}:
            reached.add("vision and audio live together")
        for milestone in reached - self._reached.keys():
            self._reached[milestone] = self._now()

    def render(self) -> Table:
        """A table of the steps, then of what was reached."""
        table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False)
        for heading in ("start", "s", "CPU s"):
            table.add_column(heading, justify="left" if heading == "start" else "right")
        for what, wall_s, cpu_s in self._rows:
            table.add_row(what, f"{wall_s:.2f}", f"{cpu_s:.2f}")
        for milestone, (wall_s, cpu_s) in sorted(self._reached.items(), key=lambda entry: entry[1]):
            table.add_row(f"{milestone}, since the start", f"{wall_s:.2f}", f"{cpu_s:.2f}", style="bold")
        return table

    def _now(self) -> tuple[float, float]:
        """Seconds and CPU seconds since the process started."""
        cpu_s = sum(self._process.cpu_times()[:2])
        for child in self._process.children(recursive=True):
            with suppress(self._gone):  # it has just ended
                cpu_s += sum(child.cpu_times()[:2])
        return time.time() - self._process.create_time(), cpu_s


class _Elapsed:
    """A text that shows, each time it is drawn, how long a step has taken."""

    def __init__(self, what: str, start: float) -> None:
        self._what = what
        self._start = start

    def __rich__(self) -> Text:
        return Text(f"{self._what} … {time.monotonic() - self._start:.1f} s")


class LoadingSteps:
    """Shows on the status line what is being loaded; with `--debug`, each step is logged with its time."""

    def __init__(self, status: Status, threads: int, times: StartTimes | None) -> None:
        """`threads` is for PyTorch, once it is loaded; `times`, if given, keeps how long each step took."""
        self._status = status
        self._threads = threads
        self._times = times

    @contextmanager
    def __call__(self, what: str) -> Iterator[None]:
        """Show one step while it lasts; afterwards show the enclosing step again."""
        outer, start = self._status.status, time.monotonic()
        self._status.update(_Elapsed(what, start))
        try:
            with nullcontext() if self._times is None else self._times.step(what):
                yield
        finally:
            logger.debug("%s: %.1f s", what, time.monotonic() - start)
            self._status.update(outer)
        # More threads make small networks slower and take cores from the face. A setting of the whole
        # process, so the program makes it, not the engine that others embed.
        if (torch := sys.modules.get("torch")) is not None:
            torch.set_num_threads(self._threads)


def announce(console: Console, lines: list[str]) -> None:
    """Print what runs, one line each; what is not available stands out."""
    for line in lines:
        style = "yellow" if ": unavailable: " in line else "dim"
        console.print(printable(line), style=style, highlight=False, markup=False, soft_wrap=True)


def _lost(health: Health) -> list[str]:
    """Errors of sinks, one line each."""
    parts = health.snapshot().parts
    return [
        part.detail for name, part in parts.items() if name.startswith("sink-") and part.state == "failed"
    ]


def _demo_stages(config: LiveConfig, demo: bool) -> StageMaker | None:
    if not demo:
        return None
    from emi_live.demo import demo_stages

    return partial(demo_stages, length_s=config.window.length_s)


@dataclass(slots=True)
class _Outputs:
    """Where estimates go, and what the terminal view and its keys need."""

    sinks: list[Sink] = field(default_factory=list)
    published: PublishSink | None = None
    page: WebSink | None = None
    peers: PeerSink | None = None
    metrics: MetricsSink | None = None
    view: TerminalSink | None = None  # None: there is none, or it writes plain lines
    controls: Controls | None = None

    @property
    def addresses(self) -> list[str]:
        """Where others find the estimates, one line each."""
        lines = [] if self.published is None else [f"estimates on {self.published.address}"]
        lines += [] if self.peers is None else [f"to {line}" for line in self.peers.addresses]
        lines += [] if self.metrics is None else [f"metrics on {self.metrics.url}"]
        return lines if self.page is None else [*lines, f"page on {self.page.url}"]

    @property
    def quitting(self) -> bool:
        """Whether the key `q` was pressed."""
        return self.controls is not None and self.controls.quitting


def _open_outputs(
    config: LiveConfig,
    health: Health,
    watched: str,
    picture: Path | None,
    console: Console,
    mark: Callable[[], int],
) -> _Outputs:
    """The sinks of the settings; only their modules are imported.

    Args:
        config: all settings.
        health: counters and states that sinks show.
        watched: what is watched, in words.
        picture: where to save the view at the end; None = nowhere.
        console: where sinks announce themselves.
        mark: sets a marker and returns its number, for the key `m`.

    Raises:
        ConfigurationError: an address that is in use or not allowed.
    """
    output = config.output
    outputs = _Outputs()
    sinks = outputs.sinks
    if output.json_path is not None:
        sink = JsonLinesSink(output.json_path, lambda line: announce(console, [line]), append=output.append)
        sinks.append(sink)
    if output.publish is not None:
        from emi_live.sinks.publish import PublishSink

        outputs.published = PublishSink(output.publish, config.bus, health)
        outputs.published.open()  # an address in use is an error now, not after the models are loaded
        sinks.append(outputs.published)
    if output.to:
        from emi_live.sinks.peers.sink import PeerSink

        outputs.peers = PeerSink(output.to, lan=output.lan)
        sinks.append(outputs.peers)
    if output.metrics is not None:
        from emi_live.sinks.metrics import MetricsSink

        outputs.metrics = MetricsSink(output.metrics, lan=output.lan)
        sinks.append(outputs.metrics)
    if output.web is not None:
        require(
            "starlette",
            "uvicorn",
            "websockets",
            "cryptography",
            "prometheus_client",
            extra="web",
            what="--web",
        )
        from emi_live.web.broadcast import NOTICE as ANALYSED
        from emi_live.web.local import WebSink

        outputs.page = WebSink(output.web, version=version("emi-live"), notice=ANALYSED)
        sinks.append(outputs.page)
    if picture is not None:
        from emi_live.sinks.view import PictureSink

        sinks.append(PictureSink(picture, health, source=watched))
    if output.ui and output.json_path != "-":
        from emi_live.sinks.terminal import Controls, TerminalSink

        outputs.controls = Controls(lambda: os.kill(os.getpid(), signal.SIGINT), mark)
        terminal = TerminalSink(
            health,
            source=watched,
            notice=_notice(config, written=bool(sinks)),
            controls=outputs.controls,
            exact=config.exact,
            until_s=config.duration_s,
            names=_names(config),
        )
        outputs.view = None if terminal.plain else terminal
        sinks.append(terminal)
    return outputs


def _notice(config: LiveConfig, *, written: bool) -> str:
    """What the view says of where things go."""
    output = config.output
    if output.record is not None:
        what = "PICTURE, SOUND, features and words" if output.record_media else "features and words"
        return f"{what} are recorded in {output.record}"
    where = output.json_path or output.publish or ", ".join(output.to)
    return f"estimates go to {where}" if written else NOTICE


def _in_words(config: LiveConfig, demo: bool) -> str:
    source = config.source
    if demo:
        return "demo: a scripted person"
    if source.input is not None:
        return f"{source.input.name} ({'exact' if config.exact else 'at real pace'})"
    microphone = "no microphone" if source.mic == "none" else f"microphone {source.mic or 'default'}"
    return microphone if source.camera is None else f"camera {safe_address(source.camera)}, {microphone}"


def _names(config: LiveConfig) -> tuple[str, ...]:
    """Of the values that estimates will have, by the checkpoint's header."""
    if config.fusion.checkpoint is None:
        return EMOTIONS
    from emi_models.checkpoint import read_header

    return tuple(target.name for target in read_header(config.fusion.checkpoint).targets)


MAX_SAMPLES: Final = 100_000  # latencies kept: over five hours at the default hop; then the oldest half goes


class Summary:
    """The figures of one run: estimates, rates, latencies, losses and peaks; used by one thread."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or MonotonicClock()
        self.count = 0
        self._first: tuple[int, float] | None = None  # arrival and capture time
        self._last: tuple[int, float] = (0, 0.0)
        self._peaks: dict[str, tuple[float, float]] = {}  # by name: the highest value, and its capture time
        self._sums: dict[str, list[float]] = {}  # by name: the sum, and of how many
        self._latencies: dict[str, list[float]] = {"capture to estimate": [], "window": [], "fusion": []}

    def add(self, estimate: Estimate) -> None:
        """Take in one estimate."""
        self.count += 1
        self._last = (self._clock.now_ns(), estimate.t_s)
        self._first = self._first or self._last
        for name, value in estimate.as_dict().items():
            total = self._sums.setdefault(name, [0.0, 0])
            total[0] += value
            total[1] += 1
            if name not in self._peaks or value > self._peaks[name][0]:
                self._peaks[name] = (value, estimate.t_s)
        latency = estimate.latency
        for values, value_ms in zip(
            self._latencies.values(),
            (latency.capture_to_estimate, latency.window, latency.fusion),
            strict=True,
        ):
            if value_ms is not None:
                values.append(value_ms)
            if len(values) > MAX_SAMPLES:
                del values[: MAX_SAMPLES // 2]

    def render(self, health: HealthSnapshot) -> RenderableType:
        """The figures as a few lines and a small table."""
        if self.count == 0:
            return Text("no estimates", style="bold")
        lines: list[RenderableType] = [self._rate(), self._latency()]
        if words := health.counters.get("speech.words", 0):
            erasure = health.counters.get("speech.erased", 0) / words
            lines.append(Text(f"{words} words; {erasure:.2f} shown and taken back for each (erasure)"))
        if "drift" in health.parts and health.counters.get("drift.checks"):
            lines.append(Text(f"drift: {health.parts['drift'].detail}"))
        lost = losses(health)
        faults = ", ".join(loss.words for loss in lost if loss.fault)
        lines.append(Text(f"lost: {faults}", style=AMBER) if faults else Text("nothing lost"))
        if skipped := ", ".join(loss.words for loss in lost if not loss.fault):
            lines.append(Text(f"as it should be: {skipped}", style="dim"))
        table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False)
        table.add_column("")
        for heading in ("mean", "peak", "at"):
            table.add_column(heading, justify="right")
        for index, (name, (total, count)) in enumerate(self._sums.items()):
            peak, at_s = self._peaks[name]
            table.add_row(
                Text(name.replace("_", " "), style=colour_of(name, index)),
                f"{total / count:.2f}",
                f"{peak:.2f}",
                f"{at_s:.1f} s" if peak else "",
            )
        return Group(*lines, table)

    def _rate(self) -> Text:
        text = Text().append(f"{self.count} estimates", style="bold")
        if self._first is not None and self.count > 1:
            wall_s = (self._last[0] - self._first[0]) / NS_PER_S
            media_s = self._last[1]
            if wall_s > 0:
                text.append(f", {(self.count - 1) / wall_s:.1f} per second")
                text.append(f", {media_s:.1f} s of media in {wall_s:.1f} s")
        return text

    def _latency(self) -> Text:
        parts = [
            f"{name} p50 {percentile(values, 0.5):.1f}, p95 {percentile(values, 0.95):.1f} ms"
            for name, values in self._latencies.items()
            if values
        ]
        return Text("; ".join(parts))


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that at least `share` of them do not exceed (nearest rank)."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
