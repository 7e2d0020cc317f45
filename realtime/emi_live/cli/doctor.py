"""`emi doctor`: check what works on this machine, how fast, and how to fix the rest.

Each check tells what it found, whether that is good, and how to fix it. `show_devices` runs for
`emi-live --list-devices`.
"""

from __future__ import annotations

import json
import locale
import os
import platform
import sys
from collections.abc import Callable, Iterator
from ctypes.util import find_library
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from emi_live.cli.errors import DebugOption
from emi_live.errors import LiveError, SourceError
from emi_live.sources.capture import CameraDevice, list_cameras
from emi_live.sources.microphone import MicrophoneDevice, list_microphones
from emi_models.errors import ModelIntegrityError
from emi_models.libraries import SWITCHES, telemetry_warnings

if TYPE_CHECKING:
    from emi_models.store import ModelStore

__all__ = [
    "Check",
    "State",
    "app",
    "cameras",
    "engines",
    "libraries",
    "microphones",
    "models",
    "network",
    "show_devices",
    "surroundings",
]

HELP = """Check what works on this machine, how fast, and how to fix the rest.

Checks cameras, microphones, models, speed, engines, network use, system
libraries and the terminal. Nothing is downloaded, sent or stored.

[bold]Examples[/bold]

  emi doctor
  emi doctor --quick             without timings: takes a few seconds
  emi doctor --json | jq '.checks[] | select(.state != "ok")'

Exit code 0: emi-live can run. 1: a check failed.
"""
LISTEN_S: Final = 2.0
LISTEN_QUICKLY_S: Final = 0.5
COLOURS: Final = {"ok": "green", "warn": "yellow", "fail": "red"}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")


@app.command(help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
def doctor(
    quick: Annotated[bool, typer.Option("--quick", help="Skip the timings.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object, for scripts.")] = False,
    debug: DebugOption = False,
) -> None:
    from rich.console import Console

    console, found = Console(stderr=json_), []  # the status line and what is printed share one
    with console.status("checking …") as status:

        def meter(level_dbfs: float) -> None:
            status.update(f"listening {bar(level_dbfs)} {level_dbfs:.0f} dBFS", spinner="line")

        for title, checks in sections(quick, meter):
            status.update(f"checking {title} …")
            if not json_:
                console.print(f"\n{title}", style="bold", markup=False, highlight=False)
            for check in checks:
                found.append((title, check))
                if not json_:
                    _show(console, check)
    states = [check.state for _, check in found]
    runs = "fail" not in states
    if json_:
        checks_ = [{"section": title, **asdict(check)} for title, check in found]
        typer.echo(json.dumps({"schema": 1, "runs": runs, "quick": quick, "checks": checks_}, indent=1))
    else:
        console.print(
            f"\n{states.count('ok')} ok, {states.count('warn')} warnings, {states.count('fail')} failures: "
            f"emi-live {'can run' if runs else 'cannot run correctly; fix the failures first'}",
            highlight=False,
        )
    raise typer.Exit(0 if runs else 1)


def sections(quick: bool, meter: Told) -> Iterator[tuple[str, Iterator[Check]]]:
    """Title and checks of each section, in the order of the output; a check runs when it is read."""
    from emi_live.cli.speed import speeds
    from emi_models.store import ModelStore

    store = ModelStore(offline=True)
    listen_s = LISTEN_QUICKLY_S if quick else LISTEN_S
    parts: list[tuple[str, Callable[[], Iterator[Check]]]] = [
        ("this machine", surroundings),
        ("system libraries", libraries),
        ("cameras", lambda: cameras(quick)),
        ("microphones", lambda: microphones(listen_s, meter)),
        ("models", lambda: models(store)),
        ("engines", engines),
        ("network", lambda: network(store)),
    ]
    if not quick:
        parts.append(("speed", lambda: speeds(store)))
    for title, make in parts:
        yield title, make()


def _show(console: Console, check: Check) -> None:
    """Print one line; if the state is not ok, a second line with the command that helps."""
    from rich.text import Text

    line = Text.assemble(
        (f"  {check.state:<5}", COLOURS[check.state]), (f"{check.about}: ", "bold"), check.says
    )
    console.print(line, soft_wrap=not console.is_terminal)
    if check.fix and check.state != "ok":
        console.print(Text(f"       try: {check.fix}", "dim"), soft_wrap=True)


State = Literal["ok", "warn", "fail"]
Told = Callable[[float], None]  # called with the level of each block of sound, in dBFS

PACKAGES: Final = (
    "onnxruntime",
    "ai-edge-litert",
    "ctranslate2",
    "opencv-python-headless",
    "av",
    "numpy",
)
OPTIONAL: Final = ("torch", "transformers")  # of extras: shown where they are
# Libraries that our wheels need but do not contain: library, Debian package, purpose, package that needs it.
NATIVE: Final = (
    ("portaudio", "libportaudio2", "microphones", "sounddevice"),
    ("EGL", "libegl1", "face.backend=mediapipe", "mediapipe"),
    ("GLESv2", "libgles2", "face.backend=mediapipe", "mediapipe"),
)
NARROW: Final = 60  # columns; a narrower view leaves parts out
PICTURES_S: Final = 1.0  # time over which a camera's frames are counted
FIRST_BLOCK_S: Final = 3.0  # sound servers take up to two seconds to send the first block
SILENT_DBFS: Final = -75.0  # the noise of a microphone that is switched on is louder
FLOOR_DBFS: Final = -120.0  # level reported for digital silence


@dataclass(frozen=True, slots=True)
class Check:
    """One line: what was checked, its state, the finding in words, and the command that fixes it."""

    about: str
    state: State
    says: str
    fix: str = ""
    facts: dict[str, Any] = field(default_factory=dict)  # numbers for machines


def surroundings() -> Iterator[Check]:
    """Versions, locale and terminal."""
    found = {}
    for name in ("emi-live", *PACKAGES, *OPTIONAL):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = ""
    absent = [name for name in PACKAGES if not found[name]]
    where = (
        f"Python {platform.python_version()}, {platform.system()} {platform.release()} {platform.machine()}"
    )
    said = ", ".join(f"{name} {number}" for name, number in found.items() if number)
    if absent:
        yield Check(
            "versions", "fail", f"not installed: {', '.join(absent)}", f"pip install {' '.join(absent)}"
        )
    yield Check("versions", "ok", f"{said}; {where}", facts=found)
    encoding = (sys.stdout.encoding or locale.getpreferredencoding(False)).lower()
    if encoding.replace("-", "") == "utf8":
        yield Check("locale", "ok", "UTF-8")
    else:
        yield Check("locale", "warn", f"{encoding}: bars are drawn with ASCII only", "export LC_ALL=C.UTF-8")
    if not sys.stdout.isatty():
        yield Check("terminal", "ok", "output is not a terminal; emi-live would write lines, without a view")
        return
    columns, lines = os.get_terminal_size(sys.stdout.fileno())
    size = f"{columns} x {lines}, {os.environ.get('TERM') or 'TERM is not set'}"
    if columns < NARROW or os.environ.get("TERM") in (None, "", "dumb"):
        yield Check(
            "terminal", "warn", f"{size}: the view needs {NARROW} columns", "emi-live --no-ui --json -"
        )
    else:
        yield Check("terminal", "ok", size)


def libraries() -> Iterator[Check]:
    """Native libraries that the system must have."""
    for library, package, purpose, wheel in NATIVE:
        if find_spec(wheel) is None:
            continue
        if find_library(library):
            yield Check(package, "ok", f"installed, for {purpose}")
        else:
            yield Check(package, "warn", f"missing; needed for {purpose}", f"sudo apt install {package}")


def cameras(quick: bool = False) -> Iterator[Check]:
    """Each camera: is it accessible, does it give a picture, of which size, at which rate."""
    from emi_live.sources.capture import list_cameras

    found = list_cameras()
    if not found:
        yield Check(
            "camera",
            "warn",
            "no /dev/video* on this machine; files, streams and --demo still work",
            "emi-live --camera rtsp://HOST/STREAM",
        )
    for camera in found:
        about, problem = f"camera {camera.index}", getattr(camera, "problem", "")
        if problem or not os.access(camera.path, os.R_OK | os.W_OK):
            yield Check(
                about, "fail", f"{camera.name}: {problem or 'no permission'}", "sudo usermod -aG video $USER"
            )
            continue
        try:
            width, height, rate = _watch(camera.index, 0.0 if quick else PICTURES_S)
        except LiveError as error:
            yield Check(about, "fail", f"{camera.name}: {error}", f"fuser -v {camera.path}")
            continue
        size = f"{camera.name}: {width} x {height}" + ("" if quick else f", {rate:.0f} pictures a second")
        facts = {"width_px": width, "height_px": height, "fps": None if quick else round(rate, 1)}
        if quick or rate >= 10:
            yield Check(about, "ok", size, facts=facts)
        else:  # many cameras expose longer in the dark
            yield Check(
                about, "warn", f"{size}: slow; it may be dark", "emi-live --set camera.width_px=640", facts
            )


def _watch(index: int, seconds: float) -> tuple[int, int, float]:
    """Width, height and pictures a second of a camera; raises LiveError if none comes."""
    from emi_live.clock import MonotonicClock
    from emi_live.config import CameraConfig
    from emi_live.sources import DeviceLostError
    from emi_live.sources.capture import OpenCvCapture, advice

    clock = MonotonicClock()
    try:
        capture = OpenCvCapture(index, CameraConfig())
    except DeviceLostError as error:
        raise SourceError(f"{error}; {advice(index)}") from error
    try:
        picture = capture.rgb() if capture.grab() else None
        if picture is None:
            raise SourceError("it opens but gives no picture")
        start_ns, count = clock.now_ns(), 0
        while clock.now_ns() - start_ns < seconds * 1e9 and capture.grab():
            count += 1
        rate = count / max(1e-9, (clock.now_ns() - start_ns) / 1e9)
        return picture.shape[1], picture.shape[0], rate
    finally:
        capture.release()


def microphones(listen_s: float, level: Told = lambda _: None) -> Iterator[Check]:
    """All microphones, and the level of the default one."""
    from emi_live.sources.microphone import list_microphones

    try:
        found = list_microphones()
    except SourceError as error:
        yield Check("microphone", "warn", str(error), "sudo apt install libportaudio2")
        return
    if not found:
        yield Check(
            "microphone",
            "warn",
            "none found, so only the face is used; plug one in, or start PulseAudio or PipeWire",
            "emi-live --camera 0 --mic none",
        )
        return
    for microphone in found:
        mark = ", the default" if microphone.default else ""
        says = f"{microphone.name}: {microphone.rate_hz} Hz, {microphone.channels} channels{mark}"
        yield Check(f"microphone {microphone.index}", "ok", says)
    yield _heard(listen_s, level)


def _heard(listen_s: float, level: Told) -> Check:
    """Record from the default microphone and check the level."""
    import numpy as np

    from emi_live.clock import MonotonicClock
    from emi_live.config import MicrophoneConfig
    from emi_live.sources import DeviceLostError
    from emi_live.sources.microphone import PortAudioInputs

    try:
        feed = PortAudioInputs(None, MicrophoneConfig(), MonotonicClock())()
    except (DeviceLostError, SourceError) as error:
        return Check("level", "fail", str(error), "emi-live --list-devices, then --mic NAME")
    squares, samples, peak = 0.0, 0, 0.0
    try:
        wanted = None
        while wanted is None or samples < wanted:
            block = feed.next(FIRST_BLOCK_S)
            if block is None:
                break
            wanted = wanted or round(listen_s * block.rate_hz)
            loudest = float(np.abs(block.samples).max())
            peak, samples = max(peak, loudest), samples + len(block.samples)
            squares += float(np.square(block.samples.mean(axis=1), dtype=np.float64).sum())
            level(dbfs(loudest))
    except DeviceLostError as error:
        return Check("level", "fail", f"the microphone was lost: {error}", "pactl list short sources")
    finally:
        feed.close()
    if not samples:
        return Check("level", "fail", "it opens but no sound arrives", "pactl list short sources")
    rms, loud = dbfs((squares / samples) ** 0.5), dbfs(peak)
    facts = {"rms_dbfs": round(rms, 1), "peak_dbfs": round(loud, 1), "seconds": listen_s}
    if loud < SILENT_DBFS:
        says = f"{bar(loud)} peak {loud:.0f} dBFS: silent, so it is probably muted or switched off"
        return Check("level", "warn", says, "pactl set-source-mute @DEFAULT_SOURCE@ 0", facts)
    if loud >= -0.1:
        says = f"{bar(loud)} too loud: it clips"
        return Check("level", "warn", says, "pactl set-source-volume @DEFAULT_SOURCE@ 50%", facts)
    return Check("level", "ok", f"{bar(loud)} mean {rms:.0f}, peak {loud:.0f} dBFS", facts=facts)


def dbfs(amplitude: float) -> float:
    """Convert an amplitude to decibels of full scale; -120 for zero."""
    import math

    return max(FLOOR_DBFS, 20.0 * math.log10(amplitude)) if amplitude > 0 else FLOOR_DBFS


def bar(level_dbfs: float, width: int = 20) -> str:
    """A level meter of `width` cells, from -80 to 0 dBFS, in ASCII."""
    filled = round(width * min(1.0, max(0.0, (level_dbfs + 80.0) / 80.0)))
    return "[" + "#" * filled + "-" * (width - filled) + "]"


def models(store: ModelStore) -> Iterator[Check]:
    """Models of the default bundle: which are available; size and source of the others."""
    from emi_live.bundle import default_bundle

    needed = default_bundle().models_in(store)
    for name, entry in store.catalogue.items():
        if name not in needed:
            continue
        status = store.status(name)
        size = f"{entry.size / 1e6:.1f} MB"
        fix, facts = f"emi models pull {name}", {"bytes": entry.size, "state": status.state}
        wrong = "; ".join(status.problems) if status.state == "damaged" else ""
        if status.here:
            try:
                store.locate(name)  # hashes it, once
            except ModelIntegrityError as error:
                wrong = str(error)
        if wrong:
            yield Check(name, "fail", f"damaged: {wrong}", fix, facts)
        elif status.here:
            yield Check(name, "ok", f"available, {size}, for {entry.purpose}", facts=facts)
        else:
            if not store.fetches:
                instead = "; PocketSphinx is used instead" if _sphinx_stands_in(entry.role) else ""
                says = f"not here, not fetched (EMI_MODEL_DIR or --offline), for {entry.purpose}{instead}"
                yield Check(name, "warn", says, fix, facts)
                continue
            hosts = ", else ".join(contact.host for contact in store.contacts(name))
            instead = "; until then PocketSphinx is used" if _sphinx_stands_in(entry.role) else ""
            says = f"not here; the first start fetches {size} from {hosts}, for {entry.purpose}{instead}"
            yield Check(name, "warn", says, fix, facts)


def _sphinx_stands_in(role: str) -> bool:
    return role == "speech" and find_spec("pocketsphinx") is not None


def engines() -> Iterator[Check]:
    """Fusion engines that can run."""
    from emi_engine import ENGINES
    from emi_engine.load import ON_GPU_ONLY, runtime_missing

    lacking = {kind: reason for kind in ENGINES if (reason := runtime_missing(kind))}
    here = [kind for kind in ENGINES if kind not in (*lacking, *ON_GPU_ONLY, "auto")]
    on_gpu = [kind for kind in ON_GPU_ONLY if kind not in lacking]
    facts = {"here": here, "on_gpu": on_gpu, "missing": lacking}
    if not {"onnxruntime", "torch"} & set(here):
        yield Check("engines", "fail", "none can run", "pip install onnxruntime", facts)
        return
    more = f"; only with an NVIDIA GPU: {', '.join(on_gpu)}" if on_gpu else ""
    away = f"; not installed: {', '.join(lacking)} (docs/engines.md)" if lacking else ""
    yield Check("engines", "ok", f"{', '.join(here)}{more}{away}", facts=facts)


def network(store: ModelStore) -> Iterator[Check]:
    """Hosts that would be contacted, and whether the telemetry of libraries is off."""
    from emi_live.bundle import default_bundle

    needed = default_bundle().models_in(store)
    absent = [e for n, e in store.catalogue.items() if n in needed and not store.status(n).here]
    hosts = sorted({contact.host for entry in absent for contact in store.contacts(entry.name)})
    if not store.fetches:
        yield Check("network", "ok", "no host is contacted: EMI_MODEL_DIR or --offline", facts={"hosts": []})
    elif hosts:
        says = f"the first start would contact {', '.join(hosts)}, only for models"
        yield Check("network", "ok", f"{says}; with --offline no host", facts={"hosts": hosts})
    else:
        yield Check("network", "ok", "all models are here: no host is contacted", facts={"hosts": []})
    sending = telemetry_warnings()
    for line in sending:
        says, _, remedy = line.removeprefix("privacy: ").rpartition(": ")
        yield Check("telemetry", "warn", says, remedy)
    if not sending:
        libraries = ", ".join(switch.library for switch in SWITCHES)
        yield Check("telemetry", "ok", f"switched off in {libraries}")


NO_CAMERA = "no camera found: plug one in, or give the address of a stream with --camera"
NO_MICROPHONE = "no microphone found: plug one in, or start PulseAudio or PipeWire"


def show_devices(console: Console) -> None:
    """Print both tables; a line replaces a table without devices."""
    _devices_show(console, _cameras(list_cameras()), NO_CAMERA)
    console.print()
    try:
        _devices_show(console, _microphones(list_microphones()), NO_MICROPHONE)
    except SourceError as error:
        console.print(Text(str(error), style="yellow"), soft_wrap=True)


def _devices_show(console: Console, table: Table, nothing: str) -> None:
    if table.row_count:
        console.print(table)
    else:
        console.print(Text(nothing, style="yellow"), soft_wrap=True)


def _cameras(cameras: list[CameraDevice]) -> Table:
    table = _table("--camera", "camera", "device", "picture")
    for camera in cameras:
        size = f"{camera.width_px}x{camera.height_px}" if camera.width_px and camera.height_px else ""
        rate = f"{camera.fps:g}/s" if camera.fps else ""
        picture = Text(camera.problem or " ".join((size, rate)).strip(), "yellow" if camera.problem else "")
        table.add_row(str(camera.index), Text(camera.name), Text(str(camera.path)), picture)
    return table


def _microphones(microphones: list[MicrophoneDevice]) -> Table:
    table = _table("--mic", "microphone", "rate", "channels")
    for microphone in microphones:
        name = Text(microphone.name)
        if microphone.default:
            name.append("  (default)", style="bold")
        table.add_row(str(microphone.index), name, f"{microphone.rate_hz} Hz", str(microphone.channels))
    return table


def _table(*headings: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table
