"""What several commands share: checks before anything is loaded, completion with Tab, download bars.

Nothing here imports torch, OpenCV, MediaPipe or transformers.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager, suppress
from importlib import resources
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from emi_engine import ENGINES
from emi_live.addresses import is_ros2, safe_address
from emi_live.errors import ConfigurationError, SourceError
from emi_models.libraries import require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager

    from rich.console import Console
    from rich.progress import TaskID

    from emi_live.config import LiveConfig
    from emi_live.extract.pool import Task
    from emi_live.extract.run import Workers
    from emi_models.data.clip import ClipSet
    from emi_models.store import Progress, PullEvent

__all__ = [
    "LINE_EVERY_S",
    "SYSTEMS",
    "AtOnceOption",
    "ClusterOption",
    "DeviceOption",
    "WorkersOption",
    "bad_use",
    "check_before_loading",
    "check_checkpoint",
    "check_data",
    "check_new_file",
    "check_out_folder",
    "check_writable",
    "complete_bundle",
    "complete_camera",
    "complete_engine",
    "complete_microphone",
    "complete_mode",
    "complete_model",
    "complete_preset",
    "complete_system",
    "download_bar",
    "listing_bar",
    "media_argument",
    "open_data",
    "targets_of",
    "workers_of",
]

STANDARD_OUTPUT: Final = "-"
LINE_EVERY_S: Final = 10.0  # of progress, without a terminal


def check_before_loading(config: LiveConfig, picture: Path | None = None) -> None:
    """Check quickly whether a run can start; return if no problem is found.

    Raises:
        ConfigurationError: a missing file or folder, an output that would be overwritten, or with
            `fusion.strict` an engine that is not installed.
        SourceError: the camera does not exist.
        CheckpointError: the checkpoint is damaged, of another format, or for other encoders.
    """
    source = config.source
    if source.is_recording:
        require("mcap", extra="record", what="replaying a recording")
    elif source.input is not None:
        _check_input(str(source.input))
    if source.camera is not None:
        _check_camera(source.camera)
    if config.fusion.checkpoint is not None:
        check_checkpoint(config.fusion.checkpoint, config.bundle)
    if config.fusion.plan is not None and not config.fusion.plan.is_file():
        raise ConfigurationError(f"there is no plan {config.fusion.plan}; make it with `emi compile --out`")
    if config.fusion.strict:
        _check_engine(config)
    _check_outputs(config, picture)


def _check_outputs(config: LiveConfig, picture: Path | None) -> None:
    output = config.output
    if output.json_path is not None:
        check_writable("--json", output.json_path)
        if not output.append:
            check_new_file(
                "--json", output.json_path, output.force, "--append to add to it, or --force to replace it"
            )
    if output.record_media and output.record is None:
        raise ConfigurationError("--record-media adds to a recording: give --record FILE.mcap too")
    if output.record is not None:
        require("mcap", extra="record", what="--record")
        if output.record_media:
            require("foxglove", extra="foxglove", what="--record-media")
        if output.record.suffix.lower() != ".mcap":
            raise ConfigurationError(f"--record {output.record}: name a file that ends in .mcap")
        check_writable("--record", output.record)
        check_new_file("--record", output.record, output.force, "--force to replace it")
    if picture is not None:
        if picture.suffix != ".svg":
            raise ConfigurationError(
                f"--picture {picture} cannot be written: name an .svg file in a folder that exists"
            )
        check_writable("--picture", picture)
        check_new_file("--picture", picture, output.force, "--force to replace it, or name another file")


def media_argument(text: str) -> Path:
    """The file that is given without an option.

    Raises:
        ConfigurationError: it is a camera or an address, for which there are options.
    """
    if "://" in text:
        raise ConfigurationError(
            f"give an address with --camera {safe_address(text)}; download a recording first, for "
            "its sound and exact numbers"
        )
    if text.isdecimal() or _is_device(Path(text)):
        raise ConfigurationError(f"{text} is a camera, not a file; use --camera {text}")
    return Path(text)


def check_writable(option: str, where: str | os.PathLike[str]) -> None:
    """Check that a file of this name could be written, without opening it; `-` always can.

    Raises:
        ConfigurationError: its folder does not exist, or it may not be written.
    """
    text = os.fspath(where)
    if text == STANDARD_OUTPUT:
        return
    reason = _why_not_writable(text)
    if reason:
        raise ConfigurationError(
            f"{option} {text} cannot be written: {reason}; name a file in a folder that exists"
        )


def check_new_file(option: str, where: str | os.PathLike[str], force: bool, remedy: str) -> None:
    """Check that writing there would overwrite nothing: no file, an empty one, a pipe or a device.

    Raises:
        ConfigurationError: the file is not empty and `force` is not given.
    """
    path = Path(where)
    if force or os.fspath(where) == STANDARD_OUTPUT or not path.is_file():
        return
    if size := path.stat().st_size:
        raise ConfigurationError(f"{option} {path} exists and holds {size} bytes; add {remedy}")


def check_out_folder(option: str, folder: Path) -> None:
    """Check that this folder exists or can be made, and can be written to.

    Raises:
        ConfigurationError: a file has this name, or the folder may not be written.
    """
    nearest = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    if not nearest.is_dir():
        raise ConfigurationError(
            f"{option} {folder} cannot be made: {nearest} is a file; name another folder"
        )
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ConfigurationError(
            f"{option} {folder} cannot be written: no permission in {nearest}; name another folder"
        )


def check_checkpoint(path: Path, bundle: str | None = None) -> None:
    """Check that the file is a checkpoint by its header, and that it is for this bundle's encoders.

    Raises:
        CheckpointError: it does not exist, is damaged, of another format, or for other encoders.
    """
    from emi_live.bundle import find_bundle
    from emi_models.checkpoint import read_header

    read_header(path, find_bundle(bundle).encoder_ids or None if bundle else None)


@contextmanager
def bad_use() -> Iterator[None]:
    """Report errors of clips and of training as bad use, exit code 2."""
    from emi_models.errors import DataError, TrainingError

    try:
        yield
    except (DataError, TrainingError) as error:
        raise ConfigurationError(str(error)) from error


def check_data(folder: Path, labels: Path | None = None) -> None:
    """Return if the folder looks like clips and the file of ratings exists; nothing is loaded.

    Raises:
        ConfigurationError: it does not, or they are not.
    """
    from emi_models.data.dataset import check_folder

    with bad_use():
        check_folder(folder)
    if labels is not None and not labels.exists():
        raise ConfigurationError(f"--labels {labels} is not there; give a CSV of ratings")


def open_data(folder: Path, console: Console, options: dict[str, Any]) -> ClipSet:
    """The clips of a folder, with a bar while features are converted.

    Args:
        folder: in emi-live's layout or Hume-Vidmimic2's.
        console: where the bar is drawn, if it is a terminal.
        options: of `emi_models.data.open_clips`; None = not given.

    Raises:
        DataError: it has neither layout, or is damaged.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from emi_models.data import open_clips

    given = {name: value for name, value in options.items() if value is not None}
    columns = (TextColumn("convert {task.description}"), BarColumn(), MofNCompleteColumn())
    bars: dict[str, TaskID] = {}
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:

        def converted(name: str, done: int, total: int) -> None:
            if name not in bars:
                bars[name] = progress.add_task(name, total=total)
            progress.update(bars[name], completed=done)

        return open_clips(folder, progress=converted, **given)


def targets_of(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint estimates and was trained relative to, as options of `open_clips`."""
    from emi_models.checkpoint import read_header

    header = read_header(checkpoint)
    if header.task != "emi":
        return {}
    return {"targets": header.targets, "baseline": header.notes.get("baseline")}


WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        help="Number of processes or actors. Default: one for every two cores, at most four for a GPU.",
        rich_help_panel="How",
    ),
]
AtOnceOption = Annotated[
    int | None,
    typer.Option(
        "--at-once",
        min=1,
        max=64,
        help="Clips that each worker does at once, with encoders in batches; for a GPU, and to spare memory. "
        "Default: 1; with PyTorch on a GPU 4.",
        rich_help_panel="How",
    ),
]
DeviceOption = Annotated[
    str | None,
    typer.Option(
        "--device",
        help="What Whisper and the encoders of PyTorch run on; auto takes a GPU if there is one. "
        "Default: auto; cpu for compact, whose work is that of the CPU.",
        rich_help_panel="How",
        metavar="auto|cpu|cuda[:N]",
    ),
]
ClusterOption = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        help="Run on Ray: auto = on this machine alone; HOST:PORT = a cluster that runs (docs/scale.md).",
        rich_help_panel="How",
        metavar="auto|HOST:PORT",
    ),
]


def workers_of(task: Task, count: int | None, cluster: str | None) -> AbstractContextManager[Workers]:
    """What does a task's clips: processes of this machine, or actors of Ray.

    Args:
        task: what is done to each clip.
        count: how many; None: one for every two cores, but at most four for a GPU, if they use one.
        cluster: as of `ClusterOption`; None: no Ray.

    Raises:
        MissingPackageError: Ray is not installed.
        ConfigurationError: the cluster's address is none.
    """
    if cluster is not None:
        from emi_live.cluster.clips import RayWorkers

        return RayWorkers(task, cluster, count)
    from emi_live.extract.pool import PER_GPU, Pool, serve
    from emi_models.device import gpus_here

    if count is None:
        count = max(1, (os.cpu_count() or 1) // 2)
        if task.device != "cpu" and gpus_here():
            count = min(count, PER_GPU)  # all on the same one; actors of Ray are shared out to several
    return Pool(count, serve, task)


def _check_input(text: str) -> None:
    if "://" in text or text.partition("/")[0] in ("http:", "https:"):  # checked when it is opened
        return
    path = Path(text)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be found ({error.strerror}); give the path of a media file"
        ) from error
    if stat.S_ISDIR(mode):
        raise ConfigurationError(f"{path} is a folder; give the path of a media file")
    if stat.S_ISCHR(mode) and str(path).startswith("/dev/video"):
        raise ConfigurationError(f"{path} is a camera, not a file; use --camera {path}")
    if not os.access(path, os.R_OK):
        raise ConfigurationError(f"{path} may not be read by this user; see its permissions with `ls -l`")


def _check_camera(where: int | str) -> None:
    """Refuse a device that does not exist; OpenCV checks the rest when it opens it."""
    if is_ros2(where):
        from emi_live.sources.ros2 import Topic

        Topic.of("--camera", str(where))
        return
    if isinstance(where, str) and "://" in where:
        return
    path = Path(f"/dev/video{where}" if str(where).isdecimal() else str(where))
    if not path.exists():
        from emi_live.sources.capture import advice

        raise SourceError(f"camera {where}: there is no {path}; {advice(where)}")


def _check_engine(config: LiveConfig) -> None:
    from emi_engine.load import runtime_missing

    if reason := runtime_missing(config.fusion.engine):
        raise ConfigurationError(f"the engine `{config.fusion.engine}` cannot run here: {reason}")


def _why_not_writable(text: str) -> str:
    path = Path(text)
    if path.is_dir():
        return "it is a folder"
    if path.exists():
        return "" if os.access(path, os.W_OK) else "no permission"
    folder = path.parent
    if not folder.is_dir():
        return f"there is no folder {folder}"
    return "" if os.access(folder, os.W_OK | os.X_OK) else f"no permission in {folder}"


def _is_device(path: Path) -> bool:
    try:
        return stat.S_ISCHR(path.stat().st_mode)
    except OSError:
        return str(path).startswith("/dev/video")


SYSTEMS: Final = ("taemi", "two_stage", "dual_stage", "semantic_matters")  # a test checks that these are all


def complete_preset(incomplete: str) -> list[str]:
    """The packaged presets, and the TOML files in the folder that the user types."""
    packaged = (item.name for item in resources.files("emi_configs").iterdir())
    names = [name[:-5] for name in packaged if name.endswith(".toml")]
    folder = Path(incomplete or ".")
    folder = folder if incomplete.endswith("/") else folder.parent
    with suppress(OSError):
        names += [str(path) for path in folder.glob("*.toml")]
    return _starting(incomplete, names)


def complete_bundle(incomplete: str) -> list[str]:
    """What `--bundle` takes."""
    from emi_live.bundle import bundle_names

    return _starting(incomplete, bundle_names())


def complete_engine(incomplete: str) -> list[str]:
    """What `--engine` takes."""
    return _starting(incomplete, ENGINES)


def complete_mode(incomplete: str) -> list[str]:
    """What `--mode` takes."""
    return _starting(incomplete, ("live", "exact"))


def complete_system(incomplete: str) -> list[str]:
    """The systems that can be trained."""
    return _starting(incomplete, SYSTEMS)


def complete_camera(incomplete: str) -> list[str]:
    """The indexes of the cameras that are plugged in."""
    paths = Path("/dev").glob("video*")
    return _starting(incomplete, sorted(path.name.removeprefix("video") for path in paths))


def complete_model(incomplete: str) -> list[str]:
    """The models of the catalogue, in the store or not."""
    from emi_models.store import ModelStore

    return _starting(incomplete, ModelStore(offline=True).catalogue)


def complete_microphone(incomplete: str) -> list[str]:
    """`none`, and the microphones that are plugged in."""
    names = ["none", "default"]
    with suppress(Exception):  # no sound library or server; a prompt must stay clean
        from emi_live.sources.microphone import list_microphones

        names += [microphone.name for microphone in list_microphones()]
    return _starting(incomplete, names)


def _starting(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


@contextmanager
def listing_bar(console: Console) -> Iterator[Callable[[int], None]]:
    """Show how many files were found so far; without a terminal, a line every ten seconds."""
    last = [monotonic()]

    def tell(count: int) -> None:
        if console.is_terminal:
            status.update(f"listing the clips: {count:,} files")
        elif monotonic() - last[0] >= LINE_EVERY_S:
            last[0] = monotonic()
            console.print(f"listing the clips: {count:,} files", style="dim", highlight=False)

    with console.status("listing the clips") as status:  # draws nothing without a terminal
        yield tell


@contextmanager
def download_bar(console: Console) -> Iterator[Progress]:
    """A callback for `ModelStore.locate` and `pull`: one bar per model, with speed and time to go.

    Nothing is drawn until the first bytes or words come. One line says which model is fetched, its licence
    and its source, and one each what gets in the way.
    """
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    bars: dict[str, TaskID] = {}
    live = Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )

    def show(event: PullEvent) -> None:
        if event.model not in bars:
            if not bars:
                live.start()
            # Bytes of an earlier run start the bar where it stopped, and do not count as speed.
            bars[event.model] = live.add_task(event.model, total=event.total, completed=event.done)
            source = f" from {event.source}" if event.source else ""
            console.print(
                f"fetching {event.model}, {event.total / 1e6:.1f} MB ({event.licence}){source}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
        live.update(bars[event.model], completed=event.done, total=event.total)
        if event.note:
            console.print(f"{event.model}: {event.note}", style="yellow", markup=False, soft_wrap=True)

    try:
        yield show
    finally:
        live.stop()
