"""Which of a file's tracks are used: the one asked for, else the default, else the first that decodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from emi_live.errors import ConfigurationError
from emi_live.sources.container import is_cover

if TYPE_CHECKING:
    from pathlib import Path

    from av.container import InputContainer

    from emi_live.sources.stamps import StreamName

__all__ = ["Track", "candidates", "tracks_of"]

# Containers say languages as ISO 639-2, people as ISO 639-1; two codes where a language has two.
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
class Track:
    """One track of picture or sound."""

    kind: StreamName
    number: int  # among those of its kind, from 1
    index: int  # in the container
    facts: str  # e.g. `aac 44100 Hz stereo`
    language: str  # as the container says it; empty where it does not
    default: bool

    def __str__(self) -> str:
        notes = [self.facts, self.language, "default" if self.default else ""]
        return f"{self.number} ({', '.join(note for note in notes if note)})"

    def speaks(self, language: str) -> bool:
        """Whether the track is of a language, in either code."""
        wanted = language.lower().partition("-")[0]
        return bool(self.language) and self.language.lower() in (wanted, *LANGUAGES.get(wanted, ()))


def tracks_of(container: InputContainer, kind: StreamName) -> list[Track]:
    """The tracks of one kind for which there is a decoder; cover art is none."""
    streams: list[Any] = list(container.streams.video if kind == "video" else container.streams.audio)
    usable = [stream for stream in streams if stream.codec_context and not is_cover(stream)]
    return [
        Track(
            kind,
            number,
            stream.index,
            _facts(stream),
            _language(stream),
            bool(stream.disposition & type(stream.disposition).default),
        )
        for number, stream in enumerate(usable, 1)
    ]


def candidates(tracks: list[Track], wanted: int | str | None, kind: StreamName, path: Path) -> list[Track]:
    """The tracks to try, in that order.

    Raises:
        ConfigurationError: there is none such as is wanted.
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
    language = str(stream.language or "")
    return language if language.isalpha() and language != "und" else ""
