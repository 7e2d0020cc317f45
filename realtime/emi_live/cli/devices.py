"""`emi-live --list-devices`: the cameras and microphones here, and what to do where there are none."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from emi_live.errors import SourceError
from emi_live.sources.devices import CameraDevice, MicrophoneDevice, list_cameras, list_microphones

__all__ = ["show_devices"]

NO_CAMERA = "no camera here: plug one in, or give a stream's address with --camera"
NO_MICROPHONE = "no microphone here: plug one in, or start PulseAudio or PipeWire"


def show_devices(console: Console) -> None:
    """Print both tables; that there is no device is said in place of its table."""
    _show(console, _cameras(list_cameras()), NO_CAMERA)
    console.print()
    try:
        _show(console, _microphones(list_microphones()), NO_MICROPHONE)
    except SourceError as error:
        console.print(Text(str(error), style="yellow"), soft_wrap=True)


def _show(console: Console, table: Table, nothing: str) -> None:
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
