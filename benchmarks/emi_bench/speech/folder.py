"""Clips from a folder: NAME.wav (or any media file) beside NAME.txt, and NAME.json where times are known."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from emi_bench.speech.align import VARIANT, NotAlignedError, align
from emi_bench.speech.clips import Clip, SaidWord, read_sound
from emi_bench.speech.words import spoken
from emi_live.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from emi_bench.speech.clips import Kind

__all__ = ["folder_clips", "real_clips", "speech_assets"]

SOUNDS: Final = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".mp4", ".mkv", ".webm")
PAUSE: Final = re.compile(r"^[<\[+]")

# What is said in the test media that have no .txt of their own; their MANIFEST.tsv says so too.
KNOWN: Final = {
    "jfk": "And so, my fellow Americans, ask not what your country can do for you, "
    "ask what you can do for your country.",
    "english_one_two_three": "one two three",
    "librispeech_6930-75918-0000": "concord returned to its place amidst the tents",
}


def speech_assets() -> Path:
    """The folder of the project's test clips of read speech.

    Raises:
        ConfigurationError: it is not on this machine.
    """
    folder = Path(os.environ.get("EMI_TEST_ASSETS", "../shared/assets")) / "speech"
    if not folder.is_dir():
        raise ConfigurationError(
            f"the clips of --clips real are not at {folder}: set EMI_TEST_ASSETS to the folder that holds "
            "speech/, or measure --clips synthetic, or a folder of your own with NAME.wav and NAME.txt"
        )
    return folder


def real_clips() -> Iterator[Clip]:
    """Read speech of the project's test media."""
    yield from folder_clips(speech_assets(), "real", KNOWN)


def folder_clips(
    folder: Path, kind: Kind = "yours", known: Mapping[str, str] | None = None
) -> Iterator[Clip]:
    """The clips of a folder whose words are known, by name.

    Times are those of NAME.json if there is one, as PocketSphinx writes it, begin and duration in seconds:
    `{"w": [{"b": 0.2, "d": 0.17, "t": "and"}, …]}`; else they are found by forced alignment.

    Raises:
        ConfigurationError: there is none, or a file beside it is not what it should be.
    """
    if not folder.is_dir():
        raise ConfigurationError(
            f"--clips {folder}: there is no such folder; give real, synthetic, or a folder with NAME.wav "
            "and NAME.txt"
        )
    texts = dict(known or {})
    for path in folder.glob("*.txt"):
        texts[path.stem] = _read_text(path)
    paths = [
        path for path in sorted(folder.iterdir()) if path.suffix.lower() in SOUNDS and path.stem in texts
    ]
    if not paths:
        raise ConfigurationError(
            f"{folder} holds no clip: put NAME.wav (or {', '.join(SOUNDS[1:])}) there, and NAME.txt with "
            "its words"
        )
    for path in paths:
        yield _clip(path, kind, spoken(texts[path.stem]))


def _clip(path: Path, kind: Kind, texts: list[str]) -> Clip:
    if not texts:
        raise ConfigurationError(f"{path.with_suffix('.txt')} has no words; write down what is said")
    samples = read_sound(path)
    timed = path.with_suffix(".json")
    if timed.is_file():
        return Clip(path.stem, kind, samples, _given(timed, texts), "given")
    try:
        ends_s = align(samples, texts)
    except NotAlignedError as error:
        unknown = tuple(SaidWord(text, None) for text in texts)
        return Clip(path.stem, kind, samples, unknown, "none", str(error))
    return Clip(path.stem, kind, samples, tuple(map(SaidWord, texts, ends_s)), "aligned")


def _given(path: Path, texts: list[str]) -> tuple[SaidWord, ...]:
    try:
        entries: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["w"]
        words = tuple(
            SaidWord(text, float(entry["b"]) + float(entry["d"]))
            for entry in entries
            if not PAUSE.match(entry["t"])
            for text in spoken(VARIANT.sub("", entry["t"]))
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{path} holds no times of words ({type(error).__name__}: {error}); take it away to have them "
            "found"
        ) from error
    if [word.text for word in words] != texts:
        raise ConfigurationError(
            f"{path} has other words than {path.with_suffix('.txt').name}; mend one of them"
        )
    return words


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be read as text ({error}); save it as UTF-8") from error
