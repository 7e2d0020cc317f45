"""Opening a media file, with one plain line for each way in which that can fail."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from emi_live.errors import ConfigurationError, SourceError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.stream import Stream

__all__ = ["is_cover", "open_container", "require_file"]

TEXT_FORMATS: Final = frozenset(
    {"tty", "bin", "xbin", "adf", "idf"}
)  # FFmpeg would draw text as pictures of a screen


def require_file(path: Path) -> None:
    """Return if there is a file at `path`.

    Raises:
        ConfigurationError: there is none, or it is a folder or a device.
        SourceError: it is empty.
    """
    no_pipe = (
        "a pipe can be read once, and picture and sound are each read on their own; "
        "write it to a file first (`… > clip.mkv`), or push its media from Python"
    )
    if str(path) == "-":
        raise ConfigurationError(f"--input - is not taken: {no_pipe}")
    try:
        status = path.stat()
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be found ({error.strerror or error}); give the path of a media file"
        ) from error
    if stat.S_ISDIR(status.st_mode):
        raise ConfigurationError(f"{path} is a folder; give the path of a media file in it")
    if stat.S_ISFIFO(status.st_mode):
        raise ConfigurationError(f"{path} is a pipe: {no_pipe}")
    if not stat.S_ISREG(status.st_mode):
        raise ConfigurationError(f"{path} is not a file; a camera is opened with --camera {path}")
    if status.st_size == 0:
        raise SourceError(f"{path} is empty (0 bytes); the recording or the copy of it has failed")


def open_container(path: Path) -> InputContainer:
    """The file, opened for reading; the caller closes it.

    Raises:
        SourceError: FFmpeg cannot read it.
    """
    import av

    try:
        # "file:" and the whitelist: a name is never taken for a URL, and a playlist cannot reach for the
        # network.
        options = {"protocol_whitelist": "file"}
        container: InputContainer = av.open(f"file:{path}", metadata_errors="replace", options=options)
    except av.error.PermissionError as error:
        raise SourceError(f"{path} may not be read; check its permissions") from error
    except (av.FFmpegError, ValueError) as error:
        raise SourceError(_describe(path, error)) from error
    if container.format.name in TEXT_FORMATS:
        container.close()
        raise SourceError(f"{path} is a text file; give the path of a media file")
    return container


def is_cover(stream: Stream) -> bool:
    """Whether a video stream is only a picture attached to a sound file."""
    return bool(stream.disposition & type(stream.disposition).attached_pic)


def _describe(path: Path, error: Exception) -> str:
    with path.open("rb") as file:
        start = file.read(12)
    if start[4:8] == b"ftyp":
        return (
            f"{path} is an MP4 or MOV file without its index: it was cut off while being written or copied; "
            "get a complete copy"
        )
    reason = getattr(error, "strerror", None) or str(error)
    return f"{path} is not a media file that FFmpeg can read ({reason}); try another file"
