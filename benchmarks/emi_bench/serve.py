"""`emi bench serve`: people who send a clip to `emi serve` at the same time, by light WebSocket clients.

The clip is encoded beforehand, so that the clients cost little. Each begins elsewhere in the clip. With
replicas, `emi serve --cluster auto` is measured, with the memory and CPU of Ray's own processes.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final
from urllib.request import ProxyHandler, build_opener

import av
import cv2
import numpy as np

from emi_bench.harness import ProcessTreeUsage
from emi_bench.measurement import Distribution, Machine, load_average
from emi_bench.serve_report import Load, ServeReport, cost_of
from emi_live.errors import SourceError, StageError
from emi_live.health import Health
from emi_live.web.client import EmiClient
from emi_live.web.protocol import EstimateEvent, Hello, StateEvent, WarningEvent, WordsEvent
from emi_live.worker import Worker

__all__ = ["measure_serve"]

RATE_HZ: Final = 16_000
BLOCK_S: Final = 0.04
WIDTH_PX: Final = 640
QUALITY: Final = 80
WARM_UP_S: Final = 3.0  # after all sessions run; its estimates are not counted
START_S: Final = 120.0
FULL: Final = "this machine is full"
BATCH: Final = "hypotheses_in_batch_of_"
WHERE: Final = re.compile(r"open (http://\S+?)/? ")


@dataclass(frozen=True)
class _Media:
    """A clip, encoded: one JPEG picture for each tick, and 16-bit sound."""

    pictures: list[bytes]
    sound: np.ndarray
    pictures_per_s: float
    width: int

    @property
    def length_s(self) -> float:
        return len(self.pictures) / self.pictures_per_s


@dataclass
class _Heard:
    """What one client got."""

    ages_ms: list[float] = field(default_factory=list)
    captured_ms: list[float] = field(default_factory=list)
    words: int = 0
    sent: int = 0
    behind: bool = False  # it was told that the machine is full
    error: str | None = None


def measure_serve(
    clip: Path,
    sessions: Sequence[int],
    seconds: float,
    pictures_per_s: float,
    settings: Sequence[str],
    show: Callable[[str, int, int], None],
    replicas: Sequence[int] = (0,),
    simulate: int = 0,
    networks: int = 0,
    recognizers: int = 0,
) -> ServeReport:
    """Start a server for each number of sessions, and let so many clients send the clip to it.

    Args:
        clip: a media file with pictures and sound.
        sessions: numbers of clients.
        seconds: how long each number is measured.
        pictures_per_s: sent by each client.
        settings: of the server, NAME=VALUE.
        show: is told what is measured, how many cases are done, and of how many.
        replicas: numbers of servers on Ray; 0: one process without Ray.
        simulate: so many sessions are simulated with the measured cost; 0: none are.
        networks: on Ray, so many networks for all; 0: each replica has one.
        recognizers: on Ray, so many recognisers for all; 0: each replica has one.

    Raises:
        SourceError: the clip cannot be read.
        StageError: the server does not start, or all clients lost their sessions.
    """
    busy = load_average()
    media = _read(clip, pictures_per_s)
    loads: list[Load] = []
    cases = [(count, number) for count in replicas for number in sessions]
    for done, (count, number) in enumerate(cases):
        show(f"{number} sessions, {count or 'no'} replicas", done, len(cases))
        with _server(number, settings, count, networks, recognizers) as (url, pid):
            loads.append(_measure(url, pid, number, seconds, media, count))
    simulated = []
    if simulate and (cost := cost_of(loads)) is not None:
        from emi_bench.serve_simulation import simulate_sessions

        show(f"{simulate} simulated sessions", len(cases), len(cases))
        simulated = simulate_sessions(simulate, cost, loads[0].hop_s)
    return ServeReport(
        machine=Machine.here(),
        load_before=busy,
        clip=clip.name,
        pictures_per_s=pictures_per_s,
        width=media.width,
        settings=list(settings),
        loads=loads,
        simulated=simulated,
        networks=networks,
        recognizers=recognizers,
    )


def _read(clip: Path, pictures_per_s: float) -> _Media:
    pictures: list[bytes] = []
    blocks: list[np.ndarray] = []
    width = 0
    try:
        with av.open(str(clip)) as container:
            resampler = av.AudioResampler("s16", "mono", RATE_HZ)
            streams = [container.streams.video[0], *container.streams.audio[:1]]
            for frame in container.decode(streams):
                if isinstance(frame, av.AudioFrame):
                    blocks += [one.to_ndarray()[0] for one in resampler.resample(frame)]
                elif (frame.time or 0.0) >= len(pictures) / pictures_per_s:
                    width = min(WIDTH_PX, frame.width)
                    height = round(frame.height * width / frame.width)
                    small = frame.to_ndarray(width=width, height=height, format="bgr24")
                    _, jpeg = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
                    pictures.append(jpeg.tobytes())
    except (av.FFmpegError, IndexError) as error:
        raise SourceError(f"{clip} has no pictures that can be read: {error}") from error
    sound = np.concatenate(blocks) if blocks else np.zeros(0, np.int16)
    length = round(len(pictures) / pictures_per_s * RATE_HZ)
    return _Media(
        pictures,
        np.resize(sound, length) if len(sound) else np.zeros(length, np.int16),
        pictures_per_s,
        width,
    )


@contextmanager
def _server(
    sessions: int, settings: Sequence[str], replicas: int, networks: int, recognizers: int
) -> Iterator[tuple[str, int]]:
    """`emi serve` in a process of its own: its address, and its process number."""
    command = [
        sys.executable,
        "-c",
        "from emi_live.cli import start_emi; start_emi()",
        "serve",
        "--port",
        "0",
    ]
    command += ["--sessions", str(sessions), "--no-notice"]
    if replicas:
        command += ["--cluster", "auto", "--replicas", str(replicas)]
        command += ["--networks", str(networks), "--recognizers", str(recognizers)]
    command += [part for setting in settings for part in ("--set", setting)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, encoding="utf-8")  # noqa: S603 # ourselves
    lines: list[str] = []
    found: list[str] = []
    ready = threading.Event()

    def read() -> None:
        assert process.stderr is not None  # noqa: S101 # it is a pipe
        for line in process.stderr:
            lines.append(line)
            if match := WHERE.search(line):
                found.append(match[1])
                ready.set()
        ready.set()

    reader = Worker("server-output", lambda _: read(), Health())
    reader.start()
    try:
        if not ready.wait(START_S) or not found:
            raise StageError(f"emi serve did not start: {''.join(lines[-3:]).strip()}")
        yield found[0], process.pid
    finally:
        process.terminate()
        process.wait(START_S)
        reader.join(START_S)
        if process.stderr is not None:
            process.stderr.close()


def _measure(url: str, pid: int, number: int, seconds: float, media: _Media, replicas: int) -> Load:
    hop_s = 0.2
    usage = ProcessTreeUsage(pid)
    counting, waiting = threading.Event(), threading.Event()
    heard: list[_Heard] = []
    with ExitStack() as opened:
        clients: list[EmiClient] = []
        receivers = []
        while len(clients) < number and (client := _enter(url, clients)) is not None:
            opened.enter_context(client)
            hop_s = _await_start(client)
            mine = _Heard()
            # It reads from now on: a connection that nobody reads is cut while others still begin.
            receivers.append(
                Worker(f"receive-{len(clients)}", partial(_receive, client, mine, counting), Health())
            )
            receivers[-1].start()
            clients.append(client)
            heard.append(mine)
        workers = [*receivers]
        for index, (client, mine) in enumerate(zip(clients, heard, strict=True)):
            start_s = media.length_s * index / number
            sender = Worker(f"send-{index}", partial(_send, client, media, start_s, mine), Health())
            sender.start()
            workers.append(sender)
        waiting.wait(WARM_UP_S)
        before_cpu_s, before_s = usage.cpu_s(), time.monotonic()
        before = _counters(url)
        counting.set()
        waiting.wait(seconds / 2)
        health_ms = _health_ms(url)
        waiting.wait(max(0.0, before_s + seconds - time.monotonic()))
        counting.clear()
        took_s, cpu_s = time.monotonic() - before_s, usage.cpu_s() - before_cpu_s
        after, pss_mib = _counters(url), sum(usage.pss_mib())
        for worker in workers:
            worker.request_stop()
        for client in clients:
            with suppress(SourceError):  # it was lost before
                client.command("end")
        for worker in workers:
            worker.join(START_S)
    errors = [one.error for one in heard if one.error]
    if len(errors) == len(heard):
        raise StageError(f"all {len(heard)} sessions were lost: {errors[0]}")
    return Load(
        sessions=number,
        seconds=took_s,
        rates=[len(one.ages_ms) / took_s for one in heard],
        age_ms=Distribution.of([age for one in heard for age in one.ages_ms]),
        pictures=sum(one.sent for one in heard),
        replaced=_grown("pictures_replaced", before, after),
        skipped=_grown("skipped", before, after),
        words=sum(one.words for one in heard),
        replicas=replicas,
        hop_s=hop_s,
        missed=max(0, round(len(heard) * took_s / hop_s) - sum(len(one.ages_ms) for one in heard)),
        capture_ms=Distribution.of([ms for one in heard for ms in one.captured_ms]),
        behind=sum(one.behind for one in heard),
        refused=number - len(heard),
        lost=len(errors),
        health_ms=health_ms,
        hypotheses=_batches(before, after),
        cores=cpu_s / took_s,
        pss_mib=pss_mib,
    )


def _enter(url: str, others: Sequence[EmiClient]) -> EmiClient | None:
    """A new session; None: the server refuses it, because the others get too little.

    Raises:
        SourceError: there is no server, or it takes nobody.
    """
    try:
        return EmiClient.open(url)
    except SourceError as error:
        if others and FULL in str(error):
            return None
        raise


def _await_start(client: EmiClient) -> float:
    """Wait until the session runs; returns its hop in seconds."""
    hop_s = 0.2
    while not (isinstance(event := client.receive(START_S), StateEvent) and event.state == "running"):
        if event is None:
            raise StageError(f"a session did not start: {client.ended}")
        if isinstance(event, Hello):
            hop_s = event.hop_s
    return hop_s


def _send(client: EmiClient, media: _Media, start_s: float, heard: _Heard, stop: threading.Event) -> None:
    """Send the clip again and again, from `start_s` on, at real pace."""
    began_s, tick = time.monotonic(), 0
    block = round(BLOCK_S * RATE_HZ)
    next_picture_s = 0.0
    try:
        while not stop.is_set():
            due_s = began_s + (tick + 1) * BLOCK_S  # when the block has been spoken
            if stop.wait(max(0.0, due_s - time.monotonic())):
                return
            at = round(start_s * RATE_HZ) + tick * block
            sound = np.take(media.sound, range(at, at + block), mode="wrap")
            client.send_audio(sound, 1000 * (due_s - BLOCK_S), RATE_HZ)
            elapsed_s = due_s - began_s
            if elapsed_s >= next_picture_s:
                index = int((start_s + elapsed_s) * media.pictures_per_s) % len(media.pictures)
                client.send_frame(media.pictures[index], 1000 * due_s)
                heard.sent += 1
                next_picture_s += 1 / media.pictures_per_s
            tick += 1
    except SourceError as error:
        if not stop.is_set():
            heard.error = str(error)


def _receive(client: EmiClient, heard: _Heard, counting: threading.Event, stop: threading.Event) -> None:
    committed: set[int] = set()
    for event in client:
        if isinstance(event, WarningEvent):
            heard.behind |= event.counter == "behind"
        if not counting.is_set():
            continue
        if isinstance(event, EstimateEvent) and event.end_ms is not None:
            age_ms = 1000 * time.monotonic() - event.end_ms
            heard.ages_ms.append(age_ms)
            since_capture_ms = event.estimate.get("latency_ms", {}).get("capture_to_estimate")
            if since_capture_ms is not None:
                heard.captured_ms.append(since_capture_ms)
        elif isinstance(event, WordsEvent):
            committed |= {word.number for word in event.words if word.committed}
            heard.words = len(committed)
    if not stop.is_set():
        heard.error = heard.error or client.ended


def _grown(name: str, before: dict[str, int] | None, after: dict[str, int] | None) -> int | None:
    return None if before is None or after is None else after.get(name, 0) - before.get(name, 0)


def _batches(before: dict[str, int] | None, after: dict[str, int] | None) -> dict[str, int]:
    if before is None or after is None:
        return {}
    sizes = {int(name.removeprefix(BATCH)): name for name in after if name.startswith(BATCH)}
    return {str(size): after[name] - before.get(name, 0) for size, name in sorted(sizes.items())}


def _health_ms(url: str) -> float:
    began_s = time.monotonic()
    build_opener(ProxyHandler({})).open(f"{url}/healthz", timeout=START_S).close()
    return 1000 * (time.monotonic() - began_s)


def _counters(url: str) -> dict[str, int] | None:
    return _sums(build_opener(ProxyHandler({})).open(f"{url}/metrics", timeout=START_S).read().decode())


def _sums(text: str) -> dict[str, int] | None:
    """The counters of all replicas together; None: one of them did not answer in time."""
    if re.search(r"^emi_replicas_without_answer [^0]", text, re.MULTILINE):
        return None
    counted: Counter[str] = Counter()
    for name, value in re.findall(r'event="(\w+)"[^}]*\} (\d+)', text):
        counted[name] += int(value)
    return counted
