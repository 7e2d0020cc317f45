"""Opening a media file, with one plain line for each way in which that can fail, and choosing its tracks.

A track is the one asked for, else the default one, else the first that can be decoded.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from emi_live.errors import ConfigurationError, SourceError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.stream import Stream

    from emi_live.sources.stamps import StreamName

__all__ = [
    "MediaTrack",
    "any_text",
    "broken",
    "candidates",
    "is_cover",
    "is_cut_off",
    "open_container",
    "require_file",
    "stated_length_s",
    "tracks_of",
]

# FFmpeg would draw text as pictures of a screen.
TEXT_FORMATS: Final = frozenset({"tty", "bin", "xbin", "adf", "idf"})
KEEPS_CLOCK: Final = "matroska,webm"  # states the time at which the media end, not their length
TS_PACKET, TS_SYNC = 188, 0x47  # of MPEG transport streams
PLAYLIST_BYTES: Final = 65_536


def require_file(path: Path) -> None:
    """Return if there is a file at `path`.

    Raises:
        ConfigurationError: there is none, or it is a folder or a device.
        SourceError: it is empty.
    """
    no_pipe = (
        "a pipe can be read once, and video and sound are each read on their own; "
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
        container: InputContainer = av.open(f"file:{path}", options=options, **any_text())
    except av.error.PermissionError as error:
        if hint := _playlist(path):
            raise SourceError(f"{path} {hint}") from error
        raise SourceError(f"{path} may not be read; check its permissions") from error
    except broken() as error:
        raise SourceError(_describe(path, error)) from error
    if container.format.name in TEXT_FORMATS:
        container.close()
        raise SourceError(f"{path} is a text file; give the path of a media file")
    return container


def any_text() -> dict[str, str]:
    """What `av.open` needs to accept titles and languages that are not UTF-8.

    PyAV 19 has no such option: it accepts any bytes, and replaces those that are not UTF-8 by surrogates.
    """
    import av

    return {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}


def broken() -> tuple[type[Exception], ...]:
    """What PyAV raises on bad media: its own error, and built-in errors on impossible values."""
    import av

    builtin = (ArithmeticError, AttributeError, LookupError, MemoryError, NotImplementedError, OSError)
    return (av.FFmpegError, *builtin, TypeError, ValueError)


def is_cover(stream: Stream) -> bool:
    """Whether a video stream is only a picture attached to a sound file."""
    return bool(stream.disposition & type(stream.disposition).attached_pic)


def stated_length_s(container: InputContainer) -> float | None:
    """The length that the file states, from its first media on; None if it states none."""
    if container.duration is None or container.duration < 0:
        return None
    length, start = container.duration, container.start_time or 0
    if container.format.name == KEEPS_CLOCK and 0 < start < length:
        length -= start  # of a recording that kept its clock, the length is stated from 0 on
    return length / 1e6


def is_cut_off(path: Path) -> bool:
    """Whether the file is shorter than its first bytes say, or ends within a packet."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(TS_PACKET + 1)
    if start[:4] in (b"RIFF", b"RIFX"):
        stated = int.from_bytes(start[4:8], "little" if start[:4] == b"RIFF" else "big")
        return stated not in (0, 2**32 - 1) and size < stated + 8
    if len(start) > TS_PACKET and start[0] == start[TS_PACKET] == TS_SYNC:
        return size % TS_PACKET != 0
    return False


def _playlist(path: Path) -> str:
    """What to do with a playlist or the description of a stream; empty if the file is neither."""
    with path.open("rb") as file:
        text = file.read(PLAYLIST_BYTES).decode("utf-8", "replace").lstrip("\ufeff")
    if text.startswith("#EXTM3U"):
        if "#EXT-X-KEY" in text and "METHOD=NONE" not in text:
            return (
                "is a playlist (HLS) of encrypted media; decrypt it first: "
                "ffmpeg -allowed_extensions ALL -i LIST -c copy clip.mkv"
            )
        if "http://" in text or "https://" in text:
            return (
                "is a playlist of media on the network, which --input does not fetch; give the list's "
                "address to --camera, or download the media: "
                "ffmpeg -protocol_whitelist file,http,https,tcp,tls -i LIST -c copy clip.mkv"
            )
        return "is a playlist whose media cannot be read; put them where the list says"
    if text.startswith("ffconcat"):
        return (
            "is a list of files that FFmpeg does not consider safe; join them first: "
            "ffmpeg -f concat -safe 0 -i LIST -c copy joined.mkv"
        )
    if text.startswith("v=0") and "\nm=" in text:
        return (
            "describes a stream on the network (SDP), which --input does not receive; give the stream's "
            "address to --camera, or record it: "
            "ffmpeg -protocol_whitelist file,udp,rtp -i SDP -c copy clip.mkv"
        )
    return ""


def _describe(path: Path, error: Exception) -> str:
    if hint := _playlist(path):
        return f"{path} {hint}"
    with path.open("rb") as file:
        start = file.read(12)
    if start[4:8] == b"ftyp":
        return (
            f"{path} is an MP4 or MOV file without its index: it was cut off while being written or copied; "
            "get a complete copy"
        )
    reason = getattr(error, "strerror", None) or str(error)
    return f"{path} is not a media file that FFmpeg can read ({reason}); try another file"


# Containers name languages by ISO 639-2, people by ISO 639-1; some languages have two codes.
LANGUAGES: Final[dict[str, tuple[str, ...]]] = {
    "ar": ("ara",),
    "cs": ("ces", "cze"),
    "da": ("dan",),
    "de": ("deu", "ger"),
    "el": ("ell", "gre"),
    "en": ("eng",),
    "es": ("spa",),
    "fi": ("fin",),
    "fr": ("fra", "fre"),
    "he": ("heb",),
    "hi": ("hin",),
    "hu": ("hun",),
    "it": ("ita",),
    "ja": ("jpn",),
    "ko": ("kor",),
    "nl": ("nld", "dut"),
    "no": ("nor", "nob", "nno"),
    "pl": ("pol",),
    "pt": ("por",),
    "ro": ("ron", "rum"),
    "ru": ("rus",),
    "sv": ("swe",),
    "tr": ("tur",),
    "uk": ("ukr",),
    "zh": ("zho", "chi"),
}


@dataclass(frozen=True, slots=True)
class MediaTrack:
    """One track of video or sound."""

    kind: StreamName
    number: int  # among those of its kind, from 1
    index: int  # in the container
    facts: str  # e.g. `aac 44100 Hz stereo`
    language: str  # as the container states it; empty if it does not
    default: bool

    def __str__(self) -> str:
        notes = [self.facts, self.language, "default" if self.default else ""]
        return f"{self.number} ({', '.join(note for note in notes if note)})"

    def speaks(self, language: str) -> bool:
        """Whether the track is in a language, given by either code."""
        wanted = language.lower().partition("-")[0]
        return bool(self.language) and self.language.lower() in (wanted, *LANGUAGES.get(wanted, ()))


def tracks_of(container: InputContainer, kind: StreamName) -> list[MediaTrack]:
    """The tracks of one kind for which there is a decoder, without cover art."""
    streams: list[Any] = list(container.streams.video if kind == "video" else container.streams.audio)
    usable = [stream for stream in streams if stream.codec_context and not is_cover(stream)]
    return [
        MediaTrack(
            kind,
            number,
            stream.index,
            _facts(stream),
            _language(stream),
            bool(stream.disposition & type(stream.disposition).default),
        )
        for number, stream in enumerate(usable, 1)
    ]


def candidates(
    tracks: list[MediaTrack], wanted: int | str | None, kind: StreamName, path: Path
) -> list[MediaTrack]:
    """The tracks to try, in order of preference.

    Raises:
        ConfigurationError: there is no such track.
    """
    if wanted is None:
        return sorted(tracks, key=lambda track: not track.default)
    if isinstance(wanted, str) and wanted.isdecimal():
        wanted = int(wanted)
    found = [
        track
        for track in tracks
        if (track.number == wanted if isinstance(wanted, int) else track.speaks(wanted))
    ]
    if not found:
        there = "; ".join(map(str, tracks)) or "none"
        raise ConfigurationError(
            f"{path} has no {kind} track {wanted}; give the number or language of one of these: {there}"
        )
    return sorted(found, key=lambda track: not track.default)


def _facts(stream: Any) -> str:
    codec = stream.codec_context.name
    if stream.type == "video":
        return f"{codec} {stream.width}x{stream.height}"
    return f"{codec} {stream.rate} Hz {stream.layout.name}"


def _language(stream: Any) -> str:
    language = str(stream.language or "").encode("utf-8", "replace").decode()  # without surrogates
    return language if language.isalpha() and language != "und" else ""
